"""Ordinary training with labels: the cross-entropy of a linear head on the summary of both global views.

    loss = mean over labelled views of  -sum_k  q[k] log softmax(logits)[k],     q = (1 - s) * onehot(label) + s / classes

with label smoothing s (Szegedy et al. 2016, section 7). It stands beside the objectives without labels, so that the two can be
compared on the same images, views and networks. The running mean of the student is the encoder that the run leaves
(Polyak and Juditsky 1992).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.errors import DataError
from selfsight.ssl.batch import Batch
from selfsight.ssl.network import IMAGE, Seen
from selfsight.ssl.objectives.base import Loss, Objective, ObjectiveSettings


class SupervisedSettings(ObjectiveSettings):
    """`classes` is how many labels there are, 0 to `classes` - 1; `label_smoothing` is s."""

    name: Literal["supervised"] = "supervised"
    classes: int = Field(ge=2)
    label_smoothing: float = Field(0.1, ge=0, lt=1)


class Supervised(Objective[SupervisedSettings, Tensor]):
    """The targets are the labels [2B], view-major; -1 stands for none."""

    Settings = SupervisedSettings
    teacher_looks = False
    uses_labels = True

    def heads(self, width: int) -> nn.ModuleDict:
        return nn.ModuleDict({IMAGE: nn.Linear(width, self.settings.classes)})

    def targets(self, teacher: nn.Module, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise DataError("objective supervised: the images have no labels; expected a sub-folder for each class")
        return batch.labels.repeat(2)

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views[:1])
        return seen

    def forward(self, seen: Seen, targets: Tensor, progress: float) -> Loss:
        """A batch without any label has the loss 0."""
        logits, known = seen.logits.float(), targets >= 0
        smoothing = self.settings.label_smoothing
        each = F.cross_entropy(logits, targets.clamp_min(0), reduction="none", label_smoothing=smoothing)
        count = known.sum().clamp_min(1)
        # Chosen by weights: an index would make a GPU wait.
        right = ((logits.detach().argmax(1) == targets) & known).sum() / count
        return Loss((each * known).sum() / count, {"train_top1": 100 * right, "labelled": known.float().mean()})

    @property
    def chance(self) -> float:
        return math.log(self.settings.classes)
