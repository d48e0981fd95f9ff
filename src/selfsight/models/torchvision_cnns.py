"""Convolutional networks of torchvision under its own names of parameters: `torchvision/convnext_tiny`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from selfsight.errors import ConfigError, nearest
from selfsight.models.base import Backbone, BackboneSettings, Tokens, refuse_masks

PREFIX = "torchvision/"
_FAMILIES = ("alexnet", "convnext", "densenet", "efficientnet", "mobilenet", "regnet", "resnet", "resnext", "vgg",
             "wide_resnet")  # fmt: skip
"""Whose networks are one line of modules up to the last map."""
_LINES, _HEADS = ("features", "trunk_output"), ("classifier", "fc", "avgpool")
_PROBED = 128


def names() -> list[str]:
    """The networks that are known here."""
    return [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(_FAMILIES)]


def build(settings: BackboneSettings) -> TorchvisionCNN:
    """An untrained network; draws its weights from torch's generator. Unknown names list the nearest."""
    name = settings.name.removeprefix(PREFIX)
    if name not in names():
        raise ConfigError(f"backbone '{settings.name}': torchvision has no such CNN. {nearest(name, names())}")
    if settings.channels != 3:
        raise ConfigError(f"backbone '{settings.name}': takes three channels; timm's networks take {settings.channels}, too")
    return TorchvisionCNN(torchvision.models.get_model(name, weights=None), settings)


class TorchvisionCNN(Backbone):
    """The state dict is torchvision's without the classifier. Pooled is the mean of the last map, in ConvNeXt after its norm."""

    kind = "cnn"

    def __init__(self, net: Any, settings: BackboneSettings) -> None:
        norm = [module for module in getattr(net, "classifier", nn.Identity()).children() if isinstance(module, LayerNorm2d)]
        for name in _HEADS:
            if hasattr(net, name):
                setattr(net, name, nn.Sequential(*norm) if name == "classifier" else nn.Identity())
        net.num_features = 0  # known once a picture has gone through
        super().__init__(net, settings)
        with torch.no_grad():
            shapes = [each.shape for each in self.eval()._maps(torch.zeros(1, 3, _PROBED, _PROBED))]
        self.train()
        self.width = shapes[-1][1]
        # The last module before the map shrinks ends a stage.
        heights = [shape[2] for shape in shapes] + [0]
        self._ends = [place for place in range(len(shapes)) if heights[place] != heights[place + 1]]

    @property
    def stage_count(self) -> int:
        """How many maps `stages` gives."""
        return len(self._ends)

    def stages(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the map [B, D_i, H_i, W_i] after each stage, from fine to coarse."""
        return [x for place, x in enumerate(self._maps(images)) if place in self._ends]

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        refuse_masks(self, hidden)
        x = deque(self._maps(images), maxlen=1)[0]
        pooled: Tensor = x.mean((2, 3), keepdim=True)
        if isinstance(norm := getattr(self.net, "classifier", None), nn.Sequential):
            pooled = norm(pooled)
        return Tokens(None, None, x.flatten(2).transpose(1, 2), pooled.flatten(1), (x.shape[2], x.shape[3]))

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """The map after each module."""
        x = images
        for module in _line(self.net, self.settings.name):
            x = module(x)
            yield x


def _line(net: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules from the picture to the last map."""
    for part, child in net.named_children():
        if part in _LINES:
            yield from child.children()
        elif part not in _HEADS:
            yield child
    if name.startswith(f"{PREFIX}densenet"):
        yield nn.ReLU()  # a function in torchvision's forward
