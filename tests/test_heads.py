"""A linear probe as the head of a network, against scikit-learn on standardised features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from selfsight.evaluate.heads import fitted_head
from selfsight.evaluate.linear import STRENGTHS


def features(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Far from standardised, one of them constant."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    x = np.random.default_rng(1).normal(size=(3, 6))[labels] + rng.normal(size=(n, 6))
    x = x * [1, 100, 0.01, 5, 1, 1] + [0, 50, 0, -7, 0, 0]
    x[:, 5] = 3.0
    return x.astype(np.float32), labels.astype(np.int64)


def standardised(x: np.ndarray) -> np.ndarray:
    return StandardScaler().fit_transform(x.astype(np.float64))


def test_a_head_on_features_as_they_come_answers_as_a_regression_on_standardised_ones() -> None:
    x, labels = features()
    head = fitted_head(x, labels, 3)
    assert head.strength in STRENGTHS
    expected = LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8).fit(standardised(x), labels)
    logits = torch.from_numpy(x) @ head.weight.T + head.bias
    np.testing.assert_allclose(torch.softmax(logits, 1), expected.predict_proba(standardised(x)), atol=2e-3)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.7


def test_of_sets_every_class_is_a_regression_of_its_own() -> None:
    x, labels = features()
    sets = np.stack([labels == 0, labels != 1, labels == 2], axis=1)
    head = fitted_head(x, sets, 3)
    expected = OneVsRestClassifier(LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8)).fit(standardised(x), sets)
    p = torch.sigmoid(torch.from_numpy(x) @ head.weight.T + head.bias)
    np.testing.assert_allclose(p, expected.predict_proba(standardised(x)), atol=2e-3)


def test_weights_count_as_in_a_regression_with_them() -> None:
    x, labels = features()
    weights = np.where(np.arange(len(x)) < 30, 3.0, 1 / 3).astype(np.float32)
    head = fitted_head(x, labels, 3, weights=10 * weights)  # 30 * 3 + 90 / 3 = 120: of mean 1 once divided by ten
    reference = LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8)
    logits = torch.from_numpy(x) @ head.weight.T + head.bias
    expected = reference.fit(standardised(x), labels, sample_weight=weights).predict_proba(standardised(x))
    np.testing.assert_allclose(torch.softmax(logits, 1), expected, atol=2e-3)
    plain = reference.fit(standardised(x), labels).predict_proba(standardised(x))
    assert np.abs(expected - plain).max() > 0.05


def test_images_of_little_weight_do_not_move_the_head() -> None:
    """Labels of one part follow a feature, those of the other part, nine times as large, are drawn by lot."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 20)).astype(np.float32)
    labels = rng.integers(0, 2, 400)
    labels[:40] = x[:40, 0] > 0
    weights = np.where(np.arange(400) < 40, 9.0, 1e-3).astype(np.float32)
    head = fitted_head(x, labels, 2, weights=weights)
    right = ((torch.from_numpy(x[:40]) @ head.weight.T + head.bias).argmax(1).numpy() == labels[:40]).mean()
    unaware = fitted_head(x, labels, 2)
    assert right > ((torch.from_numpy(x[:40]) @ unaware.weight.T + unaware.bias).argmax(1).numpy() == labels[:40]).mean()
    assert right > 0.9


@pytest.mark.parametrize("groups", [None, np.repeat("one", 4)])
def test_where_nothing_can_be_held_back_the_strength_is_a_middle_one(groups: np.ndarray | None) -> None:
    x, labels = features(4)
    head = fitted_head(x[:2] if groups is None else x, labels[:2] if groups is None else labels, 3, groups=groups)
    assert head.strength == 1e-2
    assert torch.isfinite(head.weight).all()
