"""DINO: self-distillation with no labels (Caron et al. 2021, section 3.1, algorithm 1; `DINOLoss` of main_dino.py).

The student's prediction for each view is to match the teacher's for each *other* global view:

    loss = mean over (t, s), t != s, of  -sum_k  P_t[k] log P_s[k]
    P_t = softmax((teacher logits - centre) / teacher temperature)      centring and sharpening
    P_s = softmax(student logits / student temperature)

The centre is the running mean of raw teacher logits. It is used *before* it takes in the present batch.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from selfsight.config import Settings
from selfsight.ssl.objectives.base import Loss, Objective, Reduce, no_ranks
from selfsight.ssl.schedules import linear_warmup


class DINOSettings(Settings):
    """Temperatures and centring; `warmup` is the share of the run in which the teacher temperature rises."""

    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.04, gt=0)
    warmup_teacher_temperature: float = Field(0.04, gt=0)
    warmup: float = Field(0.3, ge=0, le=1)
    center_momentum: float = Field(0.9, ge=0, le=1)


class DINOLoss(Objective[DINOSettings]):
    """`mean_over_ranks` averages a tensor over all ranks that share the batch."""

    center: Tensor

    def __init__(self, prototypes: int, settings: DINOSettings, mean_over_ranks: Reduce = no_ranks) -> None:
        super().__init__()
        self.settings = settings
        self.mean_over_ranks = mean_over_ranks
        self.register_buffer("center", torch.zeros(1, prototypes))

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Loss:
        return self.at_temperature(student, teacher, self.teacher_temperature(progress))

    def at_temperature(self, student: Tensor, teacher: Tensor, temperature: float) -> Loss:
        """The loss at a given teacher temperature; updates the centre after using it."""
        student, teacher = student.float(), teacher.detach().float()
        batch = len(teacher) // 2
        targets = F.softmax((teacher - self.center) / temperature, dim=-1).view(2, batch, -1)
        predictions = F.log_softmax(student / self.settings.student_temperature, dim=-1).view(-1, batch, student.shape[1])
        # Entry [t, s] is the cross-entropy of view s under global view t; a view is not compared with itself.
        cross = -torch.einsum("tbk,sbk->ts", targets, predictions) / batch
        pairs = ~torch.eye(2, len(predictions), dtype=torch.bool, device=cross.device)
        diagnostics = self._diagnostics(targets)
        self._update_center(teacher)
        return Loss(cross[pairs].mean(), diagnostics)

    def teacher_temperature(self, progress: float) -> float:
        s = self.settings
        return linear_warmup(progress, s.warmup, s.warmup_teacher_temperature, s.teacher_temperature)

    def schedule(self, progress: float) -> dict[str, float]:
        return {"teacher_temp": self.teacher_temperature(progress)}

    @torch.no_grad()
    def _update_center(self, teacher: Tensor) -> None:
        momentum = self.settings.center_momentum
        mean = self.mean_over_ranks(teacher.mean(dim=0, keepdim=True))
        self.center.mul_(momentum).add_(mean, alpha=1 - momentum)

    @torch.no_grad()
    def _diagnostics(self, targets: Tensor) -> dict[str, Tensor]:
        """Entropies as shares of ln K: of one image's target (1: uniform) and of the mean target (0: one prototype for all)."""
        log_k = math.log(targets.shape[-1])
        mean = targets.mean(dim=(0, 1))
        return {
            "teacher_entropy": _entropy(targets).mean() / log_k,
            "prototype_entropy": _entropy(mean) / log_k,
        }


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(-1)
