"""The contract of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.data.sources import Source


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


@dataclass(frozen=True)
class ImageSet:
    """What a task is given that trains the network itself: the spec of an encoder, `train` images with labels, and `test` images
    without any. `group_by` names the column whose groups stay in one part, or is None."""

    encoder: str
    train: Source
    test: Source
    group_by: str | None = None


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


class ImageTask(ABC):
    """A task on images instead of features, handed to a comparison by whoever knows how a network is trained."""

    primary: ClassVar[str]
    random: ClassVar[bool]

    @abstractmethod
    def check(self, encoder: str) -> None:
        """`WeightsError` for an encoder that it cannot be done with, before any work."""

    @abstractmethod
    def run(self, images: ImageSet, *, seed: int, device: str) -> Iterator[Predictions]:
        """Yield predictions for the test images, in their order."""
