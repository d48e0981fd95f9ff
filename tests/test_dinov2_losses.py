"""The losses of DINOv2 and DINOv3 by themselves: what they promise, and that ranks make no difference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from selfsight.ssl.batch import Masks
from selfsight.ssl.objectives.base import Ranks
from selfsight.ssl.objectives.center import Center
from selfsight.ssl.objectives.crossentropy import hidden_patch_loss
from selfsight.ssl.objectives.gram import gram_loss, on_grid
from selfsight.ssl.objectives.koleo import koleo
from selfsight.ssl.objectives.sinkhorn import sinkhorn
from simulated_ranks import on_ranks

ROWS, K = 12, 6
SHARES = [slice(0, 5), slice(5, 6), slice(6, 12)]
"""Rows of three ranks, which need not have equally many."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Sinkhorn -------------------------------------------------------------------------------------------------------


def slow_sinkhorn(logits: Tensor, temperature: float) -> list[list[float]]:
    """The published loop in Python's own numbers."""
    rows, columns = logits.shape
    q = [[math.exp(x / temperature) for x in row] for row in logits.double().tolist()]
    for _ in range(3):
        for k in range(columns):
            total = sum(q[i][k] for i in range(rows))
            for i in range(rows):
                q[i][k] /= total * columns
        for i in range(rows):
            total = sum(q[i])
            q[i] = [x / (total * rows) for x in q[i]]
    return [[x * rows for x in row] for row in q]


def test_sinkhorn_equals_the_loop_written_out() -> None:
    logits = drawn(ROWS, K) * 0.2
    torch.testing.assert_close(sinkhorn(logits, 0.07).double(), torch.tensor(slow_sinkhorn(logits, 0.07), dtype=torch.float64))


def test_sinkhorn_gives_each_sample_one_and_each_prototype_about_as_much() -> None:
    """Every sample prefers prototype 0; it must share."""
    logits = drawn(ROWS, K) * 0.1
    logits[:, 0] += 1.0
    assert torch.softmax(logits / 0.05, 1).sum(0)[0] > 0.95 * ROWS
    found = sinkhorn(logits, 0.05)
    torch.testing.assert_close(found.sum(1), torch.ones(ROWS))
    torch.testing.assert_close(sinkhorn(logits, 0.05, iterations=300).sum(0), torch.full((K,), ROWS / K), atol=1e-3, rtol=0)
    assert (found.sum(0) - ROWS / K).abs().max() < 0.5 * ROWS / K


def test_sinkhorn_of_large_logits_does_not_overflow() -> None:
    found = sinkhorn(drawn(ROWS, K) * 50 + 1000, 0.04)
    assert found.isfinite().all()


def test_sinkhorn_is_the_same_on_any_number_of_ranks() -> None:
    logits = drawn(ROWS, K) * 0.3
    parts = on_ranks(3, lambda ranks, rank: sinkhorn(logits[SHARES[rank]], 0.07, ranks))
    torch.testing.assert_close(torch.cat(parts), sinkhorn(logits, 0.07))


def test_a_rank_without_a_hidden_patch_takes_part_all_the_same() -> None:
    logits = drawn(ROWS, K) * 0.3
    parts = on_ranks(2, lambda ranks, rank: sinkhorn(logits[: ROWS * (rank == 0)], 0.07, ranks))
    torch.testing.assert_close(parts[0], sinkhorn(logits, 0.07))
    assert parts[1].shape == (0, K)


# --- centre ---------------------------------------------------------------------------------------------------------


def test_the_centre_is_the_mean_over_all_rows_of_all_ranks() -> None:
    """Ranks have different numbers of hidden patches; each patch counts alike."""
    logits = drawn(ROWS, K)
    whole = Center(K, 0.9)
    whole.note(logits)
    whole.commit()

    def centred(ranks: Ranks, rank: int) -> Tensor:
        center = Center(K, 0.9, ranks)
        for part in logits[SHARES[rank]].split(2):
            center.note(part)
        center.commit()
        return center.value

    for value in on_ranks(3, centred):
        torch.testing.assert_close(value, whole.value)


def test_a_batch_without_a_row_leaves_the_centre_as_it_is() -> None:
    center = Center(K, 0.9)
    center.note(drawn(3, K))
    center.commit()
    before = center.value.clone()
    center.note(torch.empty(0, K))
    center.commit()
    assert torch.equal(center.value, before)


