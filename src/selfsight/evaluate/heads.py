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
    weights: npt.NDArray[np.float32] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Head:
    """The head for features [n, D]: logistic regression, for sets of labels one a class.

    The strength is the one with the best accuracy (for sets: the least loss) on a fifth of the images, the strongest of equals;
    whole groups where there are `groups`. With `weights` [n] an image counts as if it came so often, in the loss and in the
    accuracy.
    """
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 1e-8 * np.abs(features).max(initial=1e-8), deviation, 1.0).astype(np.float32)
    x = torch.from_numpy((features - mean) / deviation).to(device)
    y = torch.from_numpy(labels).to(device) if labels.ndim == 1 else torch.from_numpy(labels).float().to(device)
    often = torch.ones(len(x), device=device) if weights is None else torch.from_numpy(weights / weights.mean()).to(device)
    strength = _chosen(x, y, often, labels, groups, classes, seed)
    weight, bias = (part.cpu() for part in fit(x, y, classes, strength, weights=often))
    weight = weight / torch.from_numpy(deviation)
    return Head(weight, bias - weight @ torch.from_numpy(mean), strength)


def _chosen(
    x: Tensor, y: Tensor, often: Tensor, labels: Labels, groups: npt.NDArray[np.str_] | None, classes: int, seed: int
) -> float:
    kept, held = hold_out(strata(labels), VALIDATION, seed, groups)
    if not len(held) or not len(kept):
        return 1e-2
    inside, outside = torch.from_numpy(kept).to(x.device), torch.from_numpy(held).to(x.device)
    best, best_score, warm = STRENGTHS[0], -float("inf"), None
    for strength in STRENGTHS:
        weight, bias = fit(x[inside], y[inside], classes, strength, warm, often[inside] / often[inside].mean())
        warm = torch.cat([weight, bias[:, None]], 1)
        logits = x[outside] @ weight.T + bias
        if y.ndim == 1:
            right = (often[outside] * (logits.argmax(1) == y[outside])).mean()
        else:
            right = -loss_of(logits, y[outside], often[outside])
        if float(right) > best_score:
            best, best_score = strength, float(right)
    return best
