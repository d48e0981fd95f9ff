"""The outlines of masks as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]

_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Directions (across, down): right, down, left, up; the next one is a turn to the right."""
_FIRST_CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))
"""Where the upper, right, lower and left side of a pixel begins, if one walks with the pixel on the right hand."""


def outlines(mask: Bools) -> list[Points]:
    """The outer outline of each part of a mask [height, width]: corners [n, 2] between pixels (across, down), clockwise.

    Pixels that touch at a corner alone are two parts. Holes are filled, and with them the parts within: a polygon has no word for
    a hole. But for that the polygons cover exactly the mask.
    """
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return []
    cropped = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    # What lies outside may come in across a corner, as two parts touch there without being one.
    sides = _sides(ndimage.binary_fill_holes(cropped, np.ones((3, 3))))
    origin = np.array([xs[0], ys[0]])
    return [origin + sides.begin[around][_turns(sides.direction[around])] for around in _rounds(sides)]


class _Sides(NamedTuple):
    """The sides of pixels [n] between inside and outside: the corner (across, down) where each begins, whither it leads, and the
    number of the one that follows."""

    begin: Points
    direction: Points
    following: Points


def _sides(mask: Bools) -> _Sides:
    padded = np.pad(mask, 1)
    beyond = padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]
    begins = [np.argwhere(mask & ~outside)[:, ::-1] + corner for outside, corner in zip(beyond, _FIRST_CORNERS, strict=True)]
    begin = np.concatenate(begins)
    direction = np.repeat(np.arange(4), [len(each) for each in begins])
    height, width = mask.shape
    numbers = np.full((4, height + 1, width + 1), -1)
    numbers[direction, begin[:, 1], begin[:, 0]] = np.arange(len(begin))
    across, down = (begin + _STEPS[direction]).T
    left, ahead, right = (numbers[(direction + turn) % 4, down, across] for turn in (3, 0, 1))
    # To the right first: where two parts touch, the walk stays with the one that it is on.
    return _Sides(begin, direction, np.where(right >= 0, right, np.where(ahead >= 0, ahead, left)))


def _rounds(sides: _Sides) -> Iterator[list[int]]:
    """The numbers of the sides of each outline, in the order of walking."""
    following, done = sides.following.tolist(), bytearray(len(sides.following))
    for start in range(len(following)):
        around, at = [], start
        while not done[at]:
            done[at] = True
            around.append(at)
            at = following[at]
        if around:
            yield around


def _turns(direction: Points) -> Bools:
    """[n]: which sides of an outline lead elsewhere than those before them."""
    return direction != np.roll(direction, 1)


def joined(parts: Sequence[Points]) -> Points:
    """One closed line around all parts, [n, 2]: from part to part it goes on a straight line and back on the same, which
    encloses nothing."""
    whole = parts[0]
    for part in parts[1:]:
        distances, nearest = KDTree(whole).query(part)
        there = int(np.argmin(distances))
        here = int(nearest[there])
        whole = np.concatenate([whole[: here + 1], part[there:], part[: there + 1], whole[here:]])
    return whole
