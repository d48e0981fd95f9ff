"""What is read off each step: the row of the log, and whether the training is alive."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from selfsight import device
from selfsight.ssl.clock import Clock
from selfsight.ssl.feed import Fed
from selfsight.ssl.health import CERTAIN, CollapseWatch
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.objectives.base import Loss
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.skips import Skips
from selfsight.ssl.step import Learner, Rates
from selfsight.ssl.watcher import Watcher


class Observing:
    """Reads losses and diagnostics, logs them, shows them to `watcher`, and ends a training that is lost."""

    def __init__(
        self, settings: TrainSettings, learner: Learner, clock: Clock, on: torch.device, watcher: Watcher, skips: Skips
    ) -> None:
        self.settings, self.learner, self.clock, self.device, self.watcher = settings, learner, clock, on, watcher
        self.skips = skips
        every = 1 if on.type == "cpu" else settings.log_every
        temperature = getattr(settings.objective, "student_temperature", None)
        together = settings.batch_size // (settings.parts * learner.objective.ranks.count)
        self._new_watch = partial(CollapseWatch, window(settings, on), max(1, CERTAIN // every), temperature, together)
        self.collapse = self._new_watch()
        self.last_loss = float("nan")

    def restart(self, last_loss: float) -> None:
        """After a way back to a checkpoint: what was seen since then is no longer so."""
        self.collapse, self.last_loss = self._new_watch(), last_loss

    def observe(self, log: MetricsLog, loss: Loss | None, rates: Rates, batch: Fed) -> None:
        """Reading a number from a GPU waits for it, so there it is done only every `log_every` steps.

        `Diverged` and `CollapseError` end the training, or lead it back.
        """
        self.clock.count((0 if batch.batch is None else batch.batch.size) * self.learner.objective.ranks.count, batch.wait)
        step, every = self.learner.step, self.settings.log_every
        if loss is None:
            return
        self.skips.note(loss, batch.samples)
        if (self.device.type != "cpu" and step % every) or not self.skips.read(log):
            return
        self.last_loss = float(loss.value)
        diagnostics = {name: float(value) for name, value in loss.diagnostics.items()}
        row = self._row(step, diagnostics, rates)
        self.collapse.observe(step, row)
        if step % every == 0 or step == 1:
            log.write(row)
        self.watcher.on_step(row, self.clock.progress(step))

    def _row(self, step: int, diagnostics: dict[str, float], rates: Rates) -> dict[str, Any]:
        chance = self.learner.objective.chance
        return {
            "step": step,
            "epoch": round(step / self.settings.steps_per_epoch, 4),
            "elapsed_s": round(self.clock.elapsed, 2),
            "loss": self.last_loss,
            **({} if chance is None else {"loss_over_chance": self.last_loss / chance}),
            **diagnostics,
            "lr": rates.learning_rate,
            "weight_decay": rates.weight_decay,
            "momentum": rates.momentum,
            "rate_factor": self.learner.setbacks.rate_factor,
            "skipped": self.learner.setbacks.skipped,
            **self.learner.objective.schedule(rates.progress),
            "images_per_second": round(self.clock.images_per_second, 2),
            "wait_share": round(self.clock.wait_share, 4),
            "peak_memory_mb": round(device.peak_memory_mb(self.device), 1),
        }


def window(settings: TrainSettings, on: torch.device) -> int:
    """Observations that must all look collapsed. A step count is unknown under a time budget; 400 then, never below 100."""
    steps = Clock(settings.epochs, settings.minutes, settings.steps_per_epoch, 0.0).total_steps
    wide = max(100, round(settings.collapse_window * steps)) if steps else 400
    return wide if on.type == "cpu" else max(20, wide // settings.log_every)
