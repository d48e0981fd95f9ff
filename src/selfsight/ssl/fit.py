"""A whole training: from settings and a source to a run folder.

The weights to start from, the encoder to follow, the k-NN probe and whoever watches are passed in; this room knows neither
encoders nor tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from selfsight import config, device, runs
from selfsight.data.sources import BadImage, Source
from selfsight.data.tolerance import BadImages, TooManyBadError
from selfsight.errors import DataError, Interrupted
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.feed import Fed, Feed
from selfsight.ssl.learner import make_learner
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.objectives.base import Guide, Loss
from selfsight.ssl.observing import Observing
from selfsight.ssl.probing import Probe, Probing
from selfsight.ssl.rollback import rewind, roll_back
from selfsight.ssl.saving import Saving, restore_newest
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.signals import Asked, Stop
from selfsight.ssl.skips import Diverged, Skips
from selfsight.ssl.step import Learner, Rates, rates_at, train_step
from selfsight.ssl.validating import Validating
from selfsight.ssl.watcher import Watcher
from selfsight.ssl.world import BY_ITSELF, World

_BETWEEN_RANKS = 7_919_000_003
"""Ranks draw stochastic depth apart: each has samples of its own."""


class Training:
    """One training in one run folder; `run()` ends with `teacher.safetensors` written."""

    def __init__(
        self,
        settings: TrainSettings,
        source: Source,
        folder: runs.RunFolder,
        *,
        probe: Probe | None,
        watcher: Watcher,
        resume: bool,
        world: World = BY_ITSELF,
        start: Mapping[str, Tensor] | None = None,
        guide: Guide | None = None,
    ) -> None:
        self.settings, self.source, self.folder, self.world = settings, source, folder, world
        self.start, self.guide = start, guide
        self.device = world.device(settings.device)
        torch.set_num_threads(world.threads(settings.threads))
        self.say = watcher.say
        self.learner = self._fresh()
        for place in (folder.path, folder.checkpoint.parent) if world.leads else ():
            runs.remove_leftovers(place)
        restored = restore_newest(folder, self.learner, watcher.say, world) if resume else None
        elapsed = 0.0 if restored is None else restored.elapsed
        self.clock = Clock(settings.epochs, settings.minutes, settings.steps_per_epoch, elapsed)
        where, known = source.location, source.rejected
        self.bad = BadImages(folder.bad_images, settings.tolerance, len(source), where, known, writes=world.leads)
        self.skips = Skips(folder, source, self.learner, settings.steps_per_epoch, writes=world.leads)
        self.observing = Observing(settings, self.learner, self.clock, self.device, watcher, self.skips)
        about = {"data": source.location, "recipe": settings.recipe}
        self.probing, leave = self._looks(probe, watcher, resumed=restored is not None)
        self.saving = Saving(folder, self.learner, self.clock, settings.save_every_minutes, about, restored, world, leave)
        world.wait()  # all have read the folder before the first rank writes to it
        self.observing.last_loss = self._rewind(self.learner.step if resume else -1)

    def _looks(self, probe: Probe | None, watcher: Watcher, *, resumed: bool) -> tuple[Probing, Callable[[], None] | None]:
        """What looks at the teacher on the way; and what leaves its weights where they are not those of the last step."""
        given = (probe, self.settings, self.learner, self.clock, watcher, self.world)
        if self.settings.finetune is None:
            return Probing(*given), None
        validating = Validating(*given, self.folder, self.settings.finetune, resumed=resumed)
        return validating, validating.leave

    def _fresh(self) -> Learner:
        """The state before the first step."""
        return make_learner(self.settings, self.device, self.world, self.start, self.guide)

    def _rewind(self, step: int) -> float:
        """The last loss logged; rows past `step` would be logged twice."""
        return self.world.first(lambda: rewind(self.folder, step, self.learner.setbacks.rollbacks))

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget; returns a summary. `Interrupted`, `CollapseError` and `NonFiniteError` end it early."""
        if not self.world.first(lambda: self.folder.exists):
            self._describe()
        with (
            Stop(alone=self.world.count == 1) as stop,
            MetricsLog(self.folder, self.learner.step, writes=self.world.leads) as log,
        ):
            self.clock.start()
            try:
                self.probing.begin(log, stop)
                while not (self.probing.enough or self.world.said(self.clock.finished(self.learner.step))):
                    try:
                        self._go_on(log, stop)
                    except Diverged as diverged:
                        self._roll_back(log, diverged)
                final = self.probing.measure(log, stop)
            except Asked as asked:
                raise self._interrupted(asked) from None
            self.saving.save()
        return {
            "step": self.learner.step,
            "elapsed_s": self.clock.elapsed,
            "loss": self.observing.last_loss,
            "peak_memory_mb": round(device.peak_memory_mb(self.device), 1),
            "bad_images": len(self.bad),
            "skipped_steps": self.learner.setbacks.skipped,
            **final,
        }

    def _go_on(self, log: MetricsLog, stop: Stop) -> None:
        """Train to the end of the budget."""
        for batch in stop.waiting(self._batches()):
            loss, rates = self._step(batch)
            self.observing.observe(log, loss, rates, batch)
            finished = self.clock.finished(self.learner.step)
            signal, over = self.world.highest(stop.signal or 0, finished and self.world.leads)
            due = self.saving.due()
            if signal or due:
                self.skips.read(log)  # what is not yet read belongs into the checkpoint
            if signal:
                raise Asked(int(signal))
            # Weights that the last step could not use may be what is wrong with it: they take no good checkpoint's place.
            if due and not self.learner.setbacks.in_a_row:
                self.saving.save()
            self.probing.if_due(log, stop)
            if over or self.probing.enough:
                break
        self.skips.read(log)

    def _interrupted(self, asked: Asked) -> Interrupted:
        if self.learner.step == 0:
            return Interrupted(asked.number, f"stopped by {asked.name} before the first step, nothing is lost")
        self.saving.save()
        return Interrupted(asked.number, f"stopped by {asked.name} at step {self.learner.step}; a checkpoint is written")

    def _roll_back(self, log: MetricsLog, diverged: Diverged) -> None:
        rate = self.settings.optimizer.learning_rate
        said = roll_back(self.folder, self.learner, diverged, self._fresh, rate, self.world)
        self.world.wait()  # all have read the checkpoint before it is written anew
        self.skips.forget()
        self.observing.restart(self._rewind(self.learner.step))
        self.probing.restart()
        log.restart(self.learner.step)
        if self.learner.step:
            self.saving.save(anew=True)
        self.say(said)

    def _batches(self) -> Iterator[Fed]:
        stop = self.clock.total_steps or self.learner.step + 10**9
        return Feed(self.source, self.settings, self.device, self.world).batches(self.learner.step, stop)

    def _step(self, batch: Fed) -> tuple[Loss | None, Rates]:
        s, learner = self.settings, self.learner
        own = 0 if batch.batch is None else batch.batch.size
        now = self.clock.progress(learner.step) if self.world.leads else 0.0
        progress, missing = self.world.highest(now, len(batch.bad))
        rates = rates_at(progress, self.clock.nominal_steps, s.optimizer, s.teacher_momentum, s.final_teacher_momentum)
        rates = rates._replace(learning_rate=rates.learning_rate * learner.setbacks.rate_factor)
        told = self.world.collect((own, batch.bad)) if missing else [(own, batch.bad)] * self.world.count
        sizes = [size for size, _ in told]
        self._list([image for _, bad in told for image in bad])
        if batch.batch is None or min(sizes) < min(s.parts, max(sizes)):
            # A rank without images has no gradient to give, so that all leave the step out.
            self._check_any()
            learner.step += 1
            return None, rates
        # Stochastic depth draws from torch's generator: seeding it by step makes a resumed run draw the same.
        torch.manual_seed(s.seed * 1_000_003 + learner.step + _BETWEEN_RANKS * self.world.rank)
        weight = own * self.world.count / sum(sizes)
        return train_step(learner, batch.batch, rates, s.optimizer.clip, s.precision, s.parts, weight), rates

    def _check_any(self) -> None:
        if len(self.bad) >= len(self.source):
            raise DataError(
                f"{self.settings.data}: none of its {len(self.source)} files is an image that can be read; "
                f"see {self.folder.bad_images}"
            )

    def _list(self, bad: list[BadImage]) -> None:
        """Where they are too many the run ends, but what was learnt before is kept."""
        tried = min(len(self.source), (self.learner.step + 1) * self.settings.batch_size)
        try:
            self.bad.add(bad, tried)
        except TooManyBadError:
            if self.learner.step:
                self.saving.save()
            raise

    def _describe(self) -> None:
        if self.settings.init is not None:
            checkpoint.save_network(self.folder.init, self.learner.student, {"init": self.settings.init}, self.world)
        if not self.world.leads:
            return
        runs.write_text_atomic(self.folder.config, config.dump(self.settings))
        about = runs.environment() | {"device": device.describe(self.device)}
        runs.write_json_atomic(self.folder.environment, about)
