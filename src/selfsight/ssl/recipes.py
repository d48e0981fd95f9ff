"""Recipes: full configurations derived from the images at hand and the budget.

A recipe is a function from `Facts` to values; whatever it derived is listed with its reason, printed before training starts and
written to `config.yaml`. To add one: a function here and a line in `RECIPES`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union

from pydantic import Field

from selfsight.config import Settings
from selfsight.data.presets import DEFAULT_DOMAIN, domain_changes
from selfsight.data.tolerance import Tolerance
from selfsight.data.views import ViewSettings
from selfsight.errors import ConfigError
from selfsight.models.backbones import BackboneSettings, is_vit_name, patch_of
from selfsight.ssl.objectives import OBJECTIVES, ObjectiveSettings
from selfsight.ssl.optimizer import OptimizerSettings

if TYPE_CHECKING:
    AnyObjectiveSettings = ObjectiveSettings
else:  # the one whose name is given, so that a new objective is known here by its line in the registry alone
    _KINDS = tuple(kind.Settings for kind in OBJECTIVES.values())
    AnyObjectiveSettings = Annotated[Union[_KINDS], Field(discriminator="name")] if len(_KINDS) > 1 else _KINDS[0]  # noqa: UP007


class TrainSettings(Settings):
    """Everything that defines a training; `config.yaml` of a run is this."""

    recipe: str
    domain: str = DEFAULT_DOMAIN
    data: str | list[str] | dict[str, float]
    images: int = Field(ge=1)
    limit: int | None = None
    seed: int = Field(0, ge=0)
    epochs: float | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(ge=1)
    parts: int = Field(1, ge=1)
    teacher_momentum: float = Field(ge=0, le=1)
    final_teacher_momentum: float = Field(1.0, ge=0, le=1)
    objective: AnyObjectiveSettings
    backbone: BackboneSettings
    views: ViewSettings
    optimizer: OptimizerSettings
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: int | None = Field(None, ge=1)
    workers: int = Field(0, ge=0)
    log_every: int = Field(10, ge=1)
    probe_every_epochs: float = Field(1.0, gt=0)
    save_every_minutes: float = Field(5.0, gt=0)
    tolerance: Tolerance = Tolerance()
    collapse_window: float = Field(0.25, gt=0, le=1)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels; 1 for networks without patches."""
        return patch_of(self.backbone.name) if self.backbone.patch_size is None else self.backbone.patch_size

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.images // self.batch_size)


class Facts(NamedTuple):
    """What a recipe may look at. `side` is the median of the shorter sides in pixels; `mean` and `std` are those of a channel."""

    images: int
    side: int
    accelerator: bool
    cores: int
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Derived:
    """One derived setting and why it has this value."""

    key: str
    value: Any
    why: str


# Images, prototypes, final teacher temperature, teacher momentum at the start; interpolated over the logarithm of the images.
_BY_IMAGES = [
    (3_000, 128, 0.03, 0.99),
    (5_000, 256, 0.03, 0.99),
    (20_000, 1024, 0.04, 0.99),
    (50_000, 2048, 0.04, 0.99),
    (100_000, 4096, 0.04, 0.992),
    (200_000, 16384, 0.04, 0.994),
    (500_000, 32768, 0.05, 0.995),
    (1_000_000, 65536, 0.07, 0.996),
]
SMALL_SIDE = 100
"""Images below this side in pixels are trained at their own size, with a small network where there is no accelerator."""


def dino(facts: Facts, backbone: str | None) -> list[Derived]:
    """DINO (Caron et al. 2021) scaled to the number and the size of the images."""
    prototypes, temperature, momentum = _interpolated(facts.images)
    images = f"{facts.images} images"
    rows = [
        Derived("objective.name", "dino", "recipe"),
        Derived("objective.head.prototypes", prototypes, images),
        Derived("objective.teacher_temperature", temperature, images),
        Derived("teacher_momentum", momentum, images),
    ]
    if facts.channels != 3:
        rows += _channels(facts)
    if facts.side < SMALL_SIDE:
        return [*_small(facts, backbone), *rows]
    cold = Derived("objective.warmup_teacher_temperature", min(0.04, temperature), "published")
    return [*_photographs(facts, backbone), *rows, cold]


