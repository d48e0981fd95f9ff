"""Ordinary training with labels: the cross-entropy of a linear head on the summary of both global views.

    loss = mean over labelled views of  -w[label] sum_k  q[k] log softmax(logits)[k],     q = (1 - s) onehot(label) + s / classes

with label smoothing s (Szegedy et al. 2016, section 7) and weights w of the classes, 1 if none are given. Where images are mixed
(`mixing`) the loss is the mixture of those of the two labels. Images that may have several labels have binary cross-entropies:

    loss = mean over views and classes k of  -y[k] log sigmoid(logits)[k] - (1 - y[k]) log (1 - sigmoid(logits)[k])

It stands beside the objectives without labels, so that the two can be compared on the same images, views and networks. The
running mean of the student is the encoder that the run leaves (Polyak and Juditsky 1992).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.errors import DataError
from selfsight.ssl.batch import Batch
from selfsight.ssl.mixing import Mixing, soft
from selfsight.ssl.network import IMAGE, Seen
from selfsight.ssl.objectives.base import Loss, Objective, ObjectiveSettings


class SupervisedSettings(ObjectiveSettings):
    """`classes` is how many labels there are, 0 to `classes` - 1; `label_smoothing` is s, `class_weights` w.

    With `multi_label` an image may have any number of labels. `mixup` and `cutmix` are the a of their Beta(a, a); 0 is off.
    """

    name: Literal["supervised"] = "supervised"
    classes: int = Field(ge=2)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weights: tuple[float, ...] | None = None
    multi_label: bool = False
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one_weight_a_class(self) -> SupervisedSettings:
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise ValueError(f"class_weights has {len(self.class_weights)} numbers for {self.classes} classes")
        if self.class_weights is not None and self.multi_label:
            raise ValueError("class_weights are for images with one label each; leave them out with multi_label")
        return self

    @property
    def mixing(self) -> Mixing:
        return Mixing(self.mixup, self.cutmix)


class Supervised(Objective[SupervisedSettings, Tensor]):
    """The targets are the labels [2B], view-major, -1 for none; or rows [2B, classes] where they are mixed or several."""

    Settings = SupervisedSettings
    teacher_looks = False
    uses_labels = True

    def heads(self, width: int) -> nn.ModuleDict:
        return nn.ModuleDict({IMAGE: nn.Linear(width, self.settings.classes)})

    def targets(self, teacher: nn.Module, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise DataError("objective supervised: the images have no labels; expected a sub-folder for each class")
        return torch.cat([batch.labels, batch.labels])

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views[:1])
        return seen

    def forward(self, seen: Seen, targets: Tensor, progress: float) -> Loss:
        """A batch without any label has the loss 0."""
        logits, rows = seen.logits.float(), soft(targets, self.settings.classes)
        if self.settings.multi_label:
            return self._several(logits, rows)
        known = rows.sum(1) > 0
        count = known.sum().clamp_min(1)
        # Chosen by weights: an index would make a GPU wait.
        right = ((logits.detach().argmax(1) == rows.argmax(1)) & known).sum() / count
        if self.settings.class_weights is not None:
            rows = rows * rows.new_tensor(self.settings.class_weights)
        surprise, smoothing = -F.log_softmax(logits, dim=1), self.settings.label_smoothing
        each = (1 - smoothing) * (rows * surprise).sum(1) + smoothing * rows.sum(1) * surprise.mean(1)
        return Loss(each.sum() / count, {"train_top1": 100 * right, "labelled": known.float().mean()})

    def _several(self, logits: Tensor, targets: Tensor) -> Loss:
        value = F.binary_cross_entropy_with_logits(logits, targets)
        right = ((logits.detach() > 0) == (targets > 0.5)).float().mean()
        return Loss(value, {"train_decisions": 100 * right})

    @property
    def chance(self) -> float:
        return math.log(2 if self.settings.multi_label else self.settings.classes)
