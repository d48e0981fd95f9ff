"""Batches of views on the device that trains: one ahead of the step, and timed, so that waiting is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from selfsight import device as devices
from selfsight.data.loader import ViewBatch, view_batches
from selfsight.data.sources import BadImage, Source
from selfsight.ssl.recipes import TrainSettings

_LOOK_EVERY = 50
_MUCH = 0.1


class Fed(NamedTuple):
    """Finished views by size, how many images they are of, what could not be read, and the seconds waited for them."""

    views: list[Tensor]
    size: int
    bad: list[BadImage]
    wait: float


class Feed:
    """What a training eats. On an accelerator workers are added while it waits for more than a tenth of its time."""

    def __init__(self, source: Source, settings: TrainSettings, device: torch.device) -> None:
        self.device, self.views = device, settings.views
        self.crew = view_batches(
            source,
            settings.views,
            batch_size=settings.batch_size,
            seed=settings.seed,
            workers=settings.workers,
            finish=device.type == "cpu",
            pin=device.type == "cuda",
        )

    def batches(self, start: int, stop: int) -> Iterator[Fed]:
        """The batches of steps `start` to `stop`."""
        items = self._ahead(self.crew.items(start, stop)) if self.device.type == "cuda" else self._finished(start, stop)
        began, waited, count = time.perf_counter(), 0.0, 0
        before = began
        for batch, views in items:
            now = time.perf_counter()
            waited, count = waited + now - before, count + 1
            yield Fed(views, batch.size, batch.bad, now - before)
            before = time.perf_counter()
            if count == _LOOK_EVERY:
                if self.device.type != "cpu":
                    self.crew.workers = more_workers(self.crew.workers, waited / (before - began), devices.cores())
                began, waited, count = before, 0.0, 0

    def _finished(self, start: int, stop: int) -> Iterator[tuple[ViewBatch, list[Tensor]]]:
        for batch in self.crew.items(start, stop):
            yield batch, batch.finished(self.device, self.views)

    def _ahead(self, batches: Iterator[ViewBatch]) -> Iterator[tuple[ViewBatch, list[Tensor]]]:
        """Copy and colour the next batch on a stream of its own while the present one is trained on."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        ready: tuple[ViewBatch, list[Tensor]] | None = None
        for batch in batches:
            with torch.cuda.stream(stream):
                views = batch.finished(self.device, self.views)
            if ready is not None:
                yield ready
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(stream)
            for view in views:
                view.record_stream(current)
            ready = batch, views
        if ready is not None:
            yield ready


def more_workers(workers: int, wait_share: float, cores: int) -> int:
    """Half as many again while the training waits for more than a tenth of its time, up to all cores but its own."""
    if wait_share <= _MUCH:
        return workers
    return max(workers, min(cores - 1, workers + max(1, workers // 2)))
