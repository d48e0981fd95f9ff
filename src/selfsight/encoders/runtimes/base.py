"""The contract of a runtime: what computes the features of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from selfsight import device as devices
from selfsight.encoders.base import Encoder


class Runtime(ABC):
    """`name` is what `--runtime` calls it, `about` what a file of features says of it; `device` is where images are to be."""

    name: str
    device: torch.device

    @property
    def about(self) -> str:
        return self.name

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """[B, C, H, W] on `device` -> float32 [B, D]; the features of the encoder, up to rounding."""


class Torch(Runtime):
    """The encoder as it is, in float32 or in half precision on devices that have it."""

    name = "torch"

    def __init__(self, encoder: Encoder, device: torch.device, precision: str = "float32") -> None:
        self.encoder, self.device, self.precision = encoder.to(device), device, precision

    @property
    def about(self) -> str:
        return self.name if self.precision == "float32" else f"{self.name} in {self.precision}"

    def encode(self, images: Tensor) -> Tensor:
        with devices.autocast(self.device, self.precision):
            return self.encoder.encode(images).float()
