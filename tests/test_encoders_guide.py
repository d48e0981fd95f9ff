"""docs/encoders.md: its commands and its Python run, and its tables name every family and pool."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
import torchvision

import pictures
from encoder_files import transformers_folder
from guides import Guide, interpreted, left, typed
from selfsight import api
from selfsight.encoders import FAMILIES, load_encoder
from selfsight.models.backbones import BackboneSettings, build_backbone

GUIDE = Guide("encoders")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("encoders")
    pictures.folder(at / "photos", 12, labelled=False)
    pictures.folder(at / "labelled", 24, classes=2)
    api.train(at / "photos", at / "runs" / "mine", backbone="vit_w32_d1_p8", epochs=1, set={"batch_size": 8, "workers": 0})
    transformers_folder(at / "models" / "small", "dinov2")
    # The published layout and the published sizes of the smallest network.
    tensors = build_backbone(BackboneSettings(name="vit_tiny_patch16_224")).net.state_dict()
    teacher = {f"backbone.{key}": tensor for key, tensor in tensors.items()}
    student = {f"module.{key}": tensor for key, tensor in teacher.items()}
    torch.save(
        {"student": student, "teacher": teacher, "epoch": 1, "args": Namespace(arch="vit_tiny")}, at / "dino_full_checkpoint.pth"
    )
    torch.save(timm.create_model("resnet18", num_classes=2).state_dict(), at / "ours.pt")
    weights = torchvision.models.ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[1]
    (at / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), at / "torch" / "hub" / "checkpoints" / weights)
    return at


@pytest.mark.parametrize("command", GUIDE.commands)
def test_its_commands_run(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    assert left(command, typed(command, capsys), place)


@pytest.mark.parametrize("code", GUIDE.python)
def test_its_python_runs(code: str, place: Path, environment_of: dict[str, str]) -> None:
    first, second, *_ = interpreted(code, place, environment_of).splitlines()
    assert first.startswith("file dino_full_checkpoint.pth, as vit_tiny_patch16_224 ('cls', ")
    assert second == "torch.Size([2, 768]) torch.Size([2, 3, 37, 37])"


def test_its_tables_name_every_family_and_pool() -> None:
    table, pools = GUIDE.text.split("| spec |")[1].split("##")[0], GUIDE.text.split("| pool |")[1].split("##")[0]
    assert {family for family in FAMILIES if f"`{family}" in table} == set(FAMILIES)
    offered = {pool for spec in ("vit_w32_d4_p8", "resnet10t") for pool in load_encoder(f"random/{spec}?size=32").pools}
    named = set(re.findall(r"`([\w+]+)`", pools))
    assert {re.sub(r"[3-9]$", "1", pool) if pool.startswith("stage") else pool for pool in offered} <= named
