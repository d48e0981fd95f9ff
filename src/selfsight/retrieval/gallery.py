"""A set of images as features, wherever these come from: computed, from the cache, or read from a file of features."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from selfsight.data.sources import BadImage, Source, absolute, open_source
from selfsight.data.sources.indexed import file_mark
from selfsight.data.tolerance import Tolerance
from selfsight.encoders import Encoder, extract
from selfsight.retrieval.features_file import FeaturesFile, Gathered, is_features_file
from selfsight.retrieval.pictures import Pictures
from selfsight.retrieval.store import Origin, state_of


class Reading(NamedTuple):
    """How images are read and encoded; `progress` hears (what, done, total), `say` a remark."""

    device: torch.device
    batch_size: int
    workers: int
    tolerance: Tolerance
    progress: Callable[[str, int, int], None]
    say: Callable[[str], None]


@dataclass(frozen=True)
class Gallery:
    """`origin` gets the features; `pictures` are there where the images are; `rejected` are files that are no images."""

    name: str
    origin: Origin
    pictures: Pictures
    rejected: Sequence[BadImage] = ()


def open_gallery(data: str | Path, encoder: Encoder, reading: Reading, images: str | Path | None = None) -> Gallery:
    """`data` is a source of images, or a file of features of this encoder, whose images are in `images`, or where they were.

    Nothing is encoded yet. Raises `DataError` for what is neither, and for features of another encoder.
    """
    if is_features_file(data):
        file = FeaturesFile(data).matched(encoder.spec, encoder.fingerprint)
        state = file_mark(os.fsencode(data)).decode()
        origin = Origin(absolute(str(data)), encoder.spec, encoder.fingerprint, state, file.read)
        images = images or file.images
        return Gallery(str(data), origin, Pictures(None if images is None else open_source(images), encoder.read))
    source = open_source(data)
    state = state_of(source, encoder.read)
    origin = Origin(absolute(str(data)), encoder.spec, encoder.fingerprint, state, lambda: _encoded(encoder, source, reading))
    pictures = Pictures(source if images is None else open_source(images), encoder.read)
    return Gallery(str(data), origin, pictures, source.rejected)


def _encoded(encoder: Encoder, source: Source, reading: Reading) -> Gathered:
    def report(done: int, total: int, remark: str) -> None:
        reading.progress(encoder.spec, done, total)
        if remark:
            reading.say(remark)

    found = extract(
        encoder,
        source,
        device=reading.device,
        batch_size=reading.batch_size,
        workers=reading.workers,
        tolerance=reading.tolerance,
        progress=report,
    )
    keys = [source.keys[i] for i in found.indices.tolist()]
    labels = None if source.labels is None else [source.classes[label] for label in source.labels[found.indices].tolist()]
    return Gathered(found.vectors, keys, labels, tuple(found.bad))
