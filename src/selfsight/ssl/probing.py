"""The probe of a training: what the teacher's features are worth, every epoch or so."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from selfsight.ssl.clock import Clock
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.signals import Stop
from selfsight.ssl.step import Learner
from selfsight.ssl.watcher import Watcher
from selfsight.ssl.world import BY_ITSELF, World

Embed = Callable[[Tensor], Tensor]
"""Normalised images [B, C, H, W] to the teacher's summaries [B, D]."""
Probe = Callable[[Embed], dict[str, float]]
"""Measures the teacher: names to numbers, such as `knn_top1` and `rankme`."""


class Probing:
    """Probes the teacher, logs what comes out and shows it to `watcher`."""

    def __init__(
        self,
        probe: Probe | None,
        settings: TrainSettings,
        learner: Learner,
        clock: Clock,
        watcher: Watcher,
        world: World = BY_ITSELF,
    ) -> None:
        self.world = world
        self.probe, self.settings, self.learner, self.clock, self.watcher = probe, settings, learner, clock, watcher
        self._at, self._values = -1, dict[str, float]()
        self._time, self._next = time.monotonic(), self._next_step()

    @property
    def look(self) -> Embed:
        """What of the teacher is measured."""
        return self.learner.embed

    @property
    def enough(self) -> bool:
        """Whether what was measured ends the training."""
        return False

    def begin(self, log: MetricsLog, stop: Stop) -> None:
        """Before the first step of this process."""
        if self.learner.step == 0:
            self.measure(log, stop)

    def restart(self) -> None:
        """After a way back to a checkpoint: the same step is another state."""
        self._at = -1

    def if_due(self, log: MetricsLog, stop: Stop) -> None:
        # Quick epochs would spend more time on the probe than on training, so it also keeps a distance in time.
        step = self.learner.step
        if step >= self._next and self.world.said(time.monotonic() - self._time - self.clock.total_guess(step) / 40) >= 0:
            self.measure(log, stop)
            self._time, self._next = time.monotonic(), self._next_step()

    def measure(self, log: MetricsLog, stop: Stop) -> dict[str, float]:
        """The values at the present step, measured once. It changes nothing, so a signal need not wait for its end."""
        if self.probe is None or self._at == self.learner.step:
            return self._values
        teacher = self.learner.teacher.eval()
        try:
            with torch.no_grad(), stop.at_once():
                values = self.probe(self.look)
        finally:
            teacher.train()
        if not values:
            return {}
        row = {"step": self.learner.step, "epoch": round(self.learner.step / self.settings.steps_per_epoch, 4)}
        row |= {"elapsed_s": round(self.clock.elapsed, 2), **values}
        log.write(row)
        self.watcher.on_probe(row)
        self._at, self._values = self.learner.step, values
        return values

    def _next_step(self) -> int:
        return self.learner.step + max(1, round(self.settings.probe_every_epochs * self.settings.steps_per_epoch))
