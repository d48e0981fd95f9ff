"""DINO: self-distillation with no labels (Caron et al. 2021, section 3.1, algorithm 1; `DINOLoss` of main_dino.py).

The student's prediction for each view is to match the teacher's for each *other* global view:

    loss = mean over (t, s), t != s, of  -sum_k  P_t[k] log P_s[k]
    P_t = softmax((teacher logits - centre) / teacher temperature)      centring and sharpening
    P_s = softmax(student logits / student temperature)

The centre is the running mean of raw teacher logits. It is used *before* it takes in the present batch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.models.heads import DINOHead, HeadSettings
from selfsight.ssl.batch import Batch
from selfsight.ssl.network import IMAGE, Network, Seen
from selfsight.ssl.objectives.base import ALONE, Loss, Objective, ObjectiveSettings, Ranks
from selfsight.ssl.objectives.center import Center
from selfsight.ssl.objectives.crossentropy import cross_entropies, mean_over_pairs
from selfsight.ssl.objectives.koleo import koleo
from selfsight.ssl.schedules import linear_warmup


class Temperatures(Settings):
    """Temperatures and centring; `warmup` is the share of the run in which the teacher temperature rises."""

    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)
    warmup_teacher_temperature: float = Field(0.04, gt=0)
    warmup: float = Field(0.3, ge=0, le=1)
    center_momentum: float = Field(0.9, ge=0, le=1)

    def teacher_at(self, progress: float) -> float:
        return linear_warmup(progress, self.warmup, self.warmup_teacher_temperature, self.teacher_temperature)


class DINOSettings(Temperatures, ObjectiveSettings):
    """DINO: a head, temperatures and centring.

    `koleo` is the weight of a spread of the global views' features, as DINOv2 has it (there .1); 0 is DINO as published. With few
    images it keeps a training from the uniform teacher that it would else fall into within its first steps.
    """

    name: Literal["dino"] = "dino"
    head: HeadSettings = HeadSettings()
    koleo: float = Field(0.0, ge=0)


class DINOLoss(nn.Module):
    """The formula above on logits: student [V*B, K] and teacher [2B, K], view-major."""

    def __init__(self, prototypes: int, settings: Temperatures, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.settings = settings
        self.center = Center(prototypes, settings.center_momentum, ranks)

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Loss:
        return self.at_temperature(student, teacher, self.settings.teacher_at(progress))

    def at_temperature(self, student: Tensor, teacher: Tensor, temperature: float) -> Loss:
        """The loss at a given teacher temperature; the centre notes the batch."""
        targets = self.center.targets(teacher.detach(), temperature)
        value = mean_over_pairs(cross_entropies(student, targets, self.settings.student_temperature))
        return Loss(value, teacher_signs(targets))


class DINO(Objective[DINOSettings, Seen]):
    """Teacher: global views. Student: all views."""

    Settings = DINOSettings

    def __init__(self, settings: DINOSettings, ranks: Ranks = ALONE) -> None:
        super().__init__(settings, ranks)
        self.loss = DINOLoss(settings.head.prototypes, settings, ranks)

    def heads(self, width: int) -> nn.ModuleDict:
        return nn.ModuleDict({IMAGE: DINOHead(width, self.settings.head)})

    def targets(self, teacher: nn.Module, batch: Batch) -> Seen:
        seen: Seen = teacher(batch.views[:1], patches=False)
        return seen

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views, patches=False)
        return seen

    def forward(self, seen: Seen, targets: Seen, progress: float) -> Loss:
        loss: Loss = self.loss(seen.logits, targets.logits, progress)
        if not self.settings.koleo:
            return loss
        # Each view by itself: the two views of one image are meant to be neighbours.
        first, second = seen.summaries[: len(targets.logits)].chunk(2)
        spread = koleo(first, self.ranks) + koleo(second, self.ranks)
        return Loss(loss.value + self.settings.koleo * spread, {**loss.diagnostics, "koleo": spread.detach()})

    def commit(self, teacher: Network, progress: float, finite: Tensor) -> None:
        self.loss.center.commit(finite)

    def schedule(self, progress: float) -> dict[str, float]:
        return {"teacher_temp": self.settings.teacher_at(progress)}

    @property
    def chance(self) -> float:
        return math.log(self.settings.head.prototypes)


@torch.no_grad()
def teacher_signs(targets: Tensor) -> dict[str, Tensor]:
    """Entropies of target distributions [..., K] as shares of ln K: the mean one of an image (1: uniform) and that of the mean
    target (0: one prototype for all)."""
    log_k = math.log(targets.shape[-1])
    return {
        "teacher_entropy": _entropy(targets).mean() / log_k,
        "prototype_entropy": _entropy(targets.flatten(0, -2).mean(0)) / log_k,
    }


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(-1)
