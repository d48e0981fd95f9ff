"""The contract of a way to find objects without a label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.attention.seeing import Seen

Bools = npt.NDArray[np.bool_]


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
        """At most `count` objects, the surest first; none where there is nothing to tell apart (a picture of one colour)."""


def box_of(mask: Bools) -> Box:
    """The least box around a mask that is not empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
