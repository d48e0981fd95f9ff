"""What a whole object would cover in the picture, with nothing before it and no edge: exact at the centres of pixels.

Triangles of a mesh are wound alike on the screen once those seen from behind are reversed. Along each edge the triangles on both
sides then either cancel, or the edge is part of an outline; what the outlines wind around is covered. So only outlines are drawn,
though a mesh has a hundred thousand faces, and it may be open or touch itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Whole: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Edges:
    """Of a mesh: `ends` [e, 2] are vertices; `edge` [3 f] says which of them a side of a triangle is, `along` [3 f] whether it
    runs from the first end to the second (1) or back (-1)."""

    ends: Whole
    edge: Whole
    along: npt.NDArray[np.int8]


def edges(triangles: Whole) -> Edges:
    """Of triangles [f, 3]."""
    sides = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forwards = sides[:, 0] < sides[:, 1]
    ends, edge = np.unique(np.sort(sides, 1), axis=0, return_inverse=True)
    return Edges(ends, edge.reshape(-1), np.where(forwards, 1, -1).astype(np.int8))


def covered(points: Floats, triangles: Whole, edges: Edges, box: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """[height, width] of a `box` (left, top, width, height): whether a triangle of `points` [n, 2] covers a pixel's centre."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    facing = np.sign(area).repeat(3)
    weight = np.bincount(edges.edge, facing * edges.along, len(edges.ends))
    outline = weight != 0
    first, second = (points[edges.ends[outline, k]] for k in range(2))
    return _wound(first, second, weight[outline], box)


def _wound(first: Floats, second: Floats, weight: Floats, box: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """Where outlines wind around a pixel's centre: crossings to the left of it, by the direction in which they cross its row."""
    left, top, width, height = box
    low, high = np.minimum(first[:, 1], second[:, 1]), np.maximum(first[:, 1], second[:, 1])
    start = np.clip(np.ceil(low - top - 0.5), 0, height).astype(np.intp)
    stop = np.clip(np.ceil(high - top - 0.5), 0, height).astype(np.intp)
    many = stop - start
    edge = np.repeat(np.arange(len(many)), many)
    row = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + start[edge]
    rise = second[edge, 1] - first[edge, 1]
    share = (row + top + 0.5 - first[edge, 1]) / rise
    at = first[edge, 0] + share * (second[edge, 0] - first[edge, 0])
    column = np.clip(np.ceil(at - left - 0.5), 0, width).astype(np.intp)
    steps = np.bincount(row * (width + 1) + column, weight[edge] * np.sign(rise), height * (width + 1))
    return np.abs(np.rint(steps.reshape(height, width + 1)).cumsum(1))[:, :width] > 0
