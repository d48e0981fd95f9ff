"""A whole training: from settings and a source to a run folder.

The weights to start from, the k-NN probe and whoever watches are passed in; this room knows neither encoders nor tasks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch

from selfsight import config, device, runs
from selfsight.data.sources import BadImage, Source
from selfsight.data.tolerance import BadImages, TooManyBadError
from selfsight.errors import DataError, Interrupted, TrainingError
from selfsight.models.backbones import Backbone, build_backbone
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.feed import Fed, Feed
from selfsight.ssl.health import CollapseWatch, check_finite
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.network import Network, make_teacher
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.objectives.base import AnyObjective, Loss
from selfsight.ssl.optimizer import make_optimizer
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.signals import Stop
from selfsight.ssl.step import Learner, Rates, rates_at, train_step

Probe = Callable[[Backbone], dict[str, float]]
"""Measures the teacher's backbone: names to numbers, such as `knn_top1` and `rankme`."""


class Watcher(Protocol):
    """Whoever looks on: the command line's progress bar, or nobody."""

    def on_step(self, row: Mapping[str, Any], progress: float) -> None: ...

    def on_probe(self, row: Mapping[str, Any]) -> None: ...


class Nobody:
    """Looks at nothing."""

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        return

    def on_probe(self, row: Mapping[str, Any]) -> None:
        return


def initial_backbone(settings: TrainSettings) -> Backbone:
    """The untrained backbone of a run, the same every time: it is the first to draw after the seed is set."""
    device.seed_everything(settings.seed)
    return build_backbone(settings.backbone)


def make_learner(settings: TrainSettings, on: torch.device) -> Learner:
    """Student and teacher at the start of a run, with objective and optimiser."""
    objective = OBJECTIVES[settings.objective.name](settings.objective)
    student = _network(initial_backbone(settings), objective)
    teacher = make_teacher(student, _network(build_backbone(settings.backbone.model_copy(update={"drop_path": 0.0})), objective))
    for module in (student, teacher, objective):
        module.to(on)
    scaler = torch.amp.GradScaler(on.type) if settings.precision == "float16" else None
    return Learner(student, teacher, objective, make_optimizer(student, on, settings.optimizer), scaler=scaler)


