"""Runs that are made to collapse are stopped within 200 steps, each with its cause and remedy; healthy ones are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pictures
from selfsight import api
from selfsight.errors import CollapseError
from selfsight.ssl.health import ONE_POINT, CollapseWatch, feature_signs

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 200
COMMON = ["workers=0", "threads=1", "batch_size=32", "probe_every_epochs=100000"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with objects that cover two thirds of a picture."""
    place = {"uniform": [0.45, 0.55]}
    factors = {"size": {"uniform": [1.04, 1.24]}, "x": place, "y": place, "texture_scale": 0.12}
    return pictures.dataset(tmp_path_factory.mktemp("large"), {"train": 400}, **factors) / "train"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 pictures of 32 pixels."""
    return pictures.dataset(tmp_path_factory.mktemp("drawn"), {"train": 400}) / "train"


class ReachedError(Exception):
    pass


class Enough(api.Silent):
    """Stops a long run after its first steps."""

    def on_step(self, row: dict[str, Any], progress: float) -> None:
        if row["step"] >= STEPS:
            raise ReachedError


def first_steps(data: Path, out: Path, *settings: str, backbone: str | None = "vit_w32_d2_p8", **options: Any) -> None:
    """The first 200 steps of a run of 2,000: the beginning of a long training, not a short one as a whole."""
    given: dict[str, Any] = {"epochs": 2000 * 32 / 400, "device": "cpu", "backbone": backbone, "watch": Enough()} | options
    api.train(data, out, set=[*COMMON, *settings], **given)


@pytest.mark.parametrize(
    ("settings", "sign", "remedy"),
    [
        (
            ["objective.teacher_temperature=1", "objective.warmup_teacher_temperature=1"],
            "the teacher's answer was uniform",
            "Lower objective.teacher_temperature",
        ),
        (["objective.center_momentum=1"], "the teacher gave all images one prototype", "Lower objective.center_momentum"),
        (["optimizer.learning_rate=1"], "the mean loss", "Lower optimizer.learning_rate"),
    ],
    ids=["teacher temperature 1", "no centring", "rate far too high"],
)
def test_a_collapse_is_named_within_200_steps(large: Path, tmp_path: Path, settings: list[str], sign: str, remedy: str) -> None:
    with pytest.raises(CollapseError) as error:
        first_steps(large, tmp_path / "run", *settings)
    said = str(error.value)
    assert sign in said
    assert remedy in said
    assert "\n" not in said
    step = int(said.removeprefix("step ").split(":")[0])
    assert step < STEPS


HEALTHY: dict[str, tuple[list[str], dict[str, Any]]] = {
    "recipe for small images": ([], {}),
    "another seed": ([], {"seed": 1}),
    "a third seed and convolutional stem": ([], {"seed": 2, "backbone": "vit_w64_d2_p8_conv"}),
    "without KoLeo": (["objective.koleo=0"], {}),
    "temperatures and centre as published": (
        ["objective.warmup_teacher_temperature=0.04", "objective.teacher_temperature=0.07", "objective.center_momentum=0.9"],
        {},
    ),
    "few images": ([], {"limit": 100}),
    "a high rate that holds": (["optimizer.learning_rate=0.005"], {}),
    "a CNN": (["views.local_count=0"], {"backbone": "test_resnet"}),
    "dinov2": ([], {"recipe": "dinov2"}),
    "dinov3": ([], {"recipe": "dinov3"}),
    "labels": ([], {"recipe": "supervised"}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_left_alone(drawn: Path, tmp_path: Path, name: str) -> None:
    settings, options = HEALTHY[name]
    with pytest.raises(ReachedError):
        first_steps(drawn, tmp_path / "run", *settings, **options)


def test_the_signs_of_features_are_those_of_their_covariance() -> None:
    rows = torch.randn(16, 5, generator=torch.Generator().manual_seed(0)) + 3
    values = torch.linalg.eigvalsh(torch.cov(rows.T))
    signs = feature_signs(rows)
    assert signs["feature_dimensions"].item() == pytest.approx((values.sum() ** 2 / values.square().sum()).item(), rel=1e-4)
    assert signs["feature_spread"].item() == pytest.approx(((rows - rows.mean(0)).norm() / rows.norm()).item(), rel=1e-5)


def test_features_that_are_one_point_are_noticed_whatever_the_objective_is() -> None:
    signs = {name: float(value) for name, value in feature_signs(torch.ones(8, 4) + 1e-4 * torch.randn(8, 4)).items()}
    assert signs["feature_spread"] < ONE_POINT
    watch = CollapseWatch(window=400, certain=3)
    for step in range(2):
        watch.observe(step, signs)
    with pytest.raises(CollapseError, match=r"step 2: collapsed, all images had the same feature.*optimizer.learning_rate"):
        watch.observe(2, signs)


def test_a_uniform_teacher_that_a_run_may_leave_is_given_the_longer_time() -> None:
    watch = CollapseWatch(window=6, certain=2, student_temperature=0.1)
    signs = {"teacher_entropy": 0.999, "prototype_entropy": 1.0, "teacher_temp": 0.04}
    for step in range(5):
        watch.observe(step, signs)
    with pytest.raises(CollapseError, match=r"step 5: collapsed, the teacher's answer was uniform.*not sharp enough"):
        watch.observe(5, signs)


def test_few_images_say_nothing_of_the_directions_in_which_features_vary() -> None:
    signs = {"loss_over_chance": 1.5, "feature_dimensions": 2.0, "feature_spread": 0.8}
    few, enough = (CollapseWatch(window=400, certain=2, images=images) for images in (4, 32))
    for watch in (few, enough):
        watch.observe(0, signs | {"loss_over_chance": 0.9})
    few.observe(1, signs)
    with pytest.raises(CollapseError, match=r"step 1: collapsed, the mean loss"):
        enough.observe(1, signs)
