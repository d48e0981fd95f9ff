"""The order of an epoch: a permutation, random, and kind to sources that are read in blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from selfsight.data.draws import permuted
from selfsight.data.order import Order


@pytest.mark.parametrize("count", [1, 2, 3, 5, 31, 32, 33, 1000, 2048, 2049, 4096, 4097, 70_000])
def test_every_position_has_a_sample_of_its_own(count: int) -> None:
    found = permuted(3, 1, 0, count, np.arange(count))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_a_part_of_the_order_is_the_same_as_in_the_whole() -> None:
    whole = permuted(0, 2, 5, 100_003, np.arange(100_003))
    some = np.array([99_999, 0, 17, 17, 50_000])
    np.testing.assert_array_equal(permuted(0, 2, 5, 100_003, some), whole[some])


def test_orders_differ_by_seed_epoch_and_stream() -> None:
    rows = [tuple(permuted(s, e, t, 64, np.arange(64))) for s, e, t in itertools.product(range(4), repeat=3)]
    assert len(set(rows)) == 64


def test_all_orders_of_four_things_are_as_likely() -> None:
    """24 orders in 12,000 draws; chi-square."""
    rows = [tuple(permuted(seed, epoch, 0, 4, np.arange(4))) for seed in range(120) for epoch in range(100)]
    _, counts = np.unique(np.array(rows), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_sample_may_stand_anywhere_and_neighbours_part() -> None:
    places = np.array([np.flatnonzero(permuted(seed, 0, 0, 500, np.arange(500)) == 123)[0] for seed in range(400)])
    assert stats.kstest(places / 500, "uniform").pvalue > 0.001
    places = np.array([permuted(seed, 0, 0, 5000, np.array([17]))[0] for seed in range(2000)])
    assert stats.kstest(places / 5000, "uniform").pvalue > 0.001
    order = permuted(0, 0, 0, 100_000, np.arange(100_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert (np.abs(np.diff(order)) == 1).mean() < 1e-4


BLOCKS = np.array([0, 10, 11, 40, 60, 85])


@pytest.mark.parametrize("window", [1, 2, 3, 5, 6, 9])
def test_blocks_are_mixed_a_window_at_a_time(window: int) -> None:
    order = Order(100, BLOCKS, window)
    whole = order.at(4, 2, np.arange(100))
    np.testing.assert_array_equal(np.sort(whole), np.arange(100))
    np.testing.assert_array_equal(order.at(4, 2, np.array([77, 3, 50])), whole[[77, 3, 50]])
    block = np.searchsorted(BLOCKS, whole, side="right") - 1
    if window < len(BLOCKS):
        # Blocks in the order of their first appearance, a window of them after another.
        seen = list(dict.fromkeys(block.tolist()))
        last = {b: int(np.flatnonzero(block == b)[-1]) for b in seen}
        begin = {b: int(np.flatnonzero(block == b)[0]) for b in seen}
        # Not more blocks are begun and unfinished at any time than a window holds.
        for place in range(100):
            assert sum(begin[b] <= place <= last[b] for b in seen) <= window
    if window > 1:
        assert (np.diff(block) != 0).sum() > len(BLOCKS)


def test_blocks_come_in_another_order_each_epoch() -> None:
    order = Order(100, BLOCKS, 1)
    first = {int(order.at(0, epoch, np.arange(1))[0]) for epoch in range(60)}
    assert len(set(np.searchsorted(BLOCKS, list(first), side="right"))) == len(BLOCKS)


def test_a_window_of_all_blocks_is_the_plain_order() -> None:
    positions = np.arange(100)
    np.testing.assert_array_equal(Order(100, BLOCKS, 6).at(1, 1, positions), Order(100).at(1, 1, positions))
