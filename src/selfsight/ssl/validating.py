"""Fine-tuning looks at a validation part after every epoch: the best weights are kept, and without better ones it ends.

Which step is looked at depends on the step alone, unlike a probe, which also keeps a distance in time: when a run ends, and which
weights it leaves, must be the same after a resume.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from selfsight.runs import RunFolder, read_jsonl, write_atomic
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.probing import Embed, Probe, Probing
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.signals import Stop
from selfsight.ssl.step import Learner
from selfsight.ssl.tuning import TuningSettings
from selfsight.ssl.watcher import Watcher
from selfsight.ssl.world import World

LOSS = "val_loss"


class Reached(NamedTuple):
    """A measure (more is better), the loss that decides between equals, and the step."""

    score: float
    loss: float
    step: int

    def beats(self, other: Reached | None) -> bool:
        return other is None or (self.score, -self.loss) > (other.score, -other.loss)


class Validating(Probing):
    """A probe of what the teacher and its head answer; `checkpoint/best.safetensors` is the teacher at its best."""

    def __init__(
        self,
        probe: Probe | None,
        settings: TrainSettings,
        learner: Learner,
        clock: Clock,
        watcher: Watcher,
        world: World,
        folder: RunFolder,
        tuning: TuningSettings,
        *,
        resumed: bool,
    ) -> None:
        super().__init__(probe, settings, learner, clock, watcher, world)
        self.folder, self.tuning = folder, tuning
        self.best = world.first(lambda: _kept(folder) if resumed else None)
        before = world.first(lambda: _measured(folder, learner.step) if resumed else None)
        if before is not None:
            self._at, self._values = learner.step, before

    @property
    def look(self) -> Embed:
        return self.learner.classify

    @property
    def enough(self) -> bool:
        """Whether the best weights are `patience` epochs old."""
        if self.best is None:
            return False
        return self.learner.step - self.best.step >= self.tuning.patience * self.settings.steps_per_epoch

    def begin(self, log: MetricsLog, stop: Stop) -> None:
        """Also after a resume from just before a look."""
        self.if_due(log, stop)

    def if_due(self, log: MetricsLog, stop: Stop) -> None:
        if self.learner.step % max(1, round(self.settings.probe_every_epochs * self.settings.steps_per_epoch)) == 0:
            self.measure(log, stop)

    def measure(self, log: MetricsLog, stop: Stop) -> dict[str, float]:
        if self._at == self.learner.step:
            return self._values
        values = super().measure(log, stop)
        if values:
            self._consider(Reached(values[self.tuning.best_by], values[LOSS], self.learner.step))
        return values

    def _consider(self, now: Reached) -> None:
        if now.beats(self.best):
            self.best = now
            words = {"step": str(now.step), "best": json.dumps(now)}
            checkpoint.save_network(self.folder.best, self.learner.teacher, words, self.world)

    def leave(self) -> None:
        """`teacher.safetensors`: the best so far."""
        if self.world.leads and self.folder.best.is_file():
            write_atomic(self.folder.teacher, self._copy)

    def _copy(self, to: Path) -> None:
        shutil.copyfile(self.folder.best, to)


def _kept(folder: RunFolder) -> Reached | None:
    """None where the file is not there or damaged: then the next look is the best."""
    try:
        with safe_open(folder.best, framework="pt") as file:
            return Reached(*json.loads((file.metadata() or {})["best"]))
    except (OSError, SafetensorError, KeyError):
        return None


def _measured(folder: RunFolder, step: int) -> dict[str, float] | None:
    """What was measured at a step, by the log."""
    rows = (row for row in read_jsonl(folder.metrics) if row["step"] == step and LOSS in row)
    found = next(rows, None)
    return None if found is None else {key: value for key, value in found.items() if key.startswith("val_")}
