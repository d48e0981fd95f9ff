"""Measures of arrays, each against a double loop or a library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from selfsight import metrics


def unit(n: int, width: int, seed: int) -> np.ndarray:
    return metrics.normalize(np.random.default_rng(seed).normal(size=(n, width)))


def test_normalised_rows_have_length_one_and_zeros_stay() -> None:
    found = metrics.normalize(np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], atol=1e-6)
    assert found.dtype == np.float32


def test_ranking_gives_equal_scores_by_rising_class() -> None:
    scores = np.array([[0.1, 0.5, 0.5, 0.9], [0.0, 0.0, 0.0, 0.0]])
    assert metrics.ranking(scores).tolist() == [[3, 1, 2, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((200, 6)), rng.integers(0, 6, 200)
    expected = sk.top_k_accuracy_score(labels, scores, k=k, labels=range(6)) * 100
    assert metrics.top_k_accuracy(scores, labels, k) == pytest.approx(expected)


def with_spectrum(values: list[float], n: int = 64, width: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(n, n)))
    right, _ = np.linalg.qr(rng.normal(size=(width, width)))
    return left[:, : len(values)] * np.array(values) @ right[: len(values)]


@pytest.mark.parametrize("rank", [1, 2, 7, 16])
def test_rankme_of_equal_singular_values_is_their_number(rank: int) -> None:
    """The published sum adds 1e-7 to each share, which costs a little below the fifth digit."""
    assert metrics.rankme(with_spectrum([3.0] * rank)) == pytest.approx(rank, rel=1e-4)


def test_rankme_of_a_known_spectrum_is_the_exponential_of_its_entropy() -> None:
    p = np.array([0.5, 0.25, 0.125, 0.125])
    assert metrics.rankme(with_spectrum(list(8 * p))) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_rankme_does_not_depend_on_scale_and_is_one_for_zeros() -> None:
    x = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    assert metrics.rankme(1000 * x) == pytest.approx(metrics.rankme(x), rel=1e-5)
    assert metrics.rankme(np.zeros((5, 3))) == 1.0
    assert metrics.rankme(np.ones((5, 3))) == pytest.approx(1.0, abs=1e-4)
