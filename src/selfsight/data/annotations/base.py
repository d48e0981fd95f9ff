"""The contract of annotations: what is known of where the things of a picture are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from selfsight.data.sources import Source
from selfsight.data.sources.contents import IMAGES
from selfsight.data.undecodable import UndecodableError

Bools = npt.NDArray[np.bool_]
T = TypeVar("T")
_SHOWN = 3
"""Names in a message."""


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
    """Things by the name of the picture that they belong to, the ending of an image aside where nothing hangs on it.

    A key may be the same path, or one may be the end of the other (`0001.jpg` and `val2017/0001.jpg`).
    """

    def __init__(self, things: Iterable[tuple[str, T]]) -> None:
        self._by_last: dict[str, list[tuple[str, T]]] = {}
        for name, thing in things:
            self._by_last.setdefault(_parts(name)[-1], []).append((name, thing))

    def known(self, key: str) -> bool:
        return bool(self._meant(key))

    def get(self, key: str) -> T | None:
        """`UndecodableError` where the key could mean several."""
        meant = self._meant(key)
        if len(meant) > 1:
            names = ", ".join(name for name, _ in meant[:_SHOWN])
            raise UndecodableError(f"{len(meant)} could be meant: {names}{', ...' if len(meant) > _SHOWN else ''}")
        return meant[0][1] if meant else None

    def _meant(self, key: str) -> list[tuple[str, T]]:
        parts = _parts(key)
        alike = [(name, thing) for name, thing in self._by_last.get(parts[-1], []) if _ends_alike(parts, _parts(name))]
        narrower = ([pair for pair in alike if pair[0] == key], [pair for pair in alike if _parts(pair[0]) == parts])
        return next((pairs for pairs in narrower if pairs), alike)


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.suffix.lower() in IMAGES else path).parts or ("",)


def _ends_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]


def union(masks: Iterable[Bools], shape: tuple[int, int]) -> Bools:
    """[H, W]: what any of the masks holds."""
    out = np.zeros(shape, dtype=np.bool_)
    for mask in masks:
        out |= mask
    return out
