"""One contract for every task, and the linear probe against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from selfsight.evaluate import TASKS, FeatureSet
from selfsight.evaluate.linear import Linear, fit, validation_split


def blobs(n: int, classes: int, width: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian blobs around class centres that depend on neither n nor seed."""
    centres = np.random.default_rng(7).normal(size=(classes, width)) * 2
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    return (centres[labels] + rng.normal(size=(n, width)) * spread).astype(np.float32), labels.astype(np.int64)


@pytest.fixture
def features() -> tuple[FeatureSet, np.ndarray]:
    train, labels = blobs(200, 4, 12, 0)
    test, answers = blobs(80, 4, 12, 1)
    return FeatureSet(train, labels, test, 4), answers


@pytest.mark.parametrize("name", TASKS)
class TestContract:
    def test_learns_separable_classes(self, name: str, features: tuple[FeatureSet, np.ndarray]) -> None:
        given, answers = features
        for found in TASKS[name]().run(given, seed=0, device="cpu"):
            assert found.predicted.shape == answers.shape
            assert (found.predicted == answers).mean() > 0.95, found.metric

    def test_is_at_chance_where_the_features_say_nothing(self, name: str, features: tuple[FeatureSet, np.ndarray]) -> None:
        given, answers = features
        noise = np.random.default_rng(3)
        empty = FeatureSet(
            noise.normal(size=given.train.shape).astype(np.float32),
            given.train_labels,
            noise.normal(size=given.test.shape).astype(np.float32),
            4,
        )
        for found in TASKS[name]().run(empty, seed=0, device="cpu"):
            assert (found.predicted == answers).mean() < 0.5

    def test_yields_its_primary_metric_once_and_the_same_again(self, name: str, features: tuple[FeatureSet, np.ndarray]) -> None:
        first, second = (list(TASKS[name]().run(features[0], seed=0, device="cpu")) for _ in range(2))
        names = [found.metric for found in first]
        assert names.count(TASKS[name].primary) == 1
        assert len(set(names)) == len(names)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.predicted, b.predicted)

    def test_gives_another_answer_under_another_seed_only_if_it_says_so(self, name: str) -> None:
        train, labels = blobs(60, 4, 6, 0, spread=3.0)
        test, _ = blobs(300, 4, 6, 1, spread=3.0)
        given = FeatureSet(train, labels, test, 4)
        answers = [
            np.concatenate([found.predicted for found in TASKS[name]().run(given, seed=seed, device="cpu")]) for seed in range(8)
        ]
        assert TASKS[name].random == any((a != answers[0]).any() for a in answers)

    def test_takes_a_class_without_training_images_and_constant_features(self, name: str) -> None:
        train, labels = blobs(60, 3, 6, 0)
        train[:, 2] = 5.0
        test, _ = blobs(20, 3, 6, 1)
        for found in TASKS[name]().run(FeatureSet(train, labels, test, 5), seed=0, device="cpu"):
            assert set(found.predicted) <= {0, 1, 2}


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
def test_logistic_regression_finds_the_minimum_that_scikit_learn_finds(strength: float) -> None:
    x, y = blobs(150, 3, 8, 0, spread=2.0)
    weight, bias = fit(torch.from_numpy(x), torch.from_numpy(y), 3, strength)
    theirs = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=2e-3)
    ours = torch.softmax(torch.from_numpy(x) @ weight.T + bias, 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=2e-3)


def test_validation_part_is_a_fifth_of_each_class_and_keeps_groups_whole() -> None:
    labels = np.repeat(np.arange(4), 50)
    fitted, held = validation_split(labels, None, 0)
    assert len(np.intersect1d(fitted, held)) == 0
    np.testing.assert_array_equal(np.bincount(labels[held]), [10] * 4)
    groups = np.array([f"patient {i // 10}" for i in range(200)])
    fitted, held = validation_split(labels, groups, 0)
    assert not set(groups[fitted]) & set(groups[held])


def test_strength_is_chosen_without_the_test_images() -> None:
    """The test labels are not even among the arguments; the test features must not move the choice."""
    train, labels = blobs(100, 3, 8, 0, spread=3.0)
    notes = set()
    for seed in range(3):
        test, _ = blobs(50, 3, 8, 10 + seed, spread=3.0)
        (found,) = Linear().run(FeatureSet(train, labels, test * (1 + 100 * seed), 3), seed=0, device="cpu")
        notes.add(found.note)
    assert len(notes) == 1
