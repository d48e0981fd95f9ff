"""How long views take here and now: by stage on one core, and from worker processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from selfsight import device as devices
from selfsight.data import photometry
from selfsight.data.decode import Pixels, UndecodableError
from selfsight.data.draws import Indices
from selfsight.data.loader import view_batches
from selfsight.data.multicrop import cut_views, plan_views
from selfsight.data.opening import OpenedImage, open_image
from selfsight.data.sources import Source
from selfsight.data.views import ViewSettings

_TOGETHER = 16
_WARM_UP = 4
_SECONDS = 1.5


class Stages(NamedTuple):
    """Seconds an image: bytes from the source, decoding, drawing and cutting all views, their colours; and of how many images."""

    read: float
    decode: float
    crop: float
    photometry: float
    images: int


def stage_seconds(
    source: Source, samples: Sequence[int] | Indices, settings: ViewSettings, seed: int, device: torch.device
) -> Stages:
    """Time the stages on one thread, the colours on `device`. Samples that cannot be read are left out."""
    with one_thread():
        _pass(source, samples[:_WARM_UP], settings, seed, device)
        parts = [
            _pass(source, samples[start : start + _TOGETHER], settings, seed, device)
            for start in range(0, len(samples), _TOGETHER)
        ]
    images = sum(part.images for part in parts)
    read, decode, crop, colours = (sum(part[stage] for part in parts) / max(1, images) for stage in range(4))
    return Stages(read, decode, crop, colours, images)


def worker_speed(
    source: Source, settings: ViewSettings, *, batch_size: int, seed: int, workers: int, finish: bool, one: float
) -> float:
    """Images/s that so many workers deliver once all are at work, or this process alone where there are none.

    `one` is about what a single worker makes a second: it says how many batches are enough.
    """
    processes = max(1, workers)
    count = int(min(400, max(2, _SECONDS * one / batch_size))) * processes
    crew = view_batches(source, settings, batch_size=batch_size, seed=seed, workers=workers, finish=finish)
    images, start = 0, 0.0
    with one_thread():
        for number, batch in enumerate(crew.items(0, processes + count)):
            # Each worker has made one batch by now: starting the processes is no part of a training's pace.
            if number == processes - 1:
                start = time.perf_counter()
            elif number >= processes:
                images += batch.size
        return images / (time.perf_counter() - start)


@contextmanager
def one_thread() -> Iterator[None]:
    """What a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Timed:
    """An image that adds up the seconds in which it is decoded."""

    def __init__(self, image: OpenedImage) -> None:
        self.width, self.height = image.width, image.height
        self.seconds = 0.0
        self._image = image

    def pixels(self, shrink: int = 1) -> Pixels:
        start = time.perf_counter()
        try:
            return self._image.pixels(shrink)
        finally:
            self.seconds += time.perf_counter() - start


def _pass(source: Source, samples: Sequence[int] | Indices, settings: ViewSettings, seed: int, device: torch.device) -> Stages:
    """Seconds of each stage in all, over samples whose views are finished together."""
    images: list[_Timed] = []
    indices: list[int] = []
    read = opened = 0.0
    for index in (int(sample) for sample in samples):
        start = time.perf_counter()
        try:
            data = source.image_bytes(index)
            got = time.perf_counter()
            images.append(_Timed(open_image(data, settings.read)))
        except (OSError, UndecodableError):
            continue
        indices.append(index)
        read, opened = read + got - start, opened + time.perf_counter() - got
    if not images:
        return Stages(0.0, 0.0, 0.0, 0.0, 0)
    start = time.perf_counter()
    views = cut_views(images, plan_views(images, indices, seed, 0, settings), settings)
    cut = time.perf_counter()
    decode = sum(image.seconds for image in images)
    for crops, draws in zip(views.crops, views.draws or (), strict=False):
        photometry.apply(crops.to(device), draws, settings)
    devices.synchronize(device)
    return Stages(read, opened + decode, cut - start - decode, time.perf_counter() - cut, len(images) - len(views.failed))
