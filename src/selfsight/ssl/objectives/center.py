"""Centring of teacher logits by their running mean (Caron et al. 2021, DINO, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.ssl.objectives.base import ALONE, Ranks


class Center(nn.Module):
    """The running mean of raw teacher logits. A batch is noted when seen and taken in by `commit`, so that it never centres
    itself, and the parts of an accumulated batch are all centred alike."""

    value: Tensor

    def __init__(self, prototypes: int, momentum: float, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.momentum, self.ranks = momentum, ranks
        self.register_buffer("value", torch.zeros(1, prototypes))
        self._noted: list[tuple[Tensor, int]] = []

    @torch.no_grad()
    def targets(self, logits: Tensor, temperature: float) -> Tensor:
        """Rows [n, K] of teacher logits -> softmax((logits - centre) / temperature); notes them."""
        logits = logits.float()
        self.note(logits)
        return F.softmax((logits - self.value) / temperature, dim=-1)

    @torch.no_grad()
    def note(self, logits: Tensor) -> None:
        """Rows [n, K] of teacher logits."""
        self._noted.append((logits.sum(dim=0, keepdim=True), len(logits)))

    @torch.no_grad()
    def commit(self, finite: Tensor | None = None) -> None:
        """Take in what was noted, or forget it where `finite` (0-d bool) is False.

        Ranks may have noted different numbers of rows, or none: the mean is that over all rows of all ranks.
        """
        if not self._noted:
            return
        rows = self.value.new_tensor([[float(sum(count for _, count in self._noted))]])
        total = self.ranks.sum(torch.cat([torch.stack([part for part, _ in self._noted]).sum(0), rows], dim=1))
        mean = total[:, :-1] / total[:, -1:]
        moved = self.value * self.momentum + mean * (1 - self.momentum)
        # A batch that overflowed, or in which no rank noted a row, must not spoil the centre for all later ones.
        takes = moved.isfinite().all() if finite is None else moved.isfinite().all() & finite
        self.value.copy_(torch.where(takes, moved, self.value))
        self._noted.clear()