def _network(backbone: Backbone, objective: AnyObjective) -> Network:
    return Network(backbone, objective.heads(backbone.width), hides=objective.settings.masking is not None)


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
    ) -> None:
        self.settings, self.source, self.folder, self.probe, self.watcher = settings, source, folder, probe, watcher
        self.device = device.resolve(settings.device)
        torch.set_num_threads(settings.threads or device.cores())
        self.learner = make_learner(settings, self.device)
        elapsed = checkpoint.restore(folder.checkpoint, self.learner) if resume else 0.0
        self.clock = Clock(settings.epochs, settings.minutes, settings.steps_per_epoch, elapsed)
        # Rows past the checkpoint, or of a try that never reached one, would be logged twice.
        kept = [row for row in runs.read_jsonl(folder.metrics) if row["step"] <= self.learner.step] if resume else []
        if folder.metrics.is_file():
            runs.write_text_atomic(folder.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        self.bad = BadImages(folder.bad_images, settings.tolerance, len(source), source.location, source.rejected)
        self.watch = CollapseWatch(self._window())
        self.last_loss = next((row["loss"] for row in reversed(kept) if "loss" in row), float("nan"))
        self._probed_at, self._probed = -1, dict[str, float]()

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget; returns a summary. `Interrupted`, `CollapseError` and `NonFiniteError` end it early."""
        if not self.folder.exists:
            self._describe()
        with Stop() as stop, MetricsLog(self.folder) as log:
            self.clock.start()
            saved = probed = time.monotonic()
            probe_step = self._next_probe()
            if self.learner.step == 0:
                self._probe(log)
            for batch in () if self.clock.finished(self.learner.step) else self._batches():
                loss, rates = self._step(batch)
                self._observe(log, loss, rates, batch)
                now = time.monotonic()
                if stop.signal is not None:
                    self._save()
                    raise Interrupted(stop.signal, f"stopped by {stop.name} at step {self.learner.step}; a checkpoint is written")
                if now - saved > 60 * self.settings.save_every_minutes:
                    self._save()
                    saved = now
                # Quick epochs would spend more time on the probe than on training, so it also keeps a distance in time.
                if self.learner.step >= probe_step and now - probed >= self.clock.total_guess(self.learner.step) / 40:
                    self._probe(log)
                    probed, probe_step = time.monotonic(), self._next_probe()
                if self.clock.finished(self.learner.step):
                    break
            final = self._probe(log)
        self._save()
        return {
            "step": self.learner.step,
            "elapsed_s": self.clock.elapsed,
            "loss": self.last_loss,
            "bad_images": len(self.bad),
            **final,
        }

    def _batches(self) -> Iterator[Fed]:
        stop = self.clock.total_steps or self.learner.step + 10**9
        return Feed(self.source, self.settings, self.device).batches(self.learner.step, stop)

    def _step(self, batch: Fed) -> tuple[Loss | None, Rates]:
        s, learner = self.settings, self.learner
        rates = rates_at(
            self.clock.progress(learner.step), self.clock.nominal_steps, s.optimizer, s.teacher_momentum, s.final_teacher_momentum
        )
        self._list(batch.bad)
        if batch.batch is None:
            if len(self.bad) >= len(self.source):
                raise DataError(
                    f"{s.data}: none of its {len(self.source)} files is an image that can be read; see {self.folder.bad_images}"
                )
            learner.step += 1
            return None, rates
        # Stochastic depth draws from torch's generator: seeding it by step makes a resumed run draw the same.
        torch.manual_seed(s.seed * 1_000_003 + learner.step)
        return train_step(learner, batch.batch, rates, s.optimizer.clip, s.precision, s.parts), rates

    def _list(self, bad: list[BadImage]) -> None:
        """Where they are too many the run ends, but what was learnt before is kept."""
        tried = min(len(self.source), (self.learner.step + 1) * self.settings.batch_size)
        try:
            self.bad.add(bad, tried)
        except TooManyBadError:
            if self.learner.step:
                self._save()
            raise

    def _observe(self, log: MetricsLog, loss: Loss | None, rates: Rates, batch: Fed) -> None:
        """Reading a number from a GPU waits for it, so there it is done only every `log_every` steps."""
        self.clock.count(0 if batch.batch is None else batch.batch.size, batch.wait)
        step, every = self.learner.step, self.settings.log_every
        if loss is None or (self.device.type != "cpu" and step % every):
            return
        self.last_loss = float(loss.value)
        check_finite(step, self.last_loss, rates.learning_rate)
        diagnostics = {name: float(value) for name, value in loss.diagnostics.items()}
        self.watch.observe(step, diagnostics)
        row = {
            "step": step,
            "epoch": round(step / self.settings.steps_per_epoch, 4),
            "elapsed_s": round(self.clock.elapsed, 2),
            "loss": self.last_loss,
            **({} if (chance := self.learner.objective.chance) is None else {"loss_over_chance": self.last_loss / chance}),
            **diagnostics,
            "lr": rates.learning_rate,
            "weight_decay": rates.weight_decay,
            "momentum": rates.momentum,
            **self.learner.objective.schedule(rates.progress),
            "images_per_second": round(self.clock.images_per_second, 2),
            "wait_share": round(self.clock.wait_share, 4),
        }
        if step % every == 0 or step == 1:
            log.write(row)
        self.watcher.on_step(row, self.clock.progress(step))

    def _probe(self, log: MetricsLog) -> dict[str, float]:
        if self.probe is None or self._probed_at == self.learner.step:
            return self._probed
        backbone = self.learner.teacher.backbone.eval()
        with torch.no_grad():
            values = self.probe(backbone)
        backbone.train()
        row = {"step": self.learner.step, "epoch": round(self.learner.step / self.settings.steps_per_epoch, 4)}
        row |= {"elapsed_s": round(self.clock.elapsed, 2), **values}
        log.write(row)
        self.watcher.on_probe(row)
        self._probed_at, self._probed = self.learner.step, values
        return values

    def _next_probe(self) -> int:
        return self.learner.step + max(1, round(self.settings.probe_every_epochs * self.settings.steps_per_epoch))

    def _window(self) -> int:
        """Steps that must all look collapsed. A step count is unknown under a time budget; 400 then, never below 100."""
        steps = Clock(self.settings.epochs, self.settings.minutes, self.settings.steps_per_epoch, 0.0).total_steps
        window = max(100, round(self.settings.collapse_window * steps)) if steps else 400
        return window if self.device.type == "cpu" else max(20, window // self.settings.log_every)

    def _describe(self) -> None:
        runs.write_text_atomic(self.folder.config, config.dump(self.settings))
        about = runs.environment() | {"device": device.describe(self.device)}
        runs.write_json_atomic(self.folder.environment, about)

    def _save(self) -> None:
        if self.learner.step == 0:
            raise TrainingError("no step was made; nothing to save")
        checkpoint.save(self.folder.checkpoint, self.learner, self.clock.elapsed)
        checkpoint.save_teacher(self.folder.teacher, self.learner, {"data": self.source.location, "recipe": self.settings.recipe})
