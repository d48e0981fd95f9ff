"""Recipes of DINOv2 and DINOv3: what they derive, and that a training by them runs, stops and goes on."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pictures
from selfsight import api, config
from selfsight.api.watch import Silent
from selfsight.cli import main
from selfsight.errors import ConfigError, Interrupted
from selfsight.runs import RunFolder, read_jsonl
from selfsight.ssl.objectives.dinov2 import PatchSettings
from selfsight.ssl.objectives.dinov3 import DINOv3Settings
from selfsight.ssl.recipes import RECIPES, Facts, as_tree
from selfsight.ssl.settings import TrainSettings, check

NAMES = ["dinov2", "dinov3"]
QUICK = ["log_every=1", "objective.head.hidden=32", "objective.head.bottleneck=16"]


def settings_of(name: str, facts: Facts, backbone: str | None = None) -> TrainSettings:
    tree = as_tree(RECIPES[name](facts, backbone)) | {"recipe": name, "data": "x", "images": facts.images, "epochs": 1}
    settings = config.build(TrainSettings, tree, "recipe")
    check(settings)
    return settings


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("side", [32, 64, 400])
def test_the_recipe_is_complete_for_images_of_any_size(name: str, accelerator: bool, side: int) -> None:
    s = settings_of(name, Facts(20_000, side, accelerator, 2))
    assert isinstance(s.objective, PatchSettings)
    assert s.objective.name == name
    assert (s.objective.centering, s.objective.koleo_weight) == ("sinkhorn", 0.1)
    assert (s.optimizer.layer_decay, s.optimizer.patch_embed_rate) == (0.9, 0.2)
    assert not s.backbone.name.endswith("_conv")
    assert s.backbone.registers == 4 or "reg4" in s.backbone.name
    assert s.teacher_momentum <= {"dinov2": 0.992, "dinov3": 0.994}[name]
    assert s.backbone.rope is (name == "dinov3")
    assert s.optimizer.schedule == {"dinov2": "cosine", "dinov3": "constant"}[name]
    if side == 400:
        assert s.views.global_size == {"dinov2": 224, "dinov3": 256}[name]
        assert s.views.local_size == {14: 98, 16: {"dinov2": 96, "dinov3": 112}[name]}[s.patch_size]
        assert s.views.blur == (0.0, 0.9, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_untied_where_there_are_many_images(name: str) -> None:
    few, many = (settings_of(name, Facts(images, 400, True, 8)).objective for images in (5_000, 1_000_000))
    assert few.patch_head is None
    assert many.patch_head == many.head
    assert many.head.prototypes == 65536


@pytest.mark.parametrize("name", NAMES)
def test_a_cnn_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures.folder(tmp_path / "data", 16, labelled=False)
    with pytest.raises(SystemExit) as left:
        main(["train", str(data), "--out", str(tmp_path / "run"), "--recipe", name, "--backbone", "resnet10t", "--epochs", "1"])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert f"objective {name}: hides patches from the student, and resnet10t has none" in said
    assert len(said.strip().splitlines()) == 1


class StopsAtFive(Silent):
    """Asks for a stop after step 5, in a second stage that has begun at 4."""

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        if row["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_runs_and_one_that_stopped_goes_on_to_the_same_end(name: str, tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 32)
    quick = [*QUICK, "batch_size=8", "probe_every_epochs=100", "save_every_minutes=1e-9"]
    if name == "dinov3":
        quick += ["objective.gram.start=0.3", "objective.gram.refresh_every=0.4"]
    whole = api.train(data, tmp_path / "whole", recipe=name, epochs=2, device="cpu", set=quick)
    assert math.isfinite(whole["loss"])
    assert whole["step"] == 8
    rows = read_jsonl(RunFolder(tmp_path / "whole").metrics)
    named = [row for row in rows if "dino" in row]
    assert all({"ibot", "koleo", "teacher_entropy", "patch_teacher_entropy"} <= set(row) for row in named)
    assert [("gram" in row) for row in named] == [name == "dinov3" and row["step"] > 4 for row in named]

    with pytest.raises(Interrupted):
        api.train(data, tmp_path / "part", recipe=name, epochs=2, device="cpu", set=quick, watch=StopsAtFive())
    again = api.resume(tmp_path / "part")
    assert again["step"] == 8
    assert again["loss"] == pytest.approx(whole["loss"], rel=1e-4)


# --- the high-resolution stage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 400])
def test_the_high_resolution_stage_has_larger_views_and_anchors_from_its_first_step(side: int) -> None:
    facts = Facts(20_000, side, False, 2)
    before, stage = settings_of("dinov3", facts), settings_of("dinov3-highres", facts)
    assert isinstance(stage.objective, DINOv3Settings)
    assert stage.objective.gram is not None
    assert [stage.objective.gram.taken_by(progress) for progress in (0.0, 0.5, 1.0)] == [1, 1, 1]
    assert stage.views.global_size == 2 * before.views.global_size
    assert stage.views.local_size == 2 * before.views.local_size
    assert stage.views.gram_size == 2 * stage.views.global_size
    assert stage.backbone == before.backbone


def test_a_training_of_the_high_resolution_stage_anchors_from_its_first_step(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 16)
    quick = [*QUICK, "batch_size=8", "probe_every_epochs=100", "views.local_count=1"]
    done = api.train(data, tmp_path / "run", recipe="dinov3-highres", epochs=1, device="cpu", set=quick, backbone="vit_w32_d1_p8")
    assert done["step"] == 2
    rows = [row for row in read_jsonl(RunFolder(tmp_path / "run").metrics) if "dino" in row]
    assert [row["step"] for row in rows if "gram" in row] == [1, 2]


def test_a_size_for_the_gram_teacher_that_is_no_multiple_of_the_patch_is_refused() -> None:
    facts = Facts(100, 32, False, 2)
    stage = settings_of("dinov3-highres", facts)
    with pytest.raises(ConfigError, match=r"views\.gram_size: must be a multiple of the patch, 4"):
        check(stage.model_copy(update={"views": stage.views.model_copy(update={"gram_size": 130})}))
