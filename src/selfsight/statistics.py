"""Intervals and tests of paired outcomes. Pure functions; outcomes are 0/1 (or shares), results are in percentage points."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]

RESAMPLES = 10_000
LEVEL = 0.95
_Z = 1.959964


class Interval(NamedTuple):
    """A value with its percentile-bootstrap interval of 95 %."""

    value: float
    low: float
    high: float


def bootstrap_mean(outcomes: Floats, groups: npt.NDArray[np.generic] | None = None, seed: int = 0) -> Interval:
    """100 * mean of `outcomes` [n] with its percentile bootstrap (Efron 1979) over images, or over groups of images.

    For a paired difference pass the differences. The percentile interval is used because it also holds where all outcomes are
    equal, where BCa has none.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = _resample_images(values, rng) if groups is None else _resample_groups(values, groups, rng)
    low, high = np.percentile(means, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Interval(float(values.mean() * 100), float(low * 100), float(high * 100))


def bootstrap_gap(these: Floats, others: Floats, seed: int = 0) -> Interval:
    """100 * (mean of `these` - mean of `others`) of two separate sets of images, each resampled on its own."""
    first, second = (np.asarray(values, dtype=np.float64) for values in (these, others))
    rng = np.random.default_rng(seed)
    gaps = _resample_images(first, rng) - _resample_images(second, rng)
    low, high = np.percentile(gaps, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Interval(float((first.mean() - second.mean()) * 100), float(low * 100), float(high * 100))


def _resample_images(values: Floats, rng: np.random.Generator) -> Floats:
    """Drawing n images with replacement is drawing counts of each distinct outcome from a multinomial, which is far cheaper."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), size=RESAMPLES)
    return np.asarray(drawn @ distinct / len(values))


def _resample_groups(values: Floats, groups: npt.NDArray[np.generic], rng: np.random.Generator) -> Floats:
    """Whole groups are drawn with replacement: images of one patient or video are not independent."""
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=values)
    means = np.empty(RESAMPLES)
    step = max(1, 4_000_000 // len(sizes))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(len(sizes), size=(min(step, RESAMPLES - start), len(sizes)))
        means[start : start + len(drawn)] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return means


def bootstrap_balanced(
    correct: Floats, labels: npt.NDArray[np.integer], groups: npt.NDArray[np.generic] | None = None, seed: int = 0
) -> Interval:
    """100 * mean recall over the classes present, with its interval: images are drawn within their class, or whole groups."""
    _, kind = np.unique(labels, return_inverse=True)
    sizes = np.bincount(kind)
    recall = np.bincount(kind, weights=correct) / sizes
    rng = np.random.default_rng(seed)
    if groups is None:
        means = (rng.binomial(sizes, recall, size=(RESAMPLES, len(sizes))) / sizes).mean(1)
    else:
        means = _resample_recalls(np.asarray(correct, dtype=np.float64), kind, groups, rng)
    low, high = np.percentile(means, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Interval(float(recall.mean() * 100), float(low * 100), float(high * 100))


def _resample_recalls(
    correct: Floats, kind: npt.NDArray[np.integer], groups: npt.NDArray[np.generic], rng: np.random.Generator
) -> Floats:
    """Mean recall under whole groups drawn with replacement; a class that a draw misses takes no part in its mean."""
    _, unit = np.unique(groups, return_inverse=True)
    total, right = (np.zeros((int(unit.max()) + 1, int(kind.max()) + 1)) for _ in range(2))
    np.add.at(total, (unit, kind), 1.0)
    np.add.at(right, (unit, kind), correct)
    drawn = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), size=RESAMPLES)
    seen = drawn @ total
    recalls = np.divide(drawn @ right, seen, out=np.full(seen.shape, np.nan), where=seen > 0)
    return np.asarray(np.nanmean(recalls, axis=1))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p: may the images that one encoder alone gets right be split half and half? (McNemar 1947)"""
    n = only_a + only_b
    if n == 0:
        return 1.0
    return float(min(1.0, 2 * stats.binom.cdf(min(only_a, only_b), n, 0.5)))


def sign_flip(differences: npt.NDArray[np.integer]) -> float:
    """Exact two-sided p of paired differences that are whole numbers [n]: is their sum what random signs would give?

    Each difference d is as likely -d where nothing differs (Fisher 1935). Of differences -1, 0 and 1 this is McNemar's test. The
    distribution of the sum is the convolution of one binomial for each size that occurs.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(2 * size * count + 1)
        spaced[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, spaced)
    reach = len(chances) // 2
    tail = reach - abs(int(differences.sum()))
    return float(min(1.0, 2 * chances[: tail + 1].sum()))


def fisher(right: int, n: int, others_right: int, others_n: int) -> float:
    """Exact two-sided p of two separate sets of images: is one as often right as the other? (Fisher 1935)"""
    table = [[right, n - right], [others_right, others_n - others_right]]
    return float(stats.fisher_exact(table).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for the whole family by Holm's step-down rule (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def needed_n(disagreement: float, difference: float, margin: float) -> int:
    """Test images for which a 95 % interval of the paired difference would be narrower than the distance to zero.

    `disagreement` is the share of images that exactly one encoder gets right; the variance of a paired difference of 0/1
    outcomes is disagreement - difference^2. A difference below `margin` (both in points) counts as `margin`: smaller ones are
    not worth settling.
    """
    gap = max(abs(difference), margin, 1e-3) / 100
    variance = max(disagreement - (difference / 100) ** 2, 1e-6)
    return math.ceil(_Z**2 * variance / gap**2)
