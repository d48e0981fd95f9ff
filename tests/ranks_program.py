"""What torchrun starts on each rank for `test_ranks.py`: short trainings on tensors, and the reductions by themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from objective_cases import CASES, HEAD, Case
from selfsight.ssl.learner import divide
from selfsight.ssl.objectives.base import Ranks
from selfsight.ssl.parallel import joined
from selfsight.ssl.replicas import replicated
from selfsight.ssl.step import train_step
from selfsight.ssl.world import World

STEPS, SIZE = 20, 8


def curve(
    case: Case, world: World, *, parts: int = 1, divided: bool = False, half: bool = False, again: bool = False
) -> list[float]:
    """Losses of a training on this rank's part of each batch, with networks that are whole on each rank or `divided`; in `half`
    precision; with activations computed `again` in the backward pass."""
    learner = case.learner(ranks=world, uncoupled=parts > 1)
    if world.count > 1 and divided:
        divide(learner, torch.device("cpu"), world, torch.bfloat16 if half else None)
    elif world.count > 1:
        learner.run = replicated(learner.student)
    student = learner.student.backbone
    student.settings = student.settings.model_copy(update={"checkpointing": again})
    precision, losses = "bfloat16" if half else "float32", []
    for step in range(STEPS):
        part = case.batch(step, SIZE).split(world.count)[world.rank]
        rates = case.rates(step / STEPS)._replace(learning_rate=5e-4)
        losses.append(train_step(learner, part, rates, 3.0, precision, parts).value.item())
    return losses


def rows() -> Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def nearest_neighbour(ranks: Ranks, x: Tensor) -> Tensor:
    """Mean over rows of -log of the distance to the nearest other row of all ranks (KoLeo)."""
    everything, start = ranks.gather(x)
    itself = torch.arange(len(everything)) == start + torch.arange(len(x))[:, None]
    return -torch.cdist(x, everything).masked_fill(itself, float("inf")).min(1).values.log().sum()


def shares(ranks: Ranks, x: Tensor) -> Tensor:
    """exp(x) with columns and rows of all ranks brought to the same sums in turn (Sinkhorn and Knopp), three times."""
    q = x.exp()
    for _ in range(3):
        q = q / ranks.sum(q.sum(0))
        q = q / q.sum(1, keepdim=True)
    return q


def reductions(world: World) -> dict[str, Any]:
    """On uneven parts of seven rows: 4 and 3."""
    start, stop = (0, 7) if world.count == 1 else ((0, 4), (4, 7))[world.rank]
    x = rows()[start:stop].requires_grad_()
    loss = nearest_neighbour(world, x)
    loss.backward()
    assert x.grad is not None
    return {
        "loss": float(world.sum(loss.detach())),
        # Each rank's loss is a sum here, so the gradients of the ranks add up to that of the whole: rows come back exact.
        "gradient": [row for part in world.collect(x.grad.tolist()) for row in part],
        "shares": [row for part in world.collect(shares(world, x.detach()).tolist()) for row in part],
        "mean": world.mean(torch.tensor([float(start), 1.0])).tolist(),
        "highest": world.highest(start, -start),
        "said": world.said(10.0 + world.rank),
        "first": world.first(lambda: f"rank {world.rank}"),
    }


def everything(world: World) -> dict[str, Any]:
    torch.set_num_threads(1)
    curves = {name: curve(case, world) for name, case in CASES.items()}
    late = Case("dinov3", {"head": HEAD, "gram": {"start": 0.3, "refresh_every": 0.3}})
    return {
        "curves": curves | {"late gram teacher": curve(late, world)},
        "divided": {name: curve(case, world, divided=True) for name, case in (CASES | {"late gram teacher": late}).items()},
        "again divided": curve(CASES["dino"], world, divided=True, again=True),
        "half": curve(CASES["dino"], world, half=True),
        "half divided": curve(CASES["dino"], world, half=True, divided=True),
        "parts": curve(CASES["dino"], world, parts=2),
        "parts divided": curve(CASES["dino"], world, parts=2, divided=True),
        "reductions": reductions(world),
    }


if __name__ == "__main__":
    with joined() as group:
        found = everything(group)
        if group.leads:
            Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
