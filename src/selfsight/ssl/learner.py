"""Student, teacher, objective and optimiser at the start of a run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from selfsight import device
from selfsight.models.backbones import Backbone, build_backbone
from selfsight.ssl.network import Network, make_teacher
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.objectives.base import AnyObjective, Guide
from selfsight.ssl.optimizer import make_optimizer
from selfsight.ssl.replicas import replicated, with_common_norm
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.start import begin
from selfsight.ssl.step import Learner
from selfsight.ssl.world import BY_ITSELF, World


def initial_backbone(settings: TrainSettings) -> Backbone:
    """The untrained backbone of a run, the same every time: it is the first to draw after the seed is set."""
    device.seed_everything(settings.seed)
    return build_backbone(settings.backbone)


def make_learner(
    settings: TrainSettings,
    on: torch.device,
    world: World = BY_ITSELF,
    start: Mapping[str, Tensor] | None = None,
    guide: Guide | None = None,
) -> Learner:
    """Student and teacher at the start of a run, with objective and optimiser: the same on all ranks.

    `start` holds weights to begin with, under the names of `teacher.safetensors`; `guide` is what a guided objective follows.
    """
    objective = OBJECTIVES[settings.objective.name](settings.objective, world)
    objective.guide = guide
    student = _network(initial_backbone(settings), objective)
    if start is not None:
        begin(student, start)
    teacher = make_teacher(student, _network(build_backbone(settings.backbone.calm()), objective))
    for module in (student, teacher, objective):
        module.to(on)
    if world.count > 1 and on.type == "cuda":
        student, teacher = with_common_norm(student), with_common_norm(teacher)
    scaler = torch.amp.GradScaler(on.type) if settings.precision == "float16" else None
    learner = Learner(student, teacher, objective, make_optimizer(student, on, settings.optimizer), scaler=scaler)
    if world.count > 1:
        learner.run = replicated(student)
    return learner


def _network(backbone: Backbone, objective: AnyObjective) -> Network:
    return Network(backbone, objective.heads(backbone.width), hides=objective.settings.masking is not None)
