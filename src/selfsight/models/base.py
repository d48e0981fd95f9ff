"""What every backbone gives: a network of timm behind one adapter that yields named tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.errors import ConfigError


class BackboneSettings(Settings):
    """Which network; `image_size` is the size its position embeddings are made for.

    With `checkpointing` what happens inside a block is computed again in the backward pass instead of being kept: about a third
    more work for a fraction of the memory.

    ViTs take `registers`, tokens beside CLS that belong to no patch (Darcet et al. 2024), and `layer_scale`, by which what a
    block adds is multiplied at first (Touvron et al. 2021); where they are not given they are as timm has them. Plain ViTs spelt
    by their sizes take rotary positions (`rope`, DINOv3), stretched at random by up to `rope_rescale` in training.
    """

    name: str = "vit_small_patch16_224"
    image_size: int = Field(224, ge=8)
    patch_size: int | None = Field(None, ge=1)
    drop_path: float = Field(0.0, ge=0, lt=1)
    channels: int = Field(default=3, ge=1)
    registers: int = Field(0, ge=0)
    layer_scale: float | None = Field(None, gt=0)
    rope: bool = False
    rope_rescale: float = Field(1.0, ge=1)
    checkpointing: bool = False

    def calm(self) -> BackboneSettings:
        """The same network without what is drawn at random in training: the teacher's."""
        return self.model_copy(update={"drop_path": 0.0, "rope_rescale": 1.0})


class Tokens(NamedTuple):
    """Named outputs of a backbone, after its final norm.

    `cls` [B, D] or None (CNN), `registers` [B, R, D] or None, `patches` [B, N, D] row-major over `grid` (height, width),
    `pooled` [B, D]: mean over patches, or what the CNN's own pooling gives.
    """

    cls: Tensor | None
    registers: Tensor | None
    patches: Tensor
    pooled: Tensor
    grid: tuple[int, int]

    @property
    def summary(self) -> Tensor:
        """The one vector that training compares: CLS of a ViT, pooled map of a CNN."""
        return self.pooled if self.cls is None else self.cls


class Backbone(nn.Module):
    """A timm network without its head. The state dict is that of `net`, with timm's names."""

    kind: str

    def __init__(self, net: nn.Module, settings: BackboneSettings) -> None:
        super().__init__()
        self.net = net
        self.settings = settings
        self.width = int(net.num_features)  # type: ignore[arg-type]

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        """[B, C, H, W] -> tokens. Where `hidden` [B, N] is set, `mask_token` [1, D] stands in a patch's place (ViTs alone)."""
        raise TypeError("build a backbone with build_backbone()")

    def views(
        self, batches: Sequence[Tensor], hidden: Tensor | None = None, mask_token: Tensor | None = None, *, patches: bool = True
    ) -> list[Tokens]:
        """Batches of several sizes; patches are hidden in the first. Without `patches` a backbone may leave them out ([B, 0, D])
        with `pooled` and registers, and compute only what `summary` needs."""
        return [self(batch, hidden if place == 0 else None, mask_token) for place, batch in enumerate(batches)]

    def compile_blocks(self) -> None:
        """Let torch compile what a block does in training; called from elsewhere it stays as it is. Names stay, too."""
        raise ConfigError(f"compile: is for the blocks of plain ViTs, and {self.settings.name} has none; take compile=false")

    @property
    def depth(self) -> int:
        """Blocks or stages, for rates that fall with depth."""
        return 0

    def depth_of(self, name: str) -> int:
        """At which depth a parameter stands, from 0 (embedding) over 1 (first block) to `depth` + 1 (after the last block)."""
        return self.depth + 1

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels; 1 for networks that take any size."""
        return 1

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.net.parameters())


def masked(patches: Tensor, hidden: Tensor | None, mask_token: Tensor | None) -> Tensor:
    """Embedded patches [B, N, D] with the token in place of hidden ones, before positions are added."""
    if hidden is None or mask_token is None:
        return patches
    return torch.where(hidden[..., None], mask_token.to(patches.dtype), patches)


def refuse_masks(backbone: Backbone, hidden: Tensor | None) -> None:
    if hidden is not None:
        raise ConfigError(f"backbone '{backbone.settings.name}': has no patches that could be hidden; take a ViT")
