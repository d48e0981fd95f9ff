"""Features of a frozen network on a common scale: each channel less its running mean, over its running standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsight.ssl.objectives.base import ALONE, Ranks

_LEAST = 1e-3
"""A channel that hardly ever answers is not blown up beyond this share of the usual deviation."""


class Standardize(nn.Module):
    """Running moments of rows [n, D]. A batch is noted when seen and taken in by `commit`, so that the parts of an accumulated
    batch are all treated alike; before the first one rows stay as they are."""

    moments: Tensor

    def __init__(self, width: int, momentum: float, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.width, self.momentum, self.ranks = width, momentum, ranks
        # Means, means of squares, and the weight that batches have had so far: what corrects for the start at 0.
        self.register_buffer("moments", torch.zeros(2 * width + 1))
        self._noted: list[Tensor] = []

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """[n, D] -> float32 [n, D]; notes them."""
        rows = rows.float()
        self._noted.append(torch.cat([rows.sum(0), rows.square().sum(0), rows.new_tensor([float(len(rows))])]))
        weight = self.moments[-1]
        mean, square = (self.moments[:-1] / weight.clamp_min(1e-12)).view(2, self.width)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        deviation = deviation.clamp_min(_LEAST * deviation.mean() + 1e-12)
        return torch.where(weight > 0, (rows - mean) / deviation, rows)

    @torch.no_grad()
    def commit(self, finite: Tensor) -> None:
        """Take in what was noted on all ranks, or forget it where `finite` (0-d bool) is False."""
        total = self.ranks.sum(torch.stack(self._noted).sum(0))
        moved = self.moments * self.momentum + total / total[-1] * (1 - self.momentum)
        self.moments.copy_(torch.where(finite & moved.isfinite().all(), moved, self.moments))
        self._noted.clear()
