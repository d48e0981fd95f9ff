"""The contract of a source: where images come from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from selfsight.data.draws import Indices
from selfsight.data.order import Order
from selfsight.errors import DataError, nearest


@dataclass(frozen=True)
class BadImage:
    """A sample that could not be read, and why."""

    key: str
    reason: str


class Draws(NamedTuple):
    """Samples at some positions of an epoch, and how often each came before in it (0 but in mixtures that repeat)."""

    indices: Indices
    occurrences: Indices


class Source(ABC):
    """An ordered set of samples with random access; picklable, for workers that are spawned.

    `location` is what the user gave. `keys` names every sample, unique within the source; it may be read lazily from a file.
    `labels` are class indices into `classes`, or None for a source without labels. Where a sample may have several labels or
    none, `label_sets` [n, classes] says which, and `labels` is None. `rejected` lists files that are no images and so are no
    samples.

    `blocks` holds the first sample of each run of samples that is best read as a whole (a shard, a row group, a stretch of
    video), ascending from 0; None where any order costs the same. An epoch then takes the blocks in random order and mixes the
    samples of `window` blocks at a time.
    """

    location: str
    keys: Sequence[str]
    labels: npt.NDArray[np.int64] | None
    label_sets: npt.NDArray[np.bool_] | None = None
    classes: tuple[str, ...]
    rejected: Sequence[BadImage] = ()
    blocks: Indices | None = None
    window: int = 1

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def image_bytes(self, index: int) -> bytes:
        """The encoded image; `OSError` where it cannot be read."""

    def mark(self, index: int) -> bytes:
        """Another one where the image has changed; an `OSError` where there is no telling. Images are read for it only where
        no file of theirs can be asked."""
        return hashlib.blake2b(self.image_bytes(index), digest_size=20).digest()

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

    def draws(self, seed: int, epoch: int, positions: Indices) -> Draws:
        """What stands at `positions` (0 to len - 1) of an epoch, a function of the arguments alone."""
        order = Order(len(self), self.blocks, self.window)
        return Draws(order.at(seed, epoch, positions), np.zeros(len(positions), dtype=np.int64))

    def weights(self) -> npt.NDArray[np.float32] | None:
        """How often each sample is drawn in an epoch, in the mean over epochs; None where all are, once."""
        return None

    def head(self, limit: int) -> Source:
        """`limit` samples, at most as many as there are, that stand for all."""
        return Subset(self, np.arange(limit))

    def only(self, indices: Indices) -> Source:
        """The samples at `indices`, ascending, as a source that draws them in the way of this one."""
        return Subset(self, indices)

    def expect(self, indices: Indices) -> None:
        """These samples will be asked for soon; a source that is far away may begin to fetch them."""
        return


class Picked(Sequence[str]):
    """Some of the keys of a source, read when asked for."""

    def __init__(self, keys: Sequence[str], indices: Indices) -> None:
        self._keys, self._indices = keys, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return Picked(self._keys, self._indices[place])
        return self._keys[int(self._indices[place])]


class Subset(Source):
    """Some samples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: npt.NDArray[np.int64]) -> None:
        self.source = source
        self.indices = indices
        self.location = source.location
        self.keys = Picked(source.keys, indices)
        self.labels = None if source.labels is None else source.labels[indices]
        self.label_sets = None if source.label_sets is None else source.label_sets[indices]
        self.classes = source.classes
        self.rejected = source.rejected
        self.window = source.window
        if source.blocks is not None and np.all(np.diff(indices) > 0):
            # Blocks of which no sample is left have the same start as the next one.
            starts = np.searchsorted(indices, source.blocks)
            self.blocks = np.unique(starts[starts < len(indices)])

    def image_bytes(self, index: int) -> bytes:
        return self.source.image_bytes(int(self.indices[index]))

    def mark(self, index: int) -> bytes:
        return self.source.mark(int(self.indices[index]))

    def columns(self) -> tuple[str, ...]:
        return self.source.columns()

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return self.source.column(name)[self.indices]

    def expect(self, indices: Indices) -> None:
        self.source.expect(self.indices[indices])


def first(source: Source, limit: int | None) -> Source:
    """The first `limit` samples, or the source itself."""
    if limit is None or limit >= len(source):
        return source
    if limit < 1:
        raise DataError(f"--limit: expected a whole number from 1, got {limit}")
    return source.head(limit)
