"""Everything that defines a training, and what must hold between its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field

from selfsight.config import Settings
from selfsight.data.presets import DEFAULT_DOMAIN
from selfsight.data.tolerance import Tolerance
from selfsight.data.views import ViewSettings
from selfsight.errors import ConfigError
from selfsight.models.backbones import BackboneSettings, is_vit_name, patch_of
from selfsight.ssl.objectives import OBJECTIVES, ObjectiveSettings
from selfsight.ssl.optimizer import OptimizerSettings
from selfsight.ssl.tuning import TuningSettings

if TYPE_CHECKING:
    AnyObjectiveSettings = ObjectiveSettings
else:  # the one whose name is given, so that a new objective is known here by its line in the registry alone
    _KINDS = tuple(kind.Settings for kind in OBJECTIVES.values())
    AnyObjectiveSettings = Annotated[Union[_KINDS], Field(discriminator="name")] if len(_KINDS) > 1 else _KINDS[0]  # noqa: UP007


class TrainSettings(Settings):
    """Everything that defines a training; `config.yaml` of a run is this."""

    recipe: str
    init: str | None = None
    guide: str | None = None
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
    finetune: TuningSettings | None = None
    device: str = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
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


def check(settings: TrainSettings) -> None:
    """Settings that are each valid but do not go together."""
    patch = settings.patch_size
    for key in ("global_size", "local_size", "gram_size"):
        size = getattr(settings.views, key)
        if size is None:
            continue
        if size % patch or size < patch:
            raise ConfigError(f"views.{key}: must be a multiple of the patch, {patch} in {settings.backbone.name}. Got {size}.")
    if settings.backbone.channels != settings.views.read.channels:
        raise ConfigError(
            f"backbone.channels: must be those of the images, {settings.views.read.channels}. Got {settings.backbone.channels}."
        )
    if settings.objective.masking is not None and not is_vit_name(settings.backbone.name):
        raise ConfigError(
            f"objective {settings.objective.name}: hides patches from the student, and {settings.backbone.name} has none; "
            "take a ViT such as vit_small_patch16_224, or the recipe dino"
        )
    name = settings.objective.name
    if settings.objective.guided and settings.guide is None:
        raise ConfigError(f"objective {name}: follows an encoder; name it with --guide, such as --guide efficientnet-lite0")
    if settings.guide is not None and not settings.objective.guided:
        raise ConfigError(f"--guide {settings.guide}: objective {name} follows no encoder; take --recipe distill")
    if (settings.epochs is None) == (settings.minutes is None):
        raise ConfigError("budget: give either epochs or minutes")
    if settings.batch_size > settings.images:
        raise ConfigError(f"batch_size: must be at most the {settings.images} images at hand. Got {settings.batch_size}.")
