"""An index: facts about many samples (names, labels, places), gathered once and then read from a memory-mapped file.

An index is some named Arrow columns, each of its own length. The file below `cache_folder("index")` is an Arrow IPC file of one
row whose cells are lists, so that a column is one stretch of the file and is used without being copied or parsed. Its name is
`SUBJECT-DIGEST.arrow`: what the index is about and what the file holds. A new version never takes the name of one that is in
use, and a file whose bytes do not fit its name is built again.
"""

from __future__ import annotations

import hashlib
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import pyarrow as pa

from selfsight.data.draws import Indices
from selfsight.errors import DataError
from selfsight.runs import cache_folder, write_atomic

Columns: TypeAlias = Mapping[str, pa.Array]

_VERSION = "1"
_CHUNK = 4096


class Index:
    """Columns of an index: `index[name]` is an Arrow array. Pickled as the path of its file, or whole if it has none."""

    def __init__(self, columns: Columns, path: Path | None = None) -> None:
        self.columns, self.path = columns, path

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def numbers(self, name: str) -> Indices:
        """An int64 column as a read-only array over the mapped file."""
        return self.columns[name].to_numpy(zero_copy_only=True)

    def texts(self, name: str) -> Keys:
        """A text column, or one of bytes that are text, read when asked for."""
        return Keys(self, name, range(len(self.columns[name])))

    def __reduce__(self) -> tuple[Callable[..., Index], tuple[Any, ...]]:
        return (_reopened, (self.path,)) if self.path else (Index, (dict(self.columns),))


class Keys(Sequence[str]):
    """Names of samples in an index, read when asked for; a slice is a view of the same."""

    def __init__(self, index: Index, name: str, places: range) -> None:
        self._index, self._name, self._places = index, name, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return type(self)(self._index, self._name, self._places[place])
        return self._one(self._places[place])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            places = self._places[start : start + _CHUNK]
            yield from self._many(pa.array(np.arange(places.start, places.stop, places.step)))

    def _one(self, row: int) -> str:
        return shown(self._index[self._name][row].as_py())

    def _many(self, rows: pa.Array) -> list[str]:
        return [shown(name) for name in self._index[self._name].take(rows).to_pylist()]


def shown(name: str | bytes) -> str:
    """A name as text that can be printed and written to JSON: bytes that are no UTF-8 as `\\xff`."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def open_or_build(subject: Sequence[str], fresh: Callable[[Index], bool], build: Callable[[], Columns]) -> Index:
    """The index of `subject` (kind of source, resolved location, options that matter), from its file if that is `fresh`.

    Without a cache folder that can be written the index stays in memory.
    """
    name = hashlib.blake2b("\0".join([_VERSION, *subject]).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    folder = cache_folder("index")
    stored = _newest(folder, name)
    if stored is not None and fresh(stored):
        return stored
    columns = build()
    try:
        path = _write(folder, name, columns)
    except OSError:
        return Index(columns)
    index = _mapped(path) or Index(columns)
    del columns
    pa.default_memory_pool().release_unused()
    return index


def _newest(folder: Path, name: str) -> Index | None:
    for path in _versions(folder, name):
        index = _mapped(path) if _is_whole(path) else None
        if index is not None:
            return index
    return None


def _versions(folder: Path, name: str) -> list[Path]:
    """Newest first."""
    found = []
    with suppress(OSError):
        for path in folder.glob(f"{name}-*.arrow"):
            with suppress(OSError):  # another process has removed it
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _write(folder: Path, name: str, columns: Columns) -> Path:
    batch = pa.RecordBatch.from_pydict({key: _cell(values) for key, values in columns.items()})
    written: list[Path] = []

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
        written.append(folder / f"{name}-{_digest(temporary)}.arrow")

    # The name of the file depends on its bytes, so it gets a second name once they are known.
    unnamed = folder / f"{name}-{os.urandom(6).hex()}.new"
    write_atomic(unnamed, write)
    unnamed.replace(written[0])
    _remove_unused(folder, name, written[0])
    return written[0]


def _cell(values: pa.Array) -> pa.Array:
    """A list array of one list, without copying."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _remove_unused(folder: Path, name: str, current: Path) -> None:
    for path in _versions(folder, name):
        if path != current:
            with suppress(OSError):
                if _unlocked(path):
                    path.unlink()


def _is_whole(path: Path) -> bool:
    try:
        return path.stem.rpartition("-")[2] == _digest(path)
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()


def _mapped(path: Path) -> Index | None:
    """None where the file is gone or no such index."""
    try:
        lock = _locked(path)
    except OSError:
        return None
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        index = Index({name: batch.column(name).values for name in batch.schema.names}, path)
    except (OSError, pa.ArrowInvalid):
        os.close(lock)
        return None
    weakref.finalize(index, os.close, lock)
    return index


def _reopened(path: Path) -> Index:
    index = _mapped(path)
    if index is None:
        raise DataError(f"{path}: this index was removed while it was in use; start again")
    return index


def _locked(path: Path) -> int:
    """Open with a shared lock: while it is held, by this process or its forks, no other process removes the file."""
    handle = os.open(path, os.O_RDONLY)
    _lock(handle, alone=False)
    if not path.exists():  # removed between the two calls
        os.close(handle)
        raise FileNotFoundError(path)
    return handle


def _unlocked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        return _lock(handle, alone=True)
    finally:
        os.close(handle)


def _lock(handle: int, *, alone: bool) -> bool:
    """Whether the lock was had. Windows has no such locks, and removes no file that is mapped."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
