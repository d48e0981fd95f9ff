"""Remote files kept whole on the local disk, up to a number of bytes; those used longest ago go first.

Any number of processes use one cache at a time. A file is downloaded by one of them, under a lock, to a temporary name and
renamed when it is whole; the others wait. Whoever has opened a file can read it to the end, even after it was removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from selfsight.data.sources.remote import Patience, Remote, RemoteFile
from selfsight.errors import DataError
from selfsight.runs import cache_folder

_POLL = 0.05
_FETCHERS = 2
_AHEAD = 64
_ROUNDS = 8
_FAILED_FOR = 300.0
_FAILED = b"\0failed: "


class ShardCache:
    """Opens remote files by way of copies in `folder`. Picklable, and usable in a forked process."""

    def __init__(self, remote: Remote, folder: Path, limit: int) -> None:
        self.remote, self.folder, self.limit = remote, folder, limit
        self._failed: dict[RemoteFile, tuple[float, str]] = {}
        self._ahead = _Ahead()

    def __reduce__(self) -> tuple[type[ShardCache], tuple[Remote, Path, int]]:
        return ShardCache, (self.remote, self.folder, self.limit)

    def open(self, file: RemoteFile) -> IO[bytes]:
        """The whole file, for reading; downloaded first if need be.

        `OSError` where it cannot be had. That is remembered for five minutes, so that thousands of samples of a lost shard do
        not wait one by one.
        """
        until, reason = self._failed.get(file, (0.0, ""))
        if time.monotonic() < until:
            raise OSError(reason)
        try:
            return self._opened(file)
        except OSError as error:
            self._failed[file] = (time.monotonic() + _FAILED_FOR, str(error))
            raise

    def expect(self, files: Iterable[RemoteFile]) -> None:
        """Begin to download what is not here yet, in the background."""
        missing = [file for file in files if not self._path(file).exists() and file not in self._failed]
        if missing:
            if self._ahead.process != os.getpid():  # a fork has the object but not its threads
                self._ahead = _Ahead()
            self._ahead.add(missing, self.open)

    def _path(self, file: RemoteFile) -> Path:
        name = hashlib.blake2b("\0".join(map(str, file)).encode(), digest_size=16).hexdigest()
        return self.folder / f"{name}.shard"

    def _opened(self, file: RemoteFile) -> IO[bytes]:
        path = self._path(file)
        for _ in range(_ROUNDS):
            with suppress(FileNotFoundError):
                opened = path.open("rb", buffering=0)
                with suppress(PermissionError):  # another user's
                    os.utime(opened.fileno())
                return opened
            downloaded = self._downloaded(file, path)
            if downloaded is not None:
                return downloaded
        raise OSError(f"{file.address}: other processes removed it from the cache again and again; the cache is too small")

    def _downloaded(self, file: RemoteFile, path: Path) -> IO[bytes] | None:
        """The file, or None where another process has it or was in the way; then look again."""
        part = path.with_suffix(".part")
        self.folder.mkdir(parents=True, exist_ok=True)
        opened = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "rb+", buffering=0)
        try:
            with _locked(opened, self.remote.patience.longest):
                if not _is_at(opened, part):
                    _raise_failure(opened)
                elif path.exists():
                    part.unlink()
                else:
                    self._fill(file, part, opened)
                    with suppress(FileNotFoundError):  # somebody emptied the folder; what is open can be read all the same
                        part.replace(path)
                    self._make_room(self.limit, keep=path)
                    opened.seek(0)
                    return opened
        except BaseException:
            opened.close()
            raise
        opened.close()
        return None

    def _fill(self, file: RemoteFile, part: Path, opened: IO[bytes]) -> None:
        opened.truncate(_trusted(opened, file.size))
        try:
            try:
                self.remote.download(file, opened, os.fstat(opened.fileno()).st_size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._make_room(0, keep=part)
                self.remote.download(file, opened, os.fstat(opened.fileno()).st_size)
            os.fsync(opened.fileno())
        except OSError as error:
            _leave_failure(opened, error)
            part.unlink(missing_ok=True)
            raise

    def _make_room(self, limit: int, keep: Path) -> None:
        """Remove the files used longest ago until the rest fits."""
        sizes, times = {}, {}
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                sizes[path], times[path] = status.st_size, status.st_mtime_ns
        total = sum(sizes.values())
        for path in sorted(sizes, key=times.__getitem__):
            if total <= limit:
                break
            if path != keep and _removed(path):
                total -= sizes[path]


class _Ahead:
    """Threads of one process that download what will be asked for soon; they end when there is no more to do."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[RemoteFile] = deque(maxlen=_AHEAD)
        self._busy: set[RemoteFile] = set()
        self._threads = 0

    def add(self, files: Iterable[RemoteFile], open_file: Callable[[RemoteFile], IO[bytes]]) -> None:
        with self._lock:
            self._waiting.extend(file for file in files if file not in self._waiting and file not in self._busy)
            while self._threads < min(_FETCHERS, len(self._waiting)):
                self._threads += 1
                threading.Thread(target=self._work, args=(open_file,), name="shards ahead", daemon=True).start()

    def _work(self, open_file: Callable[[RemoteFile], IO[bytes]]) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                file = self._waiting.popleft()
                self._busy.add(file)
            # What fails here fails again, with its reason, when a sample of the file is read.
            with suppress(Exception):
                open_file(file).close()
            with self._lock:
                self._busy.discard(file)


