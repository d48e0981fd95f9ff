"""Transformers from timm."""

from __future__ import annotations

import re

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from selfsight.models.base import Backbone, Tokens, masked, refuse_masks
from selfsight.models.positions import interpolate_published


class ViT(Backbone):
    """timm's `VisionTransformer`, run block by block with the published position interpolation."""

    kind = "vit"
    net: VisionTransformer

    @property
    def patch_size(self) -> int:
        return int(self.net.patch_embed.patch_size[0])

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        return self.intermediate(images, 1, hidden, mask_token)[0]

    @property
    def depth(self) -> int:
        return len(self.net.blocks)

    def depth_of(self, name: str) -> int:
        return depth_by_name(name, self.depth)

    def intermediate(
        self, images: Tensor, count: int, hidden: Tensor | None = None, mask_token: Tensor | None = None
    ) -> list[Tokens]:
        """Tokens of the last `count` blocks, each through the final norm (`get_intermediate_layers` of the published code)."""
        net = self.net
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        x = self._embedded(images, grid, hidden, mask_token)
        kept = []
        for index, block in enumerate(net.blocks):
            x = block(x)
            if index >= len(net.blocks) - count:
                kept.append(self._named(net.norm(x), grid))
        return kept

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """[1, prefix + height*width, D] for a grid of patches."""
        embedding = self.net.pos_embed
        prefix = embedding.shape[1] - self.net.patch_embed.num_patches
        return interpolate_published(embedding, prefix, grid)

    def _embedded(self, images: Tensor, grid: tuple[int, int], hidden: Tensor | None, mask_token: Tensor | None) -> Tensor:
        net = self.net
        patches = masked(net.patch_embed(images), hidden, mask_token)
        first = [] if net.cls_token is None else [net.cls_token.expand(len(images), -1, -1)]
        registers = [] if net.reg_token is None else [net.reg_token.expand(len(images), -1, -1)]
        if net.pos_embed is None:
            x = torch.cat([*first, *registers, patches], dim=1)
        else:
            position = self.position_embedding(grid)
            prefix = position.shape[1] - grid[0] * grid[1]
            # Models either give a position to CLS (and maybe registers) or to the patches alone.
            with_position = torch.cat([*[*first, *registers][:prefix], patches], dim=1) + position
            if prefix == 0:
                x = torch.cat([*first, *registers, with_position], dim=1)
            else:
                late = [*first, *registers][prefix:]
                x = torch.cat([with_position[:, :prefix], *late, with_position[:, prefix:]], dim=1)
        out: Tensor = net.norm_pre(net.pos_drop(x))
        return out

    def _named(self, x: Tensor, grid: tuple[int, int]) -> Tokens:
        has_cls = self.net.cls_token is not None
        prefix = int(self.net.num_prefix_tokens)
        start = 1 if has_cls else 0
        patches = x[:, prefix:]
        return Tokens(
            cls=x[:, 0] if has_cls else None,
            registers=x[:, start:prefix] if prefix > start else None,
            patches=patches,
            pooled=patches.mean(1),
            grid=grid,
        )


class OtherTransformer(Backbone):
    """A timm transformer of another class (rotary positions and the like), through timm's own forward pass."""

    kind = "vit"

    @property
    def patch_size(self) -> int:
        return int(self.net.patch_embed.patch_size[0])  # type: ignore[union-attr,index]

    @property
    def depth(self) -> int:
        return len(self.net.blocks)  # type: ignore[arg-type]

    def depth_of(self, name: str) -> int:
        return depth_by_name(name, self.depth)

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        refuse_masks(self, hidden)
        x = self.net.forward_features(images)  # type: ignore[operator]
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        prefix = int(self.net.num_prefix_tokens)  # type: ignore[arg-type]
        patches = x[:, prefix:]
        return Tokens(
            cls=x[:, 0] if prefix else None,
            registers=x[:, 1:prefix] if prefix > 1 else None,
            patches=patches,
            pooled=patches.mean(1),
            grid=grid,
        )


def depth_by_name(name: str, depth: int) -> int:
    """Where a parameter stands: embedding 0, blocks from 1, the final norm `depth` + 1."""
    if found := re.search(r"\bblocks\.(\d+)\.", name):
        return int(found.group(1)) + 1
    return depth + 1 if re.search(r"\b(norm|fc_norm)\.", name) else 0
