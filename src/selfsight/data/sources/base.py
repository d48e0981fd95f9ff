"""The contract of a source: where images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError, nearest


@dataclass(frozen=True)
class BadImage:
    """A sample that could not be read, and why."""

    key: str
    reason: str


class Source(ABC):
    """An ordered set of samples with random access.

    `location` is what the user gave. `keys` names every sample, unique within the source. `labels` are class indices into
    `classes`, or None for a source without labels. `rejected` lists files that are no images and so are no samples.
    """

    location: str
    keys: Sequence[str]
    labels: npt.NDArray[np.int64] | None
    classes: tuple[str, ...]
    rejected: Sequence[BadImage] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def image_bytes(self, index: int) -> bytes:
        """The encoded image; `OSError` where it cannot be read."""

    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names that `column` takes."""

    @abstractmethod
    def column(self, name: str) -> npt.NDArray[np.str_]:
        """One value a sample, as text: patient, site, video, folder..."""

    def groups(self, name: str) -> npt.NDArray[np.str_]:
        if name not in self.columns():
            known = nearest(name, self.columns()) if self.columns() else "It has none besides image and label."
            raise DataError(f"--group-by {name!r}: {self.location} has no such column. {known}")
        return self.column(name)


class Subset(Source):
    """Some samples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        self.source = source
        self.indices = indices
        self.location = source.location
        self.keys = [source.keys[i] for i in indices]
        self.labels = None if source.labels is None else source.labels[indices]
        self.classes = source.classes
        self.rejected = source.rejected

    def image_bytes(self, index: int) -> bytes:
        return self.source.image_bytes(int(self.indices[index]))

    def columns(self) -> tuple[str, ...]:
        return self.source.columns()

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return self.source.column(name)[self.indices]


def first(source: Source, limit: int | None) -> Source:
    """The first `limit` samples, or the source itself."""
    if limit is None or limit >= len(source):
        return source
    if limit < 1:
        raise DataError(f"--limit: expected a whole number from 1, got {limit}")
    return Subset(source, np.arange(limit))
