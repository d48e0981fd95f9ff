"""Is the training alive? Signs that need no label, and the point at which a collapse is certain."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from selfsight.errors import CollapseError

UNIFORM = 0.995
"""Mean teacher entropy, as a share of ln K, above which the teacher says nothing about any image."""
ONE_PROTOTYPE = 0.05
"""Entropy of the mean teacher answer, as a share of ln K, below which it gives the same answer to every image."""


class CollapseWatch:
    """Raises `CollapseError` once *every* step of the last `window` steps shows the same collapse."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._uniform: deque[bool] = deque(maxlen=window)
        self._single: deque[bool] = deque(maxlen=window)

    def observe(self, step: int, diagnostics: Mapping[str, float]) -> None:
        """`diagnostics` are those of the objective at `step`; objectives without a teacher distribution are not watched."""
        if "teacher_entropy" not in diagnostics:
            return
        self._uniform.append(diagnostics["teacher_entropy"] > UNIFORM)
        self._single.append(diagnostics["prototype_entropy"] < ONE_PROTOTYPE)
        if len(self._uniform) < self.window:
            return
        if all(self._uniform):
            raise CollapseError(
                f"step {step}: collapsed, the teacher's answer was uniform in each of the last {self.window} observations "
                "(loss near ln K, nothing is learned). Likely cause: it is not sharp enough for these images. Lower "
                "objective.teacher_temperature and objective.warmup_teacher_temperature (say to 0.02), or "
                "optimizer.learning_rate: start again with --set and another --out"
            )
        if all(self._single):
            raise CollapseError(
                f"step {step}: collapsed, the teacher gave all images one prototype in each of the last {self.window} "
                "observations. Likely cause: the centre does not follow. Lower objective.center_momentum (say to 0.9), or raise "
                "objective.teacher_temperature: start again with --set and another --out"
            )
