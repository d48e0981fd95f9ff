"""The network through torch.compile on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsight.encoders.base import Encoder
from selfsight.encoders.runtimes.base import Runtime


class Compiled(Runtime):
    """Compiled for batches [batch, *shape]; smaller ones are filled up, and images of another shape go through torch."""

    name = "compile"
    device = torch.device("cpu")

    def __init__(self, encoder: Encoder, network: nn.Module, batch: int, shape: torch.Size) -> None:
        self.encoder, self.batch, self.shape = encoder, batch, shape
        self._network = torch.compile(network, dynamic=False)

    def encode(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.shape:
            return self.encoder.encode(images)
        return torch.cat([self._run(part) for part in torch.split(images, self.batch)])

    def _run(self, images: Tensor) -> Tensor:
        filled = torch.cat([images, images.new_zeros(self.batch - len(images), *self.shape)])
        if self.encoder.kind == "cnn":
            filled = filled.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            features: Tensor = self._network(filled)[: len(images)]
        return features
