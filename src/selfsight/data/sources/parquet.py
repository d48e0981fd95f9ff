"""Parquet files in the Hugging Face layout: `image` as a struct of bytes and path, or as bytes; maybe `label`, maybe others."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.index import open_or_build, shown
from selfsight.data.sources import parquet_index
from selfsight.data.sources.contents import contents
from selfsight.data.sources.indexed import IndexedSource
from selfsight.errors import DataError


class ParquetSource(IndexedSource):
    """One file, the files of a folder, or those of a pattern such as `train-*.parquet`. Class names stand in the metadata.

    Opening reads keys and labels alone. Images are read by row group, when one of the group is asked for; each process keeps
    those it used last, up to `cache_mb`. Where that does not hold them all, an epoch goes through as many groups at a time as it
    does hold.
    """

    def __init__(self, location: str, cache_mb: int = 256) -> None:
        files = parquet_index.files_at(location)
        index = open_or_build(
            ["parquet", "1", str(Path(location).absolute())],
            fresh=lambda index: parquet_index.unchanged(files, index),
            build=lambda: parquet_index.columns(location, files),
        )
        super().__init__(location, index)
        with parquet_index.opened(index["file"][int(index.numbers("group_file")[0])].as_py()) as file:
            self._layout = parquet_index.layout_of(file.schema_arrow, location)
        self._groups = Groups(cache_mb * 2**20)
        sizes = index.numbers("group_bytes")
        if sizes.sum() > self._groups.budget:
            self.blocks = index.numbers("group_start")[:-1]
            self.window = max(1, int(self._groups.budget // sizes.max()))

    def mark(self, index: int) -> bytes:
        """Of the file in which it stands; opening has seen whether that is still the same."""
        group = int(np.searchsorted(self.index.numbers("group_start"), index, side="right")) - 1
        file = int(self.index.numbers("group_file")[group])
        return f"{index} {self.index.numbers('mark')[3 * file : 3 * file + 3].tolist()}".encode()

    def image_bytes(self, index: int) -> bytes:
        starts = self.index.numbers("group_start")
        group = int(np.searchsorted(starts, index, side="right")) - 1
        images = self._groups.get(group)
        if images is None:
            images = self._read(group, int(starts[group + 1] - starts[group]))
            self._groups.keep(group, images)
        value = images[index - int(starts[group])].as_py()
        if value is None:
            raise OSError("no bytes in this row")
        return value

    def _read(self, group: int, rows: int) -> pa.Array:
        """The images of a row group."""
        path = self.index["file"][int(self.index.numbers("group_file")[group])].as_py()
        number = int(self.index.numbers("group_number")[group])
        try:
            with parquet_index.opened(path) as file:
                # Workers are processes: more threads in each would only get in each other's way.
                column = file.read_row_group(number, [self._layout.image], use_threads=False).column(0)
        except OSError as error:
            raise OSError(f"row group {number} of {shown(path)}: {error}") from None
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        if len(column) != rows:
            raise OSError(f"{shown(path)} has changed since it was opened")
        # Large binary: offsets of plain binary end at 2 GiB.
        return pa.concat_arrays(column.cast(pa.large_binary()).chunks)

    def columns(self) -> tuple[str, ...]:
        return self._layout.others

    def column(self, name: str) -> npt.NDArray[np.str_]:
        values: list[str] = []
        for path in self.index["file"].take(pc.unique(self.index["group_file"])).to_pylist():
            try:
                with parquet_index.opened(path) as file:
                    values += map(str, file.read([name])[name].to_pylist())
            except OSError as error:
                raise DataError(f"{shown(path)}: column '{name}' cannot be read ({error})") from None
        return np.array(values)


class Groups:
    """Row groups by number, those used last, up to `budget` bytes; at least one. Pickled empty."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[int, pa.Array] = OrderedDict()

    def get(self, number: int) -> pa.Array | None:
        found = self._kept.pop(number, None)
        if found is not None:
            self._kept[number] = found
        return found

    def keep(self, number: int, images: pa.Array) -> None:
        self._kept[number] = images
        while len(self._kept) > 1 and sum(group.nbytes for group in self._kept.values()) > self.budget:
            self._kept.popitem(last=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Groups, (self.budget,)


def matches(location: str) -> bool:
    if Path(location).is_dir():
        return contents(location) == "parquet"
    if parquet_index.is_pattern(location):
        return location.endswith(".parquet") and bool(parquet_index.files_at(location))
    return location.lower().endswith(".parquet") and Path(location).is_file()