def _small(facts: Facts, backbone: str | None) -> list[Derived]:
    """Small images: native size, few views that overlap much, a cold and quickly centred teacher.

    A short training must first break the symmetry between prototypes. Deviations between images grow only while (agreement of
    two views under the present features) x (student / teacher temperature) is above 1, so early on the views overlap and the
    teacher is cold.
    """
    why = f"images of {facts.side} px"
    patch = 8 if facts.side >= 40 else 4
    name = backbone or (f"vit_w192_d6_p{patch}_conv" if facts.accelerator else f"vit_w64_d3_p{patch}_conv")
    patch = patch_of(name)
    size = _multiple(min(facts.side, 64), patch)
    batch = _batch(facts, 256 if facts.accelerator else 32)
    return [
        Derived("backbone.name", name, "given" if backbone else f"{why}, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("backbone.image_size", size, why),
        Derived("objective.head.hidden", 512, "small images"),
        Derived("objective.head.bottleneck", 64, "small images"),
        Derived("objective.warmup_teacher_temperature", 0.01, "breaks the symmetry early"),
        Derived(
            "objective.center_momentum", 0.5 if batch < 64 else 0.9, f"batch of {batch}, short run" if batch < 64 else "published"
        ),
        Derived("batch_size", batch, f"{facts.images} images, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("optimizer.learning_rate", round(max(1e-3, 2e-3 * batch / 256), 7), "small network"),
        Derived("views.global_size", size, why),
        Derived("views.local_size", _multiple(size // 2, patch), "half of the global views"),
        Derived("views.local_count", 6 if facts.accelerator else 2, "GPU" if facts.accelerator else "no GPU"),
        Derived("views.global_scale", [0.5, 1.0], "views of small images must overlap"),
        Derived("views.local_scale", [0.2, 0.4], "views of small images must overlap"),
        Derived("views.blur", [0.0, 0.0, 0.0], "blur would leave nothing of small images"),
    ]


def _channels(facts: Facts) -> list[Derived]:
    """Other than three channels: the network's first layer, and a normalisation measured on the images."""
    return [
        Derived("backbone.channels", facts.channels, f"{facts.channels} channels"),
        Derived("views.read.channels", facts.channels, "given"),
        Derived("views.mean", list(facts.mean), "measured"),
        Derived("views.std", list(facts.std), "measured"),
    ]


def _photographs(facts: Facts, backbone: str | None) -> list[Derived]:
    """The published settings, with a smaller network where there is no accelerator."""
    name = backbone or ("vit_small_patch16_224" if facts.accelerator else "vit_tiny_patch16_224")
    patch = patch_of(name)
    batch = _batch(facts, 256 if facts.accelerator else 64)
    rows = [
        Derived("backbone.name", name, "given" if backbone else "GPU" if facts.accelerator else "no GPU"),
        Derived("backbone.image_size", _multiple(224, patch), f"images of {facts.side} px"),
        Derived("batch_size", batch, f"{facts.images} images, {'GPU' if facts.accelerator else 'no GPU'}"),
        Derived("optimizer.learning_rate", round(5e-4 * batch / 256, 7), "5e-4 x batch/256"),
        Derived("views.global_size", _multiple(224, patch), "published"),
        Derived("views.local_size", _multiple(96, patch), "published"),
    ]
    if is_vit_name(name):
        rows.append(Derived("backbone.drop_path", 0.1, "published"))
    return rows


RECIPES: dict[str, Callable[[Facts, str | None], list[Derived]]] = {"dino": dino}


def with_domain(rows: list[Derived], domain: str, channels: int) -> list[Derived]:
    """What a domain changes about the views, in the place of what the recipe says of them."""
    over = [Derived(f"views.{key}", value, f"domain {domain}") for key, value in domain_changes(domain, channels).items()]
    replaced = {row.key for row in over}
    return [*(row for row in rows if row.key not in replaced), *over]


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
    patch = settings.patch_size
    for key in ("global_size", "local_size"):
        size = getattr(settings.views, key)
        if size % patch or size < patch:
            raise ConfigError(f"views.{key}: must be a multiple of the patch, {patch} in {settings.backbone.name}. Got {size}.")
    if settings.backbone.channels != settings.views.read.channels:
        raise ConfigError(
            f"backbone.channels: must be those of the images, {settings.views.read.channels}. Got {settings.backbone.channels}."
        )
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


def _batch(facts: Facts, wanted: int) -> int:
    """The wanted batch, or less, so that an epoch has at least eight steps where there are few images."""
    return max(1, min(wanted, 2 ** int(math.log2(max(1, facts.images / 8))), facts.images))


def _multiple(size: int, patch: int) -> int:
    return max(patch, round(size / patch) * patch)
