"""SGD and LARS as published for CNNs, rates that fall with depth, and what rests at first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from objective_cases import CASES
from selfsight.models.backbones import BackboneSettings, build_backbone
from selfsight.ssl.network import Network
from selfsight.ssl.objectives.dino import DINO, DINOSettings
from selfsight.ssl.optimizer import OptimizerSettings, all_finite, make_optimizer, rate_scale, set_rates, step_if
from selfsight.ssl.recipes import RECIPES, Facts, as_tree
from selfsight.ssl.step import rates_at, train_step


class Two(nn.Module):
    """A matrix that decays and a bias that does not, as a student."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(3, 2)
        self.backbone = nn.Identity()
        with torch.no_grad():
            self.heads.weight.copy_(torch.arange(6.0).reshape(2, 3) / 4 - 0.5)
            self.heads.bias.copy_(torch.tensor([0.25, -1.0]))


def walk(kind: str, gradients: list[tuple[torch.Tensor, torch.Tensor]], rate: float, decay: float) -> Two:
    net = Two()
    optimizer = make_optimizer(net, torch.device("cpu"), OptimizerSettings(kind=kind))
    for weight, bias in gradients:
        net.heads.weight.grad, net.heads.bias.grad = weight.clone(), bias.clone()
        set_rates(optimizer, rate, decay)
        step_if(all_finite(torch.zeros(()), [weight.norm(), bias.norm()]), optimizer, None)
    return net


GRADIENTS = [(torch.tensor([[1.0, -2, 0.5], [0.1, 0.2, -0.3]]) * k, torch.tensor([0.5, -0.25]) * k) for k in (1.0, 0.5, -2.0)]


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_sgd_and_lars_follow_their_formulas(kind: str) -> None:
    rate, decay = 0.1, 0.01
    net, start = walk(kind, GRADIENTS, rate, decay), Two()
    weight, bias = start.heads.weight.detach().double(), start.heads.bias.detach().double()
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for of_weight, of_bias in GRADIENTS:
        update = of_weight.double() + decay * weight
        if kind == "lars":
            update = update * 0.001 * weight.pow(2).sum().sqrt() / update.pow(2).sum().sqrt()
        speed = [0.9 * speed[0] + update, 0.9 * speed[1] + of_bias.double()]
        weight, bias = weight - rate * speed[0], bias - rate * speed[1]
    torch.testing.assert_close(net.heads.weight.detach().double(), weight, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(net.heads.bias.detach().double(), bias, atol=1e-6, rtol=1e-6)


def test_lars_takes_a_gradient_of_zeros_and_weights_of_zeros() -> None:
    net = walk("lars", [(torch.zeros(2, 3), torch.zeros(2))], 0.1, 0.0)
    assert torch.equal(net.heads.weight, Two().heads.weight)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_no_optimiser_makes_a_step_that_is_not_finite(kind: str) -> None:
    broken = (torch.full((2, 3), float("inf")), torch.ones(2))
    net, start = walk(kind, [broken], 0.1, 0.01), Two()
    assert torch.equal(net.heads.weight, start.heads.weight)
    assert torch.equal(net.heads.bias, start.heads.bias)
    after, without = walk(kind, [broken, *GRADIENTS], 0.1, 0.0), walk(kind, GRADIENTS, 0.1, 0.0)
    torch.testing.assert_close(after.heads.weight, without.heads.weight)
    torch.testing.assert_close(after.heads.bias, without.heads.bias)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_a_frozen_backbone_stays_while_its_heads_learn(kind: str) -> None:
    case = CASES["dino"]
    learner = case.learner()
    settings = OptimizerSettings(kind=kind, learning_rate=0.1, warmup=0.0, freeze_last_layer=0.0, freeze_backbone=0.3)
    learner.optimizer = make_optimizer(learner.student, torch.device("cpu"), settings)
    backbone, head = learner.student.backbone.net.blocks[0].mlp.fc1.weight, learner.student.heads["image"].mlp[0].weight
    for step in range(6):
        before = backbone.detach().clone(), head.detach().clone()
        train_step(learner, case.batch(step), rates_at(step / 10, 10, settings, 0.9), 3.0)
        assert torch.equal(backbone, before[0]) is (step < 3)
        assert not torch.equal(head, before[1])


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("resnet18", {"conv1.weight": 0, "layer1.0.conv1.weight": 1, "layer4.1.bn2.bias": 4}),
        ("tf_efficientnet_lite0", {"conv_stem.weight": 0, "blocks.0.0.conv_dw.weight": 1, "conv_head.weight": 7}),
        ("convnext_atto", {"stem.0.weight": 0, "stages.0.blocks.0.gamma": 1, "stages.3.blocks.1.norm.bias": 4}),
        ("vit_w32_d2_p8", {"patch_embed.proj.weight": 0, "blocks.0.norm1.weight": 1, "norm.weight": 3}),
        ("eva02_tiny_patch14_224", {"patch_embed.proj.weight": 0, "blocks.11.norm1.weight": 12, "pos_embed": 0}),
    ],
)
def test_every_backbone_knows_how_deep_a_parameter_stands(name: str, depths: dict[str, int]) -> None:
    backbone = build_backbone(BackboneSettings(name=name))
    assert {part: backbone.depth_of(f"net.{part}") for part in depths} == depths
    found = {backbone.depth_of(part) for part, _ in backbone.named_parameters()}
    assert min(found) == 0
    assert max(found) in (backbone.depth, backbone.depth + 1)


def test_the_stem_of_a_cnn_learns_slower_than_its_last_stage_and_that_slower_than_a_head() -> None:
    objective = DINO(DINOSettings())
    backbone = build_backbone(BackboneSettings(name="resnet18"))
    settings = OptimizerSettings(layer_decay=0.5)
    assert Network(backbone, objective.heads(backbone.width)).backbone is backbone
    scales = [rate_scale(f"backbone.net.{part}", backbone, settings) for part in ("conv1.weight", "layer4.0.conv1.weight")]
    assert scales == [0.5**5, 0.5]
    assert rate_scale("heads.image.mlp.0.weight", backbone, settings) == 1.0


def test_dino_on_photographs_takes_the_published_settings_of_resnets() -> None:
    """README of facebookresearch/dino: SGD, lr .03 at 256, weight decay 1e-4 to the end, scales (.14, 1) and (.05, .14)."""
    tree = as_tree(RECIPES["dino"](Facts(1_281_167, 400, True, 8), "resnet50"))
    assert tree["optimizer"] == {"kind": "sgd", "learning_rate": 0.03, "weight_decay": 1e-4, "final_weight_decay": 1e-4}
    assert (tree["views"]["global_scale"], tree["views"]["local_scale"]) == ([0.14, 1.0], [0.05, 0.14])
    assert tree["teacher_momentum"] == 0.996
    assert tree["objective"]["head"]["prototypes"] == 65536


def test_dino_trains_convnext_with_adamw_and_vits_as_before() -> None:
    convnext = as_tree(RECIPES["dino"](Facts(1_281_167, 400, True, 8), "convnext_tiny"))
    assert convnext["optimizer"] == {"learning_rate": 5e-4}
    assert convnext["views"]["global_scale"] == [0.14, 1.0]
    vit = as_tree(RECIPES["dino"](Facts(1_281_167, 400, True, 8), "vit_small_patch16_224"))
    assert vit["optimizer"] == {"learning_rate": 5e-4}
    assert "global_scale" not in vit["views"]
