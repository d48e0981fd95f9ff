"""Backbones from timm behind one adapter that yields named tokens.

A name is a timm architecture (`vit_small_patch16_224`, `resnet50`, `convnext_tiny`...) or a plain ViT spelt by its sizes,
`vit_w96_d4_p8`: width 96, depth 4, patch 8, one head for every 32 channels; `vit_w96_d4_p8_conv` has a convolutional stem.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple

import timm
import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.errors import ConfigError, nearest
from selfsight.models.positions import interpolate_published
from selfsight.models.stems import ConvStem

_PLAIN = re.compile(r"vit_w(\d+)_d(\d+)_p(\d+)(_conv)?")


class BackboneSettings(Settings):
    """Which network; `image_size` is the size its position embeddings are made for."""

    name: str = "vit_small_patch16_224"
    image_size: int = Field(224, ge=8)
    patch_size: int | None = Field(None, ge=1)
    drop_path: float = Field(0.0, ge=0, lt=1)
    channels: int = Field(default=3, ge=1)


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
        if found := re.search(r"\bblocks\.(\d+)\.", name):
            return int(found.group(1)) + 1
        return self.depth + 1 if re.search(r"\b(norm|fc_norm)\.", name) else 0

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


class CNN(Backbone):
    """A timm network that ends in a feature map; its positions are the patches."""

    kind = "cnn"

    def __init__(self, net: nn.Module, settings: BackboneSettings) -> None:
        super().__init__(net, settings)
        self.map_width = self.width
        # MobileNetV3 and its kin widen the pooled vector once more in their head.
        self.width = int(getattr(net, "head_hidden_size", None) or self.map_width)

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        refuse_masks(self, hidden)
        x = self.net.forward_features(images)  # type: ignore[operator]
        # timm pools (and, in ConvNeXt, norms) in forward_head; with the classifier removed that is the pooled feature.
        pooled = self.net.forward_head(x, pre_logits=True)  # type: ignore[operator]
        if x.shape[1] != self.map_width and x.shape[-1] == self.map_width:
            x = x.permute(0, 3, 1, 2)
        return Tokens(None, None, x.flatten(2).transpose(1, 2), pooled, (x.shape[2], x.shape[3]))


def masked(patches: Tensor, hidden: Tensor | None, mask_token: Tensor | None) -> Tensor:
    """Embedded patches [B, N, D] with the token in place of hidden ones, before positions are added."""
    if hidden is None or mask_token is None:
        return patches
    return torch.where(hidden[..., None], mask_token.to(patches.dtype), patches)


def refuse_masks(backbone: Backbone, hidden: Tensor | None) -> None:
    if hidden is not None:
        raise ConfigError(f"backbone '{backbone.settings.name}': has no patches that could be hidden; take a ViT")


def build_backbone(settings: BackboneSettings) -> Backbone:
    """An untrained backbone; draws its weights from torch's generator. Unknown names list the nearest."""
    name, options = _architecture(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns about its own deprecated aliases
        try:
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=settings.channels, **options)
        except TypeError as error:
            raise ConfigError(f"backbone '{settings.name}': does not take these sizes ({error})") from None
    if settings.name.endswith("_conv"):
        patch = int(net.patch_embed.patch_size[0])
        net.patch_embed = ConvStem(settings.image_size, patch, int(net.num_features), settings.channels)
    return wrap(net, settings)


def wrap(net: nn.Module, settings: BackboneSettings) -> Backbone:
    """Put a timm network without classifier behind the adapter."""
    if isinstance(net, VisionTransformer):
        net.patch_embed.strict_img_size = False
        return ViT(net, settings)
    if getattr(net, "num_prefix_tokens", None) is not None and hasattr(net, "patch_embed"):
        return OtherTransformer(net, settings)
    return CNN(net, settings)


def is_vit_name(name: str) -> bool:
    return name.startswith(("vit", "deit", "beit", "eva"))


def _architecture(settings: BackboneSettings) -> tuple[str, dict[str, Any]]:
    """timm's name and keyword arguments for a backbone name."""
    options: dict[str, Any] = {"drop_path_rate": settings.drop_path} if settings.drop_path else {}
    if plain := _PLAIN.fullmatch(settings.name):
        width, depth, patch = map(int, plain.groups()[:3])
        if width % 32:
            raise ConfigError(f"backbone '{settings.name}': the width must be a multiple of 32 (one head for 32 channels)")
        patch = settings.patch_size or patch
        options |= {"img_size": settings.image_size, "patch_size": patch, "embed_dim": width, "depth": depth}
        return "vit_tiny_patch16_224", options | {"num_heads": width // 32}
    base = settings.name.split(".")[0]
    if not timm.is_model(base):
        raise ConfigError(f"backbone '{settings.name}': timm has no such network. {_suggest(base)}")
    if is_vit_name(base):
        options["img_size"] = settings.image_size
        if settings.patch_size:
            options["patch_size"] = settings.patch_size
    return settings.name, options


def _suggest(name: str) -> str:
    hint = nearest(name, timm.list_models())
    common = "vit_small_patch16_224, vit_tiny_patch16_224, vit_w96_d4_p8, resnet50, convnext_tiny"
    return hint if hint.startswith("Did") else f"For example {common}."


def patch_of(name: str) -> int:
    """Patch size that a backbone's name states; 1 for networks without patches."""
    if plain := _PLAIN.fullmatch(name):
        return int(plain.group(3))
    stated = re.search(r"_patch(\d+)", name)
    return int(stated.group(1)) if stated and is_vit_name(name) else 1
