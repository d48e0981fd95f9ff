"""One step of self-distillation, from views to the updated teacher. Algorithm 1 of the paper reads like this."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfsight.device import autocast
from selfsight.ssl.batch import Batch
from selfsight.ssl.health import feature_signs
from selfsight.ssl.network import IMAGE, Network, update_teacher
from selfsight.ssl.objectives.base import ALONE, AnyObjective, Loss, Ranks
from selfsight.ssl.optimizer import OptimizerSettings, all_finite, clip_per_tensor, set_rates, step_if
from selfsight.ssl.schedules import constant, cosine


@dataclass
class Setbacks:
    """Steps that were skipped because their loss or gradient was not finite: how many in all, how many just now in a row, how
    often that led back to a checkpoint, and by what it has multiplied the learning rate."""

    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0
    rate_factor: float = 1.0


@dataclass
class Learner:
    """All that changes during a training. `run` is the student as it is called: itself, or wrapped for several devices. `shards`
    are the ranks between which its tensors are divided, if they are."""

    student: Network
    teacher: Network
    objective: AnyObjective
    optimizer: torch.optim.Optimizer
    step: int = 0
    scaler: torch.amp.GradScaler | None = None
    setbacks: Setbacks = field(default_factory=Setbacks)
    shards: Ranks = ALONE
    run: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.run = self.student
        self.objective.begin(self.teacher)

    def embed(self, images: Tensor) -> Tensor:
        """The teacher's summaries [B, D] of images [B, C, H, W]."""
        return self.teacher.embed(images)

    def classify(self, images: Tensor) -> Tensor:
        """What the teacher's head answers [B, K] to images [B, C, H, W]."""
        answers: Tensor = self.teacher.heads[IMAGE](self.teacher.embed(images))
        return answers

    def collecting(self, last: bool) -> AbstractContextManager[None]:
        """Around a part of a batch: ranks exchange gradients in the `last` one alone."""
        return nullcontext() if last or not isinstance(self.run, DistributedDataParallel) else self.run.no_sync()


class Rates(NamedTuple):
    """What the schedules say at one position of the run."""

    learning_rate: float
    weight_decay: float
    momentum: float
    progress: float
    last_layer_frozen: bool
    backbone_frozen: bool = False


def rates_at(progress: float, nominal_steps: float, o: OptimizerSettings, momentum: float, final_momentum: float = 1.0) -> Rates:
    """Rates at a share of the run; `nominal_steps` is its length in steps, as far as is known."""
    at = progress * nominal_steps
    schedule = cosine if o.schedule == "cosine" else constant
    return Rates(
        learning_rate=schedule(at, nominal_steps, o.learning_rate, o.final_learning_rate, o.warmup * nominal_steps),
        weight_decay=schedule(at, nominal_steps, o.weight_decay, o.final_weight_decay),
        momentum=schedule(at, nominal_steps, momentum, final_momentum),
        progress=progress,
        last_layer_frozen=progress < o.freeze_last_layer,
        backbone_frozen=progress < o.freeze_backbone,
    )


def train_step(
    learner: Learner,
    batch: Batch,
    rates: Rates,
    clip: float,
    precision: str = "float32",
    parts: int = 1,
    weight: float = 1.0,
) -> Loss:
    """Update student and teacher by one batch, which may be worked through in `parts` to save memory.

    The gradient is that of the whole batch but for what couples its samples: Sinkhorn centring, KoLeo, batch norm. A step whose
    loss or gradient is not finite changes nothing but the count: not the optimiser, the teacher, the objective's state or the
    statistics of batch norm. That is decided on the device; the `finite` of the loss says so. Of several ranks each has its part
    of the batch, whose gradients are averaged; `weight` is that of this rank's part in the average, 1 where all are of one size.
    """
    student, teacher, objective = learner.student, learner.teacher, learner.objective
    statistics = [(buffer, buffer.clone()) for network in (student, teacher) for buffer in network.statistics()]
    learner.optimizer.zero_grad(set_to_none=True)
    losses = []
    pieces = batch.split(parts)
    for part in pieces:
        with learner.collecting(last=part is pieces[-1]):
            with autocast(part.views[0].device, precision):
                with torch.no_grad():
                    targets = objective.targets(teacher, part)
                predictions = objective.predictions(learner.run, part)
            loss = objective(predictions, targets, rates.progress).also(feature_signs(predictions.summaries[: part.size]))
            share = part.size / batch.size
            scaled(loss.value * (share * weight), learner.scaler).backward()  # type: ignore[no-untyped-call]
        losses.append((share, loss))

    for parameter in resting(student, rates):
        parameter.grad = None
    if learner.scaler is not None:
        learner.scaler.unscale_(learner.optimizer)
    norms = clip_per_tensor(student.parameters(), clip, learner.shards)
    whole = over_ranks(average(losses), weight, objective.ranks)
    set_rates(learner.optimizer, rates.learning_rate, rates.weight_decay)
    finite = objective.ranks.sum((~all_finite(whole.value, norms)).float()) == 0
    step_if(finite, learner.optimizer, learner.scaler)
    update_teacher(teacher, student, rates.momentum, buffers=not objective.teacher_looks, finite=finite)
    objective.commit(teacher, rates.progress, finite)
    for buffer, before in statistics:
        buffer.copy_(torch.where(finite, buffer, before))
    learner.step += 1
    return whole._replace(finite=finite)


def resting(student: Network, rates: Rates) -> list[nn.Parameter]:
    """Parameters that do not learn yet."""
    last = list(student.last_layers()) if rates.last_layer_frozen else []
    return [*last, *(student.backbone.parameters() if rates.backbone_frozen else ())]


def scaled(loss: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    return loss if scaler is None else scaler.scale(loss)


def average(losses: list[tuple[float, Loss]]) -> Loss:
    """Of the parts of a batch, without gradient."""
    if len(losses) == 1:
        return Loss(losses[0][1].value.detach(), losses[0][1].diagnostics)
    value = sum((share * loss.value.detach() for share, loss in losses), torch.zeros(()))
    names = losses[0][1].diagnostics
    return Loss(value, {n: sum((share * loss.diagnostics[n] for share, loss in losses), torch.zeros(())) for n in names})


def over_ranks(loss: Loss, weight: float, ranks: Ranks) -> Loss:
    """The loss of the whole batch, and the mean diagnostics of its parts: the same on all ranks, so that they decide the same."""
    if ranks.count == 1:
        return loss
    numbers = ranks.mean(torch.stack([loss.value * weight, *(value.to(loss.value) for value in loss.diagnostics.values())]))
    return Loss(numbers[0], dict(zip(loss.diagnostics, numbers[1:], strict=True)))
