"""The contract of annotations: what is known of where the things of a picture are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from selfsight.data.sources import Source

Bools = npt.NDArray[np.bool_]
T = TypeVar("T")


class Instance(NamedTuple):
    """One thing: its `mask` [H, W] over the upright picture, and the `name` of its class, empty where none is told."""

    mask: Bools
    name: str = ""


class Annotated(NamedTuple):
    """The things of one picture, and the pixels [H, W] that are `ignored`: neither thing nor ground, such as VOC's outlines."""

    instances: list[Instance]
    ignored: Bools


class Annotations(ABC):
    """Masks for the samples of a source or of a part of it, read when asked for. `location` is where they are."""

    location: str

    @abstractmethod
    def known(self, source: Source, index: int) -> bool:
        """Whether there are masks of a sample, as far as its key tells: no picture is read for it."""

    @abstractmethod
    def of(self, source: Source, index: int) -> Annotated | None:
        """What is known of a sample, or None; `UndecodableError` or `OSError` where it cannot be read."""


class ByName(Generic[T]):
    """Things by the name of the picture that they belong to, its ending aside where nothing hangs on it.

    A key may be the same path, or one may be the end of the other (`0001.jpg` and `val2017/0001.jpg`), if that is so of one thing
    alone.
    """

    def __init__(self, things: Iterable[tuple[str, T]]) -> None:
        self._by_last: dict[str, list[tuple[str, T]]] = {}
        for name, thing in things:
            self._by_last.setdefault(_parts(name)[-1], []).append((name, thing))

    def get(self, key: str) -> T | None:
        parts = _parts(key)
        alike = [(name, thing) for name, thing in self._by_last.get(parts[-1], []) if _ends_alike(parts, _parts(name))]
        for same in ([pair for pair in alike if pair[0] == key], [pair for pair in alike if _parts(pair[0]) == parts], alike):
            if same:
                return same[0][1] if len(same) == 1 else None
        return None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).with_suffix("").parts if name else ("",)


def _ends_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]


def union(masks: Iterable[Bools], shape: tuple[int, int]) -> Bools:
    """[H, W]: what any of the masks holds."""
    out = np.zeros(shape, dtype=np.bool_)
    for mask in masks:
        out |= mask
    return out
