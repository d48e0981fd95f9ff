"""Samples to batches of views, in worker processes.

`view_batches` feeds a training for as many steps as asked; `windows.py` goes once through a source, for encoders. A sample
that cannot be read is left out of its batch and reported in it; nothing stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsight.data import photometry
from selfsight.data.decode import DecodeSettings, Picture, Pixels, UndecodableError, decode
from selfsight.data.draws import Indices
from selfsight.data.multichannel import decode_channels
from selfsight.data.multicrop import cut_views, finish_views, plan_views
from selfsight.data.opening import OpenedImage, open_image
from selfsight.data.sources import BadImage, Draws, Source
from selfsight.data.views import Photometry, ViewSettings
from selfsight.data.workers import PATIENCE, Crew, Work

T = TypeVar("T")
_RGB = DecodeSettings()
_AHEAD = 32
"""Steps by which a source hears beforehand what will be asked of it."""


class Share(NamedTuple):
    """Which of how many ranks this is."""

    rank: int
    ranks: int


@dataclass
class ViewBatch:
    """Views of one training batch, by size, view-major: globals [2B, 3, S, S], then locals [LB, 3, s, s] if there are any.

    uint8 with `draws` still to be applied, or finished float32 with `draws` None. `samples` [B] are indices in the source,
    `places` [B] positions in the whole batch of the step, over all ranks.
    """

    views: list[Tensor]
    draws: list[Photometry] | None
    size: int
    bad: list[BadImage] = field(default_factory=list)
    samples: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    places: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def pin_memory(self) -> ViewBatch:
        """The same in memory from which a GPU copies while it works on."""
        return replace(self, views=[v.pin_memory() for v in self.views])

    def finished(self, device: torch.device, settings: ViewSettings) -> list[Tensor]:
        """Normalised views on `device`."""
        moved = [v.to(device, non_blocking=True) for v in self.views]
        if self.draws is None:
            return moved
        return [photometry.apply(v, d, settings) for v, d in zip(moved, self.draws, strict=True)]


def batch_at(source: Source, seed: int, step: int, batch_size: int, rank: int = 0, ranks: int = 1) -> tuple[int, Draws]:
    """(epoch, draws) of a training step; the last, smaller part of an epoch is left out.

    The batch is the same for any number of ranks. Each takes an equal run of it in the order of the source, so that a rank
    reads from as few shards as can be.
    """
    per_epoch = max(1, len(source) // batch_size)
    epoch, place = divmod(step, per_epoch)
    positions = np.arange(place * batch_size, min((place + 1) * batch_size, len(source)))
    drawn = source.draws(seed, epoch, positions)
    order = np.lexsort((drawn.occurrences, drawn.indices))
    mine = order[rank * len(order) // ranks : (rank + 1) * len(order) // ranks]
    return epoch, Draws(drawn.indices[mine], drawn.occurrences[mine])


class _Steps(Work[ViewBatch]):
    """Item `step` is the whole batch of that step."""

    def __init__(self, source: Source, settings: ViewSettings, batch_size: int, seed: int, share: Share, finish: bool) -> None:
        super().__init__()
        self.source, self.settings, self.batch_size, self.seed = source, settings, batch_size, seed
        self.share, self.finish = share, finish

    def __getitem__(self, step: int) -> ViewBatch:
        epoch, drawn = batch_at(self.source, self.seed, step, self.batch_size, *self.share)
        self.source.expect(batch_at(self.source, self.seed, step + _AHEAD, self.batch_size, *self.share)[1].indices)
        images, good, bad = [], [], []
        for place, index in enumerate(drawn.indices.tolist()):
            image = self._open(index)
            if isinstance(image, BadImage):
                bad.append(image)
            else:
                images.append(image)
                good.append(place)
        if not images:
            return ViewBatch([], None, 0, bad)
        samples = drawn.indices[good]
        plan = plan_views(images, samples, self.seed, epoch, self.settings, drawn.occurrences[good])
        views = (finish_views if self.finish else cut_views)(
            [_Held(self, *pair) for pair in zip(samples, images, strict=True)], plan, self.settings
        )
        bad += [BadImage(self.source.keys[int(samples[place])], reason) for place, reason in views.failed.items()]
        kept = np.array([row for row in range(len(images)) if row not in views.failed], dtype=np.int64)
        start = self.share.rank * min(self.batch_size, len(self.source)) // self.share.ranks
        return ViewBatch(views.crops, views.draws, len(kept), bad, samples[kept], start + np.array(good)[kept])

    def _open(self, index: int) -> OpenedImage | BadImage:
        if index in self.avoid:
            return BadImage(self.source.keys[index], self.avoid[index])
        with self.holding(index):
            return open_sample(self.source, index, self.settings.read)


class _Held:
    """An image that is announced while it is decoded."""

    def __init__(self, work: _Steps, index: int, image: OpenedImage) -> None:
        self._work, self._index, self._image = work, index, image
        self.width, self.height = image.width, image.height

    def pixels(self, shrink: int = 1) -> Pixels:
        with self._work.holding(self._index):
            return self._image.pixels(shrink)


def view_batches(
    source: Source,
    settings: ViewSettings,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    finish: bool,
    share: Share | None = None,
    pin: bool = False,
    patience: float = PATIENCE,
) -> Crew[ViewBatch]:
    """The batches of a training, one an item: the same for any number of workers and from any step on, a share for each rank.

    With `finish` the workers also do the colours (for training on the CPU).
    """
    work = _Steps(source, settings, batch_size, seed, share or Share(0, 1), finish)
    return Crew(work, workers, pin=pin, patience=patience)


def open_sample(source: Source, index: int, settings: DecodeSettings = _RGB) -> OpenedImage | BadImage:
    """The sample with its size known and its pixels still to be decoded, or why it could not be had."""
    return _attempt(source, index, lambda data: open_image(data, settings))


def read_image(source: Source, index: int) -> Image.Image | BadImage:
    """The sample as an RGB picture, or why it could not be had."""
    return _attempt(source, index, decode)


def read_picture(source: Source, index: int, settings: DecodeSettings) -> Picture | BadImage:
    """The sample with as many channels as the settings say, or why it could not be had."""
    if settings.rgb:
        return _attempt(source, index, lambda data: decode(data, settings.max_pixels))
    return _attempt(source, index, lambda data: decode_channels(data, settings))


def evenly_apart(count: int, most: int) -> list[int]:
    """Numbers of at most so many of `count` samples, from the first to the last, for what is learnt from some of a set: of a set
    in order the first ones are often of one kind."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def _attempt(source: Source, index: int, read: Callable[[bytes], T]) -> T | BadImage:
    try:
        return read(source.image_bytes(index))
    except UndecodableError as error:
        return BadImage(source.keys[index], str(error))
    except OSError as error:
        return BadImage(source.keys[index], f"cannot be read ({error.strerror or error})")
