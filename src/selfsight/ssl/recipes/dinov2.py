"""DINOv2 (Oquab et al. 2024), scaled to the number and the size of the images."""

from __future__ import annotations

import math

from selfsight.data.presets import PUBLISHED
from selfsight.models.backbones import patch_of
from selfsight.models.names import is_plain_name
from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts, multiple
from selfsight.ssl.recipes.dino import dino

_UNTIED_FROM = 100_000
_NOT_HERE = ("objective.koleo", "objective.center_momentum", "backbone.drop_path", "optimizer.")


def dinov2(facts: Facts, backbone: str | None) -> list[Derived]:
    """DINOv2 (Oquab et al. 2024) scaled to the number and the size of the images."""
    small = "vit_w192_d6" if facts.accelerator else "vit_w64_d3"
    large = "vit_small_patch14_reg4_dinov2" if facts.accelerator else "vit_w192_d12_p16"
    rows = with_patches("dinov2", facts, backbone, small, large)
    values = {row.key: row.value for row in rows}
    if facts.side >= SMALL_SIDE:
        peak = round(4e-3 * math.sqrt(values["batch_size"] / 1024), 6)
        rows.append(Derived("optimizer.learning_rate", peak, "4e-3 x sqrt(batch/1024)"))
    return over(
        rows,
        Derived("teacher_momentum", min(0.992, values["teacher_momentum"]), "published"),
        Derived("optimizer.final_weight_decay", 0.2, "published"),
    )


def with_patches(name: str, facts: Facts, backbone: str | None, small: str, large: str) -> list[Derived]:
    """What the recipes of DINOv2 and DINOv3 have in common: sizes, heads and temperatures of `dino`; a network with registers and
    LayerScale; rates that fall with depth.

    The stem is linear: one of convolutions would see hidden patches through their neighbours.
    """
    tiny = facts.side < SMALL_SIDE
    chosen = backbone or (f"{small}_p{8 if facts.side >= 40 else 4}" if tiny else large)
    base = dino(facts, chosen)
    heads = [row for row in base if row.key.startswith("objective.head.")]
    kept = [row for row in base if not row.key.startswith(_NOT_HERE) or (tiny and row.key.endswith("learning_rate"))]
    rows = over(
        kept,
        Derived("objective.name", name, "recipe"),
        Derived("backbone.name", chosen, "given" if backbone else f"images of {facts.side} px"),
        Derived("optimizer.layer_decay", 0.9, "published"),
        Derived("optimizer.patch_embed_rate", 0.2, "published"),
    )
    if facts.images >= _UNTIED_FROM:
        rows += [Derived(row.key.replace("head", "patch_head"), row.value, "untied heads, many images") for row in heads]
    if is_plain_name(chosen):
        rows.append(Derived("backbone.registers", 4, "published"))
        rows.append(Derived("backbone.layer_scale", 0.1 if tiny else 1e-5, "small network" if tiny else "published"))
    return rows if tiny else over(rows, *_views(name, patch_of(chosen)))


def _views(name: str, patch: int) -> list[Derived]:
    """The published views, at sizes that are multiples of the patch."""
    views = PUBLISHED[name]
    sizes = {key: multiple(getattr(views, key), patch) for key in ("global_size", "local_size")}
    kept = {key: list(getattr(views, key)) for key in ("global_scale", "local_scale", "blur")}
    rows = [Derived(f"views.{key}", value, "published") for key, value in (sizes | kept | {"flip": views.flip}).items()]
    return [*rows, Derived("backbone.image_size", sizes["global_size"], "global views")]


def over(rows: list[Derived], *changes: Derived) -> list[Derived]:
    """The rows, with others in the place of those of the same key or after them."""
    keys = {row.key for row in changes}
    return [*(row for row in rows if row.key not in keys), *changes]
