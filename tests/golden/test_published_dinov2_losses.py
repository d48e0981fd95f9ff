"""The losses of DINOv2 and DINOv3 equal the published code's, gradients included, on its own stored inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden.arrays import Golden, golden
from selfsight.ssl.batch import Masks
from selfsight.ssl.objectives.center import Center
from selfsight.ssl.objectives.crossentropy import cross_entropies, hidden_patch_loss, mean_over_pairs
from selfsight.ssl.objectives.gram import gram_loss
from selfsight.ssl.objectives.koleo import koleo
from selfsight.ssl.objectives.sinkhorn import sinkhorn


@pytest.fixture(scope="module")
def g() -> Golden:
    return golden("dinov2_losses")


def assert_near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cls", "ibot"])
def test_sinkhorn_gives_the_published_targets(g: Golden, kind: str) -> None:
    found = sinkhorn(g.tensor(f"{kind}_teacher_logits"), g.config["teacher_temp"], iterations=g.config["sinkhorn_iterations"])
    assert_near(found, g.tensor(f"{kind}_sinkhorn"))


@pytest.mark.parametrize("prefix", ["", "ibot_"])
def test_the_centre_of_views_and_of_patches_follows_the_published_one_step_by_step(g: Golden, prefix: str) -> None:
    logits = g.tensor(f"{prefix}center_teacher_logits")
    center = Center(logits.shape[2], g.config["center_momentum"])
    for step in range(g.config["center_steps"]):
        assert_near(center.value[0], g.tensor(f"{prefix}center_used")[step])
        assert_near(center.targets(logits[step], g.config["teacher_temp"]), g.tensor(f"{prefix}center_softmax")[step])
        center.commit()
    assert_near(center.value[0], g.tensor(f"{prefix}center_final"))


def crosses(g: Golden) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits of global and local views, and the cross-entropies [2, V] of all views."""
    views = [g.tensor("cls_student_global").requires_grad_(), g.tensor("cls_student_local").requires_grad_()]
    return *views, cross_entropies(torch.cat(views), g.tensor("cls_sinkhorn"), g.config["student_temp"])


def test_local_views_meet_both_targets(g: Golden) -> None:
    _, local, cross = crosses(g)
    loss = cross[:, 2:].sum()
    assert_near(loss, g.tensor("cls_loss_local"))
    assert_near(cross[:, 2:].mean(), g.tensor("v3_cls_loss_local"))
    loss.backward()
    assert_near(local.grad, g.tensor("cls_grad_student_local"))


def test_each_global_view_meets_the_target_of_the_other(g: Golden) -> None:
    """The published loss takes both views as one tensor, and so gives the mean of the two pairs."""
    views, _, cross = crosses(g)
    loss = (cross[0, 1] + cross[1, 0]) / 2
    assert_near(loss, g.tensor("cls_loss_global"))
    assert_near(loss, g.tensor("v3_cls_loss_global"))
    assert_near(cross[:, :2].mean(), g.tensor("v3_cls_loss_global_all"))
    loss.backward()
    assert_near(views.grad, g.tensor("cls_grad_student_global"))


def test_the_loss_of_all_views_weighs_both_kinds_as_both_versions_do(g: Golden) -> None:
    """DINOv2: local / (2 + 2L) + 2 global / (2 + 2L). DINOv3: both means, weighed by their numbers of pairs, 2L and 2."""
    local = g.config["n_local"]
    terms = 2 + 2 * local
    views, locals_, cross = crosses(g)
    loss = mean_over_pairs(cross)
    assert_near(loss, g.tensor("cls_loss_local") / terms + g.tensor("cls_loss_global") * 2 / terms)
    assert_near(loss, g.tensor("v3_cls_loss_local") * (2 * local / terms) + g.tensor("v3_cls_loss_global") * (2 / terms))
    loss.backward()
    assert_near(views.grad, g.tensor("cls_grad_student_global") * 2 / terms)
    assert_near(locals_.grad, g.tensor("cls_grad_student_local") / terms)


def test_masks_weigh_their_patches_as_published(g: Golden) -> None:
    masks = Masks.of(g.tensor("ibot_masks").bool())
    assert len(masks.places) == int(g["ibot_n_masked"])
    assert_near(masks.weights, g.tensor("ibot_masks_weight"))


@pytest.mark.parametrize("which", ["", "2"])
def test_the_loss_of_hidden_patches_is_the_published_one(g: Golden, which: str) -> None:
    """The stored student rows end in padding, which is not the loss's to see; its gradient there is 0."""
    student, hidden = g.tensor("ibot_student_logits").requires_grad_(), int(g["ibot_n_masked"])
    weights, views = g.tensor(f"ibot_masks_weight{which}"), g.config["ibot"]["n_images"]
    loss = hidden_patch_loss(student[:hidden], g.tensor("ibot_sinkhorn"), weights, views, g.config["student_temp"])
    assert_near(loss, g.tensor(f"ibot_loss{which}"))
    loss.backward()
    if not which:
        assert_near(student.grad, g.tensor("ibot_grad_student"))


@pytest.mark.parametrize(("name", "neighbours"), [("v2", 1), ("v3", 1), ("v3_topk", 2)])
def test_koleo_is_the_published_one(g: Golden, name: str, neighbours: int) -> None:
    assert g.config["koleo"]["topk"] == 2
    x = g.tensor("koleo_x").requires_grad_()
    loss = koleo(x, neighbours=neighbours)
    assert_near(loss, g.tensor(f"koleo_{name}_loss"))
    loss.backward()
    assert_near(x.grad, g.tensor(f"koleo_{name}_grad"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("7b", {}),
        ("default", {"remove_negative": True}),
        ("teacherneg", {"remove_teacher_negative": True}),
        ("batch", {"per_image": False}),
    ],
)
def test_gram_anchoring_is_the_published_one(g: Golden, name: str, options: dict[str, bool]) -> None:
    student = g.tensor("gram_student").requires_grad_()
    loss = gram_loss(student, g.tensor("gram_teacher"), **options)
    assert_near(loss, g.tensor(f"gram_{name}_loss"))
    loss.backward()
    assert_near(student.grad, g.tensor(f"gram_{name}_grad"))


def test_no_stored_array_is_left_out(g: Golden) -> None:
    """The names that the tests above read, or that are padding's and gradients of what they read."""
    read = {
        *(f"{kind}_{part}" for kind in ("cls", "ibot") for part in ("teacher_logits", "sinkhorn")),
        *(f"{p}center_{part}" for p in ("", "ibot_") for part in ("teacher_logits", "used", "softmax", "final")),
        *(f"cls_{part}_{kind}" for kind in ("local", "global") for part in ("student", "loss", "grad_student")),
        *("v3_cls_loss_local", "v3_cls_loss_global", "v3_cls_loss_global_all"),
        *("ibot_masks", "ibot_n_masked", "ibot_student_logits", "ibot_grad_student"),
        *(f"ibot_{part}{which}" for part in ("masks_weight", "loss") for which in ("", "2")),
        *("koleo_x", "gram_student", "gram_teacher"),
        *(f"koleo_{name}_{part}" for name in ("v2", "v3", "v3_topk") for part in ("loss", "grad")),
        *(f"gram_{name}_{part}" for name in ("7b", "default", "teacherneg", "batch") for part in ("loss", "grad")),
    }
    assert set(g.arrays) == read
