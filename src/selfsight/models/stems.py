"""A convolutional stem in place of the patch embedding (Xiao et al. 2021, "Early convolutions help transformers see better")."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from selfsight.errors import ConfigError


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2 down to one token a patch, then a 1x1: [B, C, H, W] -> [B, H*W/patch^2, width].

    Channels double up to `width`. Group norm in place of the paper's batch norm, so that student and teacher need not share
    statistics. In short trainings it finds texture in a fraction of the steps that a linear patch embedding takes.
    """

    strict_img_size = False

    def __init__(self, image_size: int, patch_size: int, width: int, channels: int = 3) -> None:
        super().__init__()
        stages = round(math.log2(patch_size))
        if 2**stages != patch_size:
            raise ConfigError(f"backbone: a convolutional stem halves the picture, so the patch is 2, 4, 8... Got {patch_size}.")
        self.patch_size = (patch_size, patch_size)
        self.num_patches = (image_size // patch_size) ** 2
        widths = [channels, *(max(16, width // 2 ** (stages - 1 - stage)) for stage in range(stages))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            groups = math.gcd(max(1, after // 16), after)
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(groups, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.layers(images).flatten(2).transpose(1, 2)
        return tokens
