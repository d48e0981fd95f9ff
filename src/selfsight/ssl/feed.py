"""Batches of views on the device that trains: one ahead of the step, and timed, so that waiting is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from selfsight.data.draws import Indices
from selfsight.data.loader import ViewBatch, view_batches
from selfsight.data.sources import BadImage, Source
from selfsight.ssl.batch import Batch, Masks
from selfsight.ssl.masking import hidden_patches
from selfsight.ssl.mixing import mix
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.world import BY_ITSELF, World

_LOOK_EVERY = 50
_MUCH = 0.1


class Fed(NamedTuple):
    """A batch on the device (None where not one image could be read), what could not be read, the seconds waited for it, and
    which samples [B] are in it."""

    batch: Batch | None
    bad: list[BadImage]
    wait: float
    samples: Indices


class Feed:
    """What a training eats. On an accelerator workers are added while it waits for more than a tenth of its time."""

    def __init__(self, source: Source, settings: TrainSettings, device: torch.device, world: World = BY_ITSELF) -> None:
        self.device, self.settings, self.source, self.cores = device, settings, source, world.cores
        self.crew = view_batches(
            source,
            settings.views,
            batch_size=settings.batch_size,
            seed=settings.seed,
            workers=settings.workers,
            finish=device.type == "cpu",
            share=world.share,
            pin=device.type == "cuda",
        )

    def batches(self, start: int, stop: int) -> Iterator[Fed]:
        """The batches of steps `start` to `stop`."""
        items = self._ahead(self.crew.items(start, stop), start) if self.device.type == "cuda" else self._finished(start, stop)
        began, waited, count = time.perf_counter(), 0.0, 0
        before = began
        for made, batch in items:
            now = time.perf_counter()
            waited, count = waited + now - before, count + 1
            yield Fed(batch, made.bad, now - before, made.samples)
            before = time.perf_counter()
            if count == _LOOK_EVERY:
                if self.device.type != "cpu":
                    self.crew.workers = more_workers(self.crew.workers, waited / (before - began), self.cores)
                began, waited, count = before, 0.0, 0

    def _finished(self, start: int, stop: int) -> Iterator[tuple[ViewBatch, Batch | None]]:
        for step, made in enumerate(self.crew.items(start, stop), start):
            yield made, self._batch(made, step)

    def _batch(self, made: ViewBatch, step: int) -> Batch | None:
        if not made.size:
            return None
        s = self.settings
        views = made.finished(self.device, s.views)
        detail = None if s.views.gram_size is None else views.pop()
        labels = labels_at(self.source, made.samples, self.device)
        mixing = s.objective.mixing
        if labels is not None and mixing is not None and mixing.on:
            classes, rank = len(self.source.classes), int(made.places[0])
            views, labels = mix(mixing, views, labels, classes, s.seed, step, rank)
        return Batch(views, made.size, draw_masks(s, views[0], step, made.places), labels, detail)

    def _ahead(self, batches: Iterator[ViewBatch], start: int) -> Iterator[tuple[ViewBatch, Batch | None]]:
        """Copy and colour the next batch on a stream of its own while the present one is trained on."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        ready: tuple[ViewBatch, Batch | None] | None = None
        for step, made in enumerate(batches, start):
            with torch.cuda.stream(stream):
                batch = self._batch(made, step)
            if ready is not None:
                yield ready
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(stream)
            for tensor in () if batch is None else batch.tensors():
                tensor.record_stream(current)
            ready = made, batch
        if ready is not None:
            yield ready


def labels_at(source: Source, samples: Indices, on: torch.device) -> Tensor | None:
    """Labels [B] int64 of some samples, or their sets [B, classes] float32; None where they have none."""
    if source.label_sets is not None:
        return torch.from_numpy(source.label_sets[samples]).float().to(on)
    return None if source.labels is None else torch.from_numpy(source.labels[samples]).to(on)


def draw_masks(s: TrainSettings, view: Tensor, step: int, places: Indices) -> Masks | None:
    """Masks of the global views [2B, C, S, S] of the samples at `places` of the whole batch, if the objective hides patches."""
    if s.objective.masking is None:
        return None
    grid = (view.shape[2] // s.patch_size, view.shape[3] // s.patch_size)
    return Masks.of(hidden_patches(s.objective.masking, grid, s.seed, step, places, s.batch_size)).to(view.device)


def more_workers(workers: int, wait_share: float, cores: int) -> int:
    """Half as many again while the training waits for more than a tenth of its time, up to all cores but its own."""
    if wait_share <= _MUCH:
        return workers
    return max(workers, min(cores - 1, workers + max(1, workers // 2)))
