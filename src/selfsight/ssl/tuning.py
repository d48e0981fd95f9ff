"""What is particular to a training that fine-tunes an encoder: what of it learns, and what tells how good it has become."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfsight.config import Settings

Learns = Literal["all", "head", "adapters"]
Measure = Literal["val_top1", "val_balanced_accuracy", "val_map"]


class TuningSettings(Settings):
    """`learns` is the whole network, its new `head` alone, or beside it `adapters` of rank `lora`.

    Batch norm goes on with the statistics that the encoder brings (`norm` kept): small batches would replace those of a long
    training at once. `batch` takes those of each batch, for networks that bring none.

    `splits` are those of its own splits that the data train and judge with; empty where it has none, and all of it does.

    The validation part is `validation`, a source of its own, or `share` of the images, whole groups of the column `group_by` if
    that is given; its pictures are cut to `crop` of their shorter side and resized by `interpolation`, as the encoder's were. The
    weights that are best by the measure `best_by` are kept; without better ones for `patience` epochs the training ends.
    """

    learns: Learns = "all"
    lora: int | None = Field(None, ge=1)
    norm: Literal["kept", "batch"] = "kept"
    validation: str | None = None
    splits: list[str] = Field(default_factory=list)
    share: float = Field(0.2, gt=0, lt=1)
    group_by: str | None = None
    crop: float = Field(0.875, gt=0, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    patience: float = Field(5.0, gt=0)
    best_by: Measure = "val_top1"