def shard_cache(gigabytes: float | None = None) -> ShardCache:
    """The cache of this machine.

    Its limit: `gigabytes`, else SELFSIGHT_SHARD_CACHE_GB, else 50. A connection that is silent for SELFSIGHT_REMOTE_TIMEOUT
    seconds (60) is given up and tried again.
    """
    if gigabytes is None:
        gigabytes = _setting("SELFSIGHT_SHARD_CACHE_GB", 50.0)
    remote = Remote(Patience(timeout=_setting("SELFSIGHT_REMOTE_TIMEOUT", Patience.timeout)))
    return ShardCache(remote, cache_folder("shards"), int(gigabytes * 1e9))


def _setting(name: str, default: float) -> float:
    try:
        return positive(os.environ[name]) if os.environ.get(name) else default
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None


def positive(text: str) -> float:
    """An option that is a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"expected a number above 0, got '{text}'")
    return value


@contextmanager
def _locked(opened: IO[bytes], longest: float) -> Iterator[None]:
    """Hold the lock of a file. While another process writes to it there is no end to the wait, but `longest` seconds after it
    wrote last it counts as dead."""
    import fcntl

    size, deadline = -1, 0.0
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            now, grown = time.monotonic(), os.fstat(opened.fileno()).st_size
            if grown != size:
                size, deadline = grown, now + longest
            if now >= deadline:
                raise OSError("another process that downloads it makes no progress") from None
            time.sleep(_POLL)
    try:
        yield
    finally:
        # Explicitly: closing would not do if a fork holds a copy.
        fcntl.flock(opened, fcntl.LOCK_UN)


def _removed(path: Path) -> bool:
    """Remove a file of the cache, unless it is being downloaded."""
    with suppress(OSError):
        if path.suffix != ".part":
            path.unlink()
            return True
        with path.open("rb") as file, _locked(file, longest=0.0):
            path.unlink()
            return True
    return False


def _is_at(opened: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _trusted(opened: IO[bytes], size: int) -> int:
    """How many bytes of an unfinished download are to be kept.

    A process that was killed has written what it wrote; a machine that went down may have lost some of it.
    """
    status = os.fstat(opened.fileno())
    return status.st_size if status.st_size <= size and status.st_mtime > psutil.boot_time() else 0


def _leave_failure(opened: IO[bytes], error: OSError) -> None:
    """Those who wait for this file get to see why they wait in vain, instead of trying one after the other."""
    with suppress(OSError):
        opened.truncate(0)
        opened.seek(0)
        opened.write(_FAILED + str(error).encode())


def _raise_failure(opened: IO[bytes]) -> None:
    opened.seek(0)
    if opened.read(len(_FAILED)) == _FAILED:
        raise OSError(opened.read().decode("utf-8", "replace"))
