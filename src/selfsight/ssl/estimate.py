"""How long a training will take and how much it will write, measured on a few throwaway steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsight import device
from selfsight.data import photometry
from selfsight.data.loader import open_sample
from selfsight.data.multicrop import cut_views, plan_views
from selfsight.data.sources import BadImage, Source
from selfsight.ssl.batch import Batch
from selfsight.ssl.feed import draw_masks, labels_at
from selfsight.ssl.learner import make_learner
from selfsight.ssl.objectives import Guide
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.step import rates_at, train_step
from selfsight.ssl.world import BY_ITSELF, World

_STEPS = 3


class Estimate(NamedTuple):
    """Seconds a step, steps and seconds in all, bytes that the run folder will hold, and what a step takes without waiting."""

    step_seconds: float
    steps: int
    seconds: float
    disk_bytes: int
    network_seconds: float


def estimate(
    settings: TrainSettings,
    source: Source,
    world: World = BY_ITSELF,
    start: Mapping[str, Tensor] | None = None,
    guide: Guide | None = None,
) -> Estimate:
    """Time real steps on real views with networks that are then thrown away."""
    on = world.device(settings.device)
    torch.set_num_threads(world.threads(settings.threads))
    learner = make_learner(settings, on, world, start, guide)
    data_seconds, batch = sample_batch(settings, source, on, settings.batch_size // world.count)
    times = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        rates = rates_at(0.5, 100, settings.optimizer, settings.teacher_momentum)
        train_step(learner, batch, rates, settings.optimizer.clip, settings.precision, settings.parts)
        device.synchronize(on)
        times.append(time.perf_counter() - began)
    network = min(times[1:])
    # Workers prepare views beside the network; without any, or with too few, the longer of the two sets the pace.
    step = network + data_seconds if settings.workers == 0 else max(network, data_seconds / settings.workers)
    steps = round((settings.epochs or 0) * settings.steps_per_epoch) or max(1, int((settings.minutes or 0) * 60 / step))
    numbers = sum(p.numel() for p in learner.student.parameters())
    # Student, teacher and two moments in the checkpoint, the teacher again by itself, and a line of metrics a few steps.
    disk = 4 * numbers * (5 if settings.init is None else 6) + 600 * (steps // settings.log_every)
    return Estimate(step, steps, steps * step, disk, network)


def sample_batch(settings: TrainSettings, source: Source, on: torch.device, wanted: int) -> tuple[float, Batch]:
    """Seconds to make one batch, and the batch (images repeated where few can be read)."""
    start = time.perf_counter()
    spread = np.linspace(0, len(source) - 1, min(wanted, len(source))).astype(int)
    read = settings.views.read
    images = [i for i in (open_sample(source, int(index), read) for index in spread) if not isinstance(i, BadImage)]
    if not images:  # the few looked at here are all bad; those found readable before are elsewhere
        everything = (open_sample(source, index, read) for index in range(len(source)))
        images = [next(i for i in everything if not isinstance(i, BadImage))]
    images = (images * wanted)[:wanted]
    made = cut_views(images, plan_views(images, range(wanted), settings.seed, 0, settings.views), settings.views)
    views = [photometry.apply(v.to(on), d, settings.views) for v, d in zip(made.crops, made.draws or (), strict=True)]
    labels = labels_at(source, np.resize(spread, wanted), on)
    masks = draw_masks(settings, views[0], 0, np.arange(wanted))
    return time.perf_counter() - start, Batch(views, wanted, masks, labels)
