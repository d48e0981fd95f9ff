"""Intervals and tests of paired outcomes, each against a slow way that is obviously right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from selfsight.statistics import bootstrap_balanced, bootstrap_gap, bootstrap_mean, holm, mcnemar, needed_n, sign_flip


def outcomes(n: int, share: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def brute_force(values: np.ndarray, resamples: int = 20_000) -> np.ndarray:
    """The ends of the percentile interval, by drawing images with replacement."""
    rng = np.random.default_rng(99)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    return np.percentile(means, [2.5, 97.5]) * 100


@pytest.mark.parametrize(("n", "share"), [(50, 0.5), (200, 0.9), (400, 0.1)])
def test_bootstrap_equals_brute_force_resampling(n: int, share: float) -> None:
    """An end of an interval of 10,000 resamples has a standard error of about 0.03 of its width; 0.1 is allowed."""
    values = outcomes(n, share)
    found = bootstrap_mean(values)
    low, high = brute_force(values)
    assert found.value == pytest.approx(values.mean() * 100)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_bootstrap_of_paired_differences_equals_brute_force() -> None:
    values = outcomes(300, 0.8, 1) - outcomes(300, 0.75, 2)
    found = bootstrap_mean(values)
    low, high = brute_force(values)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1 * (high - low))
    assert found.low < found.value < found.high


def test_bootstrap_of_shares_equals_brute_force() -> None:
    values = np.random.default_rng(3).random(80)
    low, high = brute_force(values)
    found = bootstrap_mean(values)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_bootstrap_has_the_width_of_the_normal_interval() -> None:
    values = outcomes(2000, 0.7)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(2000) * 100
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


@pytest.mark.parametrize("groups", [None, np.arange(40) // 4])
def test_identical_models_differ_by_nothing_at_all(groups: np.ndarray | None) -> None:
    values = outcomes(40, 0.6)
    assert bootstrap_mean(values - values, groups) == (0.0, 0.0, 0.0)


def test_all_right_is_a_hundred_percent_without_a_width() -> None:
    assert bootstrap_mean(np.ones(30)) == pytest.approx((100.0, 100.0, 100.0))


def test_bootstrap_is_repeatable_and_another_seed_is_another_draw() -> None:
    values = outcomes(101, 0.6)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, np.arange(101) % 17, seed=4) != bootstrap_mean(values, np.arange(101) % 17, seed=5)


def test_grouped_bootstrap_draws_whole_groups() -> None:
    rng = np.random.default_rng(5)
    groups = np.array([f"patient {g}" for g in np.repeat(np.arange(25), rng.integers(1, 9, 25))])
    easy = dict(zip(np.unique(groups), rng.random(25), strict=True))
    values = np.array([float(rng.random() < easy[g]) for g in groups])
    members = [values[groups == g] for g in np.unique(groups)]
    means = []
    for _ in range(20_000):
        means.append(np.concatenate([members[g] for g in rng.integers(25, size=25)]).mean() * 100)
    low, high = np.percentile(means, [2.5, 97.5])
    found = bootstrap_mean(values, groups)
    assert found.value == pytest.approx(values.mean() * 100)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_images_that_come_in_alike_groups_make_the_interval_wider() -> None:
    values = np.repeat(outcomes(50, 0.5), 8)
    alone, grouped = bootstrap_mean(values), bootstrap_mean(values, np.repeat(np.arange(50), 8))
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(8), rel=0.1)


def test_groups_of_one_image_are_no_groups() -> None:
    values = outcomes(150, 0.7)
    assert list(bootstrap_mean(values, np.arange(150))) == pytest.approx(list(bootstrap_mean(values)), abs=1.5)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 1), (3, 9), (9, 3), (0, 6), (40, 25), (250, 310), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(a, a + b, 0.5).pvalue, rel=1e-9)


def test_mcnemar_without_a_disagreement_proves_nothing() -> None:
    assert mcnemar(0, 0) == 1.0


def test_holm_follows_an_example_done_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, made rising: .02 .03 .06 .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_a_probability_and_keeps_single_values() -> None:
    assert holm([0.5, 0.9, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_gives_ties_the_same_value() -> None:
    assert holm([0.01, 0.01, 0.2]) == pytest.approx([0.03, 0.03, 0.2])


@pytest.mark.parametrize(("disagreement", "difference"), [(0.2, 4.0), (0.1, -3.0), (0.3, 10.0)])
def test_needed_n_is_where_the_interval_just_leaves_zero(disagreement: float, difference: float) -> None:
    """Simulated test sets of that size: half the width of the interval is on average the difference."""
    n = needed_n(disagreement, difference, margin=1.0)
    share = np.array([(disagreement + difference / 100) / 2, (disagreement - difference / 100) / 2])
    rng, widths = np.random.default_rng(0), []
    for seed in range(20):
        better, worse, same = rng.multinomial(n, [*share, 1 - share.sum()])
        values = np.repeat([1.0, -1.0, 0.0], [better, worse, same])
        found = bootstrap_mean(values, seed=seed)
        widths.append((found.high - found.low) / 2)
    assert np.mean(widths) == pytest.approx(abs(difference), rel=0.05)


def test_needed_n_takes_a_difference_below_the_margin_as_the_margin() -> None:
    assert needed_n(0.2, 0.1, margin=2.0) == pytest.approx(needed_n(0.2, 2.0, margin=0.5), rel=0.01)
    assert needed_n(0.2, 0.0, margin=1.0) == int(np.ceil(1.959964**2 * 0.2 / 0.01**2))


def test_needed_n_is_finite_for_models_that_never_disagree() -> None:
    assert 1 <= needed_n(0.0, 0.0, margin=1.0) < 100
    assert needed_n(0.1, 0.0, margin=0.0) < 10**10


def test_balanced_accuracy_is_scikit_learns_and_its_interval_that_of_resampling_within_classes() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(5, 500, p=[0.6, 0.2, 0.1, 0.07, 0.03])
    correct = rng.random(500) < 0.7
    found = bootstrap_balanced(correct, labels)
    recalls = [correct[labels == c].mean() for c in range(5)]
    assert found.value == pytest.approx(100 * np.mean(recalls))
    parts = [correct[labels == c] for c in range(5)]
    brute = [np.mean([rng.choice(part, len(part)).mean() for part in parts]) * 100 for _ in range(3000)]
    np.testing.assert_allclose([found.low, found.high], np.percentile(brute, [2.5, 97.5]), atol=1.0)


def test_balanced_accuracy_of_a_perfect_encoder_has_no_interval_however_rare_a_class() -> None:
    labels = np.repeat([0, 1, 2], [180, 15, 5])
    assert bootstrap_balanced(np.ones(200), labels) == (100.0, 100.0, 100.0)
    groups = np.arange(200) % 20
    assert bootstrap_balanced(np.ones(200), labels, groups) == (100.0, 100.0, 100.0)


def test_balanced_accuracy_over_groups_is_wider_where_groups_succeed_or_fail_as_a_whole() -> None:
    labels = np.tile([0, 1], 100)
    groups = np.repeat(np.arange(20), 10)
    correct = (groups % 2).astype(float)
    alone, grouped = bootstrap_balanced(correct, labels), bootstrap_balanced(correct, labels, groups)
    assert alone.value == grouped.value == 50.0
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_sign_flips_are_counted_exactly_and_are_mcnemars_where_outcomes_are_of_one_pair() -> None:
    differences = np.array([2, -1, 1, 0, 2, 1, -2, 1])
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    sums = (signs * np.abs(differences)).sum(1)
    assert sign_flip(differences) == pytest.approx((np.abs(sums) >= abs(differences.sum())).mean())
    assert sign_flip(np.array([1] * 9 + [-1] * 2 + [0] * 5)) == pytest.approx(mcnemar(2, 9))
    assert sign_flip(np.zeros(4, dtype=np.int64)) == 1.0


def test_a_gap_of_separate_sets_has_the_interval_of_two_binomials() -> None:
    these, others = np.repeat([1.0, 0.0], [120, 80]), np.repeat([1.0, 0.0], [80, 120])
    value, low, high = bootstrap_gap(these, others)
    half = 196 * np.sqrt(2 * 0.6 * 0.4 / 200)
    assert value == pytest.approx(20)
    np.testing.assert_allclose((low, high), (20 - half, 20 + half), atol=0.6)
