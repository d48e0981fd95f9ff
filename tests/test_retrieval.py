"""Nearest neighbours from an index, and pairs from blocks, against all similarities at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from selfsight import metrics
from selfsight.errors import ConfigError, DataError
from selfsight.retrieval import Contents, Index, Pairs, groups, pairs


@pytest.fixture(autouse=True)
def one_thread_of_faiss() -> Iterator[None]:
    """Its threads wait for each other by counting, which costs most where other tests run beside this one."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def clustered(n: int, width: int = 32, centres: int = 50, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, width))
    return (middle[rng.integers(0, centres, n)] + 0.4 * rng.normal(size=(n, width))).astype(np.float32)


def contents(n: int) -> Contents:
    return Contents("photos", "pixels", "fingerprint", "state", [f"{i}.jpg" for i in range(n)], ["a"] * n)


def slow_neighbours(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    cosines = [float(v @ query) / float(np.linalg.norm(v) * np.linalg.norm(query)) for v in vectors.astype(np.float64)]
    return sorted(range(len(vectors)), key=lambda i: -cosines[i])[:k]


def test_the_exact_index_finds_what_all_cosines_say_before_and_after_it_is_kept(tmp_path: Path) -> None:
    vectors, queries = clustered(300), clustered(9, seed=1)
    built = Index.build(vectors, contents(300))
    built.save(tmp_path / "kept")
    kept = Index.load(tmp_path / "kept")
    assert built.exact and kept.exact and len(kept) == 300
    assert kept.contents == contents(300)
    assert not (tmp_path / "kept" / "index.faiss").exists()
    assert isinstance(kept.vectors, np.memmap)
    for index in (built, kept):
        for query, found in zip(queries, index.search(queries, 7), strict=True):
            assert found.places.tolist() == slow_neighbours(vectors, query, 7)
            cosine = metrics.normalize(vectors[found.places]) @ metrics.normalize(query[None])[0]
            np.testing.assert_allclose(found.similarities, cosine, atol=1e-6)


def test_more_neighbours_than_vectors_gives_all_of_them_and_no_filling() -> None:
    for threshold in (10, 1):
        (found,) = Index.build(clustered(5, 8), contents(5), exact_below=threshold).search(clustered(1, 8), 20)
        assert sorted(found.places.tolist()) == [0, 1, 2, 3, 4]


def test_the_compressed_index_finds_95_percent_of_the_exact_neighbours(tmp_path: Path) -> None:
    vectors, queries = clustered(6000), clustered(100, seed=0)
    exact = Index.build(vectors, contents(6000)).search(queries, 10)
    built = Index.build(vectors, contents(6000), exact_below=6000)
    built.save(tmp_path)
    kept = Index.load(tmp_path)
    assert not built.exact and not kept.exact
    for index in (built, kept):
        found = index.search(queries, 10)
        shared = [len(set(a.places.tolist()) & set(b.places.tolist())) for a, b in zip(exact, found, strict=True)]
        assert np.mean(shared) / 10 >= 0.95
        assert all((np.diff(row.similarities) <= 0).all() for row in found)


@pytest.mark.parametrize("missing", ["index.json", "index.faiss", "vectors.npy"])
def test_an_index_with_a_part_missing_says_which(tmp_path: Path, missing: str) -> None:
    Index.build(clustered(20, 8), contents(20), exact_below=10).save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing):
        Index.load(tmp_path)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="got 3 for 2 keys"):
        Index.build(clustered(3, 8), contents(2))
    index = Index.build(clustered(3, 8), contents(3))
    with pytest.raises(DataError, match=r"expected queries of 8 numbers, .* got shape \(1, 4\)"):
        index.search(np.ones((1, 4), dtype=np.float32), 1)
    with pytest.raises(DataError, match="--k: expected a whole number from 1, got 0"):
        index.search(np.ones((1, 8), dtype=np.float32), 0)


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_pairs_are_those_of_the_double_loop_whatever_the_block(block: int) -> None:
    a, b = metrics.normalize(clustered(60, 8, 5)), metrics.normalize(clustered(45, 8, 5, seed=0))
    within = {(i, j) for i in range(60) for j in range(i + 1, 60) if float(a[i] @ a[j]) >= 0.9}
    across = {(i, j) for i in range(60) for j in range(45) if float(a[i] @ b[j]) >= 0.9}
    assert within and across
    for found, expected in ((pairs(a, None, 0.9, block=block), within), (pairs(a, b, 0.9, block=block), across)):
        assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
        assert len(found.first) == len(expected)
        assert (np.diff(found.similarities) <= 0).all()


def test_the_most_alike_pair_is_told_where_none_is_alike_enough() -> None:
    vectors = metrics.normalize(clustered(50, 8, 50))
    cosines = (vectors @ vectors.T)[np.triu_indices(50, 1)]
    found = pairs(vectors, None, 1.0, block=16)
    assert not len(found.first)
    assert found.highest == pytest.approx(float(cosines.max()), abs=1e-6)
    assert pairs(vectors[:1], None, 0.5).highest is None


def test_a_folder_left_half_written_is_no_index(tmp_path: Path) -> None:
    Index.build(clustered(20, 8), contents(20)).save(tmp_path)
    np.save(tmp_path / "vectors.npy", clustered(19, 8))
    with pytest.raises(DataError, match=r"no whole index \(20 keys, 19 vectors"):
        Index.load(tmp_path)


def test_too_many_pairs_ask_for_a_higher_similarity() -> None:
    with pytest.raises(DataError, match=r"--above 0\.5: more than 10 pairs"):
        pairs(np.ones((9, 1), dtype=np.float32), None, 0.5, most=10)
    with pytest.raises(ConfigError, match="--above: expected a cosine"):
        pairs(np.ones((9, 1), dtype=np.float32), None, 1.5)


def test_groups_are_what_pairs_connect_the_largest_first() -> None:
    same = np.ones(4, dtype=np.float32)
    found = Pairs(np.array([5, 0, 1, 7]), np.array([6, 1, 2, 8]), same)
    assert groups(found, 9).tolist() == [1, 0, 0, 2]
    across = Pairs(np.array([0, 1, 1]), np.array([0, 1, 2]), same[:3])
    assert groups(across, 2, 3).tolist() == [1, 0, 0]
