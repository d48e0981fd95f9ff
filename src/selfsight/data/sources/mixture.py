"""Several sources as one: lists, in which every sample comes once an epoch, and mixtures with weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from selfsight.data.draws import Indices
from selfsight.data.sources.base import BadImage, Draws, Picked, Source, first
from selfsight.data.sources.dealing import Dealing, shares

_REPEAT = 1 << 32  # epochs of the repeats of a part, beyond those of any training
_SEED = 0x9E3779B9


@dataclass(frozen=True)
class Part:
    """A source of a mixture; `name` stands before its keys. The weight None is its size."""

    name: str
    source: Source
    weight: float | None = None


class MixtureSource(Source):
    """The samples of all parts, one part after the other. Classes are put together by name; where one part has sets of labels,
    the single labels of others are sets of one.

    An epoch has as many draws as there are samples. Each part has its share of every stretch of them, and its own order. One
    that is due more draws than it has samples begins again, in another order; one that is due fewer shows other samples in the
    next epoch.
    """

    def __init__(self, location: str, parts: Sequence[Part], classes: tuple[str, ...] | None = None) -> None:
        """`classes` are those of the parts if not given; some may have no sample."""
        self.location, self._asked = location, classes
        self.parts = parts = [inner for part in parts for inner in _flat(part)]
        self._starts = np.cumsum([0, *(len(part.source) for part in parts)])
        self._weights = [_weight(part) for part in parts]
        self._dealing = Dealing(int(self._starts[-1]), self._weights)
        self.classes = classes or tuple(dict.fromkeys(name for part in parts for name in part.source.classes))
        if any(part.source.labels is None and part.source.label_sets is None for part in parts):
            self.classes = ()
        self.keys = _Keys([part.name for part in parts], [part.source.keys for part in parts], self._starts)
        self.rejected = [BadImage(f"{p.name}/{bad.key}", bad.reason) for p in parts for bad in p.source.rejected]
        several = any(part.source.label_sets is not None for part in parts)
        self.labels = None if several else self._labels()
        self.label_sets = self._label_sets() if several and self.classes else None

    def image_bytes(self, index: int) -> bytes:
        source, place = self._part_of(index)
        return source.image_bytes(place)

    def mark(self, index: int) -> bytes:
        source, place = self._part_of(index)
        return source.mark(place)

    def _part_of(self, index: int) -> tuple[Source, int]:
        """The source of a sample and its place in it."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.parts[number].source, index - int(self._starts[number])

    def columns(self) -> tuple[str, ...]:
        first, *others = (part.source.columns() for part in self.parts)
        return ("source", *(name for name in first if name != "source" and all(name in other for other in others)))

    def column(self, name: str) -> npt.NDArray[np.str_]:
        if name == "source":
            return np.repeat([part.name for part in self.parts], np.diff(self._starts))
        return np.concatenate([part.source.column(name) for part in self.parts])

    def draws(self, seed: int, epoch: int, positions: Indices) -> Draws:
        owner, turn = self._dealing.at(seed, epoch, positions)
        drawn = Draws(np.empty(len(positions), dtype=np.int64), np.empty(len(positions), dtype=np.int64))
        for number in np.unique(owner).tolist():
            source, start = self.parts[number].source, self._starts[number]
            repeats = turn // len(source)
            for repeat in np.unique(repeats[owner == number]).tolist():
                here = (owner == number) & (repeats == repeat)
                its = source.draws(seed + _SEED * (number + 1), epoch + _REPEAT * repeat, turn[here] % len(source))
                drawn.indices[here] = start + its.indices
                drawn.occurrences[here] = repeat + its.occurrences
        return drawn

    def weights(self) -> npt.NDArray[np.float32] | None:
        sizes, shares = np.diff(self._starts), np.array(self._weights) / sum(self._weights)
        if np.allclose(shares * len(self), sizes):
            return None
        return np.repeat(shares * len(self) / sizes, sizes).astype(np.float32)

    def expect(self, indices: Indices) -> None:
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner).tolist():
            self.parts[number].source.expect(indices[owner == number] - self._starts[number])

    def head(self, limit: int) -> Source:
        """The first samples of each part, in proportion to its share."""
        sizes = np.diff(self._starts)
        counts = np.minimum(sizes, shares(limit, self._weights))
        for number, size in enumerate(sizes):  # what a small part could not give
            counts[number] = min(size, counts[number] + limit - counts.sum())
        some = zip(self.parts, counts.tolist(), strict=True)
        return MixtureSource(self.location, [Part(part.name, first(part.source, n), part.weight) for part, n in some if n])

    def only(self, indices: Indices) -> Source:
        """Each part keeps its share of the draws, however many of its samples are among them."""
        ends = np.searchsorted(indices, self._starts)
        spans = zip(self.parts, self._starts, ends, ends[1:], strict=False)
        some = [(part, indices[start:stop] - first) for part, first, start, stop in spans if stop > start]
        parts = [Part(part.name, part.source.only(places), part.weight) for part, places in some]
        return MixtureSource(self.location, parts, self.classes)

    def _labels(self) -> npt.NDArray[np.int64] | None:
        if not self.classes:
            return None
        number = {name: place for place, name in enumerate(self.classes)}
        labels = [(part.source.labels, np.array([number[name] for name in part.source.classes])) for part in self.parts]
        return np.concatenate([ours[theirs] for theirs, ours in labels if theirs is not None])

    def _label_sets(self) -> npt.NDArray[np.bool_]:
        number = {name: place for place, name in enumerate(self.classes)}
        sets = np.zeros((int(self._starts[-1]), len(self.classes)), dtype=np.bool_)
        for part, start, stop in zip(self.parts, self._starts, self._starts[1:], strict=False):
            source, ours = part.source, np.array([number[name] for name in part.source.classes], dtype=np.int64)
            if source.label_sets is not None:
                sets[start:stop, ours] = source.label_sets
            elif source.labels is not None:
                sets[np.arange(start, stop), ours[source.labels]] = True
        return sets

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("keys", "labels", "label_sets", "rejected")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["location"], state["parts"], state["_asked"])  # type: ignore[misc]


class _Keys(Sequence[str]):
    """Keys of all parts behind the names of the parts, read when asked for."""

    def __init__(self, names: Sequence[str], keys: Sequence[Sequence[str]], starts: Indices) -> None:
        self._names, self._keys, self._starts = names, keys, starts

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return Picked(self, np.arange(len(self))[place])
        index = range(len(self))[place]
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._names[number]}/{self._keys[number][index - int(self._starts[number])]}"

    def __iter__(self) -> Iterator[str]:
        for name, keys in zip(self._names, self._keys, strict=True):
            for key in keys:
                yield f"{name}/{key}"


def _weight(part: Part) -> float:
    return len(part.source) if part.weight is None else part.weight


def _flat(part: Part) -> list[Part]:
    """A mixture within a mixture as its parts, so that the repeats of each can be counted."""
    inner = part.source
    if not isinstance(inner, MixtureSource):
        return [part]
    if part.weight is None and all(one.weight is None for one in inner.parts):
        return [Part(f"{part.name}/{one.name}", one.source) for one in inner.parts]
    unit = _weight(part) / sum(map(_weight, inner.parts))
    return [Part(f"{part.name}/{one.name}", one.source, unit * _weight(one)) for one in inner.parts]
