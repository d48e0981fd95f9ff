"""Projection heads on top of a backbone."""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.config import Settings


class HeadSettings(Settings):
    """DINO's projection head; the defaults are the published ones."""

    prototypes: int = Field(65536, ge=2)
    hidden: int = Field(2048, ge=8)
    bottleneck: int = Field(256, ge=2)
    layers: int = Field(3, ge=1)
    norm_last_layer: bool = True


class DINOHead(nn.Module):
    """MLP, L2 normalisation, then a weight-normed linear layer without bias (Caron et al. 2021, section 3.1; `DINOHead`).

    [B, D] -> logits [B, prototypes]. With `norm_last_layer` the gain of each prototype stays 1, so a logit is a cosine.
    Parameter names are those of the published state dict.
    """

    def __init__(self, width: int, settings: HeadSettings) -> None:
        super().__init__()
        sizes = [width] + [settings.hidden] * (settings.layers - 1) + [settings.bottleneck]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            layers += [nn.GELU()] if index else []
            layers.append(nn.Linear(before, after))
        self.mlp = nn.Sequential(*layers)
        self.last_layer = WeightNormLinear(settings.bottleneck, settings.prototypes, train_gain=not settings.norm_last_layer)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last_layer(F.normalize(self.mlp(x), dim=-1))
        return logits


class WeightNormLinear(nn.Module):
    """y = x W^T with row i of W equal to g_i v_i / ||v_i|| (Salimans and Kingma 2016)."""

    def __init__(self, inputs: int, outputs: int, *, train_gain: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=train_gain)
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        # One pass over the weight; the gradient too. In separate operations it is 5 % of a step with 65,536 prototypes.
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))
