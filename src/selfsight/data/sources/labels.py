"""A column of labels, or of lists of them, to class indices and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.draws import Indices
from selfsight.data.index import Columns
from selfsight.errors import DataError

_MOST = 1_000_000


class Labelled(NamedTuple):
    """The class of each row; or with `ends` the classes of all rows one after the other, row i's before `ends[i]`."""

    numbers: Indices
    classes: list[str]
    ends: Indices | None = None

    def rows(self, chosen: Indices) -> Labelled:
        """Some rows; all classes stay known."""
        if not self.classes:
            return self
        if self.ends is None:
            return self._replace(numbers=self.numbers[chosen])
        sizes = np.diff(self.ends, prepend=0)
        ends = np.cumsum(sizes[chosen])
        starts = np.repeat((self.ends - sizes)[chosen] - (ends - sizes[chosen]), sizes[chosen])
        return Labelled(self.numbers[starts + np.arange(len(starts))], self.classes, ends)

    def columns(self) -> Columns:
        """As columns of an index."""
        ends = {} if self.ends is None else {"label_end": pa.array(self.ends)}
        return {"label": pa.array(self.numbers), "class": pa.array(self.classes, pa.large_string()), **ends}


def labelled(column: pa.ChunkedArray, location: str, name: str, known: Sequence[str] = ()) -> Labelled:
    """A column of one label or a list of labels a row; a row whose list is empty or missing has none."""
    if not is_list(column.type):
        return Labelled(*labels_of(column, location, name, known))
    sizes = pc.fill_null(pc.list_value_length(column), 0)
    numbers, classes = labels_of(pc.list_flatten(column), location, name, known)
    return Labelled(numbers, classes, np.cumsum(sizes.to_numpy(), dtype=np.int64) if classes else None)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def sets_of(members: Indices, ends: Indices, classes: int) -> npt.NDArray[np.bool_]:
    """[n, classes]: which labels each row has."""
    sets = np.zeros((len(ends), classes), dtype=np.bool_)
    sets[np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), members] = True
    return sets


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
        label = label.get("feature", label)  # of a list, what is in it
        if label.get("names"):
            return [str(text) for text in label["names"]]
    return metadata[b"labels"].decode().split(",") if b"labels" in metadata else []
