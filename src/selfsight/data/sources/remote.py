"""Files at addresses such as s3://bucket/key, through fsspec: found, described and downloaded with patience.

Connections drop, servers stall. Every request has a time limit and is tried again after a growing pause; a download goes on
from the byte that it had reached. File systems of fsspec run in a thread that a fork does not take along, so each process makes
its own.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, TypeVar

from selfsight.errors import DataError

T = TypeVar("T")

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "fsspec[http]", "https": "fsspec[http]"}
_PIECE = 1 << 20
_MOST, _LEAST = 8 << 20, 64 << 10
_AT_ONCE = 16
_VERSION_OF = ("ETag", "etag", "md5Hash", "generation", "LastModified", "Last-Modified", "mtime", "updated", "created")

# One file system, with its connections, for each process. Those of the parent stay in here after a fork, unused: to close them
# a child would wait for a thread that it does not have.
_SYSTEMS: dict[tuple[int, str, float], Any] = {}


@dataclass(frozen=True)
class Patience:
    """Seconds without an answer before a try is given up, tries, and the first pause between them, which doubles each time."""

    timeout: float = 60.0
    tries: int = 6
    pause: float = 1.0

    @property
    def longest(self) -> float:
        """Seconds after which a download that makes no progress has been given up."""
        return self.tries * self.timeout + self.pause * 2**self.tries


class RemoteFile(NamedTuple):
    """`version` changes when the content does: the entity tag, or the time of the last change."""

    address: str
    size: int
    version: str


class Remote:
    """Access to remote files. Picklable, and usable in a forked process."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()

    def find(self, pattern: str) -> list[str]:
        """Addresses that match a glob pattern, sorted. `DataError` where the scheme has no listing."""
        scheme = _scheme(pattern)
        if scheme in ("http", "https"):
            raise DataError(f"{pattern}: {scheme}:// cannot list files; expected names in braces, such as train-{{000..099}}.tar")
        system = self._system(pattern)
        paths = self._patiently(pattern, lambda: self._call(system, "glob", pattern))
        return sorted(f"{scheme}://{path.partition('://')[2] if '://' in path else path}" for path in paths)

    def describe(self, addresses: Sequence[str]) -> list[RemoteFile | OSError]:
        """Size and version of each file, or why they could not be had."""
        for scheme in {_scheme(address) for address in addresses}:
            self._system(f"{scheme}://")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._described, addresses))

    def download(self, file: RemoteFile, into: IO[bytes], done: int = 0) -> None:
        """Write a file to `into`, which holds its first `done` bytes.

        `OSError` where it changed, or could not be had after all tries.
        """
        now = self._described(file.address)
        if isinstance(now, OSError):
            raise now
        if now != file:
            raise OSError(f"{file.address} changed since it was indexed")
        failures = in_vain = 0
        while done < file.size:
            before = done
            try:
                for piece in self._pieces(file, done, failures):
                    into.seek(done)
                    into.write(piece)
                    done += len(piece)
            except Exception as error:
                failures += 1
                in_vain = 1 if done - before >= _LEAST else in_vain + 1
                if in_vain >= self.patience.tries or _is_final(error):
                    raise self._given_up(file.address, error, f"{done} of {file.size} bytes came") from None
                time.sleep(self.patience.pause * 2 ** (in_vain - 1))

    def _described(self, address: str) -> RemoteFile | OSError:
        try:
            info = self._patiently(address, lambda: self._call(self._system(address), "info", address))
        except OSError as error:
            return error
        if info.get("size") is None:
            return OSError(f"{address}: the server does not say how long it is")
        version = next((f"{name} {info[name]}" for name in _VERSION_OF if info.get(name)), "")
        return RemoteFile(address, int(info["size"]), version)

    def _pieces(self, file: RemoteFile, start: int, failures: int) -> Iterator[bytes]:
        """The bytes from `start` on: exactly as many as are missing, or an exception."""
        came = start
        read = self._stream if _scheme(file.address) in ("http", "https") else self._ranges
        for piece in read(file, start, failures):
            came += len(piece)
            if came > file.size:
                raise OSError(f"more than {file.size} bytes came")
            yield piece
        if came < file.size:
            raise OSError("the connection ended early")

    def _stream(self, file: RemoteFile, start: int, failures: int) -> Iterator[bytes]:
        """One request for all that is missing. From a server without ranges all comes again, and what is had is passed over."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._system(file.address).open(file.address, block_size=0, size=file.size, headers=headers) as stream:
            skip = start if stream.r.status == 200 else 0
            for piece in _until_it_breaks(stream):
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    def _ranges(self, file: RemoteFile, start: int, failures: int) -> Iterator[bytes]:
        """Requests for a range each, of half the size after each failure: what arrives before a connection drops is lost."""
        system = self._system(file.address)
        length = max(_LEAST, _MOST >> failures)
        for begin in range(start, file.size, length):
            end = min(begin + length, file.size)
            piece = self._call(system, "cat_file", file.address, start=begin, end=end)
            if len(piece) != end - begin:
                raise OSError(f"{len(piece)} bytes came where {end - begin} were asked for")
            yield piece

    def _call(self, system: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method of a file system, within the time limit where it can have one."""
        if not system.async_impl:
            return getattr(system, name)(*args, **kwargs)
        from fsspec.asyn import sync

        return sync(system.loop, getattr(system, f"_{name}"), *args, timeout=self.patience.timeout, **kwargs)

    def _patiently(self, address: str, action: Callable[[], T]) -> T:
        for attempt in range(self.patience.tries):
            try:
                return action()
            except Exception as error:
                if attempt + 1 == self.patience.tries or _is_final(error):
                    raise self._given_up(address, error, f"{attempt + 1} tries") from None
                time.sleep(self.patience.pause * 2**attempt)
        raise AssertionError("a patience has at least one try")

    def _given_up(self, address: str, error: Exception, tried: str) -> OSError:
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        if isinstance(error, FileNotFoundError) and (cause is None or _status(cause) in (404, 410)):
            return FileNotFoundError(f"{address}: does not exist")
        if isinstance(error, TimeoutError):
            said = f"no answer within {self.patience.timeout:g} s"
        else:
            said = (str(cause or error).strip().splitlines() or [type(error).__name__])[0][:200]
        return OSError(f"{address}: {said} ({tried})")

    def _system(self, address: str) -> Any:
        """The file system of an address, made by this process. `DataError` where its package is missing."""
        scheme = _scheme(address)
        key = (os.getpid(), scheme, self.patience.timeout)
        if key not in _SYSTEMS:
            _SYSTEMS[key] = _file_system(scheme, self.patience.timeout)
        return _SYSTEMS[key]


