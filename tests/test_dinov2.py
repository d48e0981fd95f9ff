"""What is particular to the objectives DINOv2 and DINOv3: who sees what, what is added up, and when the Gram teacher is taken."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from objective_cases import CASES, PATCH, SIDE, Case
from selfsight.ssl.batch import Batch, Masks
from selfsight.ssl.network import PATCH as PATCHES
from selfsight.ssl.objectives.base import Loss, Ranks
from selfsight.ssl.objectives.dinov3 import DINOv3, GramSettings
from selfsight.ssl.step import Learner
from simulated_ranks import on_ranks


def case(name: str = "dinov2", **settings: Any) -> Case:
    return replace(CASES[name], settings={**CASES[name].settings, **settings})


def changed_under_masks(batch: Batch) -> Batch:
    """Other pixels where patches are hidden."""
    side = SIDE // PATCH
    over = batch.masks.hidden.view(-1, 1, side, side).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    return replace(batch, views=[torch.where(over, batch.views[0] + 1, batch.views[0]), *batch.views[1:]])


@torch.no_grad()
def test_masks_reach_the_student_and_not_the_teacher() -> None:
    learner, batch = case().learner(), case().batch(0)
    other = changed_under_masks(batch)
    objective = learner.objective
    assert torch.equal(objective.predictions(learner.student, batch).logits, objective.predictions(learner.student, other).logits)
    one, two = (objective.targets(learner.teacher, each) for each in (batch, other))
    assert not torch.allclose(one.logits, two.logits)
    assert one.hidden_logits.shape == (int(batch.masks.hidden.sum()), 10)


@torch.no_grad()
def test_local_views_are_never_masked() -> None:
    learner, batch = case().learner(), case().batch(0)
    bare = replace(batch, masks=Masks.of(torch.zeros_like(batch.masks.hidden)))
    masked, plain = (learner.objective.predictions(learner.student, each).logits for each in (batch, bare))
    views = 2 * batch.size
    torch.testing.assert_close(masked[views:], plain[views:])
    assert not torch.allclose(masked[:views], plain[:views])


def test_heads_are_shared_unless_patches_are_given_one_of_their_own() -> None:
    assert set(case().learner().student.heads) == {"image", PATCHES}
    shared = case(patch_head=None).learner()
    assert set(shared.student.heads) == {"image"}
    loss = case(patch_head=None).loss(shared, 0, 0.5)
    assert loss.value.isfinite()


def test_without_ibot_nothing_is_hidden() -> None:
    dino = case(ibot_weight=0.0).learner()
    assert dino.student.mask_token is None
    assert dino.objective.settings.masking is None
    assert set(dino.student.heads) == {"image"}


def test_the_loss_is_its_parts_by_their_weights() -> None:
    changed = case(dino_weight=0.5, ibot_weight=2.0, koleo_weight=0.3)
    loss = changed.loss(changed.learner(), 0, 0.5)
    d = {name: float(value) for name, value in loss.diagnostics.items()}
    assert loss.value.item() == pytest.approx(0.5 * d["dino"] + 2.0 * d["ibot"] + 0.3 * d["koleo"], rel=1e-5)
    assert {"teacher_entropy", "prototype_entropy", "patch_teacher_entropy", "patch_prototype_entropy"} <= set(d)


def test_a_collapsed_teacher_shows_in_its_entropy_though_sinkhorn_balances_it() -> None:
    """All images alike: every target is uniform."""
    learner = case().learner()
    batch = case().batch(0)
    same = replace(batch, views=[view[:1].expand_as(view) for view in batch.views], masks=Masks.of(batch.masks.hidden))
    with torch.no_grad():
        targets = learner.objective.targets(learner.teacher, same)
    loss = learner.objective(learner.objective.predictions(learner.student, same), targets, 0.5)
    assert float(loss.diagnostics["teacher_entropy"]) > 0.999


def rank_of(learner: Learner, ranks: Ranks) -> Any:
    objective = copy.copy(learner.objective)
    objective.__dict__ = dict(learner.objective.__dict__) | {"ranks": ranks}
    return objective


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_the_mean_of_the_ranks_gradients_is_that_of_the_whole_batch(name: str) -> None:
    """Sinkhorn's balance and KoLeo's neighbours go over ranks, and ranks have different numbers of hidden patches."""
    changed = case(name)
    learner = changed.learner()
    for parameter in learner.student.backbone.parameters():  # features that differ enough for neighbours to be certain
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    batch = changed.batch(1, size=6)
    parts = batch.split(2)
    assert len(parts[0].masks.places) != len(parts[1].masks.places)

    def loss_of(objective: Any, part: Batch) -> Tensor:
        with torch.no_grad():
            targets = objective.targets(learner.teacher, part)
        loss: Loss = objective(objective.predictions(learner.student, part), targets, 0.5)
        return loss.value

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        learner.student.zero_grad()
        loss.backward()
        return {key: p.grad.clone() for key, p in learner.student.named_parameters() if p.grad is not None}

    whole = gradients(loss_of(learner.objective, batch))
    losses = on_ranks(2, lambda ranks, rank: loss_of(rank_of(learner, ranks), parts[rank]))
    ranked = gradients(torch.stack(losses).mean())
    assert whole.keys() == ranked.keys()
    for key, gradient in whole.items():
        torch.testing.assert_close(ranked[key], gradient, atol=1e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")


# --- DINOv3 ---------------------------------------------------------------------------------------------------------


def test_the_gram_teacher_is_taken_at_the_start_of_the_stage_and_refreshed_so_often() -> None:
    settings = GramSettings(start=0.4, refresh_every=0.2, max_refreshes=2)
    found = [settings.taken_by(percent / 100) for percent in (0, 39, 40, 59, 60, 79, 80, 100)]
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]
    assert GramSettings(start=0.0, max_refreshes=0).taken_by(1.0) == 1


def gram_of(learner: Learner) -> list[Tensor]:
    assert isinstance(learner.objective, DINOv3)
    assert learner.objective.gram is not None
    return [p.clone() for p in learner.objective.gram.parameters()]


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_over_a_run_the_gram_teacher_is_the_running_mean_of_the_steps_at_which_it_was_taken() -> None:
    changed = case("dinov3", gram={"start": 0.3, "refresh_every": 0.3, "max_refreshes": 1})
    learner = changed.learner()
    anchored, teachers, grams = [], [], []
    for step in range(10):
        anchored.append("gram" in changed.loss(learner, step, step / 10).diagnostics)
        changed.train(learner, step)
        teachers.append([p.clone() for p in learner.teacher.backbone.parameters()])
        grams.append(gram_of(learner))
    assert anchored == [False] * 4 + [True] * 6
    assert all(same(grams[step], teachers[3]) for step in (3, 4, 5))
    assert all(same(grams[step], teachers[6]) for step in (6, 7, 8, 9))
    assert not same(teachers[3], teachers[6])
    assert all(not p.requires_grad for p in learner.objective.gram.parameters())


def test_with_a_start_of_nothing_the_student_is_held_to_the_weights_it_starts_from() -> None:
    learner = case("dinov3").learner()
    start = [p.clone() for p in learner.teacher.backbone.parameters()]
    for step in range(3):
        assert "gram" in case("dinov3").loss(learner, step, step / 10).diagnostics
        case("dinov3").train(learner, step)
    assert same(gram_of(learner), start)


def test_a_saved_gram_teacher_goes_on_and_is_not_taken_again() -> None:
    changed = case("dinov3", gram={"start": 0.1, "refresh_every": 0.9})
    learner = changed.learner()
    for step in range(3):
        changed.train(learner, step)
    twin = changed.learner()
    twin.objective.load_state_dict(learner.objective.state_dict())
    assert same(gram_of(twin), gram_of(learner))
    assert twin.objective.schedule(0.5)["gram_teachers"] == 1.0
    before = gram_of(twin)
    twin.objective.commit(twin.teacher, 0.5, torch.tensor(True))
    assert same(gram_of(twin), before)


def test_the_gram_teacher_looks_at_the_detail_where_there_is_some() -> None:
    learner, batch = case("dinov3").learner(), case("dinov3").batch(0)
    detail = torch.randn(2 * batch.size, 3, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1))
    closer = replace(batch, detail=detail)
    assert closer.split(2)[1].detail.shape == (batch.size, 3, 2 * SIDE, 2 * SIDE)
    with torch.no_grad():
        plain, fine = (learner.objective.targets(learner.teacher, each).anchor for each in (batch, closer))
    assert plain.grid == (SIDE // PATCH, SIDE // PATCH)
    assert fine.grid == (2 * SIDE // PATCH, 2 * SIDE // PATCH)
    targets = learner.objective.targets(learner.teacher, closer)
    loss = learner.objective(learner.objective.predictions(learner.student, closer), targets, 0.5)
    assert float(loss.diagnostics["gram"]) > 0


def test_gram_anchoring_can_be_left_out() -> None:
    learner = case("dinov3", gram=None).learner()
    assert learner.objective.gram is None
    assert "gram" not in case("dinov3", gram=None).loss(learner, 0, 1.0).diagnostics
