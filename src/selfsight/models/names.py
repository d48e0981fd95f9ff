"""Names of networks: what timm calls them, and plain ViTs spelt by their sizes.

`vit_w96_d4_p8` has width 96, depth 4, patch 8, one head for every 32 channels; `vit_w96_d4_p8_h6` has 6 heads instead of these 3,
`vit_w96_d4_p8_conv` a convolutional stem.
"""

from __future__ import annotations

import re
from typing import Any

import timm

from selfsight.errors import ConfigError, nearest
from selfsight.models.base import BackboneSettings

_PLAIN = re.compile(r"vit_w(\d+)_d(\d+)_p(\d+)(?:_h(\d+))?(_conv)?")


def is_plain_name(name: str) -> bool:
    """Whether a name spells a ViT by its sizes."""
    return _PLAIN.fullmatch(name) is not None


def is_vit_name(name: str) -> bool:
    return name.startswith(("vit", "deit", "beit", "eva"))


def architecture(settings: BackboneSettings) -> tuple[str, dict[str, Any]]:
    """timm's name and keyword arguments for a backbone name."""
    options: dict[str, Any] = {"drop_path_rate": settings.drop_path} if settings.drop_path else {}
    plain = _PLAIN.fullmatch(settings.name)
    if (settings.rope or settings.rope_rescale > 1) and not (plain and settings.rope):
        raise ConfigError(f"backbone.rope: only for ViTs spelt by their sizes, such as vit_w192_d12_p16. Got {settings.name}.")
    if settings.layer_scale is not None:
        options["init_values"] = settings.layer_scale
    if plain:
        width, depth, patch = map(int, plain.groups()[:3])
        heads = int(plain[4] or width // 32)
        if plain[4] is None and width % 32:
            raise ConfigError(f"backbone '{settings.name}': the width must be a multiple of 32 (one head for 32 channels)")
        if not heads or width % heads:
            raise ConfigError(f"backbone '{settings.name}': the width must be a multiple of the heads, {heads}")
        patch = settings.patch_size or patch
        options |= {"img_size": settings.image_size, "patch_size": patch, "embed_dim": width, "depth": depth}
        options["num_heads"] = heads
        if settings.rope:
            return "vit_small_patch16_dinov3_qkvb", options | {"num_reg_tokens": settings.registers}
        return "vit_tiny_patch16_224", _with_registers(options, settings)
    base = settings.name.split(".")[0]
    if not timm.is_model(base):
        raise ConfigError(f"backbone '{settings.name}': timm has no such network. {_suggest(base)}")
    if is_vit_name(base):
        options["img_size"] = settings.image_size
        if settings.patch_size:
            options["patch_size"] = settings.patch_size
    return settings.name, _with_registers(options, settings)


def _with_registers(options: dict[str, Any], settings: BackboneSettings) -> dict[str, Any]:
    """As in DINOv2 registers have no position, and with them CLS has none."""
    return options | ({"reg_tokens": settings.registers, "no_embed_class": True} if settings.registers else {})


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
