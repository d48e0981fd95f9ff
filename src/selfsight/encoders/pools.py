"""Pools: what is taken of a network's output as its features, for ViTs and CNNs alike.

ViT: `cls`; `mean` over the patches; `cls+mean`, the published linear protocol of larger models; `last4`, that of small ones: the
CLS tokens of the last four blocks, each after the final norm (Caron et al. 2021, `eval_linear.py`); `registers`; `patches`.
CNN: `gap`, what the network itself pools; `gem` (Radenovic et al. 2018, equation 3, with p = 3); `stage1`, `stage2`...: the map
after a stage.

A dense pool (`patches`, `registers`, a stage) gives [N, D], row-major over the picture, and is kept as one row of N * D numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from selfsight.models.backbones import CNN, Backbone, RotaryViT, Tokens, TorchvisionCNN, ViT

LAST_BLOCKS = 4
_GEM_POWER, _GEM_FLOOR = 3.0, 1e-6

VECTORS = ("cls", "gap", "mean", "cls+mean", "last4")
"""Pools that give one vector, on which a head may sit."""

Pool = Callable[[Backbone, Tensor], Tensor]
"""Images [B, C, H, W] -> [B, D], or [B, N, D] where it is dense."""


def pools_of(backbone: Backbone, seen: Tokens) -> dict[str, Pool]:
    """What can be taken of a network that gives `seen`, the default first."""
    if isinstance(backbone, CNN | TorchvisionCNN):
        stages: dict[str, Pool] = {f"stage{number + 1}": _stage(number) for number in range(backbone.stage_count)}
        return {"gap": _token_pool("mean"), "gem": _gem} | stages
    single = ("cls", "mean", "cls+mean") if seen.cls is not None else ("mean",)
    found = {name: _token_pool(name) for name in single}
    if seen.cls is not None and isinstance(backbone, ViT | RotaryViT) and backbone.depth >= LAST_BLOCKS:
        found["last4"] = _last_blocks
    found["patches"] = _token_pool("patches")
    if seen.registers is not None:
        found["registers"] = _token_pool("registers")
    return found


def of_tokens(tokens: Tokens, pool: str) -> Tensor | None:
    """A pool that needs nothing but the tokens; None for one that needs more."""
    parts = {"cls": tokens.cls, "mean": tokens.pooled, "gap": tokens.pooled}
    parts |= {"patches": tokens.patches, "registers": tokens.registers}
    if pool == "cls+mean" and tokens.cls is not None:
        return torch.cat([tokens.cls, tokens.pooled], dim=1)
    return parts.get(pool)


def own_pool(backbone: Backbone, images: Tensor) -> Tensor:
    """What a transformer of timm puts before its classifier: CLS, a mean or a pool that was learnt, normed as it does it."""
    tokens: Tokens = backbone(images)
    first = [] if tokens.cls is None else [tokens.cls[:, None]]
    registers = [] if tokens.registers is None else [tokens.registers]
    every = torch.cat([*first, *registers, tokens.patches], dim=1)
    pooled: Tensor = backbone.net.forward_head(every, pre_logits=True)  # type: ignore[operator]
    return pooled


def _token_pool(name: str) -> Pool:
    def pool(backbone: Backbone, images: Tensor) -> Tensor:
        taken = of_tokens(backbone(images), name)
        assert taken is not None
        return taken

    return pool


def _last_blocks(backbone: Backbone, images: Tensor) -> Tensor:
    assert isinstance(backbone, ViT | RotaryViT)
    return torch.cat([tokens.summary for tokens in backbone.intermediate(images, LAST_BLOCKS)], dim=1)


def _gem(backbone: Backbone, images: Tensor) -> Tensor:
    """Between the mean (p = 1) and the maximum (p = infinity) over the map."""
    seen: Tokens = backbone(images)
    return seen.patches.clamp_min(_GEM_FLOOR).pow(_GEM_POWER).mean(1).pow(1 / _GEM_POWER)


def _stage(number: int) -> Pool:
    def pool(backbone: Backbone, images: Tensor) -> Tensor:
        assert isinstance(backbone, CNN | TorchvisionCNN)
        return backbone.stages(images)[number].flatten(2).transpose(1, 2)

    return pool
