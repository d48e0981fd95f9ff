"""Samples to batches, in worker processes.

`view_batches` feeds a training for as many steps as asked; `image_batches` goes once through a source in order, for encoders.
A sample that cannot be read is left out of its batch and reported in it; nothing stops.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsight.data import photometry
from selfsight.data.decode import DecodeSettings, Picture, UndecodableError, decode
from selfsight.data.multichannel import decode_channels
from selfsight.data.multicrop import cut_views, finish_views, plan_views
from selfsight.data.opening import OpenedImage, open_image
from selfsight.data.sources import BadImage, Draws, Source
from selfsight.data.views import Photometry, ViewSettings

T = TypeVar("T")
_RGB = DecodeSettings()


@dataclass
class ViewBatch:
    """Views of one training batch, by size, view-major: globals [2B, 3, S, S], then locals [LB, 3, s, s] if there are any.

    uint8 with `draws` still to be applied, or finished float32 with `draws` None.
    """

    views: list[Tensor]
    draws: list[Photometry] | None
    size: int
    bad: list[BadImage] = field(default_factory=list)

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


class _StepDataset(Dataset[ViewBatch]):
    """Item `step` is the whole batch of that step."""

    def __init__(self, source: Source, settings: ViewSettings, batch_size: int, seed: int, finish: bool) -> None:
        self.source, self.settings, self.batch_size, self.seed, self.finish = source, settings, batch_size, seed, finish

    def __getitem__(self, step: int) -> ViewBatch:
        epoch, drawn = batch_at(self.source, self.seed, step, self.batch_size)
        images, good, bad = [], [], []
        for place, index in enumerate(drawn.indices):
            image = open_sample(self.source, int(index), self.settings.read)
            if isinstance(image, BadImage):
                bad.append(image)
            else:
                images.append(image)
                good.append(place)
        if not images:
            return ViewBatch([], None, 0, bad)
        samples = drawn.indices[good]
        plan = plan_views(images, samples, self.seed, epoch, self.settings, drawn.occurrences[good])
        views = (finish_views if self.finish else cut_views)(images, plan, self.settings)
        bad += [BadImage(self.source.keys[int(samples[place])], reason) for place, reason in views.failed.items()]
        return ViewBatch(views.crops, views.draws, len(images) - len(views.failed), bad)


def view_batches(
    source: Source, settings: ViewSettings, *, batch_size: int, seed: int, start: int, stop: int, workers: int, finish: bool
) -> Iterator[ViewBatch]:
    """Batches of the steps `start` to `stop`. With `finish` the worker also does the colours (for training on the CPU)."""
    dataset = _StepDataset(source, settings, batch_size, seed, finish)
    loader: DataLoader[ViewBatch] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_identity,
        worker_init_fn=_start_worker if workers else None,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


class _PreparedDataset(Dataset[tuple[int, Any]]):
    def __init__(self, source: Source, prepare: Callable[[Picture], Tensor], read: DecodeSettings) -> None:
        self.source, self.prepare, self.read = source, prepare, read

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[int, Tensor | BadImage]:
        image = read_picture(self.source, index, self.read)
        return index, image if isinstance(image, BadImage) else self.prepare(image)


def image_batches(
    source: Source, prepare: Callable[[Picture], Tensor], *, batch_size: int, workers: int, read: DecodeSettings = _RGB
) -> Iterator[tuple[list[int], Tensor | None, list[BadImage]]]:
    """(indices of the good samples, images [B, ...] or None if all are bad, the bad ones), once through the source in order."""
    loader: DataLoader[Any] = DataLoader(
        _PreparedDataset(source, prepare, read),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_good_and_bad,
        worker_init_fn=_start_worker if workers else None,
    )
    yield from loader


def open_sample(source: Source, index: int, settings: DecodeSettings = _RGB) -> OpenedImage | BadImage:
    """The sample with its size known and its pixels still to be decoded, or why it could not be had."""
    return _attempt(source, index, lambda data: open_image(data, settings))


def read_image(source: Source, index: int) -> Image.Image | BadImage:
    """The sample as an RGB picture, or why it could not be had."""
    return _attempt(source, index, decode)


def read_picture(source: Source, index: int, settings: DecodeSettings) -> Picture | BadImage:
    """The sample with as many channels as the settings say, or why it could not be had."""
    if settings.channels == 3:
        return _attempt(source, index, lambda data: decode(data, settings.max_pixels))
    return _attempt(source, index, lambda data: decode_channels(data, settings))


def _attempt(source: Source, index: int, read: Callable[[bytes], T]) -> T | BadImage:
    try:
        return read(source.image_bytes(index))
    except UndecodableError as error:
        return BadImage(source.keys[index], str(error))
    except OSError as error:
        return BadImage(source.keys[index], f"cannot be read ({error.strerror or error})")


def _good_and_bad(items: list[tuple[int, Tensor | BadImage]]) -> tuple[list[int], Tensor | None, list[BadImage]]:
    good = [(index, item) for index, item in items if not isinstance(item, BadImage)]
    bad = [item for _, item in items if isinstance(item, BadImage)]
    return [index for index, _ in good], torch.stack([item for _, item in good]) if good else None, bad


def _identity(item: T) -> T:
    return item


def _start_worker(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the training process alone decides what to do about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
