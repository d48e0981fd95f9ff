"""Sinkhorn-Knopp centring of teacher logits (Caron et al. 2020, SwAV; `sinkhorn_knopp_teacher` of facebookresearch/dinov2).

Every prototype is to be given as much of a batch as any other. In turn the samples' shares of each prototype are scaled to equal
sums, and the prototypes' shares of each sample to the sum 1, which comes last and so holds exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfsight.ssl.objectives.base import ALONE, Ranks

_ITERATIONS = 3
_TINY = 1e-30


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, ranks: Ranks = ALONE, iterations: int = _ITERATIONS) -> Tensor:
    """Logits [n, K] of this rank's samples -> their targets [n, K], balanced over the samples of all ranks.

    The published factors 1/K, 1/n and n cancel, and so does one added to all logits: the greatest is taken away, so that no power
    overflows.
    """
    logits = logits.float() / temperature
    peak = logits.amax() if logits.numel() else logits.new_tensor(-torch.inf)
    shares = (logits - ranks.gather(peak[None])[0].amax()).exp()
    for _ in range(iterations):
        shares = shares / ranks.sum(shares.sum(0, keepdim=True)).clamp_min(_TINY)
        shares = shares / shares.sum(1, keepdim=True).clamp_min(_TINY)
    return shares
