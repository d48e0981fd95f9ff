"""Is what an encoder looks at where the things are? Masks from its maps, and objects found in what it sees, against true masks.

A map is over places and the truth over pixels: each pixel takes the value of the place in which its middle lies, which is the
nearest upsampling of facebookresearch/dino. Because a mask is constant within a place, counting the pixels of each thing in
each place is all that is needed, and the same number to the last digit.

Measures, each a value between 0 and 1 a picture:

`jaccard_60`, `jaccard_80`
    The fewest places that hold 60 or 80 % of a map against each thing, averaged over the things of a picture (section 4.2.2 of
    Caron et al. 2021, DINO, which states both shares). Under `heads` a thing is given the head that fits it best, as the paper
    reports it: that choice looks at the truth. Under `attention` (the mean of the heads), `norm` (of the features) and
    `principal` (their first component) there is one map and nothing to choose.
`corloc`
    Whether the box of the one object found overlaps that of any thing by half (Deselaers et al. 2010).
`miou`
    Overlap of the mask of that object with all things together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.attention.components import fitted
from selfsight.attention.maps import smallest_set
from selfsight.attention.objects import FINDERS, box_of, in_pixels
from selfsight.attention.seeing import Seen
from selfsight.data.annotations import Annotated, union
from selfsight.masks import jaccard, located
from selfsight.results import FLOOR

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

MASSES = {"jaccard_60": 0.6, "jaccard_80": 0.8}
HEADS, CORLOC, MIOU = "heads", "corloc", "miou"
BOX_SHARE = 0.5
"""Of the picture in the centred box that is a floor. It is no result of any images."""


class Value(NamedTuple):
    """What one `method` reached on one picture."""

    method: str
    metric: str
    value: float


class Things:
    """The true things of one picture: `masks` [H, W], none of them empty, and the pixels [H, W] that `count`."""

    def __init__(self, truth: Annotated) -> None:
        self.count = ~truth.ignored
        self.shape: tuple[int, int] = (self.count.shape[0], self.count.shape[1])
        visible = (thing.mask & self.count for thing in truth.instances)
        self.masks: list[Bools] = [mask for mask in visible if mask.any()]
        self._counted: dict[tuple[int, ...], _Counts] = {}

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each thing in pixels."""
        return [box_of(mask) for mask in self.masks]

    def jaccard(self, masks: Bools) -> Doubles:
        """Masks over a grid [M, h, w] -> [O, M]: their overlap with each thing at the size of the picture."""
        return self._counts(masks.shape[1:]).overlaps(masks)[:-1]

    def together(self, mask: Bools) -> float:
        """A mask over a grid [h, w] against all things as one."""
        return float(self._counts(mask.shape).overlaps(mask[None])[-1, 0])

    def place(self, grid: tuple[int, int]) -> tuple[float, float]:
        """Height and width of one place in pixels."""
        return self.shape[0] / grid[0], self.shape[1] / grid[1]

    def blind(self, mask: Bools) -> tuple[float, float]:
        """A mask at the size of the picture [H, W]: its overlap with each thing in the mean, and that with all as one."""
        counted = mask & self.count
        each = [float(jaccard(counted, thing)) for thing in self.masks]
        return float(np.mean(each)), float(jaccard(counted, union(self.masks, self.shape)))

    def _counts(self, grid: tuple[int, ...]) -> _Counts:
        if grid not in self._counted:
            self._counted[grid] = _Counts.of([*self.masks, union(self.masks, self.shape)], self.count, grid)
        return self._counted[grid]


class _Counts(NamedTuple):
    """Pixels of each region in each place, `held` [R, N], and all that count, `whole` [N]."""

    held: Doubles
    whole: Doubles

    @classmethod
    def of(cls, regions: Sequence[Bools], count: Bools, grid: tuple[int, ...]) -> _Counts:
        return cls(np.stack([_pixels_in(region, grid) for region in regions]), _pixels_in(count, grid))

    def overlaps(self, masks: Bools) -> Doubles:
        """Masks over the grid [M, h, w] -> Jaccard [R, M]; regions are not empty."""
        chosen = masks.reshape(len(masks), -1).T.astype(np.float64)
        both = self.held @ chosen
        return np.asarray(both / (self.held.sum(1)[:, None] + self.whole @ chosen - both))


