"""The contract of a way to find objects without a label."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from selfsight.attention.seeing import Seen

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
_ALIKE = 1e-5
"""Of the largest feature: differences below it are rounding."""
_ROUNDING = 1e-6
"""Pixels: an edge that is so near to the middle of a pixel lies on it, as it does where no quotient was rounded."""


class Box(NamedTuple):
    """Left, top, right, bottom; right and bottom are the first ones outside. In places of the grid or in pixels."""

    left: int
    top: int
    right: int
    bottom: int


class Found(NamedTuple):
    """One object: its `mask` [h, w] over the grid, the `box` around it in places, and a `score`, higher for the surer."""

    mask: Bools
    box: Box
    score: float


class Finder(ABC):
    """Finds objects in what an encoder saw. `needs_attention` says that it looks at the attention of CLS, which CNNs have not."""

    needs_attention: ClassVar[bool] = False

    @abstractmethod
    def find(self, seen: Seen, count: int) -> list[Found]:
        """At most `count` objects, first the one that is found where one is asked for; none where there is nothing to tell apart
        (a picture of one colour)."""


def looked_in(seen: Seen) -> Floats:
    """[N, K]: what likeness of places is measured by. Keys of a ViT as they are, which is how the papers take them.

    Of a CNN its map without the mean over the picture: behind a ReLU nothing is negative, so all places would be alike.
    """
    return seen.keys - seen.keys.mean(0) if seen.keys is seen.patches else seen.keys


def all_alike(features: Floats) -> bool:
    """Whether the places [N, D] differ by no more than rounding does: of these nothing can be told apart."""
    return bool(np.ptp(features, axis=0).max() <= _ALIKE * np.abs(features).max())


def part_with(mask: Bools, place: int) -> Bools:
    """The part of a mask [h, w] that is connected (by sides) to one of its places, counted row by row."""
    parts, _ = ndimage.label(mask)
    found: Bools = parts == parts.flat[place]
    return found


def box_of(mask: Bools) -> Box:
    """The least box around a mask that is not empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)


def in_pixels(box: Box, place: tuple[float, float], size: tuple[int, int]) -> Box:
    """A box in places -> in pixels, where a `place` is so many pixels high and wide and the picture (height, width) of `size`.

    A pixel belongs to the place in which its middle lies; the picture may end within its last places.
    """
    (high, wide), (height, width) = place, size
    xs = (min(width, _first_pixel(x * wide)) for x in (box.left, box.right))
    ys = (min(height, _first_pixel(y * high)) for y in (box.top, box.bottom))
    (left, right), (top, bottom) = xs, ys
    return Box(left, top, right, bottom)


def _first_pixel(edge: float) -> int:
    """The first one whose middle does not lie before an edge."""
    return math.ceil(edge - 0.5 - _ROUNDING)
