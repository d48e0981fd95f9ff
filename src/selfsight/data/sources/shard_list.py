"""Which shards a location means: a file, names in braces, a pattern or a folder, here or at a remote address."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfsight.data.sources.braces import expand
from selfsight.data.sources.contents import contents
from selfsight.data.sources.location import is_remote
from selfsight.data.sources.remote import Remote, RemoteFile
from selfsight.errors import DataError

_COMPRESSED = tuple(f".{name}" for name in ("tar.gz", "tgz", "tar.zst", "tar.xz", "tar.bz2", "tar.lz4"))


class Shard(NamedTuple):
    """`name` is what tells it from the others, the front of its samples' keys. `file.address` may be a local path.

    `fault` says why it cannot be read, if that is known; then size and version mean nothing.
    """

    name: str
    file: RemoteFile
    fault: str = ""


def is_shards(location: str) -> bool:
    """Whether a location means tar shards, by its name (a remote one is not asked) or by what a local folder holds."""
    named = _path(location).endswith((".tar", *_COMPRESSED))
    if is_remote(location):
        return named or "." not in _path(location).rpartition("/")[2]
    return contents(location) == "tar" if Path(location).is_dir() else named


def find_shards(location: str, remote: Remote | None) -> list[Shard]:
    """The shards of a location, in the order of their names; `remote` for an address. `DataError` where there are none."""
    if _path(location).endswith(_COMPRESSED):
        raise DataError(f"{location}: is a compressed archive, whose samples can be read in order only; decompress it to .tar")
    addresses = _remote_addresses(location, remote) if remote else _local_paths(location)
    if not addresses:
        raise DataError(f"{location}: no .tar shard is there")
    files = remote.describe(addresses) if remote else [_local_file(path) for path in addresses]
    names = _short_names(addresses)
    shards = []
    for name, address, file in zip(names, addresses, files, strict=True):
        if isinstance(file, OSError):
            shards.append(Shard(name, RemoteFile(address, 0, ""), _reason(file)))
        else:
            shards.append(Shard(name, file))
    return shards


def _local_paths(location: str) -> list[str]:
    if Path(location).is_dir():
        return _matching(f"{glob.escape(location.rstrip('/'))}/**/*.tar")
    if Path(location).exists():
        return [location]
    paths: list[str] = []
    for name in expand(location):
        paths += _matching(name) if glob.has_magic(name) and not Path(name).exists() else [name]
    return list(dict.fromkeys(paths))


def _matching(pattern: str) -> list[str]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 (the pattern may be absolute)
    return sorted(path for path in found if Path(path).is_file())


def _remote_addresses(location: str, remote: Remote) -> list[str]:
    if not _path(location).endswith(".tar"):
        base = location.rstrip("/")
        return remote.find(f"{base}/*.tar") or remote.find(f"{base}/**/*.tar")
    addresses: list[str] = []
    for name in expand(location):
        addresses += remote.find(name) if "*" in _path(name) else [name]
    return list(dict.fromkeys(addresses))


def _local_file(path: str) -> RemoteFile | OSError:
    try:
        status = Path(path).stat()
    except OSError as error:
        return error
    if not Path(path).is_file():
        return OSError("is no file")
    return RemoteFile(path, status.st_size, str(status.st_mtime_ns))


def _short_names(addresses: Sequence[str]) -> list[str]:
    """Names without the folders that all have in common, and without the query of an address."""
    paths = [_path(address) for address in addresses]
    common = posixpath.commonprefix([path.split("/")[:-1] for path in paths])
    names = ["/".join(path.split("/")[len(common) :]) for path in paths]
    return names if len(set(names)) == len(names) else list(addresses)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read ({error.strerror or error})"


def _path(location: str) -> str:
    """An address without its query."""
    return location.partition("?")[0] if is_remote(location) else location
