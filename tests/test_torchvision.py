"""CNNs of torchvision: its own features and files, every family of networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from selfsight.encoders import TorchEncoder, load_encoder
from selfsight.errors import WeightsError
from selfsight.models.torchvision_cnns import names

NETWORKS = {  # a network of each family, the node of its last map, and its stages
    "alexnet": ("features", 4),
    "convnext_tiny": ("features", 4),
    "densenet121": ("relu", 5),
    "efficientnet_b0": ("features", 5),
    "mobilenet_v2": ("features", 5),
    "regnet_y_400mf": ("trunk_output", 5),
    "resnet18": ("layer4", 5),
    "vgg11": ("features", 6),
}


def saved(path: Path, name: str) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None).eval()
    torch.save(net.state_dict(), path / f"{name}.pth")
    return f"file/{path}/{name}.pth?arch=torchvision/{name}&size=64", net


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_last_map_and_its_mean_are_torchvisions(tmp_path: Path, name: str) -> None:
    spec, net = saved(tmp_path, name)
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    node, stages = NETWORKS[name]
    images = torch.rand(2, 3, 64, 64)
    last = create_feature_extractor(net, [node])(images)[node]
    tokens = encoder.tokens(images)
    torch.testing.assert_close(tokens.patches, last.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    pooled = net.classifier[0](last.mean((2, 3), keepdim=True)).flatten(1) if name == "convnext_tiny" else last.mean((2, 3))
    torch.testing.assert_close(encoder.encode(images), pooled, rtol=1e-4, atol=1e-5)
    assert encoder.pools == ("gap", "gem", *(f"stage{number + 1}" for number in range(stages)))
    assert any(note.startswith("head set aside: ") for note in encoder.notes)
    if name != "convnext_tiny":
        assert encoder.feature_width == last.shape[1]


@torch.no_grad()
def test_features_before_a_single_linear_classifier_give_its_logits(tmp_path: Path) -> None:
    for name, classifier in (
        ("convnext_tiny", lambda net: net.classifier[2]),
        ("efficientnet_b0", lambda net: net.classifier[1]),
    ):
        spec, net = saved(tmp_path, name)
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(classifier(net)(load_encoder(spec).encode(images)), net(images), rtol=1e-4, atol=1e-4)


def test_every_name_belongs_to_a_family_that_is_tested() -> None:
    assert "vit_b_16" not in names()
    assert len(names()) > 50
    families = {name[:3] for name in NETWORKS} | {"wid"}  # wide ResNets and ResNeXts are ResNets
    assert {name[:3] for name in names()} == families


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("selfsight.encoders.hub.constants.HF_HUB_OFFLINE", True)
    for spec, said in (
        ("torchvision/resnet19", "torchvision has no CNN 'resnet19'. Did you mean 'resnet18'?"),
        ("torchvision/resnet18?weights=V9", "'resnet18' has no weights 'V9'."),
        ("torchvision/resnet18", "without a network use efficientnet-lite0, a run folder or file/PATH?arch=torchvision/resnet18"),
        ("random/torchvision/vit_b_16", "torchvision has no such CNN"),
    ):
        with pytest.raises(WeightsError) as raised:
            load_encoder(spec)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_published_weights_bring_their_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    net = torchvision.models.resnet18(weights=None)
    torch.save(net.state_dict(), tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1])
    encoder = load_encoder("torchvision/resnet18?weights=IMAGENET1K_V1")
    prepare = encoder.prepare
    assert (prepare.size, prepare.crop_pct, prepare.interpolation) == (224, 0.875, "bilinear")
    assert encoder.weights == "published weights IMAGENET1K_V1 of torchvision/resnet18"
