"""The maths of DINO equals the published code's, on its own stored inputs. Sizes are read from the files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from golden.arrays import golden
from selfsight import metrics, neighbours
from selfsight.models.backbones import BackboneSettings, ViT, wrap
from selfsight.models.heads import DINOHead, HeadSettings
from selfsight.ssl.objectives.dino import DINOLoss, DINOSettings
from selfsight.ssl.optimizer import clip_per_tensor
from selfsight.ssl.schedules import cosine, linear_warmup


def assert_near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("prefix", ["nlt", "nlf"])
def test_head_gives_the_published_logits_and_gradients(prefix: str) -> None:
    g = golden("dino_head")
    settings = HeadSettings(
        prototypes=g.config["out_dim"],
        hidden=g.config["hidden_dim"],
        bottleneck=g.config["bottleneck_dim"],
        layers=g.config["nlayers"],
        norm_last_layer=prefix == "nlt",
    )
    head = DINOHead(g.config["in_dim"], settings)
    head.load_state_dict(g.under(f"{prefix}.param."))
    x = g.tensor(f"{prefix}.x").requires_grad_()
    y = head(x)
    assert_near(y, g.tensor(f"{prefix}.y"))
    (y * g.tensor(f"{prefix}.r")).sum().backward()
    expected = g.under(f"{prefix}.grad.")
    assert_near(x.grad, expected.pop("x"))
    gradients = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    missing = {name for name in expected if name not in gradients}
    assert not missing
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient)
    assert (gradients.keys() - expected.keys()) <= {"last_layer.weight_g"}
    assert head.last_layer.weight_g.requires_grad is (prefix == "nlf")


def test_loss_centre_and_gradient_follow_the_published_code_step_by_step() -> None:
    g = golden("dino_loss")
    c = g.config
    settings = DINOSettings(student_temperature=c["student_temp"], center_momentum=c["center_momentum"])
    loss = DINOLoss(c["out_dim"], settings)
    for i in range(len(g["loss"])):
        student = g.tensor("student_logits")[i].requires_grad_()
        value = loss.at_temperature(student, g.tensor("teacher_logits")[i], float(g["teacher_temp"][i])).value
        value.backward()
        loss.center.commit()
        assert_near(value, g.tensor("loss")[i])
        assert_near(student.grad, g.tensor("grad_student_logits")[i])
        assert_near(loss.center.value[0], g.tensor("center_after")[i])


def test_teacher_temperature_meets_the_published_schedule_at_its_epochs() -> None:
    """The published schedule is a stair by epoch; ours is the line through its steps (linspace includes both ends)."""
    g = golden("dino_loss")
    c = g.config
    warm, total = c["warmup_teacher_temp_epochs"], c["nepochs"]
    share = (warm - 1) / total
    ours = [linear_warmup(epoch / total, share, c["warmup_teacher_temp"], c["teacher_temp"]) for epoch in range(total)]
    np.testing.assert_allclose(ours, g["teacher_temp_schedule"], atol=1e-12)


@pytest.mark.parametrize("name", ["lr", "wd", "momentum"])
def test_cosine_schedules_equal_the_published_ones(name: str) -> None:
    g = golden("schedules")
    c = g.config[name]
    total, warm = c["epochs"] * c["niter_per_ep"], c["warmup_epochs"] * c["niter_per_ep"]
    ours = [cosine(i, total, c["base_value"], c["final_value"], warm, c["start_warmup_value"]) for i in range(total)]
    np.testing.assert_allclose(ours, g[name], atol=1e-12, rtol=1e-12)


def test_clipping_scales_each_tensor_by_itself() -> None:
    g = golden("clip")
    parameters = []
    for name in g.config["names"]:
        before = f"before.{name}"
        parameter = nn.Parameter(torch.zeros(g[before].shape if before in g.arrays else 3))
        parameter.grad = g.tensor(before) if before in g.arrays else None
        parameters.append(parameter)
    norms = clip_per_tensor(parameters, g.config["clip"])
    np.testing.assert_allclose([float(n) for n in norms], g["norms"], rtol=1e-5)
    for name, parameter in zip(g.config["names"], parameters, strict=True):
        if parameter.grad is not None:
            assert_near(parameter.grad, g.tensor(f"after.{name}"))


def test_knn_votes_like_the_published_classifier() -> None:
    g = golden("knn")
    c = g.config
    train, test = metrics.normalize(g["train_features"]), metrics.normalize(g["test_features"])
    scores = neighbours.knn_scores(train, g["train_labels"], test, c["k"], c["num_classes"], c["T"])
    for k in c["k"]:
        np.testing.assert_allclose(scores[k], g[f"scores.k{k}"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(metrics.ranking(scores[k])[:, : g[f"ranking.k{k}"].shape[1]], g[f"ranking.k{k}"])
        assert metrics.top_k_accuracy(scores[k], g["test_labels"], 1) == pytest.approx(float(g[f"top1.k{k}"]), abs=1e-5)
        assert metrics.top_k_accuracy(scores[k], g["test_labels"], min(5, k)) == pytest.approx(float(g[f"top5.k{k}"]), abs=1e-5)


def vit() -> ViT:
    g = golden("vit_dino")
    c = g.config
    net = VisionTransformer(
        img_size=c["img_size"],
        patch_size=c["patch_size"],
        embed_dim=c["embed_dim"],
        depth=c["depth"],
        num_heads=c["num_heads"],
        mlp_ratio=c["mlp_ratio"],
        qkv_bias=c["qkv_bias"],
        num_classes=0,
    )
    backbone = wrap(net, BackboneSettings(image_size=c["img_size"]))
    backbone.net.load_state_dict(g.under("param."))
    return backbone.eval()


def test_vit_gives_the_published_tokens_at_every_size() -> None:
    g, backbone = golden("vit_dino"), vit()
    with torch.no_grad():
        for height, width in g.config["inputs"]:
            size = f"{height}x{width}"
            x = g.tensor(f"x.{size}")
            grid = (height // g.config["patch_size"], width // g.config["patch_size"])
            assert_near(backbone.position_embedding(grid), g.tensor(f"posenc.{size}"))
            assert_near(backbone(x).cls, g.tensor(f"cls.{size}"), 1e-4)
            for ours, theirs in zip(backbone.intermediate(x, g.config["n_intermediate"]), g.tensor(f"inter.{size}"), strict=True):
                assert_near(torch.cat([ours.cls[:, None], ours.patches], 1), theirs, 1e-4)
