"""Optimiser, weight-decay groups and per-tensor clipping, as published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.models.backbones import Backbone
from selfsight.ssl.lars import LARS
from selfsight.ssl.network import Network
from selfsight.ssl.objectives.base import ALONE, Ranks
from selfsight.ssl.sharded import local

_MOMENTUM = 0.9


class OptimizerSettings(Settings):
    """`learning_rate` is the peak for the batch at hand, warmed up linearly.

    `kind` is `adamw`, or as published for convolutional networks `sgd` or `lars`, both with momentum .9.
    `schedule` is `cosine` from there to the final values, or `constant` (DINOv3). Each block of the backbone learns `layer_decay`
    times as fast as the one above it, and the patch embedding `patch_embed_rate` times as fast again
    (`get_params_groups_with_decay` of facebookresearch/dinov2). `clip` limits the norm of each gradient tensor; 0 leaves
    gradients as they are. The prototypes rest for the first `freeze_last_layer` of the run, and the whole backbone for the first
    `freeze_backbone`: new heads on a backbone that sees well would send it wrong gradients.
    """

    kind: Literal["adamw", "sgd", "lars"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"

    learning_rate: float = Field(5e-4, gt=0)
    final_learning_rate: float = Field(1e-6, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.04, ge=0)
    final_weight_decay: float = Field(0.4, ge=0)
    clip: float = Field(3.0, ge=0)
    freeze_last_layer: float = Field(0.01, ge=0, le=1)
    freeze_backbone: float = Field(0.0, ge=0, lt=1)
    layer_decay: float = Field(1.0, gt=0, le=1)
    patch_embed_rate: float = Field(1.0, gt=0, le=1)


def make_optimizer(student: Network, device: torch.device, settings: OptimizerSettings | None = None) -> torch.optim.Optimizer:
    """Matrices decay; biases, norms and other one-dimensional tensors do not (`get_params_groups`)."""
    settings = settings or OptimizerSettings()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            decays = not (name.endswith(".bias") or parameter.ndim == 1)
            groups[decays, rate_scale(name, student.backbone, settings)].append(parameter)
    named = [
        {"params": parameters, "decays": decays, "scale": scale, **({} if decays else {"weight_decay": 0.0})}
        for (decays, scale), parameters in sorted(groups.items(), key=lambda item: (not item[0][0], item[0][1]))
    ]
    if settings.kind == "lars":
        return LARS(named)
    fused = device.type in ("cuda", "cpu")
    if settings.kind == "sgd":
        return with_momentum(torch.optim.SGD(named, momentum=_MOMENTUM, fused=fused))
    return torch.optim.AdamW(named, fused=fused)


def with_momentum(sgd: torch.optim.SGD) -> torch.optim.SGD:
    """Momentum from the start, which is 0. Torch's fused SGD makes room for it in the first step without writing to it, so that
    a first step that is left out would leave anything there, and it fails where a parameter rests at first."""
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def rate_scale(name: str, backbone: Backbone, settings: OptimizerSettings) -> float:
    """By what the rate of a student's parameter is multiplied: 1 in the heads and after the last block."""
    if not name.startswith("backbone."):
        return 1.0
    depth = backbone.depth_of(name.removeprefix("backbone."))
    scale = settings.layer_decay ** (backbone.depth + 1 - depth)
    return scale * settings.patch_embed_rate if ".patch_embed." in name else scale


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
        if group["decays"]:
            group["weight_decay"] = weight_decay


def all_finite(loss: Tensor, norms: list[Tensor]) -> Tensor:
    """Whether the loss and the norms of all gradients are finite; 0-d bool on the device, so that nothing waits."""
    return torch.isfinite(torch.stack([loss, *(norm.to(loss) for norm in norms)])).all()


def step_if(finite: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    """The optimiser's step where `finite`. Decided on the device, so that nothing waits."""
    if scaler is not None:  # it has looked at the gradients itself
        scaler.step(optimizer)
        scaler.update()
        return
    if optimizer.defaults["fused"]:
        # Fused optimisers leave everything as it is where this is 1; GradScaler tells it so in the same way.
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif finite:
        optimizer.step()


def clip_per_tensor(parameters: Iterable[nn.Parameter], limit: float, shards: Ranks = ALONE) -> list[Tensor]:
    """Scale each gradient whose own L2 norm is above `limit` (0: none); returns the norms before (`clip_gradients` of utils.py).

    Unlike `clip_grad_norm_` the limit holds for every tensor by itself. Where tensors are divided between ranks (`shards`), the
    squares of the norms of their parts are added up, all in one.
    """
    gradients = local(p.grad for p in parameters if p.grad is not None)
    if not gradients:
        return []
    norms = list(torch._foreach_norm(gradients))
    if shards.count > 1:
        norms = list(shards.sum(torch.stack(norms).square()).sqrt().unbind())
    if not limit:
        return norms
    factors = [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, factors)
    return norms
