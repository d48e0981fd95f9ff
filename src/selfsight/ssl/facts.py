"""A look at the images before anything is derived from them."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, Source
from selfsight.errors import DataError
from selfsight.ssl.recipes import Facts

_LOOK = 64


class Look(NamedTuple):
    """Facts for a recipe, the samples that could not be read on the way, and the mean bytes of an encoded image."""

    facts: Facts
    bad: list[BadImage]


def look_at(source: Source, accelerator: bool, cores: int) -> Look:
    """Decode some samples spread over the source; only if none of them is an image, all, until one is.

    `DataError` where not one sample can be read.
    """
    spread = np.unique(np.linspace(0, len(source) - 1, min(_LOOK, len(source))).astype(int))
    sides: list[int] = []
    bad: list[BadImage] = list(source.rejected)
    for index in [*spread, *(range(len(source)) if len(spread) < len(source) else [])]:
        if index not in spread and sides:
            break
        image = read_image(source, int(index))
        if isinstance(image, BadImage):
            bad.append(image)
        else:
            sides.append(min(image.size))
    if not sides:
        shown = bad[len(source.rejected)]
        raise DataError(f"{source.location}: not one of its {len(source)} images can be read; first {shown.key}: {shown.reason}")
    return Look(Facts(len(source), int(statistics.median(sides)), accelerator, cores), bad)
