"""When the state of a training is written, and from which file it is taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from selfsight import runs
from selfsight.errors import TrainingError, WeightsError
from selfsight.runs import remove_folder
from selfsight.ssl import checkpoint
from selfsight.ssl.clock import Clock
from selfsight.ssl.sharded import is_sharded
from selfsight.ssl.sharded_checkpoint import DamagedError
from selfsight.ssl.step import Learner
from selfsight.ssl.world import BY_ITSELF, World


class Saving:
    """The last two checkpoints and the teacher of a run; `about` goes with the teacher, which is the present one, or what `leave`
    writes.

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
        leave: Callable[[], None] | None = None,
    ) -> None:
        self.world, self.leave = world, leave
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
        if self.learner.step != self._step or anew:
            self._write()
            self._step, self._newest_is_whole = self.learner.step, True
        if self.leave is None:
            checkpoint.save_teacher(self.folder.teacher, self.learner, self.about, self.world)
        else:
            self.leave()
        self.saved = time.monotonic()
        self.world.wait()  # a rank that went on to end would have the others ended while this one still writes

    def _write(self) -> None:
        """A folder where the state is divided, else a file."""
        folder, learner, elapsed = self.folder, self.learner, self.clock.elapsed
        file, folders = (folder.checkpoint, folder.previous), (folder.sharded, folder.sharded_previous)
        divided = is_sharded(learner.student)
        (latest, previous), other = (folders, file) if divided else (file, folders)
        kept = previous if self._newest_is_whole else None
        if divided:
            checkpoint.save_sharded(latest, learner, elapsed, self.world, kept)
        elif self.world.leads:
            checkpoint.save(latest, learner, elapsed, kept)
        if self.world.leads:
            _remove(other if previous.exists() else other[1:])


def _remove(paths: Iterable[Path]) -> None:
    """Checkpoints of the other kind, which a training that was first divided and then was not, or the reverse, leaves behind."""
    for path in paths:
        remove_folder(path)
        path.unlink(missing_ok=True)


class Restored(NamedTuple):
    """Seconds trained before, and whether the state is that of the newest checkpoint."""

    elapsed: float
    newest: bool


def newest_first(folder: runs.RunFolder) -> list[Path]:
    """Checkpoints of both kinds; one that does not tell its step takes its chance first."""

    def rank(path: Path) -> tuple[bool, float]:
        try:
            step: float = checkpoint.step_of(path)
        except DamagedError:
            step = float("inf")
        return path.stem != folder.sharded.stem, -step

    return sorted(folder.checkpoints, key=rank)


def restore_newest(
    folder: runs.RunFolder, learner: Learner, say: Callable[[str], None], world: World = BY_ITSELF
) -> Restored | None:
    """Take up the newest checkpoint that is whole, and `say` so where that is the older of the two; None where none was written.

    `WeightsError` where there are checkpoints and all are damaged, or where they are those of another network.
    """
    paths = newest_first(folder)
    if not paths:
        return None
    faults = [] if paths[0].stem == folder.sharded.stem else [f"{folder.checkpoint}: is missing"]
    for path in paths:
        try:
            elapsed = checkpoint.restore(path, learner, world)
        except DamagedError as error:
            faults.append(str(error))
            continue
        if faults:
            say(f"warning: {faults[0]}; going on from the one before it, {path.name} of step {learner.step}")
        return Restored(elapsed, newest=not faults)
    raise WeightsError(f"{'; '.join(faults)}; nothing to go on from: start again with another --out, or bring back a copy")
