"""Which part of a mixture each position of an epoch goes to: a pure function, without a table.

An epoch is cut into stretches of 1024 positions and a shorter last one. Each stretch gives a part the same whole number of
positions; what is left over of the part's due is dealt like cards, one to a stretch and on to the next, and the next part goes
on where this one stopped. So a part has its share of every stretch to within one, and of the epoch exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from selfsight.data.draws import Indices, permuted

STRETCH = 1024
_PLACES = -2  # streams of the order within stretches: the orders of samples have those from 0


class Dealing:
    """`count` positions an epoch, dealt to parts by `weights`; `totals` is what each gets."""

    def __init__(self, count: int, weights: Sequence[int | float]) -> None:
        self.totals = shares(count, weights)
        self._full, rest = divmod(count, STRETCH)
        borders = np.concatenate([[0], np.cumsum(self.totals)])
        last = np.diff(borders * rest // count)
        self._each, over = np.divmod(self.totals - last, max(1, self._full))
        self._cards = np.concatenate([[0], np.cumsum(over)])

    def before(self, stretch: int) -> Indices:
        """How many positions each part gets before this stretch."""
        if stretch > self._full:
            return self.totals
        rounds, more = np.divmod(self._cards, max(1, self._full))
        return self._each * stretch + np.diff(rounds * stretch + np.minimum(more, stretch))

    def at(self, seed: int, epoch: int, positions: Indices) -> tuple[Indices, Indices]:
        """(part, how many positions the part had before in this epoch) of each position."""
        part, turn = np.empty(len(positions), dtype=np.int64), np.empty(len(positions), dtype=np.int64)
        stretches = positions // STRETCH
        for stretch in np.unique(stretches).tolist():
            here = stretches == stretch
            had = self.before(stretch)
            ends = np.cumsum(self.before(stretch + 1) - had)
            place = permuted(seed, epoch, _PLACES - stretch, int(ends[-1]), positions[here] - stretch * STRETCH)
            part[here] = owner = np.searchsorted(ends, place, side="right")
            turn[here] = had[owner] + place - np.concatenate([[0], ends])[owner]
        return part, turn


def shares(count: int, weights: Sequence[int | float]) -> Indices:
    """`count` things shared by weight, each share rounded up or down."""
    exact = [Fraction(weight) for weight in weights]
    borders = [round(count * sum(exact[: number + 1]) / sum(exact)) for number in range(len(exact))]
    return np.diff([0, *borders]).astype(np.int64)
