"""The contract of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FeatureSet:
    """Features of one encoder: `train` [n, D] and `test` [m, D] float32, labels as class indices below `classes`.

    `groups` [n] names the group (patient, video...) of each training image, or is None.
    """

    train: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.float32]
    classes: int
    groups: npt.NDArray[np.str_] | None = None


class Predictions(NamedTuple):
    """Predicted classes [m] under one metric name (`top1`, `top1_k20`); `note` says what was chosen on the way."""

    metric: str
    predicted: npt.NDArray[np.int64]
    note: str = ""


class Task(ABC):
    """`primary` is the metric that takes part in the declared family; `random` says whether the seed changes the answer."""

    primary: ClassVar[str]
    random: ClassVar[bool]

    @abstractmethod
    def run(self, features: FeatureSet, *, seed: int, device: str) -> Iterator[Predictions]:
        """Yield predictions for the test images. The test labels are not among the arguments: nothing can be tuned on them."""
