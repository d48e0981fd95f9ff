"""Trainings that start from the weights of an encoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pictures
from encoder_files import network
from selfsight import api, config, load_encoder
from selfsight.api.starting import Initial
from selfsight.errors import ConfigError, InputError, WeightsError
from selfsight.ssl.settings import TrainSettings

QUICK = {
    "batch_size": 4,
    "threads": 1,
    "workers": 0,
    "views": {"local_count": 0},
    "optimizer": {"learning_rate": 1e-5, "warmup": 0.0},
    "objective": {"head": {"prototypes": 16, "hidden": 16, "bottleneck": 8}},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("start") / "data", 8, classes=2)


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(data, out, backbone="vit_w32_d1_p8")
    return out


def train(data: Path, out: Path, over: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return api.train(data, out, set=config.merge(QUICK, over or {}), **({"epochs": 1, "device": "cpu"} | options))


class Plan(api.Silent):
    """Keeps what is said of a plan."""

    why: dict[str, str]

    def on_plan(self, settings: TrainSettings, derived: Any, expected: Any) -> None:
        self.why = {row.key: row.why for row in derived}


@pytest.mark.parametrize("options", ["size=16x32", "size=16&aspect=keep"])
def test_pictures_that_are_not_square_cannot_be_trained_on(options: str) -> None:
    with pytest.raises(WeightsError, match="trains on square views; leave 'aspect' and a width of its own out"):
        Initial(f"random/vit_w32_d1_p8?{options}")


def test_a_run_goes_on_in_a_new_one_with_its_heads_and_without_its_checkpoint(data: Path, first: Path, tmp_path: Path) -> None:
    moved = tmp_path / "copy"
    moved.mkdir()
    for name in ("config.yaml", "teacher.safetensors"):
        (moved / name).write_bytes((first / name).read_bytes())
    plan = Plan()
    done = train(data, tmp_path / "second", init=str(moved), watch=plan)
    assert math.isfinite(done["loss"])
    ours, theirs = load_file(tmp_path / "second" / "init.safetensors"), load_file(moved / "teacher.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert "its heads of: image" in plan.why["init"]


def test_heads_of_another_size_are_new_and_the_plan_says_so(data: Path, first: Path, tmp_path: Path) -> None:
    plan = Plan()
    train(data, tmp_path / "run", {"objective": {"head": {"prototypes": 24}}}, init=str(first), watch=plan)
    assert "new heads of: image" in plan.why["init"]
    ours, theirs = (load_file(p) for p in (tmp_path / "run" / "init.safetensors", first / "teacher.safetensors"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("backbone."))


def test_what_a_run_started_from_is_an_encoder(data: Path, first: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", init=str(first))
    began = load_encoder(f"{tmp_path}/run?weights=init")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(began.encode(images), load_encoder(str(first)).encode(images))
    assert "started from: runs/" in began.weights
    (tmp_path / "run" / "init.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no init.safetensors although it started from weights"):
        load_encoder(f"{tmp_path}/run?weights=init")


def test_a_run_that_ended_before_its_first_checkpoint_starts_again_from_its_own_copy(
    data: Path, first: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "run", init=str(first))
    before = load_file(tmp_path / "run" / "teacher.safetensors")
    for name in ("checkpoint/latest.safetensors", "teacher.safetensors"):
        (tmp_path / "run" / name).unlink()
    api.resume(tmp_path / "run")
    after = load_file(tmp_path / "run" / "teacher.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_finished_run_without_its_checkpoint_is_not_trained_over(data: Path, first: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", init=str(first))
    (tmp_path / "run" / "checkpoint" / "latest.safetensors").unlink()
    with pytest.raises(InputError, match=r"its checkpoint is gone.*start a new run with --init"):
        api.resume(tmp_path / "run")


@pytest.mark.parametrize("arch", ["test_efficientnet", "vit_w32_d1_p8"])
def test_network_size_and_normalisation_follow_a_file_of_weights(data: Path, tmp_path: Path, arch: str) -> None:
    weights = network(arch)
    torch.save(weights.state_dict(), tmp_path / "ours.pt")
    size = 32 if arch.startswith("vit") else 64
    spec = f"file/{tmp_path}/ours.pt?arch={arch}&size={size}&mean=.5,.4,.3&std=.2,.2,.2"
    train(data, tmp_path / "run", init=spec)
    settings = config.load(TrainSettings, tmp_path / "run" / "config.yaml")
    assert (settings.backbone.name, settings.views.global_size) == (arch, size)
    assert (settings.views.mean, settings.views.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    ours = load_file(tmp_path / "run" / "init.safetensors")
    assert all(torch.equal(ours[f"backbone.{key}"], value) for key, value in weights.state_dict().items())


def test_positions_of_another_size_are_interpolated(data: Path, first: Path, tmp_path: Path) -> None:
    over = {"backbone": {"image_size": 48}, "views": {"global_size": 48, "local_size": 24}}
    train(data, tmp_path / "run", over, init=str(first))
    ours = load_file(tmp_path / "run" / "init.safetensors")["backbone.pos_embed"]
    assert ours.shape == (1, 37, 32)
    encoder = load_encoder(str(first))
    torch.testing.assert_close(ours, encoder.backbone.position_embedding((6, 6)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pixels", "it has no weights; expected runs/NAME, timm/NAME, file/PATH"),
        ("onnx/ours.onnx", "holds a network that runs but cannot be trained; expected runs/NAME"),
        ("efficientnet-lite9", "Did you mean 'efficientnet-lite0'"),
    ],
)
def test_what_cannot_be_started_from_says_what_can(data: Path, tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        train(data, tmp_path / "run", init=spec)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_backbone_than_the_encoders_is_refused(data: Path, first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a vit_w32_d1_p8; leave the backbone out. Got resnet18"):
        train(data, tmp_path / "run", init=str(first), backbone="resnet18")
