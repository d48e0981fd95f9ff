"""A look at the images before anything is derived from them."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import numpy as np

from selfsight.data.decode import DecodeSettings, Pixels, UndecodableError
from selfsight.data.loader import open_sample
from selfsight.data.sources import BadImage, Source
from selfsight.errors import DataError
from selfsight.ssl.recipes import Facts

_LOOK = 64


class Look(NamedTuple):
    """Facts for a recipe, and the samples that could not be read on the way."""

    facts: Facts
    bad: list[BadImage]


def look_at(source: Source, accelerator: bool, cores: int, read: DecodeSettings | None = None) -> Look:
    """Decode some samples of the first epoch; only if none of them is an image, all, until one is.

    `DataError` where not one sample can be read.
    """
    read = read or DecodeSettings()
    some = sorted(set(source.draws(0, 0, np.arange(min(_LOOK, len(source)))).indices.tolist()))
    looked: list[Pixels] = []
    bad: list[BadImage] = list(source.rejected)
    for place, index in enumerate([*some, *(range(len(source)) if len(some) < len(source) else [])]):
        if place >= len(some) and looked:
            break
        pixels = _pixels(source, index, read)
        bad.append(pixels) if isinstance(pixels, BadImage) else looked.append(pixels)
    if not looked:
        shown = bad[len(source.rejected)]
        raise DataError(f"{source.location}: not one of its {len(source)} images can be read; first {shown.key}: {shown.reason}")
    side = int(statistics.median(min(pixels.shape[:2]) for pixels in looked))
    facts = Facts(len(source), side, accelerator, cores, read.channels, *_spread(looked))
    return Look(facts._replace(**_classes(source)), bad)


def _classes(source: Source) -> dict[str, Any]:
    if source.label_sets is not None:
        counts = source.label_sets.sum(0).tolist()
        return {"classes": len(source.classes), "counts": tuple(counts), "multi_label": True}
    if source.labels is None:
        return {}
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes)).tolist()
    return {"classes": len(source.classes), "counts": tuple(counts)}


def _pixels(source: Source, index: int, read: DecodeSettings) -> Pixels | BadImage:
    image = open_sample(source, index, read)
    try:
        return image if isinstance(image, BadImage) else image.pixels()
    except UndecodableError as error:
        return BadImage(source.keys[index], str(error))


def _spread(looked: list[Pixels]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, white being 1."""
    means = np.stack([pixels.mean(axis=(0, 1), dtype=np.float64) for pixels in looked]) / 255
    squares = np.stack([np.square(pixels, dtype=np.float32).mean(axis=(0, 1), dtype=np.float64) for pixels in looked]) / 255**2
    mean = means.mean(0)
    deviation = np.sqrt(np.maximum(squares.mean(0) - mean**2, 1e-4))
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(deviation, 4).tolist())