def values(seen: Seen, things: Things) -> Iterator[Value]:
    """What every method reaches that can be had of what an encoder saw."""
    if seen.attention is not None:
        for metric, mass in MASSES.items():
            heads = kept(seen.attention, mass).reshape(-1, *seen.grid)
            yield Value(HEADS, metric, float(things.jaccard(heads).max(1).mean()))
    for method, places in maps_of(seen).items():
        for metric, mass in MASSES.items():
            mask = kept(places, mass).reshape(1, *seen.grid)
            yield Value(method, metric, float(things.jaccard(mask).mean()))
    for method, finder in FINDERS.items():
        if seen.attention is None and finder.needs_attention:
            continue
        corloc, miou = 0.0, 0.0
        for found in finder().find(seen, 1):
            box = in_pixels(found.box, things.place(seen.grid), things.shape)
            corloc, miou = float(located(box, things.boxes)), things.together(found.mask)
        yield Value(method, CORLOC, corloc)
        yield Value(method, MIOU, miou)


def maps_of(seen: Seen) -> dict[str, Doubles]:
    """One map [N] over the places for each method that needs none of the truth; none of them has a negative value."""
    made = {name: draw(seen) for name, draw in MAPS.items()}
    return {name: places for name, places in made.items() if places is not None}


def own_map(seen: Seen) -> str:
    """The map that stands for an encoder where kinds differ: attention where there is a CLS, else the norm of its features."""
    return "norm" if seen.attention is None else "attention"


def kept(places: npt.NDArray[np.floating], mass: float) -> Bools:
    """`smallest_set` of maps [..., N]; of a map that is zero everywhere, nothing."""
    weights = np.asarray(places, dtype=np.float64)
    blank = weights.sum(-1, keepdims=True) <= 0
    return smallest_set(np.where(blank, 1.0, weights), mass) & ~blank


def floors(things: Things) -> Mapping[str, list[Value]]:
    """What is reached without looking: by the whole picture, and by a box in its middle that has half of its area."""
    height, width = things.shape
    inset = (1 - BOX_SHARE**0.5) / 2
    top, left = round(height * inset), round(width * inset)
    box = np.zeros(things.shape, dtype=np.bool_)
    box[top : height - top, left : width - left] = True
    return {"centred box": _blind(box, things), "whole picture": _blind(np.ones_like(box), things)}


def _blind(mask: Bools, things: Things) -> list[Value]:
    each, together = things.blind(mask)
    return [
        *(Value(FLOOR, metric, each) for metric in MASSES),
        Value(FLOOR, CORLOC, float(located(box_of(mask), things.boxes))),
        Value(FLOOR, MIOU, together),
    ]


def _attention(seen: Seen) -> Doubles | None:
    return None if seen.attention is None else seen.attention.mean(0, dtype=np.float64)


def _norm(seen: Seen) -> Doubles:
    return np.linalg.norm(seen.patches.astype(np.float64), axis=1)


def _principal(seen: Seen) -> Doubles:
    """The first component of a picture's own features, from its lowest place on; its border lies low."""
    along = fitted([(seen.patches, seen.grid)]).along(seen.patches).astype(np.float64)
    return np.asarray(along - along.min())


MAPS: dict[str, Callable[[Seen], Doubles | None]] = {"attention": _attention, "norm": _norm, "principal": _principal}


def _pixels_in(region: Bools, grid: tuple[int, ...]) -> Doubles:
    """[h * w]: how many pixels of a region [H, W] have their middle in each place of a grid.

    Row of places by row of places, so that nothing as large as the picture is made; a place may be less than a pixel.
    """
    rows, columns = (_edges(*pair) for pair in zip(region.shape, grid, strict=True))
    bands = np.array([np.count_nonzero(region[top:bottom], axis=0) for top, bottom in pairwise(rows)])
    to_the_left = np.pad(np.cumsum(bands, axis=1), ((0, 0), (1, 0)))
    return np.diff(to_the_left[:, columns], axis=1).reshape(-1).astype(np.float64)


def _edges(pixels: int, places: int) -> npt.NDArray[np.intp]:
    """[places + 1]: along one side the first pixel whose middle lies in each place, and how many pixels there are."""
    place_of = (2 * np.arange(pixels) + 1) * places // (2 * pixels)
    return np.searchsorted(place_of, np.arange(places + 1))
