"""When the state of a training is written, and from which file it is taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from selfsight import runs
from selfsight.errors import TrainingError, WeightsError
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.step import Learner
from selfsight.ssl.world import BY_ITSELF, World


class Saving:
    """The last two checkpoints and the teacher of a run; `about` goes with the teacher.

    `kept` is what the run was taken up from: a newest checkpoint that was found damaged then is no successor of a whole one, so
    the next save writes over it instead of the one before it.
    """

    def __init__(
        self,
        folder: runs.RunFolder,
        learner: Learner,
        clock: Clock,
        every_minutes: float,
        about: dict[str, str],
        kept: Restored | None = None,
        world: World = BY_ITSELF,
    ) -> None:
        self.world = world
        self.folder, self.learner, self.clock, self.about = folder, learner, clock, about
        self.every = 60 * every_minutes
        self.saved = time.monotonic()
        self._step = learner.step if kept is not None else -1
        self._newest_is_whole = kept is None or kept.newest

    def due(self) -> bool:
        """Asked of all ranks at the same step; the first one's clock counts."""
        return self.world.said(time.monotonic() - self.saved) > self.every

    def save(self, *, anew: bool = False) -> None:
        """Nothing is written twice: a state that was restored and not trained on is on the disk, unless it has to be `anew`."""
        if self.learner.step == 0:
            raise TrainingError("no step was made; nothing to save")
        if self.world.leads:
            self._write(anew)
        self.saved = time.monotonic()
        self.world.wait()  # a rank that went on to end would have the others ended while this one still writes

    def _write(self, anew: bool) -> None:
        if self.learner.step != self._step or anew:
            previous = self.folder.previous if self._newest_is_whole else None
            checkpoint.save(self.folder.checkpoint, self.learner, self.clock.elapsed, previous)
            self._step, self._newest_is_whole = self.learner.step, True
        checkpoint.save_teacher(self.folder.teacher, self.learner, self.about)


class Restored(NamedTuple):
    """Seconds trained before, and whether the state is that of the newest checkpoint."""

    elapsed: float
    newest: bool


def restore_newest(folder: runs.RunFolder, learner: Learner, say: Callable[[str], None]) -> Restored | None:
    """Take up the newest checkpoint that is whole, and `say` so where that is the older of the two; None where none was written.

    `WeightsError` where there are checkpoints and all are damaged, or where they are those of another network.
    """
    faults = []
    for path in (folder.checkpoint, folder.previous):
        if not path.is_file():
            faults.append(f"{path}: is missing")
            continue
        try:
            elapsed = checkpoint.restore(path, learner)
        except checkpoint.DamagedError as error:
            faults.append(str(error))
            continue
        if faults:
            say(f"warning: {faults[0]}; going on from the one before it, {path.name} of step {learner.step}")
        return Restored(elapsed, newest=not faults)
    if all(fault.endswith("is missing") for fault in faults):
        return None
    raise WeightsError(f"{'; '.join(faults)}; nothing to go on from: start again with another --out, or bring back a copy")
