"""Recipes: full configurations derived from the images at hand and the budget.

A recipe is a function from `Facts` to values; whatever it derived is listed with its reason, printed before training starts and
written to `config.yaml`. To add one: a function here and a line in `RECIPES`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from selfsight.config import Settings
from selfsight.data.views import ViewSettings
from selfsight.errors import ConfigError
from selfsight.models.backbones import BackboneSettings, is_vit_name, patch_of
from selfsight.models.heads import HeadSettings
from selfsight.ssl.objectives.dino import DINOSettings
from selfsight.ssl.optimizer import OptimizerSettings


class TrainSettings(Settings):
    """Everything that defines a training; `config.yaml` of a run is this."""

    recipe: str
    data: str
    images: int = Field(ge=1)
    limit: int | None = None
    seed: int = Field(0, ge=0)
    epochs: float | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(ge=1)
    teacher_momentum: float = Field(ge=0, le=1)
    objective: str = "dino"
    backbone: BackboneSettings
    head: HeadSettings
    dino: DINOSettings
    views: ViewSettings
    optimizer: OptimizerSettings
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1)
    workers: int = Field(0, ge=0)
    log_every: int = Field(10, ge=1)
    probe_every_epochs: float = Field(1.0, gt=0)
    save_every_minutes: float = Field(5.0, gt=0)
    collapse_window: float = Field(0.25, gt=0, le=1)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.images // self.batch_size)


class Facts(NamedTuple):
    """What a recipe may look at. `side` is the median of the shorter sides in pixels."""

    images: int
    side: int
    accelerator: bool
    cores: int


@dataclass(frozen=True)
class Derived:
    """One derived setting and why it has this value."""

    key: str
    value: Any
    why: str


# Images, prototypes, final teacher temperature, teacher momentum at the start; interpolated over the logarithm of the images.
_BY_IMAGES = [
    (1_000, 256, 0.04, 0.98),
    (5_000, 512, 0.04, 0.99),
    (20_000, 1024, 0.04, 0.99),
    (50_000, 2048, 0.04, 0.99),
    (100_000, 4096, 0.04, 0.992),
    (200_000, 16384, 0.04, 0.994),
    (500_000, 32768, 0.05, 0.995),
    (1_000_000, 65536, 0.07, 0.996),
]


def dino(facts: Facts, backbone: str | None) -> list[Derived]:
    """DINO (Caron et al. 2021) scaled to the number and the size of the images."""
    prototypes, temperature, momentum = _interpolated(facts.images)
    small = facts.side < 100
    name = backbone or ("vit_w192_d6_p4" if small else "vit_small_patch16_224" if facts.accelerator else "vit_tiny_patch16_224")
    patch = patch_of(name)
    size = _multiple(min(facts.side, 64), patch) if small else 224
    local = _multiple(size // 2, patch) if small else 96
    batch = _batch(facts)
    rate = 5e-4 * batch / 256 * (4 if small else 1)
    plain = name.startswith("vit_w")
    why_images = f"{facts.images} images"
    why_side = f"images of {facts.side} px"
    rows = [
        Derived("backbone.name", name, "given" if backbone else f"{why_side}, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("backbone.image_size", size, why_side),
        Derived("head.prototypes", prototypes, why_images),
        Derived("head.hidden", 512 if plain else 2048, "small network" if plain else "published"),
        Derived("head.bottleneck", 64 if plain else 256, "small network" if plain else "published"),
        Derived("dino.teacher_temperature", temperature, why_images),
        Derived("dino.warmup_teacher_temperature", min(0.04, temperature), "never above the final one"),
        Derived("teacher_momentum", momentum, why_images),
        Derived("batch_size", batch, f"{why_images}, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("optimizer.learning_rate", round(rate, 7), f"5e-4 x batch/256{' x 4, small network' if small else ''}"),
        Derived("views.global_size", size, why_side),
        Derived("views.local_size", local, "half of the global views" if small else "published"),
        Derived("views.local_count", 4 if small else 8, "small images" if small else "published"),
        Derived("views.global_scale", [0.25, 1.0] if small else [0.4, 1.0], "small images" if small else "published"),
        Derived("views.local_scale", [0.05, 0.25] if small else [0.05, 0.4], "small images" if small else "published"),
    ]
    if small:
        rows.append(Derived("views.blur", [0.0, 0.0, 0.0], "blur would leave nothing of small images"))
    if is_vit_name(name) and not plain:
        rows.append(Derived("backbone.drop_path", 0.1, "published"))
    return rows


RECIPES: dict[str, Callable[[Facts, str | None], list[Derived]]] = {"dino": dino}


def as_tree(rows: list[Derived]) -> dict[str, Any]:
    """`a.b` keys to nested dictionaries."""
    tree: dict[str, Any] = {}
    for row in rows:
        node = tree
        *parents, leaf = row.key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = row.value
    return tree


def check(settings: TrainSettings) -> None:
    """Settings that are each valid but do not go together."""
    patch = patch_of(settings.backbone.name) if settings.backbone.patch_size is None else settings.backbone.patch_size
    for key in ("global_size", "local_size"):
        size = getattr(settings.views, key)
        if size % patch or size < patch:
            raise ConfigError(f"views.{key}: must be a multiple of the patch, {patch} in {settings.backbone.name}. Got {size}.")
    if (settings.epochs is None) == (settings.minutes is None):
        raise ConfigError("budget: give either epochs or minutes")
    if settings.batch_size > settings.images:
        raise ConfigError(f"batch_size: must be at most the {settings.images} images at hand. Got {settings.batch_size}.")


def _interpolated(images: int) -> tuple[int, float, float]:
    if images <= _BY_IMAGES[0][0]:
        return _BY_IMAGES[0][1:]
    for low, high in itertools.pairwise(_BY_IMAGES):
        if images <= high[0]:
            share = math.log(images / low[0]) / math.log(high[0] / low[0])
            prototypes = 2 ** round(math.log2(low[1]) + share * math.log2(high[1] / low[1]))
            return prototypes, round(low[2] + share * (high[2] - low[2]), 4), round(low[3] + share * (high[3] - low[3]), 4)
    return _BY_IMAGES[-1][1:]


def _batch(facts: Facts) -> int:
    """64 on a CPU and 256 on a GPU, but at least eight steps an epoch where there are few images."""
    wanted = 256 if facts.accelerator else 64
    return max(1, min(wanted, 2 ** int(math.log2(max(1, facts.images / 8))), facts.images))


def _multiple(size: int, patch: int) -> int:
    return max(patch, round(size / patch) * patch)
