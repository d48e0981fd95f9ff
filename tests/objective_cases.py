"""A small training for every objective, by which the contract suite tests it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selfsight.models.backbones import BackboneSettings, build_backbone
from selfsight.ssl.batch import Batch, Masks
from selfsight.ssl.network import Network, make_teacher
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.objectives.base import ALONE, Look, Loss, Ranks
from selfsight.ssl.optimizer import OptimizerSettings, make_optimizer
from selfsight.ssl.step import Learner, Rates, rates_at, train_step

SIDE, PATCH, WIDTH, CLASSES = 32, 8, 32, 3
HEAD = {"prototypes": 12, "hidden": 24, "bottleneck": 8}
UNCOUPLED = {"centering": "softmax", "koleo_weight": 0.0}
OPTIMIZER = OptimizerSettings(learning_rate=2e-3, warmup=0.0, freeze_last_layer=0.0)


def colours(views: Tensor) -> Look:
    """A guide that can be followed by eye: the mean colour and that of a corner; the colours of four quarters and their sum."""
    quarters = F.adaptive_avg_pool2d(views, 2).flatten(2).transpose(1, 2)
    summaries = torch.cat([views.mean((2, 3)), views[:, :, 0, 0]], dim=1)
    return Look(summaries, torch.cat([quarters, quarters.sum(2, keepdim=True).expand(-1, -1, 2)], dim=2), (2, 2))


@dataclass(frozen=True)
class Case:
    """`settings` of the objective; `uncoupled` are those under which no sample of a batch is coupled with another; `may_rest`
    names parameters that a single batch need not reach."""

    name: str
    settings: Mapping[str, Any]
    uncoupled: Mapping[str, Any] = field(default_factory=dict)
    may_rest: frozenset[str] = frozenset()

    def learner(self, *, uncoupled: bool = False, ranks: Ranks = ALONE) -> Learner:
        torch.manual_seed(0)
        kind = OBJECTIVES[self.name]
        objective = kind(kind.Settings(**{**self.settings, **(self.uncoupled if uncoupled else {})}), ranks)
        objective.guide = colours if objective.settings.guided else None
        backbone = BackboneSettings(name=f"vit_w{WIDTH}_d2_p{PATCH}", image_size=SIDE)
        hides = objective.settings.masking is not None
        student, teacher = (Network(build_backbone(backbone), objective.heads(WIDTH), hides=hides) for _ in range(2))
        return Learner(student, make_teacher(student, teacher), objective, make_optimizer(student, torch.device("cpu")))

    def batch(self, step: int, size: int = 4) -> Batch:
        draw = torch.Generator().manual_seed(step)

        def views(count: int, side: int) -> Tensor:
            return torch.randn(count * size, 3, side, side, generator=draw)

        hidden = torch.rand(2 * size, (SIDE // PATCH) ** 2, generator=draw) < 0.3
        labels = torch.randint(CLASSES, (size,), generator=draw)
        return Batch([views(2, SIDE), views(3, SIDE // 2)], size, Masks.of(hidden), labels)

    def rates(self, progress: float) -> Rates:
        return rates_at(progress, 10, OPTIMIZER, 0.9)

    def loss(self, learner: Learner, step: int, progress: float) -> Loss:
        batch = self.batch(step)
        with torch.no_grad():
            targets = learner.objective.targets(learner.teacher, batch)
        loss: Loss = learner.objective(learner.objective.predictions(learner.student, batch), targets, progress)
        return loss

    def train(self, learner: Learner, step: int) -> Tensor:
        return train_step(learner, self.batch(step), self.rates(step / 10), 3.0).value


CASES = {
    case.name: case
    for case in (
        Case("dino", {"head": HEAD, "koleo": 0.1}, uncoupled={"koleo": 0.0}),
        Case("dinov2", {"head": HEAD, "patch_head": HEAD | {"prototypes": 10}}, UNCOUPLED),
        Case("dinov3", {"head": HEAD, "gram": {"start": 0.0, "refresh_every": 1.1}}, UNCOUPLED),
        Case("distill", {"width": 6, "patch_width": 5}),
        Case("supervised", {"classes": CLASSES}),
    )
}
