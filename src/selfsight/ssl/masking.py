"""Which patches are hidden from the student (`MaskingGenerator` and `collate_data_and_cast` of facebookresearch/dinov2)."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from selfsight.config import Settings
from selfsight.data.draws import permuted

_ASPECT = 0.3
"""Blocks are between this and its inverse as wide as high."""
_SMALLEST = 4
_TRIES = 10
_STREAM = -2  # no order of samples has this number


class MaskSettings(Settings):
    """`share` of the global views have patches hidden, between `least` and `most` of them."""

    share: float = Field(0.5, ge=0, le=1)
    least: float = Field(0.1, ge=0, le=1)
    most: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> MaskSettings:
        if self.least > self.most:
            raise ValueError(f"least must be at most most, got {self.least} and {self.most}")
        return self


def hidden_patches(settings: MaskSettings, grid: tuple[int, int], seed: int, step: int, places: np.ndarray, batch: int) -> Tensor:
    """[2 * len(places), height * width] bool, view-major, for the samples at `places` of a global batch of `batch`.

    As published, the shares of hidden patches are spread evenly over the masked views of a batch and dealt at random. Each view
    knows its share from its place alone, so that the masks are the same for any number of ranks.
    """
    rows = np.concatenate([places, places + batch])
    ranks = permuted(seed, step, _STREAM, 2 * batch, rows)
    masked = round(settings.share * 2 * batch)
    out = np.zeros((len(rows), *grid), dtype=bool)
    for row, (place, rank) in enumerate(zip(rows.tolist(), ranks.tolist(), strict=True)):
        if rank < masked:
            low, high = (settings.least + (settings.most - settings.least) * (rank + end) / masked for end in (0, 1))
            draw = np.random.default_rng((seed, step, place))
            _hide(out[row], round(draw.uniform(low, high) * grid[0] * grid[1]), draw)
    return torch.from_numpy(out.reshape(len(rows), -1))


def _hide(mask: np.ndarray, wanted: int, draw: np.random.Generator) -> None:
    """Blocks are laid over each other until `wanted` patches are hidden or no block fits; the rest are single patches."""
    hidden = 0
    while hidden < wanted:
        added = _block(mask, wanted - hidden, draw)
        if not added:
            break
        hidden += added
    if hidden < wanted:
        free = np.flatnonzero(~mask)
        mask.reshape(-1)[draw.choice(free, size=wanted - hidden, replace=False)] = True


def _block(mask: np.ndarray, room: int, draw: np.random.Generator) -> int:
    """Hide one block of at most `room` new patches; how many it hid, 0 if none of ten fits."""
    height, width = mask.shape
    for _ in range(_TRIES):
        area = draw.uniform(min(_SMALLEST, room), room)
        aspect = math.exp(draw.uniform(math.log(_ASPECT), -math.log(_ASPECT)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < h < height and 0 < w < width):
            continue
        top, left = int(draw.integers(0, height - h + 1)), int(draw.integers(0, width - w + 1))
        block = mask[top : top + h, left : left + w]
        new = block.size - int(block.sum())
        if 0 < new <= room:
            block[...] = True
            return new
    return 0
