"""LARS: a matrix learns at a rate that follows the size of its weights (You et al. 2017; `LARS` of DINO's utils.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

_TRUST = 0.001


class LARS(torch.optim.Optimizer):
    """Momentum on gradients that are scaled to a share of their weights' norm.

    For a matrix w with gradient g (weight decay added): g <- g * trust * |w| / |g| where neither norm is 0, then
    m <- momentum * m + g and w <- w - rate * m. Biases and norms, the groups whose `decays` is false, take g as it is.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float = 0.0, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "decays": True, "fused": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise TypeError("LARS takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if group["decays"]:
                    update = update.add(parameter, alpha=group["weight_decay"])
                    weight, size = parameter.norm(), update.norm()
                    ratio = _TRUST * weight / size
                    update = update * torch.where((weight > 0) & (size > 0), ratio, torch.ones_like(ratio))
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                parameter.add_(state["momentum_buffer"], alpha=-group["lr"])