# --- hidden patches -------------------------------------------------------------------------------------------------


def test_every_view_with_hidden_patches_counts_alike_and_one_without_lowers_the_mean() -> None:
    """Views with four, one and no hidden patches of eight: a cross-entropy of 1 in each patch gives 2 of 3."""
    hidden = torch.zeros(3, 8, dtype=torch.bool)
    hidden[0, :4] = hidden[1, 2] = True
    masks = Masks.of(hidden)
    targets = torch.full((5, K), 1 / K)
    loss = hidden_patch_loss(torch.zeros(5, K), targets, masks.weights, 3, 0.1)
    assert loss.item() == pytest.approx(math.log(K) * 2 / 3)


def test_no_hidden_patch_is_a_loss_of_nothing_that_can_be_differentiated() -> None:
    student = torch.zeros(0, K, requires_grad=True)
    loss = hidden_patch_loss(student, torch.zeros(0, K), torch.zeros(0), 4, 0.1)
    loss.backward()
    assert loss.item() == 0


# --- KoLeo ----------------------------------------------------------------------------------------------------------


def slow_koleo(x: Tensor, neighbours: int) -> float:
    rows = [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.double().tolist()]
    total = 0.0
    for i, one in enumerate(rows):
        apart = sorted(math.dist(one, other) for j, other in enumerate(rows) if j != i)
        total -= sum(math.log(d) for d in apart[:neighbours]) / neighbours
    return total / len(rows)


@pytest.mark.parametrize("neighbours", [1, 2, 4])
def test_koleo_equals_its_formula(neighbours: int) -> None:
    x = drawn(9, 5)
    assert koleo(x, neighbours=neighbours).item() == pytest.approx(slow_koleo(x, neighbours), rel=1e-4)


@pytest.mark.parametrize("neighbours", [1, 2])
def test_the_mean_of_the_ranks_gradients_of_koleo_is_that_of_the_whole_batch(neighbours: int) -> None:
    """Each rank's loss is on its own rows, but their neighbours are on other ranks."""
    x = drawn(ROWS, 4).requires_grad_()
    koleo(x, neighbours=neighbours).backward()
    whole, x.grad = x.grad, None
    losses = on_ranks(3, lambda ranks, rank: koleo(x[4 * rank : 4 * rank + 4], ranks, neighbours))
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(x.grad, whole)


def test_koleo_drives_neighbours_apart() -> None:
    x = drawn(8, 3).requires_grad_()
    before = koleo(x)
    before.backward()
    assert koleo(x.detach() - 0.05 * x.grad) < before


def test_a_row_alone_has_no_neighbour() -> None:
    x = drawn(1, 4).requires_grad_()
    loss = koleo(x)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros(1, 4))


# --- Gram -----------------------------------------------------------------------------------------------------------


def slow_gram(student: Tensor, teacher: Tensor) -> float:
    total, views, patches = 0.0, *student.shape[:2]
    for v in range(views):
        for i in range(patches):
            for j in range(patches):
                ours, theirs = (float(torch.cosine_similarity(x[v, i], x[v, j], dim=0)) for x in (student, teacher))
                total += (ours - theirs) ** 2
    return total / (views * patches**2)


def test_gram_anchoring_equals_its_formula() -> None:
    student, teacher = drawn(2, 5, 4), drawn(2, 5, 4, seed=1)
    assert gram_loss(student, teacher).item() == pytest.approx(slow_gram(student, teacher), rel=1e-5)


def test_gram_anchoring_looks_at_likeness_alone() -> None:
    """Features turned and stretched, all alike, resemble each other as before."""
    student = drawn(2, 7, 4)
    turned = 3 * student @ torch.linalg.qr(drawn(4, 4, seed=1)).Q
    assert gram_loss(student, turned).item() == pytest.approx(0.0, abs=1e-10)


def test_features_of_twice_the_grid_are_halved_and_keep_their_places() -> None:
    """A ramp over the rows of a 8 x 4 grid, at 4 x 2: cells' centres lie between two of before."""
    fine = torch.arange(8.0).repeat_interleave(4).view(1, 32, 1)
    coarse = on_grid(fine, (8, 4), (4, 2)).view(4, 2)
    torch.testing.assert_close(coarse[1:3], torch.tensor([[2.5, 2.5], [4.5, 4.5]]))
    assert on_grid(fine, (8, 4), (8, 4)) is fine
