"""Distillation: what a guide sees is handed on as it would see it itself, and a student comes to see it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pictures
from encoder_files import onnx_file
from objective_cases import CASES, colours
from selfsight import api, config, load_encoder
from selfsight.api.guiding import EncoderGuide
from selfsight.errors import ConfigError, WeightsError
from selfsight.ssl.network import Seen
from selfsight.ssl.objectives.distill import Distill, DistillSettings, Guided
from selfsight.ssl.objectives.standardize import Standardize
from selfsight.ssl.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"batch_size": 8, "threads": 1, "workers": 0, "log_every": 1}
TRUE = torch.tensor(True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("distill") / "data", 24, classes=2)


def train(data: Path, out: Path, over: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"epochs": 2, "device": "cpu", "backbone": "vit_w32_d1_p8", "recipe": "distill"}
    return api.train(data, out, set=config.merge(QUICK, over or {}), **(given | options))


def settings_of(run: Path) -> TrainSettings:
    return config.load(TrainSettings, run / "config.yaml")


def test_standardising_is_that_of_the_batches_before() -> None:
    draw = torch.Generator().manual_seed(0)
    standard = Standardize(3, 0.9)
    batches = [torch.randn(7, 3, generator=draw) * 2 + 1 for _ in range(4)]
    torch.testing.assert_close(standard(batches[0]), batches[0])
    standard.commit(TRUE)
    weights, seen = np.zeros(0), []
    for batch in batches[1:]:
        seen.append(batches[len(seen)].double().numpy())
        weights = np.append(weights * 0.9, 0.1)
        shares = weights / weights.sum()
        mean = sum(share * rows.mean(0) for share, rows in zip(shares, seen, strict=True))
        square = sum(share * (rows**2).mean(0) for share, rows in zip(shares, seen, strict=True))
        expected = (batch.numpy() - mean) / np.sqrt(square - mean**2)
        np.testing.assert_allclose(standard(batch).numpy(), expected, atol=1e-5)
        standard.commit(TRUE)


def test_a_channel_that_never_answers_is_not_blown_up() -> None:
    standard = Standardize(2, 0.9)
    rows = torch.randn(50, 2) * torch.tensor([1.0, 0.0]) + 5
    standard(rows)
    standard.commit(TRUE)
    assert standard(rows).isfinite().all()
    assert standard(rows)[:, 1].abs().max() < 1


def test_the_loss_is_one_minus_the_cosines() -> None:
    draw = torch.Generator().manual_seed(0)
    objective = Distill(DistillSettings(width=5, patch_width=4, patch_weight=0.5))
    summaries, logits = (torch.randn(6, 5, generator=draw) for _ in range(2))
    patches, answers = torch.randn(6, 4, 4, generator=draw), torch.randn(24, 4, generator=draw)
    seen = Seen(torch.zeros(6, 2), logits, torch.zeros(6, 4, 2), (2, 2), answers)
    found = objective(seen, Guided(summaries, patches, (2, 2)), 0.0).value.item()

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b) / (float(a @ a) ** 0.5 * float(b @ b) ** 0.5)

    expected = np.mean([1 - cosine(a, b) for a, b in zip(logits, summaries, strict=True)])
    expected += 0.5 * np.mean([1 - cosine(a, b) for a, b in zip(answers, patches.flatten(0, 1), strict=True)])
    assert found == pytest.approx(expected, abs=1e-5)
    assert objective.chance == 1.5


def test_a_guide_without_patches_is_followed_by_its_summaries() -> None:
    objective = Distill(DistillSettings(width=6, patch_width=0))
    objective.guide = colours
    batch = CASES["distill"].batch(0)
    targets = objective.targets(torch.nn.Identity(), batch)
    assert targets.patches is None
    torch.testing.assert_close(targets.summaries, colours(batch.views[0]).summaries)
    assert list(objective.heads(8)) == ["image"]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of efficientnet-lite0."""
    out = tmp_path_factory.mktemp("runs") / "student"
    train(data, out, epochs=12, guide="efficientnet-lite0?size=64")
    return out


def test_a_guide_sees_the_views_as_it_sees_pictures_of_its_own(run: Path) -> None:
    spec = "efficientnet-lite0?size=64"
    guide, encoder = EncoderGuide(spec), load_encoder(spec)
    settings = settings_of(run)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    views = settings.views.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.4, 0.3)})
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (views.mean, views.std))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    look = guide.on(torch.device("cpu"), settings.model_copy(update={"views": views}))(((pixels - mean) / std)[None])
    own = load_encoder("efficientnet-lite0?size=64&crop=1").prepare(picture)[None]
    torch.testing.assert_close(look.summaries, encoder.encode(own), atol=1e-4, rtol=1e-4)
    assert look.patches.shape == (1, look.grid[0] * look.grid[1], 1280)


def test_a_student_learns_what_a_real_cnn_sees(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-4:]) < np.mean(losses[2:6]) - 0.1
    objective = settings_of(run).objective
    assert isinstance(objective, DistillSettings)
    assert (objective.width, objective.patch_width) == (1280, 1280)
    student = load_encoder(str(run))
    assert student.encode(torch.zeros(1, 3, student.input_size, student.input_size)).shape == (1, 32)


@pytest.mark.parametrize("backbone", ["vit_w32_d1_p8", "test_efficientnet"])
def test_a_run_is_a_guide_and_no_other_takes_its_place(data: Path, run: Path, tmp_path: Path, backbone: str) -> None:
    guide = tmp_path / "guide"
    guide.mkdir()
    for name in ("config.yaml", "teacher.safetensors"):
        (guide / name).write_bytes((run / name).read_bytes())
    done = train(data, tmp_path / "second", backbone=backbone, guide=str(guide))
    assert done["loss"] < 3
    assert settings_of(tmp_path / "second").guide == f"runs/{guide}"
    assert api.resume(tmp_path / "second")["step"] == done["step"]
    train(data, tmp_path / "other", guide=str(run))
    (guide / "teacher.safetensors").write_bytes((tmp_path / "other" / "teacher.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"is not the one this run began with"):
        api.resume(tmp_path / "second")


def test_an_onnx_file_is_a_guide_of_summaries(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", guide=f"onnx/{onnx_file(tmp_path / 'guide.onnx')}", epochs=1)
    objective = settings_of(tmp_path / "run").objective
    assert isinstance(objective, DistillSettings)
    assert objective.patch_width == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--recipe distill: needs an encoder; name it, such as --guide efficientnet-lite0"),
        ({"guide": "efficientnet-lite0", "recipe": "dino"}, "recipe dino follows no encoder; take --recipe distill"),
        ({"guide": "pixels"}, "--guide pixels: has nothing to teach"),
        ({"guide": "efficientnet-lite0", "channels": 1}, "sees 3 channels, the images have 1"),
        ({"recipe": "adapt"}, "--recipe adapt: needs an encoder; name it, such as --init efficientnet-lite0"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(data: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, WeightsError)) as error:
        train(data, tmp_path / "run", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
