"""Position embeddings at grid sizes other than the trained one."""

from __future__ import annotations

import math

from torch import Tensor, cat
from torch.nn import functional as F

_OFFSET = 0.1
"""The published code adds it against rounding in `interpolate`; since the scale is passed on, it also moves the samples."""


def interpolate_antialiased(embedding: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """As `interpolate_pos_encoding` of facebookresearch/dinov2 does it for networks with registers: to the exact size, with an
    antialiased kernel, which gives other values even where the grid grows."""
    trained = math.isqrt(embedding.shape[1] - prefix)
    if grid == (trained, trained):
        return embedding
    table = embedding[:, prefix:].reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False, antialias=True)
    return cat([embedding[:, :prefix], table.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)], dim=1)


def interpolate_published(embedding: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """Bicubic interpolation as `VisionTransformer.interpolate_pos_encoding` of facebookresearch/dino does it.

    `embedding` [1, prefix + g*g, D] of a square trained grid -> [1, prefix + height*width, D]. The table is used as it is only
    where the grid is the trained one and square; timm's own resampling (antialiased, exact size) gives other values.
    """
    height, width = grid
    trained = math.isqrt(embedding.shape[1] - prefix)
    if height == width == trained:
        return embedding
    table = embedding[:, prefix:].reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
    scale = ((height + _OFFSET) / trained, (width + _OFFSET) / trained)
    table = F.interpolate(table, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False)
    table = table[:, :, :height, :width].permute(0, 2, 3, 1).reshape(1, height * width, -1)
    return cat([embedding[:, :prefix], table], dim=1)
