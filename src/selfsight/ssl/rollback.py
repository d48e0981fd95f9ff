"""Back to a checkpoint with a lower learning rate, once, when a training has run into numbers that are none.

The order of the data is not touched: it is a function of the step, so the batches after the checkpoint come again, at half the
rate. Leaving the bad ones out would make the order depend on what happened before, and hide a cause that lies in the images: that
one comes back, and then the run stops and names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from selfsight.errors import NonFiniteError
from selfsight.runs import RunFolder, rewrite_jsonl
from selfsight.ssl import checkpoint
from selfsight.ssl.saving import newest_first
from selfsight.ssl.sharded_checkpoint import DamagedError
from selfsight.ssl.skips import LOWER, Diverged
from selfsight.ssl.step import Learner
from selfsight.ssl.world import World


def roll_back(
    folder: RunFolder, learner: Learner, diverged: Diverged, fresh: Callable[[], Learner], rate: float, world: World
) -> str:
    """Puts an earlier state into `learner` and says which; `NonFiniteError` where that has been done before.

    That is the newest whole checkpoint from before the bad steps; one made just before them may be what went wrong, so it is
    taken only where there is no other, and the start of the training (`fresh`) only where there is none at all.
    """
    setbacks = learner.setbacks
    if setbacks.rollbacks:
        raise NonFiniteError(
            f"{diverged}, again after the learning rate was multiplied by {setbacks.rate_factor:g}. Start again with a lower "
            f"optimizer.learning_rate (say a quarter of {rate:.2g}) or optimizer.clip; if the same images recur in "
            f"{folder.skipped}, look at them"
        )
    said = _restore(folder, learner, diverged.step, fresh, world)
    learner.setbacks = replace(setbacks, in_a_row=0, rollbacks=1, rate_factor=setbacks.rate_factor * LOWER)
    return f"warning: {diverged}; back to {said} with {LOWER:g} times the learning rate. What was skipped is in {folder.skipped}"


def _restore(folder: RunFolder, learner: Learner, before: int, fresh: Callable[[], Learner], world: World) -> str:
    whole = []
    for path in newest_first(folder):
        try:
            whole.append((checkpoint.step_of(path) >= before, path))
        except DamagedError:
            continue
    for _, path in sorted(whole, key=lambda pair: pair[0]):
        try:
            checkpoint.restore(path, learner, world)
        except DamagedError:
            continue
        return f"step {learner.step} ({path.name})"
    other = fresh()
    for name in ("student", "teacher", "objective", "optimizer"):
        getattr(learner, name).load_state_dict(getattr(other, name).state_dict())
    learner.step = 0
    return "the start"


def rewind(folder: RunFolder, step: int, rollbacks: int) -> float:
    """Leaves only rows up to `step` in the logs, since those after it come again; returns the last loss.

    Skipped steps that led to a rollback stay listed.
    """
    rewrite_jsonl(folder.skipped, lambda row: row["rollbacks"] < rollbacks or row["step"] <= step)
    kept = rewrite_jsonl(folder.metrics, lambda row: row["step"] <= step)
    return next((row["loss"] for row in reversed(kept) if "loss" in row), float("nan"))
