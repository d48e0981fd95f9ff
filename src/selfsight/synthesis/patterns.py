"""Patterns of surfaces: functions of the place, u and v in periods.

As such they take values between -1 and 1. `evened` gives each of them the same mean and deviation, so that what has one pattern
is neither brighter nor of more contrast than what has another, and a network cannot tell them by that alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Rng: TypeAlias = np.random.Generator


def _stripes(u: Floats, v: Floats, rng: Rng) -> Floats:
    return np.tanh(2 * np.sin(2 * math.pi * u))


def _checks(u: Floats, v: Floats, rng: Rng) -> Floats:
    return np.tanh(4 * np.sin(math.pi * u) * np.sin(math.pi * v))


def _dots(u: Floats, v: Floats, rng: Rng) -> Floats:
    row = np.round(v)
    du, dv = u - 0.5 * (row % 2), v - row
    du = du - np.round(du)
    return np.tanh(8 * (0.3 - np.hypot(du, dv)))


def _rings(u: Floats, v: Floats, rng: Rng) -> Floats:
    return np.tanh(2 * np.sin(2 * math.pi * np.hypot(u, v)))


def _grid(u: Floats, v: Floats, rng: Rng) -> Floats:
    edge = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)))
    return np.tanh(12 * (0.16 - edge))


def _zigzag(u: Floats, v: Floats, rng: Rng) -> Floats:
    tooth = np.abs((v / 2) % 1 - 0.5) * 2
    return np.tanh(2 * np.sin(2 * math.pi * (u + tooth)))


def _bricks(u: Floats, v: Floats, rng: Rng) -> Floats:
    row = np.floor(v)
    along = u / 2 + 0.5 * (row % 2)
    edge = np.minimum(2 * np.abs(along - np.round(along)), np.abs(v - np.round(v)))
    return np.tanh(12 * (edge - 0.14))


def _cells(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Walls of Voronoi cells: where the two nearest of many points are equally far."""
    reach = max(float(np.abs(u).max()), float(np.abs(v).max())) + 1
    points = rng.uniform(-reach, reach, (int(1.2 * (2 * reach) ** 2), 2))
    distance = np.hypot(u[..., None] - points[:, 0], v[..., None] - points[:, 1])
    nearest = np.partition(distance, 1, axis=-1)
    return np.tanh(8 * (nearest[..., 1] - nearest[..., 0] - 0.18))


PATTERNS: dict[str, Callable[[Floats, Floats, Rng], Floats]] = {
    "bricks": _bricks,
    "cells": _cells,
    "checks": _checks,
    "dots": _dots,
    "grid": _grid,
    "rings": _rings,
    "stripes": _stripes,
    "zigzag": _zigzag,
}

_LEVELS: dict[str, tuple[float, float]] = {
    "bricks": (0.252, 0.740),
    "cells": (0.057, 0.706),
    "checks": (0.0, 0.796),
    "dots": (-0.364, 0.644),
    "grid": (0.037, 0.749),
    "rings": (0.0, 0.802),
    "stripes": (0.0, 0.802),
    "zigzag": (0.0, 0.802),
}
"""Mean and deviation of each over many periods."""


def evened(name: str, u: Floats, v: Floats, rng: Rng) -> Floats:
    """The pattern with mean 0 and deviation 1 over many periods."""
    mean, deviation = _LEVELS[name]
    return (PATTERNS[name](u, v, rng) - mean) / deviation