def _file_system(scheme: str, timeout: float) -> Any:
    import fsspec

    package = _PACKAGES.get(scheme)
    try:
        if scheme in ("http", "https"):
            import aiohttp

            limit = aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout)
            settings = {"timeout": limit, "headers": {"Accept-Encoding": "identity"}, "trust_env": True}
            return fsspec.filesystem(scheme, skip_instance_cache=True, client_kwargs=settings)
        if package == "s3fs":
            limits = {"connect_timeout": timeout, "read_timeout": timeout}
            return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, config_kwargs=limits)
        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
    except ImportError:
        if package is None:
            raise DataError(f"{scheme}:// needs a package that is not installed; see the list of fsspec's file systems") from None
        raise DataError(f"{scheme}:// needs {package}: pip install 'selfsight[remote]'") from None
    except ValueError:
        raise DataError(f"{scheme}:// is no known scheme; expected s3://, gs:// or https://") from None


def _until_it_breaks(stream: Any) -> Iterator[bytes]:
    """Pieces of an HTTP answer; when the connection breaks, first what had arrived, which aiohttp keeps to itself."""
    try:
        while piece := stream.read(_PIECE):
            yield piece
    except Exception:
        content = stream.r.content
        left = b"".join(getattr(content, "_buffer", ()))[getattr(content, "_buffer_offset", 0) :]
        if left:
            yield left
        raise


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower()


def _is_final(error: Exception) -> bool:
    """Whether to try again would be in vain: the file is not there, is not ours to read, or the disk is full."""
    status = _status(error) or _status(error.__cause__)
    if status:
        return 400 <= status < 500 and status not in (408, 429)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    absent = isinstance(error, FileNotFoundError) and error.__cause__ is None
    return absent or isinstance(error, (PermissionError, DataError)) or "Credentials" in type(error).__name__


def _status(error: BaseException | None) -> int:
    """The answer of a web server, or 0. Known by its name, as aiohttp need not be installed."""
    return int(getattr(error, "status", 0)) if type(error).__name__ == "ClientResponseError" else 0
