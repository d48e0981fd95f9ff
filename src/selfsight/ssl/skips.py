"""Steps that were skipped because their loss or gradient was not finite: written down, and too many of them noticed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from selfsight.data.draws import Indices
from selfsight.data.sources import Source
from selfsight.errors import TrainingError
from selfsight.runs import RunFolder, append_jsonl
from selfsight.ssl.log import MetricsLog
from selfsight.ssl.objectives.base import Loss
from selfsight.ssl.step import Learner

IN_A_ROW = 3
"""Skipped steps one after another that are no accident any more."""
IN_A_ROW_SCALED = 20
"""The same in float16, where the scale of the loss (2^16) is first searched for by halving it."""
LOWER = 0.5


class Diverged(TrainingError):  # noqa: N818 (caught by the training itself, which goes back to a checkpoint)
    """So many steps were skipped in a row that it is no accident; `step` is the first of them, counted from 0."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss is not finite from step {step + 1} on")
        self.step = step


class _Noted(NamedTuple):
    step: int
    loss: Loss
    samples: Indices


class Skips:
    """The record of skipped steps. Steps are noted without waiting for the device; `read` waits for it, once for all of them.

    Of several ranks, which all skip the same steps, one alone `writes`; it lists the samples of its own part."""

    def __init__(self, folder: RunFolder, source: Source, learner: Learner, steps_per_epoch: int, *, writes: bool = True) -> None:
        self.folder, self.source, self.learner, self.steps_per_epoch = folder, source, learner, steps_per_epoch
        self.writes = writes
        self._noted: list[_Noted] = []

    def note(self, loss: Loss, samples: Indices) -> None:
        """The step just made."""
        self._noted.append(_Noted(self.learner.step, loss, samples))

    def forget(self) -> None:
        self._noted.clear()

    def read(self, log: MetricsLog) -> bool:
        """List what was skipped since the last reading; whether the last step was made. `Diverged` after too many in a row."""
        flags = [noted.loss.finite for noted in self._noted if noted.loss.finite is not None]
        made = torch.stack(flags).tolist() if flags else []
        setbacks = self.learner.setbacks
        noted_before, self._noted = self._noted, []
        for noted, finite in zip(noted_before, made, strict=True):
            setbacks.in_a_row = 0 if finite else setbacks.in_a_row + 1
            if finite:
                continue
            setbacks.skipped += 1
            self._list(log, noted)
            if setbacks.in_a_row == (IN_A_ROW if self.learner.scaler is None else IN_A_ROW_SCALED):
                raise Diverged(noted.step - setbacks.in_a_row)
        return bool(made and made[-1])

    def _list(self, log: MetricsLog, noted: _Noted) -> None:
        loss = float(noted.loss.value)
        where = {"step": noted.step, "epoch": round(noted.step / self.steps_per_epoch, 4)}
        row = {
            **where,
            "keys": [self.source.keys[int(index)] for index in noted.samples],
            "loss": loss if math.isfinite(loss) else None,
            "why": "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}",
            "rollbacks": self.learner.setbacks.rollbacks,
        }
        if self.writes:
            append_jsonl(self.folder.skipped, [row])
        log.write({**where, "skipped": self.learner.setbacks.skipped})
