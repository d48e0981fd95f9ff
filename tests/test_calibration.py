"""Measures of answers, each against an obvious slow version or scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, f1_score, recall_score

from selfsight import metrics
from selfsight.api.classifier import calibrate, scores


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Logits [60, 4] that are twice as sure as they should be, and labels."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 4)) * 1.5
    p = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in p])
    return (2.0 * truth).astype(np.float32), labels


@pytest.fixture
def several() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(50, 3)) * 2
    return (3.0 * truth).astype(np.float32), rng.random((50, 3)) < 1 / (1 + np.exp(-truth))


def test_nll_is_the_mean_surprise(answers: tuple[np.ndarray, np.ndarray], several: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = answers
    total = 0.0
    for row, label in zip(logits.astype(float), labels, strict=True):
        total -= math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
    assert metrics.nll(logits, labels) == pytest.approx(total / len(labels))
    logits, sets = several
    total = 0.0
    for row, chosen in zip(logits.astype(float), sets, strict=True):
        for value, there in zip(row, chosen, strict=True):
            p = 1 / (1 + math.exp(-value))
            total -= math.log(p if there else 1 - p)
    assert metrics.nll(logits, sets) == pytest.approx(total / sets.size)


def test_logits_far_out_give_finite_losses_and_probabilities() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    assert metrics.nll(logits, np.array([0, 0])) == pytest.approx(1e4)
    assert metrics.nll(logits, np.array([[True, False], [True, False]])) == pytest.approx(5e3)
    np.testing.assert_array_equal(metrics.probabilities(logits), [[1, 0], [0, 1]])
    np.testing.assert_array_equal(metrics.probabilities(logits, several=True), [[1, 0], [0, 1]])


def test_ece_is_that_of_bins_gone_through_one_by_one() -> None:
    rng = np.random.default_rng(2)
    confidence = np.concatenate([rng.random(200), [0.0, 0.2, 0.4, 1.0]])
    right = rng.random(204) < confidence**2
    total = 0.0
    for number in range(5):
        low, high = number / 5, (number + 1) / 5
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (number == 0 and c == 0)]
        if inside:
            gap = abs(sum(confidence[i] for i in inside) / len(inside) - sum(right[i] for i in inside) / len(inside))
            total += len(inside) / len(confidence) * gap
    assert metrics.ece(confidence, right, bins=5) == pytest.approx(100 * total)
    assert metrics.ece(np.array([1.0, 1.0]), np.array([True, True])) == 0.0
    assert metrics.ece(np.array([1.0, 1.0]), np.array([False, False])) == pytest.approx(100.0)


def test_the_temperature_is_where_an_optimiser_finds_the_least_loss(
    answers: tuple[np.ndarray, np.ndarray], several: tuple[np.ndarray, np.ndarray]
) -> None:
    for logits, labels in (answers, several):
        best = minimize_scalar(
            lambda t, z=logits, y=labels: metrics.nll(z / t, y), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}
        )
        found = metrics.fit_temperature(logits, labels)
        assert found == pytest.approx(best.x, rel=1e-3)
        assert 1.2 < found < 5  # they were made too sure


def test_a_temperature_lowers_the_loss_and_keeps_the_answers(answers: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = answers
    temperature, told = calibrate(logits, labels)
    assert told.nll_after < told.nll_before
    assert told.ece_after < told.ece_before
    assert told.nll_after == pytest.approx(metrics.nll(logits / temperature, labels))
    np.testing.assert_array_equal((logits / temperature).argmax(1), logits.argmax(1))


def test_where_every_answer_is_right_none_is_made_surer() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], dtype=np.float32)
    assert calibrate(logits, np.array([0, 1, 0]))[0] == pytest.approx(1.0, abs=1e-3)
    assert metrics.fit_temperature(logits, np.array([0, 1, 0])) == pytest.approx(0.05, rel=1e-3)


def test_measures_of_sets_are_those_of_scikit_learn(several: tuple[np.ndarray, np.ndarray]) -> None:
    logits, sets = several
    coarse = np.round(logits)  # with equal scores
    sets[:, 2] = False
    expected = np.mean([average_precision_score(sets[:, k], coarse[:, k]) for k in range(2)])
    assert metrics.mean_average_precision(coarse, sets) == pytest.approx(100 * expected)
    f1 = f1_score(sets, coarse > 0, average="macro", zero_division=0)
    assert metrics.macro_f1(coarse > 0, sets) == pytest.approx(100 * f1)
    nobody = np.zeros((3, 2), dtype=bool)
    assert metrics.mean_average_precision(np.zeros((3, 2)), nobody) == metrics.macro_f1(nobody, nobody) == 0.0


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_there(answers: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = answers
    labels = np.where(labels == 3, 2, labels)  # none of the last class
    predicted = logits.argmax(1)
    recalls = recall_score(labels, predicted, labels=[0, 1, 2], average="macro")
    assert metrics.balanced_accuracy(predicted, labels) == pytest.approx(100 * recalls)


def test_scores_of_answers_that_are_not_finite_are_none(answers: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = answers
    assert scores(logits, labels).keys() == {"val_loss", "val_top1", "val_balanced_accuracy"}
    logits[3, 1] = np.nan
    assert scores(logits, labels) == {}
