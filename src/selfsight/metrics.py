"""Pure measures of arrays. Accuracies are in percent."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Labels = npt.NDArray[np.integer] | npt.NDArray[np.bool_]
"""One class an image [n], or a set of them [n, C]."""


def normalize(features: Floats) -> npt.NDArray[np.float32]:
    """Rows of [n, D] scaled to length 1 (rows of zeros stay)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def ranking(scores: Floats) -> npt.NDArray[np.int64]:
    """Classes [n, C] by falling score; equal scores by rising class index."""
    return np.argsort(-scores, axis=1, kind="stable")


def top_k_accuracy(scores: Floats, labels: Ints, k: int) -> float:
    """Percent of rows whose label is among the first k of the ranking."""
    return float((ranking(scores)[:, :k] == labels[:, None]).any(1).mean() * 100)


def surprises(logits: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """-log of the probability given to what is so (nats): [n] for labels [n] by softmax, [n, C] for sets [n, C] by sigmoid."""
    z = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        return np.logaddexp(0.0, np.where(labels, -z, z))
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


def nll(logits: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood (nats) of labels [n] or sets of them [n, C], there over images and classes."""
    return float(surprises(logits, labels).mean())


def probabilities(logits: Floats, *, several: bool = False) -> npt.NDArray[np.float64]:
    """[n, C] softmax over classes; with `several`, where each class is a question of its own, sigmoid."""
    z = np.asarray(logits, dtype=np.float64)
    if several:
        return np.exp(-np.logaddexp(0.0, -z))
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ece(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error in percent: how far answers [n] are from being right as often as they are sure to be.

    The mean over `bins` of equal width, weighted by their answers (Naeini et al. 2015; Guo et al. 2017, equation 3). A bin holds
    its upper end.
    """
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    true = np.bincount(place, weights=right, minlength=bins)
    return float(np.abs(sure - true).sum() / len(place) * 100)


def calibration_error(logits: Floats, labels: Labels) -> float:
    """`ece` of the most probable class [n], or of sets [n, C] of every yes or no."""
    p = probabilities(logits, several=labels.ndim == 2)
    if labels.ndim == 2:
        return ece(p.ravel(), labels.ravel().astype(np.bool_))
    return ece(p.max(axis=1), ranking(p)[:, 0] == labels)


def fit_temperature(logits: Floats, labels: Labels, least: float = 0.05, most: float = 20.0) -> float:
    """The T in [least, most] whose logits / T have the least `nll` (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T, so it has one valley over log T, which a golden section finds to 1e-4.
    """
    low, high = math.log(least), math.log(most)
    golden = (math.sqrt(5) - 1) / 2
    z = np.asarray(logits, dtype=np.float64)

    def loss(at: float) -> float:
        return nll(z / math.exp(at), labels)

    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-4:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = loss(b)
    return math.exp((low + high) / 2)


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Mean recall over the classes present, in percent."""
    return float(np.mean([(predicted[labels == each] == each).mean() for each in np.unique(labels)]) * 100)


def mean_average_precision(scores: Floats, sets: npt.NDArray[np.bool_]) -> float:
    """Mean over classes with an image of the average precision of `scores` [n, C], in percent; equal scores count as one step."""
    found = [_average_precision(scores[:, k], sets[:, k]) for k in range(sets.shape[1]) if sets[:, k].any()]
    return float(np.mean(found) * 100) if found else 0.0


def _average_precision(scores: Floats, relevant: npt.NDArray[np.bool_]) -> float:
    """Sum over thresholds of precision times the recall that each adds."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(relevant[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    recall = hits[ends] / hits[-1]
    return float((hits[ends] / (ends + 1) * np.diff(recall, prepend=0.0)).sum())


def macro_f1(predicted: npt.NDArray[np.bool_], sets: npt.NDArray[np.bool_]) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), in percent; a class that is neither there nor predicted takes no part."""
    both, either = (predicted & sets).sum(0), predicted.sum(0) + sets.sum(0)
    some = either > 0
    return float((2 * both[some] / either[some]).mean() * 100) if some.any() else 0.0


def rankme(features: Floats) -> float:
    """Effective rank of [n, D]: exp of the entropy of the normalised singular values (Garrido et al. 2023, equation 2)."""
    values = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False)
    total = values.sum()
    if total <= 0:
        return 1.0
    p = values / total + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))
