"""A column of labels to class indices and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.draws import Indices
from selfsight.errors import DataError

_MOST = 1_000_000


def labels_of(column: pa.ChunkedArray, location: str, name: str, known: Sequence[str] = ()) -> tuple[Indices, list[str]]:
    """(class index of each row, class names), both empty where the column says that there is no label.

    Names are sorted and numbers are kept as they are; `known` are names of the numbers. A `DataError` says what else it found.
    """
    # Hugging Face's ways to say that there is no label: no value anywhere, or -1.
    if column.null_count == len(column) or (pa.types.is_integer(column.type) and pc.max(column).as_py() == -1):
        return np.empty(0, dtype=np.int64), []
    if column.null_count:
        raise DataError(f"{location}: column '{name}' has {column.null_count} empty values; expected a class in each row")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        return _named(column, location, name, known)
    if not pa.types.is_integer(column.type):
        raise DataError(f"{location}: column '{name}' is {column.type}; expected class numbers or names")
    return _numbered(column.to_numpy().astype(np.int64), location, name, known)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _named(column: pa.ChunkedArray, location: str, name: str, known: Sequence[str]) -> tuple[Indices, list[str]]:
    found = sorted(pc.unique(column).to_pylist())
    strange = [value for value in found if known and value not in known]
    if strange:
        raise DataError(f"{location}: column '{name}' holds '{strange[0]}'; expected one of {', '.join(known)}")
    classes = list(known) or found
    numbers = pc.index_in(column, value_set=pa.array(classes, column.type))
    return numbers.to_numpy().astype(np.int64), classes


def _numbered(labels: Indices, location: str, name: str, known: Sequence[str]) -> tuple[Indices, list[str]]:
    if labels.min() < 0:
        raise DataError(f"{location}: column '{name}' holds {labels.min()}; expected class numbers from 0")
    if known and labels.max() >= len(known):
        raise DataError(f"{location}: label {labels.max()} has no name; the metadata names {len(known)} classes")
    if labels.max() >= _MOST:
        raise DataError(f"{location}: column '{name}' holds {labels.max()}; expected class numbers below {_MOST:,}, or names")
    return labels, list(known) or [str(number) for number in range(int(labels.max()) + 1)]


def class_names(metadata: Mapping[bytes, bytes], name: str) -> list[str]:
    """Names of the classes of column `name` in the metadata of a Parquet schema (`huggingface` features or `labels`)."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # written by somebody else, in another way
        info: dict[str, Any] = json.loads(metadata.get(b"huggingface", b"{}"))
        label = info["info"]["features"][name]
        if label.get("names"):
            return [str(text) for text in label["names"]]
    return metadata[b"labels"].decode().split(",") if b"labels" in metadata else []
