"""Is the training alive? Signs that need no label, and the point at which a collapse is certain.

Four ways in which a run is lost, each told from the way healthy runs look in their first steps:

- uniform: the teacher says of every image that it is anything. Healthy runs may look so for a while, and leave it as small
  differences between images grow; they cannot grow where the teacher's temperature is not below the student's.
- one prototype: the teacher says the same of every image, and is sure of it.
- diverged: the student has come to answer worse than one who knows nothing, and its features vary in hardly any direction.
- one point: all images have the same feature. It can be seen whatever the objective is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import mean

import torch
from torch import Tensor

from selfsight.errors import CollapseError

UNIFORM = 0.995
"""Mean teacher entropy, as a share of ln K, above which the teacher says nothing about any image."""
ONE_PROTOTYPE = 0.05
"""Entropy of the mean teacher answer, as a share of ln K, below which it gives the same answer to every image."""
WORSE_THAN_CHANCE = 1.05
"""Mean loss, as a share of the loss at chance."""
FEW_DIMENSIONS = 3.0
"""Mean dimensions of the features. Untrained networks have as few: by itself it is no sign."""
ENOUGH_IMAGES = 16
"""Images below which features have few dimensions however much they differ: N images span N - 1 at most."""
ONE_POINT = 0.005
"""Spread of the features below which all images look alike."""
CERTAIN = 100
"""Steps after which a sign that healthy runs never show is believed."""

_TOO_FAST = "Likely cause: the rate is far too high. Lower optimizer.learning_rate (say to a tenth), or raise optimizer.warmup"
_AGAIN = "start again with --set and another --out"


@torch.no_grad()
def feature_signs(summaries: Tensor) -> dict[str, Tensor]:
    """Of one view of a batch [B, D], without waiting for the device.

    `feature_spread` is the length of what differs between images as a share of the whole, 0 where all are the same point;
    `feature_dimensions` the participation ratio of its covariance, (sum of eigenvalues)^2 / sum of their squares.
    """
    rows = summaries.float()
    apart = rows - rows.mean(0)
    gram = apart @ apart.T
    total = gram.diagonal().sum()
    return {
        "feature_spread": (total / rows.square().sum().clamp_min(1e-30)).sqrt(),
        "feature_dimensions": total.square() / gram.square().sum().clamp_min(1e-30),
    }


class CollapseWatch:
    """Raises `CollapseError` once a collapse has shown itself over the last observations: `certain` of them where no healthy run
    looks so, `window` of them for the uniform teacher that a run may still leave.

    `student_temperature` is that of the objective, if it has one; `images` are those whose features are looked at together.
    """

    def __init__(
        self, window: int, certain: int = CERTAIN, student_temperature: float | None = None, images: int = ENOUGH_IMAGES
    ) -> None:
        self.window, self.certain, self.student_temperature, self.images = window, certain, student_temperature, images
        self._seen: deque[Mapping[str, float]] = deque(maxlen=max(window, certain))
        self._first: float | None = None

    def observe(self, step: int, signs: Mapping[str, float]) -> None:
        """`signs` are the diagnostics of `step`, with `loss_over_chance` and `teacher_temp` where the objective has them."""
        self._seen.append(signs)
        if self._first is None:
            self._first = signs.get("loss_over_chance")
        remedy = self._remedy()
        if remedy is not None:
            raise CollapseError(f"step {step}: collapsed, {remedy}: {_AGAIN}")

    def _remedy(self) -> str | None:
        """What happened, why, and what to do, if it has happened."""
        last, long = self._last(self.certain), self._last(self.window)
        over_last = f"in each of the last {self.certain} observations"
        if _uniform(last) and self._cannot_grow(last[-1]):
            return (
                f"the teacher's answer was uniform {over_last} (loss near ln K, nothing is learned). Cause: its temperature is "
                f"not below the student's, {self.student_temperature:g}, so that differences between images cannot grow. Lower "
                "objective.teacher_temperature and objective.warmup_teacher_temperature (say to 0.04)"
            )
        if last and all(s.get("prototype_entropy", 1.0) < ONE_PROTOTYPE for s in last):
            return (
                f"the teacher gave all images one prototype {over_last}. Likely cause: the centre does not follow. Lower "
                "objective.center_momentum (say to 0.9), or raise objective.teacher_temperature"
            )
        if last and all(s.get("feature_spread", 1.0) < ONE_POINT for s in last):
            return f"all images had the same feature {over_last}. {_TOO_FAST}"
        if self._diverged(last):
            return (
                f"the mean loss of the last {self.certain} observations was above that of knowing nothing, and the features "
                f"vary in hardly any direction. {_TOO_FAST}"
            )
        if _uniform(long):
            return (
                f"the teacher's answer was uniform in each of the last {self.window} observations (loss near ln K, nothing is "
                "learned). Likely cause: it is not sharp enough for these images. Lower objective.teacher_temperature and "
                "objective.warmup_teacher_temperature (say to 0.02), or optimizer.learning_rate"
            )
        return None

    def _cannot_grow(self, signs: Mapping[str, float]) -> bool:
        return self.student_temperature is not None and signs.get("teacher_temp", 0.0) >= self.student_temperature

    def _last(self, count: int) -> list[Mapping[str, float]]:
        """The last `count` observations; none where there were not so many."""
        return list(self._seen)[-count:] if len(self._seen) >= count else []

    def _diverged(self, last: list[Mapping[str, float]]) -> bool:
        if self.images < ENOUGH_IMAGES or not last or self._first is None:
            return False
        loss = mean(s["loss_over_chance"] for s in last)
        worse = loss > max(WORSE_THAN_CHANCE, self._first)
        return worse and mean(s["feature_dimensions"] for s in last) < FEW_DIMENSIONS


def _uniform(seen: list[Mapping[str, float]]) -> bool:
    return bool(seen) and all(s.get("teacher_entropy", 0.0) > UNIFORM for s in seen)
