"""Linear probe: multinomial logistic regression on frozen features, its strength chosen on a part of the training images.

    minimise over W, b:   C * sum_i -log softmax(W x_i + b)[y_i]  +  1/2 ||W||^2

as in scikit-learn, which `tests/test_tasks.py` compares with; L-BFGS in torch, so that it runs on a GPU where there is one.
Features are standardised with the training mean and deviation. Every encoder gets the same list of C and the same iterations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from selfsight.evaluate.base import FeatureSet, Predictions, Task

STRENGTHS = tuple(10.0**e for e in (-5, -4, -3, -2, -1, 0, 1))
"""C, from strong to weak regularisation."""
VALIDATION = 0.2
ITERATIONS = 300


class Linear(Task):
    """The strength with the best accuracy on a fifth of the training images (the strongest of equals), then all of them."""

    primary = "top1"
    random = True

    def run(self, features: FeatureSet, *, seed: int, device: str) -> Iterator[Predictions]:
        train, test = _standardised(features.train, features.test)
        x, y = torch.from_numpy(train).to(device), torch.from_numpy(features.train_labels).to(device)
        strength = _chosen_strength(x, y, features, seed)
        weight, bias = fit(x, y, features.classes, strength)
        logits = torch.from_numpy(test).to(device) @ weight.T + bias
        yield Predictions("top1", logits.argmax(1).cpu().numpy(), f"C = {strength:g}")


def fit(
    x: Tensor, y: Tensor, classes: int, strength: float, start: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights [classes, D] and bias [classes] for features [n, D] and labels [n], or sets of them [n, classes] float32; with
    `weights` [n], of mean 1, as if each came so often."""
    parameters = torch.zeros(classes, x.shape[1] + 1, device=x.device) if start is None else start.clone()
    parameters.requires_grad_()
    # Dividing the objective by C n leaves the minimum where it is and makes the tolerances independent of n.
    decay = 1 / (strength * len(x))
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(x @ parameters[:, :-1].T + parameters[:, -1], y, weights)
        loss = loss + 0.5 * decay * parameters[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return parameters[:, :-1].detach(), parameters[:, -1].detach()


def loss_of(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of labels [n] the mean cross-entropy; of sets [n, classes] the mean of the sums of binary ones; each times its weight."""
    if y.ndim == 1:
        losses = F.cross_entropy(logits, y, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)
    return (losses if weights is None else losses * weights).mean()


def _chosen_strength(x: Tensor, y: Tensor, features: FeatureSet, seed: int) -> float:
    fitted, held = validation_split(features.train_labels, features.groups, seed)
    if not len(held):
        return 1e-2
    on = x.device
    inside, outside = torch.from_numpy(fitted).to(on), torch.from_numpy(held).to(on)
    best, best_accuracy, warm = STRENGTHS[0], -1.0, None
    for strength in STRENGTHS:
        weight, bias = fit(x[inside], y[inside], features.classes, strength, warm)
        warm = torch.cat([weight, bias[:, None]], 1)
        accuracy = float(((x[outside] @ weight.T + bias).argmax(1) == y[outside]).float().mean())
        if accuracy > best_accuracy:
            best, best_accuracy = strength, accuracy
    return best


def validation_split(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.str_] | None, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(fitted, held) indices; whole groups where there are groups, else stratified where every class has two images."""
    from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit  # which take seconds to load

    n = len(labels)
    if n < 5 or (groups is not None and len(np.unique(groups)) < 2):
        return np.arange(n), np.arange(0)
    counts = np.unique(labels, return_counts=True)[1]
    stratified = max(VALIDATION, len(counts) / n)
    splitter: Any
    if groups is not None:
        splitter = GroupShuffleSplit(1, test_size=VALIDATION, random_state=seed)
    elif counts.min() >= 2 and stratified <= 0.5:
        splitter = StratifiedShuffleSplit(1, test_size=stratified, random_state=seed)
    else:
        splitter = ShuffleSplit(1, test_size=VALIDATION, random_state=seed)
    fitted, held = next(iter(splitter.split(labels, labels, groups)))
    return fitted, held


def _standardised(
    train: npt.NDArray[np.float32], test: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    mean, deviation = train.mean(0), train.std(0)
    deviation = np.where(deviation > 1e-8 * np.abs(train).max(initial=1e-8), deviation, 1.0).astype(np.float32)
    return (train - mean) / deviation, (test - mean) / deviation
