"""The interpolation of position embeddings in operations that a graph of open size can hold.

Bicubic resampling of a square table T [g, g, D] to [h, w, D] is linear along each side: A_h T A_w^T, with A [n, g] the weights of
the g trained places for each of n new ones. The numbers n stay unknown while a graph is made, so that all is computed from ranges
of that length; `models.positions` says the same with `interpolate`, which graphs hold inexactly or not at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_OFFSET = 0.1
"""As in `models.positions`: the published code adds it to the wanted size."""


def interpolate(embedding: Tensor, prefix: int, grid: tuple[int, int], *, antialias: bool) -> Tensor:
    """`embedding` [1, prefix + g*g, D] -> [1, prefix + height*width, D], as `interpolate_antialiased` or
    `interpolate_published`; at the trained size the table as it is."""
    trained = math.isqrt(embedding.shape[1] - prefix)
    down, across = (torch.arange(count, dtype=torch.float32) for count in grid)
    if antialias:
        rows, columns = (_antialiased(places, trained) for places in (down, across))
    else:
        same = (down[-1:] + 1 == trained) & (across[-1:] + 1 == trained)
        offset = _OFFSET * (1 - same.float())
        rows, columns = (_published(places, trained, offset) for places in (down, across))
    table = embedding[:, prefix:].reshape(trained, trained, -1)
    table = torch.einsum("ik,kld->ild", rows, table)
    table = torch.einsum("jl,ild->ijd", columns, table)
    return torch.cat([embedding[:, :prefix], table.reshape(1, -1, embedding.shape[2])], dim=1)


def _published(places: Tensor, trained: int, offset: Tensor) -> Tensor:
    """Weights [n, g] of torch's bicubic kernel (a = -0.75), whose four places are held within the table."""
    scale = (places[-1:] + 1 + offset) / trained
    source = (places + 0.5) / scale - 0.5
    first = torch.floor(source)
    known = torch.arange(trained, dtype=torch.float32)
    weights = torch.zeros(1, trained)
    for step in (-1, 0, 1, 2):
        taken = (first + step).clamp(0, trained - 1)
        weights = weights + _cubic(first + step - source, -0.75)[:, None] * (taken[:, None] == known).float()
    return weights


def _antialiased(places: Tensor, trained: int) -> Tensor:
    """Weights [n, g] of torch's antialiased kernel (a = -0.5), widened where the table shrinks, each row of sum 1."""
    scale = trained / (places[-1:] + 1)
    centre = (places + 0.5) * scale
    known = torch.arange(trained, dtype=torch.float32) + 0.5
    weights = _cubic((known - centre[:, None]) / scale.clamp(min=1), -0.5)
    return weights / weights.sum(1, keepdim=True)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel (1981), zero from a distance of 2 on."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
