"""What every recipe is made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Facts(NamedTuple):
    """What a recipe may look at. `side` is the median of the shorter sides in pixels; `mean` and `std` are those of a channel.

    `classes` is 0 without labels; `counts` are the images of each class, with `multi_label` an image is in any number of them.
    `batch` is the one that was asked for, if any; `learns` is what is trained of a network that is fine-tuned.
    """

    images: int
    side: int
    accelerator: bool
    cores: int
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: int = 0
    batch: int | None = None
    counts: tuple[int, ...] = ()
    multi_label: bool = False
    learns: str = "all"


@dataclass(frozen=True)
class Derived:
    """One derived setting and why it has this value."""

    key: str
    value: Any
    why: str


Recipe = Callable[[Facts, str | None], list[Derived]]
"""From the facts and the backbone that was asked for, if any, to all that a training needs to know."""

SMALL_SIDE = 100
"""Images below this side in pixels are trained at their own size, with a small network where there is no accelerator."""


# Images, prototypes, final teacher temperature, teacher momentum at the start; interpolated over the logarithm of the images.
_BY_IMAGES = [
    (3_000, 128, 0.03, 0.99),
    (5_000, 256, 0.03, 0.99),
    (20_000, 1024, 0.04, 0.99),
    (50_000, 2048, 0.04, 0.99),
    (100_000, 4096, 0.04, 0.992),
    (200_000, 16384, 0.04, 0.994),
    (500_000, 32768, 0.05, 0.995),
    (1_000_000, 65536, 0.07, 0.996),
]


def channels(facts: Facts) -> list[Derived]:
    """Other than three channels: the network's first layer, and a normalisation measured on the images."""
    return [
        Derived("backbone.channels", facts.channels, f"{facts.channels} channels"),
        Derived("views.read.channels", facts.channels, "given"),
        Derived("views.mean", list(facts.mean), "measured"),
        Derived("views.std", list(facts.std), "measured"),
    ]


def interpolated(images: int) -> tuple[int, float, float]:
    if images <= _BY_IMAGES[0][0]:
        return _BY_IMAGES[0][1:]
    for low, high in itertools.pairwise(_BY_IMAGES):
        if images <= high[0]:
            share = math.log(images / low[0]) / math.log(high[0] / low[0])
            prototypes = 2 ** round(math.log2(low[1]) + share * math.log2(high[1] / low[1]))
            return prototypes, round(low[2] + share * (high[2] - low[2]), 4), round(low[3] + share * (high[3] - low[3]), 4)
    return _BY_IMAGES[-1][1:]


def fitting_batch(facts: Facts, wanted: int) -> int:
    """The wanted batch, or less, so that an epoch has at least eight steps where there are few images; the one asked for
    before all."""
    if facts.batch is not None:
        return facts.batch
    return max(1, min(wanted, 2 ** int(math.log2(max(1, facts.images / 8))), facts.images))


def multiple(size: int, patch: int) -> int:
    return max(patch, round(size / patch) * patch)
