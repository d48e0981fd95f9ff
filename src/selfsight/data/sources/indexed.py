"""What the sources that keep an index have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from selfsight.data.index import Index, shown
from selfsight.data.sources.base import BadImage, Source
from selfsight.data.sources.labels import sets_of

SHOWN = 1000
"""So many rejected files are listed; a million of them would fill the memory and nobody would read them."""


class IndexedSource(Source):
    """A source over an index with the columns `key`, `label` and `class` (empty where unlabelled) and those of `rejections`; with
    `label_end` where samples have lists of labels.

    Pickled without what stands in the index.
    """

    index: Index

    def __init__(self, location: str, index: Index) -> None:
        self.location = location
        self._use(index)

    def _use(self, index: Index) -> None:
        self.index = index
        self.keys = self._keys()
        self.classes = tuple(shown(name) for name in index["class"].to_pylist())
        several = "label_end" in index.columns
        self.labels = index.numbers("label") if self.classes and not several else None
        sets = sets_of(index.numbers("label"), index.numbers("label_end"), len(self.classes)) if several else None
        self.label_sets = sets
        self.rejected = rejected(index)

    def _keys(self) -> Sequence[str]:
        return self.index.texts("key")

    def __getstate__(self) -> dict[str, Any]:
        derived = ("keys", "classes", "labels", "label_sets", "rejected")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._use(state["index"])


def file_mark(path: bytes) -> bytes:
    """Size and times of change of a file."""
    status = os.stat(path)  # noqa: PTH116 (bytes)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()


def rejections(found: Sequence[tuple[bytes, str]], count: int, noun: str = "files") -> dict[str, pa.Array]:
    """Columns of an index that keep the first of `count` rejected ones, as (raw name, reason), and how many there were."""
    return {
        "rejected": pa.array([name for name, _ in found[:SHOWN]], pa.large_binary()),
        "reason": pa.array([reason for _, reason in found[:SHOWN]], pa.large_string()),
        "rejected_count": pa.array([count], pa.int64()),
        "rejected_noun": pa.array([noun], pa.large_string()),
    }


def rejected(index: Index) -> list[BadImage]:
    """The inverse of `rejections`; a last entry says how many more there were."""
    pairs = zip(index["rejected"].to_pylist(), index["reason"].to_pylist(), strict=True)
    listed = [BadImage(shown(name), reason) for name, reason in pairs]
    more = int(index.numbers("rejected_count")[0]) - len(listed)
    if more > 0:
        listed.append(BadImage("...", f"{more} more {index['rejected_noun'][0].as_py()} were left out; {len(listed)} are listed"))
    return listed
