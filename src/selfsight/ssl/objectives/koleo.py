"""KoLeo: features spread over the sphere (Sablayrolles et al. 2019; `KoLeoLoss` of facebookresearch/dinov2 and dinov3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from selfsight.ssl.objectives.base import ALONE, Ranks

_EPS = 1e-8


def koleo(features: Tensor, ranks: Ranks = ALONE, neighbours: int = 1) -> Tensor:
    """Rows [n, D] of this rank -> minus the mean logarithm of their distances to the nearest of all ranks' rows (0-d).

    The mean of it over ranks is that of the whole batch. The gradient flows through both ends of a distance, so each rank's rows
    must take in what the others' losses say of them: `Ranks.gather` sums it up. A row alone has no neighbour and gives 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = F.normalize(features.float(), dim=-1, eps=_EPS)
        everyone, start = ranks.gather(rows)
        neighbours = min(neighbours, len(everyone) - 1)
        if neighbours < 1:
            return rows.sum() * 0.0
        with torch.no_grad():
            likeness = rows @ everyone.T
            likeness.diagonal(start).fill_(-1.0)
            nearest = likeness.topk(neighbours, dim=1).indices
        apart = (rows[:, None] - everyone[nearest] + _EPS).norm(dim=-1)
        return -(apart + _EPS).log().mean()
