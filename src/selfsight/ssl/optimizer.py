"""Optimiser, weight-decay groups and per-tensor clipping, as published."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.config import Settings


class OptimizerSettings(Settings):
    """AdamW with cosine schedules. `learning_rate` is the peak for the batch at hand, warmed up linearly."""

    learning_rate: float = Field(5e-4, gt=0)
    final_learning_rate: float = Field(1e-6, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.04, ge=0)
    final_weight_decay: float = Field(0.4, ge=0)
    clip: float = Field(3.0, ge=0)
    freeze_last_layer: float = Field(0.01, ge=0, le=1)


def make_optimizer(student: nn.Module, device: torch.device) -> torch.optim.AdamW:
    """AdamW over two groups: matrices decay; biases, norms and other one-dimensional tensors do not (`get_params_groups`)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith(".bias") or parameter.ndim == 1 else decayed).append(parameter)
    groups = [{"params": decayed, "decays": True}, {"params": plain, "decays": False, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, fused=device.type in ("cuda", "cpu"))


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay


def clip_per_tensor(parameters: Iterable[nn.Parameter], limit: float) -> list[Tensor]:
    """Scale each gradient whose own L2 norm is above `limit`; returns the norms before (`clip_gradients` of utils.py).

    Unlike `clip_grad_norm_` the limit holds for every tensor by itself.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return []
    norms = list(torch._foreach_norm(gradients))
    factors = [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, factors)
    return norms
