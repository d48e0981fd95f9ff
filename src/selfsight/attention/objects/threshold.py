"""The objects that the attention of CLS falls on: the smallest set of places that holds most of it, in connected parts."""

from __future__ import annotations

from scipy import ndimage

from selfsight.attention.maps import smallest_set
from selfsight.attention.objects.base import Finder, Found, box_of
from selfsight.attention.seeing import Seen

MASS = 0.6


class Threshold(Finder):
    """Mean over the heads, thresholded to the share `mass` (section 4.2.1 of Caron et al. 2021 states 0.6 and 0.8)."""

    needs_attention = True

    def __init__(self, mass: float = MASS) -> None:
        self.mass = mass

    def find(self, seen: Seen, count: int) -> list[Found]:
        """The score of a part is the share of the attention that it holds."""
        assert seen.attention is not None
        attention = seen.attention.mean(0).reshape(seen.grid)
        if attention.min() == attention.max():
            return []
        kept = smallest_set(attention.ravel(), self.mass).reshape(seen.grid)
        parts, number = ndimage.label(kept)
        found = []
        for part in range(1, number + 1):
            mask = parts == part
            found.append(Found(mask, box_of(mask), float(attention[mask].sum() / attention.sum())))
        return sorted(found, key=lambda each: -each.score)[:count]
