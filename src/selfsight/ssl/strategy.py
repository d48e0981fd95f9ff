"""Whether each rank holds a whole copy of the training's state or a part of it."""

from __future__ import annotations

from typing import Literal

import torch

from selfsight.errors import ConfigError
from selfsight.models.backbones import is_vit_name
from selfsight.ssl.settings import TrainSettings

STATE_BYTES = 20
"""A parameter in float32: student, gradient, teacher and the two moments of AdamW."""
_SHARE = 0.75
"""Of a device's memory, for the state; the rest is for what a batch leaves between forward and backward pass."""


def chosen(settings: TrainSettings, ranks: int, parameters: int, memory: int | None) -> Literal["ddp", "fsdp"]:
    """How `ranks` hold the state of a student of so many `parameters` on devices of so much `memory` (bytes; None: the CPU).

    `auto` divides it only where a copy would not fit. `ConfigError` where it is to be divided and cannot be.
    """
    fits = memory is None or STATE_BYTES * parameters <= _SHARE * memory
    if ranks == 1 or settings.strategy == "ddp" or (settings.strategy == "auto" and fits):
        return "ddp"
    why = "--strategy fsdp" if settings.strategy == "fsdp" else f"--strategy auto ({parameters / 1e9:.1f}e9 parameters: fsdp)"
    if settings.precision == "float16":
        raise ConfigError(f"{why}: divides no training in float16, whose loss is scaled; take --set precision=bfloat16")
    if not is_vit_name(settings.backbone.name):
        raise ConfigError(f"{why}: divides the blocks of ViTs, and {settings.backbone.name} is none; take --strategy ddp")
    if settings.optimizer.kind == "lars":
        raise ConfigError(f"{why}: divides no tensors whose norms LARS takes; take --set optimizer.kind=adamw, or --strategy ddp")
    return "fsdp"


def memory_of(device: torch.device) -> int | None:
    """Bytes on a CUDA device; None elsewhere."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
