"""Two images as one, and their labels in the same shares: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

With a share s drawn from Beta(a, a), once for a batch, mixup trains on s x_i + (1 - s) x_j; CutMix puts a rectangle of x_j, of an
area of 1 - s, into x_i. The target is s y_i + (1 - s) y_j, with the share that was really left of x_i. Both views of an image get
the same partner j, share and rectangle. What is drawn is a function of (seed, step, rank), so that a resumed run draws it again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class Mixing(NamedTuple):
    """a of mixup and of CutMix, 0 where it is off; with both a batch gets the one or the other."""

    mixup: float
    cutmix: float

    @property
    def on(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def mix(
    mixing: Mixing, views: list[Tensor], labels: Tensor, classes: int, seed: int, step: int, rank: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Views, view-major, [VB, C, S, S] of each size, and labels [B] or sets of them [B, classes] -> mixed views and their targets
    [B, classes], float32. An image without a label (-1) gives nothing to a target."""
    draw = np.random.default_rng((seed, step, rank))
    size = len(labels)
    partner = torch.from_numpy(draw.permutation(size)).to(labels.device)
    cuts = mixing.cutmix > 0 and (mixing.mixup == 0 or draw.random() < 0.5)
    a = mixing.cutmix if cuts else mixing.mixup
    share = float(draw.beta(a, a))
    centre = draw.random(2)
    if cuts:
        made = [_pasted(each, size, partner, _rectangle(each.shape[-2:], share, centre)) for each in views]
        share = _left(_rectangle(views[0].shape[-2:], share, centre), views[0].shape[-2:])
    else:
        made = [share * each + (1 - share) * _others(each, size, partner) for each in views]
    targets = soft(labels, classes)
    return made, share * targets + (1 - share) * targets[partner]


def soft(labels: Tensor, classes: int) -> Tensor:
    """Labels [B] as one-hot rows, of zeros where there is none (-1); sets [B, classes] as they are. float32."""
    if labels.ndim == 2:
        return labels.float()
    return F.one_hot(labels.clamp_min(0), classes).float() * (labels >= 0)[:, None]


def _others(views: Tensor, size: int, partner: Tensor) -> Tensor:
    return views.view(-1, size, *views.shape[1:])[:, partner].flatten(0, 1)


def _rectangle(shape: torch.Size, share: float, centre: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) around a centre, of an area of 1 - share as far as it lies within."""
    half = math.sqrt(1 - share) / 2
    (top, bottom), (left, right) = (
        (round(max(0.0, at - half) * side), round(min(1.0, at + half) * side)) for at, side in zip(centre, shape, strict=True)
    )
    return top, bottom, left, right


def _left(rectangle: tuple[int, int, int, int], shape: torch.Size) -> float:
    top, bottom, left, right = rectangle
    return 1 - (bottom - top) * (right - left) / (shape[0] * shape[1])


def _pasted(views: Tensor, size: int, partner: Tensor, rectangle: tuple[int, int, int, int]) -> Tensor:
    top, bottom, left, right = rectangle
    made = views.clone()
    made[:, :, top:bottom, left:right] = _others(views, size, partner)[:, :, top:bottom, left:right]
    return made
