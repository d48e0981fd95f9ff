"""Transformers from timm."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selfsight.errors import ConfigError
from selfsight.models.attention import Entry
from selfsight.models.base import Backbone, BackboneSettings, Tokens, masked, refuse_masks
from selfsight.models.packed import adopt, pack, unpack
from selfsight.models.positions import interpolate_antialiased, interpolate_published


class Transformer(Backbone):
    """What all of timm's transformers have in common: prefix tokens, then patches, and blocks."""

    kind = "vit"
    _compiled: Callable[..., Tensor] | None = None

    @property
    def patch_size(self) -> int:
        side: Any = self.net.patch_embed.patch_size  # type: ignore[union-attr]
        return int(side if isinstance(side, int) else side[0])

    @property
    def depth(self) -> int:
        return len(getattr(self.net, "blocks", ()))

    def depth_of(self, name: str) -> int:
        if found := re.search(r"\bblocks\.(\d+)\.", name):
            return int(found.group(1)) + 1
        return self.depth + 1 if re.search(r"\b(norm|fc_norm)\.", name) else 0

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        return (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)

    def named(self, x: Tensor, grid: tuple[int, int]) -> Tokens:
        """Tokens [B, prefix + N, D] by name."""
        prefix = int(self.net.num_prefix_tokens)  # type: ignore[arg-type]
        start = 0 if getattr(self.net, "cls_token", None) is None else 1
        patches = x[:, prefix:]
        return Tokens(
            cls=x[:, 0] if start else None,
            registers=x[:, start:prefix] if prefix > start else None,
            patches=patches,
            pooled=patches.mean(1),
            grid=grid,
        )

    def entered(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        """[B, C, H, W] -> the tokens [B, T, D] that enter the first block, and the rotation of each block."""
        raise ConfigError(f"backbone '{self.settings.name}': its blocks are not known here, so there is no attention to see")

    def watched(self, images: Tensor) -> tuple[Tokens, list[Entry]]:
        """[B, C, H, W] -> tokens as `forward` gives them, and what went into each block.

        `ConfigError` for blocks whose attention takes something else than tokens after a first norm.
        """
        for block in self.net.blocks:  # type: ignore[union-attr]
            if not isinstance(block, Block | EvaBlock):
                raise ConfigError(f"{self.settings.name}: what its blocks ({type(block).__name__}) attend to is not known here")
        x, ropes = self.entered(images)
        entries = []
        for block, rope in zip(self.net.blocks, ropes, strict=True):  # type: ignore[arg-type]
            entries.append(Entry(x, block, rope))
            x = self.through(block, x) if rope is None else self.through(block, x, rope=rope)
        return self.named(self.net.norm(x), self.grid_of(images)), entries  # type: ignore[operator]

    def last_attention(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, heads, T, T] of the last block (`get_last_selfattention` of the published code)."""
        return self.watched(images)[1][-1].attention()

    def through(self, block: nn.Module, x: Tensor, **options: Any) -> Tensor:
        """A block as a module, or called again in the backward pass where memory is to be saved."""
        call = self._compiled if self._compiled is not None and self.training else _call
        if self.settings.checkpointing and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(call, block, x, use_reentrant=False, **options)
            return out
        return call(block, x, **options)

    def compile_blocks(self) -> None:
        # Every size of view, with gradient and without, is one more compilation, and so is every rate of stochastic depth.
        dynamo = importlib.import_module("torch._dynamo")
        dynamo.config.recompile_limit = max(64, dynamo.config.recompile_limit)
        self._compiled = torch.compile(_call, dynamic=False)


def _call(block: nn.Module, x: Tensor, **options: Any) -> Tensor:
    out: Tensor = block(x, **options)
    return out


class ViT(Transformer):
    """timm's `VisionTransformer`, run block by block with the published position interpolation."""

    net: VisionTransformer

    def __init__(self, net: nn.Module, settings: BackboneSettings) -> None:
        super().__init__(net, settings)
        self.packs = adopt(self.net.blocks)

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        return self.intermediate(images, 1, hidden, mask_token)[0]

    def intermediate(
        self, images: Tensor, count: int, hidden: Tensor | None = None, mask_token: Tensor | None = None
    ) -> list[Tokens]:
        """Tokens of the last `count` blocks, each through the final norm (`get_intermediate_layers` of the published code)."""
        net = self.net
        grid = self.grid_of(images)
        x = self._embedded(images, grid, hidden, mask_token)
        kept = []
        for index, block in enumerate(net.blocks):
            x = self.through(block, x)
            if index >= len(net.blocks) - count:
                kept.append(self.named(net.norm(x), grid))
        return kept

    def entered(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        return self._embedded(images, self.grid_of(images), None, None), [None] * self.depth

    def views(
        self, batches: Sequence[Tensor], hidden: Tensor | None = None, mask_token: Tensor | None = None, *, patches: bool = True
    ) -> list[Tokens]:
        """All sizes in one pass on a GPU, which is kept busier by it; a CPU is faster with one after the other."""
        if not self.packs:
            return super().views(batches, hidden, mask_token, patches=patches)
        grids = [self.grid_of(batch) for batch in batches]
        groups = [
            self._embedded(b, g, None if i else hidden, mask_token) for i, (b, g) in enumerate(zip(batches, grids, strict=True))
        ]
        whole = patches or self.net.cls_token is None
        passes = [groups] if groups[0].is_cuda else [[group] for group in groups]
        tokens = [each for part in passes for each in self._blocks(part, whole)]
        if whole:
            return [self.named(each, grid) for each, grid in zip(tokens, grids, strict=True)]
        return [Tokens(x[:, 0], None, x[:, 1:], x[:, 0], grid) for x, grid in zip(tokens, grids, strict=True)]

    def _blocks(self, groups: Sequence[Tensor], whole: bool) -> list[Tensor]:
        """Tokens [B_i, N_i, D] through all blocks and the last norm; only their first ones, [B_i, 1, D], if not the `whole`."""
        x, layout = pack(groups)
        for index, block in enumerate(self.net.blocks):
            x = self.through(block, x, layout=layout, first_alone=not whole and index == self.depth - 1)
        x = self.net.norm(x)
        return unpack(x, layout if whole else tuple(group._replace(tokens=1) for group in layout))

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """[1, prefix + height*width, D] for a grid of patches; as in DINOv2, networks with registers resample it antialiased."""
        embedding = self.net.pos_embed
        prefix = embedding.shape[1] - self.net.patch_embed.num_patches
        interpolate = interpolate_published if self.net.reg_token is None else interpolate_antialiased
        return interpolate(embedding, prefix, grid)

    def _embedded(self, images: Tensor, grid: tuple[int, int], hidden: Tensor | None, mask_token: Tensor | None) -> Tensor:
        net = self.net
        patches = masked(net.patch_embed(images), hidden, mask_token)
        first = [] if net.cls_token is None else [net.cls_token.expand(images.shape[0], -1, -1)]
        registers = [] if net.reg_token is None else [net.reg_token.expand(images.shape[0], -1, -1)]
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


class RotaryViT(Transformer):
    """timm's `Eva`, which has rotary positions: DINOv3 and its kin, run block by block."""

    net: Eva

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        return self.intermediate(images, 1, hidden, mask_token)[0]

    def intermediate(
        self, images: Tensor, count: int, hidden: Tensor | None = None, mask_token: Tensor | None = None
    ) -> list[Tokens]:
        """Tokens of the last `count` blocks, each through the final norm (`get_intermediate_layers` of the published code)."""
        net, grid = self.net, self.grid_of(images)
        x, ropes = self._embedded(images, grid, hidden, mask_token)
        kept = []
        for index, (block, rope) in enumerate(zip(net.blocks, ropes, strict=True)):
            x = self.through(block, x, rope=rope)
            if index >= len(net.blocks) - count:
                kept.append(self.named(net.norm(x), grid))
        return kept

    def entered(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        return self._embedded(images, self.grid_of(images), None, None)

    def _embedded(
        self, images: Tensor, grid: tuple[int, int], hidden: Tensor | None, mask_token: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Tokens before the first block, and the rotation of each block."""
        net = self.net
        patches = net.patch_embed(images)
        patches = masked(patches if patches.ndim == 3 else patches.flatten(1, 2), hidden, mask_token)
        x, rope = net._pos_embed(patches.view(images.shape[0], *grid, -1) if net.dynamic_img_size else patches)
        ropes = list(rope) if net.rope_mixed else [rope] * len(net.blocks)
        return net.norm_pre(x), ropes


class OtherTransformer(Transformer):
    """A timm transformer of another class, through timm's own forward pass."""

    compile_blocks = Backbone.compile_blocks

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        refuse_masks(self, hidden)
        return self.named(self.net.forward_features(images), self.grid_of(images))  # type: ignore[operator]
