"""Built-in silhouettes: polygons within the unit circle, and how much of each pixel they cover. x goes right, y goes down."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Outlines = tuple[Points, ...]
"""The first is filled, each further one is a hole."""

_LINES = 5
"""Lines a row of pixels on which coverage is measured."""
_ROUND = 96


def _circle(radius: float = 1.0, count: int = _ROUND) -> Points:
    angle = 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.sin(angle), -np.cos(angle)], 1)


def _radii(radii: list[float], turn: float = 0.0) -> Points:
    angle = 2 * math.pi * (np.arange(len(radii)) + turn) / len(radii)
    return np.array(radii)[:, None] * np.stack([np.sin(angle), -np.cos(angle)], 1)


def _curve(x: Callable[[Points], Points], y: Callable[[Points], Points]) -> Points:
    t = 2 * math.pi * np.arange(_ROUND) / _ROUND
    return np.stack([x(t), y(t)], 1)


def _cross() -> Points:
    a, b = 0.3, 0.95
    return np.array([(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)])


def _crescent() -> Points:
    """The unit circle without a smaller one: from horn to horn along the one, and back along the other."""
    reach, away = 0.8, 0.45
    across = (1 + away**2 - reach**2) / (2 * away)  # where the circles cross
    outer, inner = math.acos(across), math.acos((across - away) / reach)
    there = np.linspace(outer, 2 * math.pi - outer, _ROUND)
    back = np.linspace(2 * math.pi - inner, inner, _ROUND)
    return np.concatenate(
        [np.stack([np.cos(there), np.sin(there)], 1), reach * np.stack([np.cos(back), np.sin(back)], 1) + [away, 0]]
    )


def _fitted(*outlines: Points) -> Outlines:
    """Moved and scaled so that the bounding circle about the middle of the box has radius 1."""
    middle = (outlines[0].max(0) + outlines[0].min(0)) / 2
    radius = np.hypot(*(outlines[0] - middle).T).max()
    return tuple((points - middle) / radius for points in outlines)


@lru_cache(maxsize=1)
def shapes() -> dict[str, Outlines]:
    """Outlines by name, `shape/NAME`."""
    heart = _curve(
        lambda t: 16 * np.sin(t) ** 3,
        lambda t: -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t),
    )
    drop = _curve(lambda t: 0.6 * np.sin(t) * np.sin(t / 2) ** 1.2, lambda t: -np.cos(t))
    found = {
        "disc": (_circle(),),
        "square": (_circle(count=4) @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2),),
        "triangle": (_circle(count=3),),
        "hexagon": (_circle(count=6),),
        "star": (_radii([1.0, 0.42] * 5),),
        "plate": (np.array([(-1.0, -0.45), (1.0, -0.45), (1.0, 0.45), (-1.0, 0.45)]),),
        "ring": (_circle(), _circle(0.55)),
        "cross": (_cross(),),
        "heart": (heart,),
        "crescent": (_crescent(),),
        "drop": (drop,),
        "gear": (_radii([1.0, 1.0, 0.76, 0.76] * 9), _circle(0.3)),
    }
    return {f"shape/{name}": _fitted(*outlines) for name, outlines in found.items()}


SHAPES = (
    "shape/disc",
    "shape/square",
    "shape/triangle",
    "shape/hexagon",
    "shape/star",
    "shape/plate",
    "shape/ring",
    "shape/cross",
    "shape/heart",
    "shape/crescent",
    "shape/drop",
    "shape/gear",
)


def coverage(name: str, centre: tuple[float, float], radius: float, turn: float, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """[height, width] for a `size` of width and height: the share of each pixel that the shape covers, of 255.

    `turn` is in radians, counter-clockwise as seen. Shares are exact along x and sampled on some lines along y.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    rotation = np.array([[cos, -sin], [sin, cos]])
    outer, *holes = (_filled(points @ rotation * radius + centre, size) for points in shapes()[name])
    share = outer - sum(holes) if holes else outer
    return np.rint(share * 255).astype(np.uint8)


def _filled(points: Points, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """[height, width]: the share that a polygon without crossings covers.

    Where its outline crosses a line, what is to the right goes from outside to inside or back: a step, which is summed along x.
    """
    width, height = size
    x, y = points.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    lines = (np.arange(height * _LINES)[:, None] + 0.5) / _LINES
    row, edge = np.nonzero((y <= lines) != (next_y <= lines))
    slope = (next_x - x)[edge] / (next_y - y)[edge]
    at = np.clip(x[edge] + (lines[row, 0] - y[edge]) * slope, 0, width)
    column = np.floor(at).astype(np.intp)
    step, rest = np.sign(next_y - y)[edge], at - column
    place, places = row * (width + 2) + column, height * _LINES * (width + 2)
    steps = np.bincount(place, step * (1 - rest), places) + np.bincount(place + 1, step * rest, places)
    inside = np.abs(steps.reshape(height, _LINES, width + 2).cumsum(-1))
    return inside[..., :width].mean(1)
