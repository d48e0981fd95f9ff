"""A Parquet file in the Hugging Face layout: `image` as a struct of bytes and path, maybe `label`, maybe other columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfsight.data.sources.base import Source
from selfsight.errors import DataError


class ParquetSource(Source):
    """One file, its encoded images in memory. Class names come from the schema metadata (`huggingface` features or `labels`)."""

    def __init__(self, location: str) -> None:
        path = self.path = Path(location)
        self.location = location
        table = _read(path)
        # Large binary: offsets of plain binary end at 2 GiB.
        self._images = pc.struct_field(table["image"], "bytes").cast(pa.large_binary()).combine_chunks()
        self.keys = _keys(table)
        self._table = table.drop_columns([c for c in ("image", "label") if c in table.column_names])
        self.labels, self.classes = _labels(table, path)

    def image_bytes(self, index: int) -> bytes:
        value = self._images[index].as_py()
        if value is None:
            raise OSError("no bytes in this row")
        return bytes(value)

    def columns(self) -> tuple[str, ...]:
        return tuple(self._table.column_names)

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return np.array([str(v) for v in self._table[name].to_pylist()])


def matches(location: str) -> bool:
    return location.endswith(".parquet") and Path(location).is_file()


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is no readable Parquet file ({str(error).splitlines()[0]})") from None
    if "image" not in table.column_names:
        raise DataError(f"{path}: has no column 'image' but {', '.join(table.column_names)}; expected image.bytes, image.path")
    kind = table.schema.field("image").type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{path}: column 'image' is {kind}; expected a struct with a field 'bytes' of encoded images")
    if table.num_rows == 0:
        raise DataError(f"{path}: holds no rows; expected at least one image")
    return table


def _keys(table: pa.Table) -> list[str]:
    """`image.path` where it names every row uniquely, else the row number."""
    kind = table.schema.field("image").type
    if kind.get_field_index("path") >= 0:
        paths = pc.struct_field(table["image"], "path").to_pylist()
        if all(paths) and len(set(paths)) == len(paths):
            return [str(p) for p in paths]
    return [str(row) for row in range(table.num_rows)]


def _labels(table: pa.Table, path: Path) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    if "label" not in table.column_names:
        return None, ()
    column = table["label"]
    if column.null_count == len(column) or (pa.types.is_integer(column.type) and pc.max(column).as_py() == -1):
        return None, ()  # Hugging Face's way to say that there is no label
    if column.null_count:
        raise DataError(f"{path}: column 'label' has {column.null_count} empty values; expected a class in each row")
    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        texts = np.array([str(v) for v in column.to_pylist()])
        found, numbers = np.unique(texts, return_inverse=True)
        return numbers.astype(np.int64), tuple(str(name) for name in found)
    if not pa.types.is_integer(column.type):
        raise DataError(f"{path}: column 'label' is {column.type}; expected class numbers or names")
    labels = column.to_numpy().astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{path}: column 'label' holds {labels.min()}; expected class numbers from 0")
    names = _class_names(table.schema.metadata or {})
    if not names:
        return labels, tuple(str(number) for number in range(int(labels.max()) + 1))
    if labels.max() >= len(names):
        raise DataError(f"{path}: label {labels.max()} has no name; the metadata names {len(names)} classes")
    return labels, names


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    if b"huggingface" in metadata:
        info: dict[str, Any] = json.loads(metadata[b"huggingface"])
        label = info.get("info", {}).get("features", {}).get("label", {})
        if label.get("names"):
            return tuple(label["names"])
    if b"labels" in metadata:
        return tuple(metadata[b"labels"].decode().split(","))
    return ()
