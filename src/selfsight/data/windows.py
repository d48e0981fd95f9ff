"""Once through a source in its order, in worker processes: prepared pictures for encoders.

A sample that cannot be read is left out of its batch and reported beside it; nothing stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsight.data.decode import DecodeSettings, Picture
from selfsight.data.loader import read_picture
from selfsight.data.sources import BadImage, Source
from selfsight.data.workers import Crew, Work

_RGB = DecodeSettings()
_RUNS = 4
"""Runs of samples among which pictures of one shape are looked for."""


class Window(NamedTuple):
    """Samples `start` to `stop` of a source, prepared.

    `batches` are (indices of samples, images [b, C, H, W]) of one shape each, indices ascending; `bad` could not be read, in
    their order. `sizes` are height and width of each picture before it was prepared, by index.
    """

    start: int
    stop: int
    batches: list[tuple[list[int], Tensor]]
    bad: list[BadImage]
    sizes: dict[int, tuple[int, int]]


class _Pictures(Work[Window]):
    """Item `number` is a run of `batch_size` samples in the order of the source, the pictures of a shape together."""

    def __init__(
        self, source: Source, prepare: Callable[[Picture], Tensor], read: DecodeSettings, batch_size: int, start: int, stop: int
    ) -> None:
        super().__init__()
        self.source, self.prepare, self.read, self.batch_size = source, prepare, read, batch_size
        self.start, self.stop = start, stop

    def __getitem__(self, number: int) -> Window:
        start = self.start + number * self.batch_size
        stop = min(self.stop, start + self.batch_size)
        found: dict[torch.Size, list[tuple[int, Tensor]]] = {}
        bad, sizes = [], {}
        for index in range(start, stop):
            made = self._prepared(index)
            if isinstance(made, BadImage):
                bad.append(made)
            else:
                image, sizes[index] = made
                found.setdefault(image.shape, []).append((index, image))
        batches = [([i for i, _ in pairs], torch.stack([image for _, image in pairs])) for pairs in found.values()]
        return Window(start, stop, batches, bad, sizes)

    def _prepared(self, index: int) -> tuple[Tensor, tuple[int, int]] | BadImage:
        if index in self.avoid:
            return BadImage(self.source.keys[index], self.avoid[index])
        with self.holding(index):
            image = read_picture(self.source, index, self.read)
            if isinstance(image, BadImage):
                return image
            height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
            return self.prepare(image), (height, width)


def image_windows(
    source: Source,
    prepare: Callable[[Picture], Tensor],
    *,
    batch_size: int,
    workers: int,
    read: DecodeSettings = _RGB,
    start: int = 0,
    stop: int | None = None,
    pin: bool = False,
) -> Iterator[Window]:
    """Once through samples `start` to `stop` of the source, window after window in order.

    A window is a run of `batch_size` samples where their pictures have one shape. Where shapes differ it is several runs, whose
    pictures are put together by shape, so that batches are not small.
    """
    stop = len(source) if stop is None else stop
    runs = Crew(_Pictures(source, prepare, read, batch_size, start, stop), workers, pin=pin).items(
        0, -(-(stop - start) // batch_size)
    )
    held: list[Window] = []
    for run in runs:
        if not held and len(run.batches) <= 1:
            yield run
            continue
        held.append(run)
        if len(held) == _RUNS:
            yield _by_shape(held, batch_size)
            held = []
    if held:
        yield _by_shape(held, batch_size)


def _by_shape(runs: list[Window], batch_size: int) -> Window:
    found: dict[torch.Size, list[tuple[list[int], Tensor]]] = {}
    for batch in (batch for run in runs for batch in run.batches):
        found.setdefault(batch[1].shape[1:], []).append(batch)
    batches = []
    for parts in found.values():
        indices, images = [i for part, _ in parts for i in part], torch.cat([images for _, images in parts])
        batches += [(indices[at : at + batch_size], images[at : at + batch_size]) for at in range(0, len(indices), batch_size)]
    sizes = {index: size for run in runs for index, size in run.sizes.items()}
    return Window(runs[0].start, runs[-1].stop, batches, [image for run in runs for image in run.bad], sizes)


def image_batches(
    source: Source, prepare: Callable[[Picture], Tensor], *, batch_size: int, workers: int, read: DecodeSettings = _RGB
) -> Iterator[tuple[list[int], Tensor | None, list[BadImage]]]:
    """(indices of the good samples, images [B, ...] or None if all are bad, the bad ones), once through the source.

    In its order, except that images of different shapes never share a batch (see `image_windows`).
    """
    for window in image_windows(source, prepare, batch_size=batch_size, workers=workers, read=read):
        if not window.batches:
            yield [], None, window.bad
        for place, (indices, images) in enumerate(window.batches):
            yield indices, images, [] if place else window.bad
