"""What one step of a training sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Masks(NamedTuple):
    """Patches of the global views that are hidden from the student.

    `hidden` [2B, N] bool, view-major; `places` [M] int64 are its set entries in row-major order; `weights` [M] float32 is one
    over the hidden patches of the same view, so that every masked view counts alike.
    """

    hidden: Tensor
    places: Tensor
    weights: Tensor

    @classmethod
    def of(cls, hidden: Tensor) -> Masks:
        """From `hidden` alone; on the CPU, since counting the entries would make a GPU wait."""
        places = hidden.flatten().nonzero().flatten()
        counts = hidden.sum(1).clamp_min(1)
        return cls(hidden, places, (1.0 / counts)[places // hidden.shape[1]].float())

    def to(self, device: torch.device) -> Masks:
        return Masks(*(part.to(device, non_blocking=True) for part in self))


@dataclass(frozen=True)
class Batch:
    """Views by size, view-major: the two global views [2B, C, S, S] first, then local ones [LB, C, s, s] if there are any.

    `labels` [B] int64 stand beside objectives that use them (-1: none), or float32 [B, classes] where images are mixed or have
    several; `masks` beside those that hide patches, `detail`
    [2B, C, T, T], the global views once more, larger and in their own colours, beside those that look closer.
    """

    views: list[Tensor]
    size: int
    masks: Masks | None = None
    labels: Tensor | None = None
    detail: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        return [*self.views, *(self.masks or ()), *(x for x in (self.labels, self.detail) if x is not None)]

    def split(self, parts: int) -> list[Batch]:
        """The same samples in `parts` smaller batches (fewer where there are fewer samples)."""
        if parts <= 1 or self.size <= 1:
            return [self]
        runs = torch.arange(self.size).tensor_split(min(parts, self.size))
        return [self._part(int(run[0]), int(run[-1]) + 1) for run in runs]

    def _part(self, start: int, stop: int) -> Batch:
        def cut(x: Tensor) -> Tensor:
            return x.view(-1, self.size, *x.shape[1:])[:, start:stop].flatten(0, 1)

        masks = None if self.masks is None else Masks.of(cut(self.masks.hidden).cpu()).to(self.masks.hidden.device)
        labels = None if self.labels is None else self.labels[start:stop]
        detail = None if self.detail is None else cut(self.detail)
        return Batch([cut(view) for view in self.views], stop - start, masks, labels, detail)
