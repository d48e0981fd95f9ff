"""When the state of a training is written, and what for."""

from __future__ import annotations

import time

from selfsight import runs
from selfsight.errors import TrainingError
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.step import Learner
from selfsight.ssl.world import BY_ITSELF, World


class Saving:
    """The checkpoint and the teacher of a run; `about` goes with the teacher."""

    def __init__(
        self,
        folder: runs.RunFolder,
        learner: Learner,
        clock: Clock,
        every_minutes: float,
        about: dict[str, str],
        world: World = BY_ITSELF,
    ) -> None:
        self.world = world
        self.folder, self.learner, self.clock, self.about = folder, learner, clock, about
        self.every = 60 * every_minutes
        self.saved = time.monotonic()

    def if_due(self) -> None:
        if self.world.said(time.monotonic() - self.saved) > self.every:
            self.save()
            self.saved = time.monotonic()

    def save(self) -> None:
        if self.learner.step == 0:
            raise TrainingError("no step was made; nothing to save")
        if self.world.leads:
            checkpoint.save(self.folder.checkpoint, self.learner, self.clock.elapsed)
            checkpoint.save_teacher(self.folder.teacher, self.learner, self.about)
        self.world.wait()  # a rank that went on to end would have the others ended while this one still writes
