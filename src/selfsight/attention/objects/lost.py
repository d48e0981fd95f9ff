"""LOST (Simeoni et al. 2021): an object's places are like fewer others than those of the background are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.attention.objects.base import Bools, Box, Finder, Floats, Found, all_alike, box_of, looked_in, part_with
from selfsight.attention.seeing import Seen

Ints = npt.NDArray[np.int64]
PATCHES = 100
"""The k of the paper: the places of lowest degree among which the seed looks for its like."""


class Expanded(NamedTuple):
    """A seed and what is like it. `similars` are places, ascending; `correlation` and `mask` lie over the grid [h, w]."""

    seed: int
    similars: Ints
    correlation: Floats
    mask: Bools

    @property
    def box(self) -> Box:
        return box_of(self.mask)


class Likeness:
    """Correlations of places with one another, from features [N, D] that are not normalised (section 3.2 of the paper).

    `scores` [N] are minus the degree of each place, which is the number of others with which it correlates above zero.
    """

    def __init__(self, features: Floats, grid: tuple[int, int]) -> None:
        self.grid = grid
        self.correlations: Floats = features @ features.T
        above = self.correlations > 0
        self.scores: Floats = (above.diagonal().astype(np.int64) - above.sum(1)).astype(np.float32)

    @property
    def order(self) -> Ints:
        """Places by ascending degree; of equal ones the first, where the published code takes any."""
        return np.argsort(-self.scores, kind="stable")

    def expanded(self, seed: int, patches: int = PATCHES) -> Expanded:
        """From a seed to its object (section 3.3): the part around it of all that correlates with its like.

        Its like are those of the first `patches` in order that correlate with it above zero.
        """
        first = self.order[:patches]
        similars = np.sort(first[self.correlations[seed, first] > 0])
        correlation = self.correlations[similars].sum(0).reshape(self.grid)
        inside = correlation > 0
        mask = part_with(inside, seed) if inside.flat[seed] else np.zeros(self.grid, dtype=np.bool_)
        return Expanded(seed, similars, correlation, mask)


def lost(features: Floats, grid: tuple[int, int], patches: int = PATCHES) -> Expanded:
    """The object of a picture, from features [N, D] over its grid (`lost` of `object_discovery.py` in valeoai/LOST)."""
    likeness = Likeness(features, grid)
    return likeness.expanded(int(likeness.order[0]), patches)


class Lost(Finder):
    """The first object is that of the paper. For the next ones the seed is the place of lowest degree that no object holds yet.

    Such a seed must be like less than half of the picture, as everything is that is not background to LOST, and its object is
    what the earlier ones have left of its part. The score is the share of the picture that is unlike the seed.
    """

    def __init__(self, patches: int = PATCHES) -> None:
        self.patches = patches

    def find(self, seen: Seen, count: int) -> list[Found]:
        features = looked_in(seen)
        if all_alike(seen.keys):
            return []
        likeness = Likeness(features, seen.grid)
        if np.ptp(likeness.scores) == 0:
            return []
        free, found = np.ones(seen.grid, dtype=np.bool_), list[Found]()
        for seed in likeness.order.tolist():
            score = 1 + float(likeness.scores[seed]) / (len(features) - 1)
            if len(found) == count or (found and score < 0.5):
                break
            mask = likeness.expanded(seed, self.patches).mask & free if free.flat[seed] else None
            if mask is None or not mask.flat[seed]:
                continue
            mask = part_with(mask, seed)
            found.append(Found(mask, box_of(mask), score))
            free &= ~mask
        return found
