"""A linear probe as the head of a network: weights on the features as they come, with what standardised them folded in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfsight.data.holdout import Labels, hold_out, strata
from selfsight.evaluate.linear import STRENGTHS, VALIDATION, fit, loss_of


class Head(NamedTuple):
    """`logits = weight [classes, D] @ feature + bias [classes]`; `strength` is the C that was chosen."""

    weight: Tensor
    bias: Tensor
    strength: float


def fitted_head(
    features: npt.NDArray[np.float32],
    labels: Labels,
    classes: int,
    *,
    groups: npt.NDArray[np.str_] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Head:
    """The head for features [n, D]: logistic regression, for sets of labels one a class.

    The strength is the one with the best accuracy (for sets: the least loss) on a fifth of the images, the strongest of equals;
    whole groups where there are `groups`.
    """
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 1e-8 * np.abs(features).max(initial=1e-8), deviation, 1.0).astype(np.float32)
    x = torch.from_numpy((features - mean) / deviation).to(device)
    y = torch.from_numpy(labels).to(device) if labels.ndim == 1 else torch.from_numpy(labels).float().to(device)
    strength = _chosen(x, y, labels, classes, groups, seed)
    weight, bias = (part.cpu() for part in fit(x, y, classes, strength))
    weight = weight / torch.from_numpy(deviation)
    return Head(weight, bias - weight @ torch.from_numpy(mean), strength)


def _chosen(x: Tensor, y: Tensor, labels: Labels, classes: int, groups: npt.NDArray[np.str_] | None, seed: int) -> float:
    kept, held = hold_out(strata(labels), VALIDATION, seed, groups)
    if not len(held) or not len(kept):
        return 1e-2
    inside, outside = torch.from_numpy(kept).to(x.device), torch.from_numpy(held).to(x.device)
    best, best_score, warm = STRENGTHS[0], -float("inf"), None
    for strength in STRENGTHS:
        weight, bias = fit(x[inside], y[inside], classes, strength, warm)
        warm = torch.cat([weight, bias[:, None]], 1)
        logits = x[outside] @ weight.T + bias
        right = (logits.argmax(1) == y[outside]).float().mean() if y.ndim == 1 else -loss_of(logits, y[outside])
        if float(right) > best_score:
            best, best_score = strength, float(right)
    return best
