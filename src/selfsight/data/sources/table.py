"""A table of image paths (.csv, .tsv or .parquet), maybe with labels, splits and more; or a data set that selfsight drew."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from selfsight.data.index import open_or_build
from selfsight.data.sources import table_index
from selfsight.data.sources.indexed import IndexedSource, file_mark
from selfsight.data.sources.parquet_index import marks, unchanged
from selfsight.errors import DataError

_PROBED = 100


class TableSource(IndexedSource):
    """The rows of a table in their order. Paths are relative to the folder of the table.

    `label` holds names or numbers; all classes of the table are known in each of its splits. The key is the path; one that
    comes again has #2 behind it.
    """

    def __init__(self, location: str, split: str | None = None) -> None:
        file = _file(Path(location))
        self.root = os.fsencode(file.parent)
        files = [str(file.absolute()), str((file.parent / "dataset.json").absolute())]
        index = open_or_build(
            ["table", "1", files[0], split or ""],
            fresh=lambda index: unchanged(files, index),
            build=lambda: {
                "file": pa.array(map(os.fsencode, files), pa.large_binary()),
                "mark": pa.array(marks(files).ravel()),
                **table_index.columns(location, file, split),
            },
        )
        super().__init__(location, index)
        self._check_paths(file)

    def image_bytes(self, index: int) -> bytes:
        with open(self._path(index), "rb") as file:  # noqa: PTH123 (bytes)
            return file.read()

    def mark(self, index: int) -> bytes:
        return file_mark(self._path(index))

    def columns(self) -> tuple[str, ...]:
        return tuple(name.removeprefix("column:") for name in self.index.columns if name.startswith("column:"))

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return np.array(self.index[f"column:{name}"].to_pylist())

    def _path(self, index: int) -> bytes:
        return os.path.join(self.root, self.index["path"][index].as_py().encode())  # noqa: PTH118 (bytes, maybe absolute)

    def _check_paths(self, file: Path) -> None:
        """One file that is missing is a bad image; where none of the first ones is there, the table lies in the wrong place."""
        if not any(os.path.lexists(self._path(index)) for index in range(min(len(self), _PROBED))):
            path = self.index["path"][0].as_py()
            expected = f"expected paths that start at {file.parent}, or absolute ones"
            raise DataError(f"{self.location}: '{path}' is not there; {expected}")


def matches(location: str) -> bool:
    path = Path(location)
    if path.is_dir():
        return _drawn(path) is not None
    if path.suffix.lower() in (".csv", ".tsv"):
        return path.is_file()
    return path.suffix.lower() == ".parquet" and path.is_file() and _names_paths(path)


def _names_paths(path: Path) -> bool:
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return False  # it is no table of paths, and the next kind of source says what is wrong with it
    images = [schema.field(name).type for name in ("image", "img") if name in schema.names]
    bytes_within = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) for kind in images)
    return not bytes_within and table_index.path_column(schema) is not None


def _file(path: Path) -> Path:
    return _drawn(path) or path if path.is_dir() else path


def _drawn(folder: Path) -> Path | None:
    """The table of a data set that selfsight drew; `samples.jsonl` while the set is not closed."""
    if (folder / "dataset.json").is_file():
        if (folder / "samples.parquet").is_file():
            return folder / "samples.parquet"
        if (folder / "samples.jsonl").is_file():
            return folder / "samples.jsonl"
    return None
