"""Neighbours, votes and retrieval, each against a double loop or a library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from selfsight import metrics, neighbours
from selfsight.errors import DataError


def unit(n: int, width: int, seed: int) -> np.ndarray:
    return metrics.normalize(np.random.default_rng(seed).normal(size=(n, width)))


def slow_knn(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int, classes: int, t: float = 0.07) -> np.ndarray:
    """One query and one neighbour at a time, in float64; equal similarities by rising index."""
    scores = np.zeros((len(test), classes))
    for row, query in enumerate(test.astype(np.float64)):
        similarity = [float(query @ other) for other in train.astype(np.float64)]
        nearest = sorted(range(len(train)), key=lambda i: (-round(similarity[i], 6), i))[:k]
        for i in nearest:
            scores[row, labels[i]] += math.exp(similarity[i] / t)
    return scores


@pytest.mark.parametrize("test_size", [1, 40, 300])
def test_knn_votes_like_the_double_loop(test_size: int) -> None:
    train, test = unit(60, 8, 0), unit(test_size, 8, 1)
    labels = np.random.default_rng(2).integers(0, 5, 60)
    scores = neighbours.knn_scores(train, labels, test, [1, 5, 20], 5)
    for k in (1, 5, 20):
        np.testing.assert_allclose(scores[k], slow_knn(train, labels, test, k, 5), rtol=1e-4, atol=1e-3)


def test_knn_with_a_k_above_the_number_of_images_counts_all_of_them() -> None:
    train, test = unit(7, 4, 0), unit(3, 4, 1)
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    scores = neighbours.knn_scores(train, labels, test, [5, 20, 200], 3)
    np.testing.assert_allclose(scores[5], slow_knn(train, labels, test, 5, 3), rtol=1e-4)
    np.testing.assert_allclose(scores[20], slow_knn(train, labels, test, 7, 3), rtol=1e-4)
    np.testing.assert_array_equal(scores[20], scores[200])


@pytest.mark.parametrize("copies", [2, 10, 400])
def test_knn_among_equal_images_takes_the_first(copies: int) -> None:
    """Each image stands `copies` times in the bank under labels of its own: k=3 takes the three of smallest index."""
    apart = np.eye(4, dtype=np.float32)
    train = np.tile(apart, (copies, 1))
    labels = np.arange(len(train))
    scores = neighbours.knn_scores(train, labels, apart, [1, 2], len(train))
    for query in range(4):
        assert np.flatnonzero(scores[1][query]).tolist() == [query]
        assert np.flatnonzero(scores[2][query]).tolist() == [query, query + 4]


def test_neighbours_come_in_falling_order_for_every_row() -> None:
    train, test = unit(50, 6, 0), unit(300, 6, 1)
    rows = []
    for part, similarity, index in neighbours.nearest(train, test, 7):
        rows += list(range(part.start, part.stop))
        np.testing.assert_allclose(similarity, np.take_along_axis(test[part] @ train.T, index, 1), rtol=1e-6)
        assert (np.diff(similarity, axis=1) <= 0).all()
        np.testing.assert_allclose(similarity[:, 0], (test[part] @ train.T).max(1), rtol=1e-6)
    assert rows == list(range(300))


def slow_neighbours(train: np.ndarray, test: np.ndarray, k: int) -> list[list[int]]:
    """All similarities of whole numbers, which are exact, sorted; equal ones by rising index."""
    similarity = (test.astype(np.int64) @ train.astype(np.int64).T).tolist()
    return [sorted(range(len(train)), key=lambda i: (-row[i], i))[:k] for row in similarity]


@pytest.mark.parametrize("order", ["drawn", "rising", "falling"])
@pytest.mark.parametrize(("n", "k"), [(4096, 20), (4097, 20), (9001, 1), (9001, 20), (9001, 4000)])
def test_neighbours_among_many_rows_are_those_of_the_whole_list_sorted(n: int, k: int, order: str) -> None:
    """Several blocks, with ties in all of them: similarities are whole numbers from -12 to 12, below zero too."""
    draw = np.random.default_rng(n + k)
    train, test = (draw.integers(-1, 2, (count, 12)).astype(np.float32) for count in (n, 5))
    if order != "drawn":
        train = train[np.argsort(train @ test[0], kind="stable")][:: 1 if order == "rising" else -1]
    ((_, similarity, index),) = neighbours.nearest(train, test, k)
    assert index.tolist() == slow_neighbours(train, test, k)
    np.testing.assert_array_equal(similarity, np.take_along_axis(test @ train.T, index, 1))


def test_neighbours_among_rows_that_are_all_alike_are_the_first() -> None:
    for value in (0.0, -0.0, -1.0, 1.0):
        train = np.full((9000, 2), value, dtype=np.float32)
        ((_, similarity, index),) = neighbours.nearest(train, np.ones((3, 2), dtype=np.float32), 6)
        assert index.tolist() == 3 * [list(range(6))]
        assert (similarity == 2 * value).all()


def test_a_zero_and_a_minus_zero_are_the_same_similarity() -> None:
    train = np.array([[-0.0], [0.0], [-0.0], [1.0]], dtype=np.float32)
    ((_, _, index),) = neighbours.nearest(train, np.ones((1, 1), dtype=np.float32), 4)
    assert index.tolist() == [[3, 0, 1, 2]]


def test_neighbours_take_double_precision_too() -> None:
    train, test = np.random.default_rng(0).normal(size=(2, 50, 4))
    ((_, similarity, index),) = neighbours.nearest(train, test, 3)
    assert index.tolist() == np.argsort(-(test @ train.T), axis=1)[:, :3].tolist()
    assert similarity.dtype == np.float32


def slow_retrieval(vectors: np.ndarray, labels: np.ndarray, ks: list[int]) -> tuple[float, list[float], list[float], int]:
    """One query and one rank at a time, in float64."""
    precisions, hits, shares = [], [], []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if j != i]
        others.sort(key=lambda j: (-round(float(vectors[i].astype(float) @ vectors[j]), 6), j))
        at = [rank for rank, j in enumerate(others, 1) if labels[j] == labels[i]]
        if at:
            precisions.append(sum(n / rank for n, rank in enumerate(at, 1)) / len(at))
            hits.append(at[0])
            shares.append([sum(rank <= k for rank in at) / min(k, len(others)) for k in ks])
    recall = [100 * np.mean([hit <= k for hit in hits]) for k in ks]
    return 100 * np.mean(precisions), recall, (100 * np.mean(shares, axis=0)).tolist(), len(hits)


def test_retrieval_equals_the_double_loop_and_scikit_learns() -> None:
    vectors, labels = unit(300, 6, 0), np.random.default_rng(1).integers(0, 9, 300)
    labels[0] = 77  # stands alone, so it has nothing to find
    heard: list[int] = []
    ks = [1, 5, 400]
    found = neighbours.retrieval(vectors, labels, ks, heard.append)
    slow, recall, precision, queries = slow_retrieval(vectors, labels, ks)
    assert heard[-1] == 300
    assert (found.queries, queries) == (299, 299)
    assert found.mean_average_precision == pytest.approx(slow, abs=1e-3)
    assert [found.recall[k] for k in ks] == pytest.approx(recall)
    assert [found.precision[k] for k in ks] == pytest.approx(precision)
    each = []
    for i in range(1, 300):
        rest = np.delete(np.arange(300), i)
        each.append(sk.average_precision_score(labels[rest] == labels[i], vectors[rest] @ vectors[i]))
    assert found.mean_average_precision == pytest.approx(100 * np.mean(each), abs=1e-3)


def test_retrieval_among_equal_images_ranks_by_index() -> None:
    """All alike: the others of a label come where their index puts them."""
    found = neighbours.retrieval(np.ones((4, 1), dtype=np.float32), np.array([0, 1, 0, 1]), [1, 2])
    assert found.mean_average_precision == pytest.approx(100 * np.mean([1 / 2, 1 / 3, 1, 1 / 2]))
    assert found.recall == {1: 25.0, 2: 75.0}
    assert found.precision == {1: 25.0, 2: 37.5}


def test_retrieval_without_two_of_a_label_says_so() -> None:
    with pytest.raises(DataError, match="no label stands on two images"):
        neighbours.retrieval(unit(3, 4, 0), np.arange(3), [1])
