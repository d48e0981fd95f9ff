"""Convolutional networks from timm."""

from __future__ import annotations

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from selfsight.models.base import Backbone, BackboneSettings, Tokens, refuse_masks


class CNN(Backbone):
    """A timm network that ends in a feature map; its positions are the patches."""

    kind = "cnn"

    def __init__(self, net: nn.Module, settings: BackboneSettings) -> None:
        super().__init__(net, settings)
        self.map_width = self.width
        # MobileNetV3 and its kin widen the pooled vector once more in their head.
        self.width = int(getattr(net, "head_hidden_size", None) or self.map_width)
        self._stages = stages_by_name(net)

    @property
    def stage_count(self) -> int:
        """How many maps `stages` gives; 0 where timm names no stages of the network."""
        return len(getattr(self.net, "feature_info", ())) if hasattr(self.net, "forward_intermediates") else 0

    def stages(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] -> the map [B, D_i, H_i, W_i] after each stage, from fine to coarse."""
        maps: list[Tensor] = self.net.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
        return maps

    @property
    def depth(self) -> int:
        return max(self._stages.values(), default=0)

    def depth_of(self, name: str) -> int:
        return self._stages.get(name.removeprefix("net."), self.depth + 1)

    def forward(self, images: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tokens:
        refuse_masks(self, hidden)
        if images.is_cuda:
            # Maps keep the order of what comes in, in which cuDNN is faster (a CPU was measured to be slower in it). Weights stay
            # as they are, so that checkpoints and the optimiser's moments do.
            images = images.contiguous(memory_format=torch.channels_last)
        x = self.net.forward_features(images)  # type: ignore[operator]
        # timm pools (and, in ConvNeXt, norms) in forward_head; with the classifier removed that is the pooled feature.
        pooled = self.net.forward_head(x, pre_logits=True)  # type: ignore[operator]
        if x.shape[1] != self.map_width and x.shape[-1] == self.map_width:
            x = x.permute(0, 3, 1, 2)
        return Tokens(None, None, x.flatten(2).transpose(1, 2), pooled, (x.shape[2], x.shape[3]))


def stages_by_name(net: nn.Module) -> dict[str, int]:
    """The stage of every parameter as timm groups them, the stem being 0; empty where timm does not say."""
    matcher = getattr(net, "group_matcher", None)
    if matcher is None:
        return {}
    stages: dict[str, int] = group_parameters(net, matcher(coarse=True), reverse=True)
    return stages
