"""One step of self-distillation, from views to the updated teacher. Algorithm 1 of the paper reads like this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsight.device import autocast
from selfsight.ssl.objectives.base import Loss, Objective
from selfsight.ssl.optimizer import OptimizerSettings, clip_per_tensor, set_rates
from selfsight.ssl.schedules import cosine
from selfsight.ssl.teacher import Network, update_teacher


@dataclass
class Learner:
    """All that changes during a training."""

    student: Network
    teacher: Network
    objective: Objective[Any]
    optimizer: torch.optim.Optimizer
    step: int = 0


class Rates(NamedTuple):
    """What the schedules say at one position of the run."""

    learning_rate: float
    weight_decay: float
    momentum: float
    progress: float
    last_layer_frozen: bool


def rates_at(progress: float, nominal_steps: float, optimizer: OptimizerSettings, momentum: float) -> Rates:
    """Rates at a share of the run; `nominal_steps` is its length in steps, as far as is known."""
    at, o = progress * nominal_steps, optimizer
    return Rates(
        learning_rate=cosine(at, nominal_steps, o.learning_rate, o.final_learning_rate, o.warmup * nominal_steps),
        weight_decay=cosine(at, nominal_steps, o.weight_decay, o.final_weight_decay),
        momentum=cosine(at, nominal_steps, momentum, 1.0),
        progress=progress,
        last_layer_frozen=progress < o.freeze_last_layer,
    )


def train_step(learner: Learner, views: Sequence[Tensor], rates: Rates, clip: float, precision: str = "float32") -> Loss:
    """`views` are batches by size, the two global views (view-major) first: [2B, 3, S, S] and, if any, [LB, 3, s, s]."""
    student, teacher = learner.student, learner.teacher
    with autocast(views[0].device, precision):
        with torch.no_grad():
            targets = teacher(views[:1])
        predictions = student(views)
    loss = learner.objective(predictions, targets, rates.progress)

    learner.optimizer.zero_grad(set_to_none=True)
    loss.value.backward()
    if clip:
        clip_per_tensor(student.parameters(), clip)
    if rates.last_layer_frozen:
        for parameter in student.head.last_layer.parameters():
            parameter.grad = None
    set_rates(learner.optimizer, rates.learning_rate, rates.weight_decay)
    learner.optimizer.step()
    update_teacher(teacher, student, rates.momentum)
    learner.step += 1
    return Loss(loss.value.detach(), loss.diagnostics)
