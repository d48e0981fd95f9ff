"""Trainings of seconds: what a run leaves, that it can be interrupted anywhere, and that it notices when it is lost."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pictures import dataset
from selfsight import api, config
from selfsight.cli import main
from selfsight.errors import CollapseError, ConfigError, DataError, InputError, WeightsError
from selfsight.models.backbones import BackboneSettings, build_backbone
from selfsight.models.heads import HeadSettings
from selfsight.runs import RunFolder, read_jsonl
from selfsight.ssl import checkpoint
from selfsight.ssl.batch import Batch
from selfsight.ssl.learner import make_learner
from selfsight.ssl.network import Network, make_teacher
from selfsight.ssl.objectives.dino import DINO, DINOSettings
from selfsight.ssl.optimizer import OptimizerSettings, make_optimizer
from selfsight.ssl.saving import newest_first
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.step import Learner, rates_at, train_step

BACKBONE = "vit_w32_d1_p8"
SMALL = {
    "views": {"global_size": 16, "local_size": 8, "local_count": 1, "blur": [0.0, 0.0, 0.0]},
    "backbone": {"image_size": 16},
    "objective": {
        "head": {"prototypes": 16, "hidden": 16, "bottleneck": 8},
        "teacher_temperature": 0.02,
        "warmup_teacher_temperature": 0.02,
        "center_momentum": 0.9,
    },
    "optimizer": {"learning_rate": 1e-4},
    "teacher_momentum": 0.98,
    "batch_size": 8,
    "precision": "float32",
    "threads": 1,
    "workers": 0,
    "log_every": 1,
}
"""Two steps an epoch on sixteen pictures, a few milliseconds each; nothing that matters here is left to the recipe."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("pictures"), {"train": 16}) / "train"


class Recorder(api.Silent):
    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        self.steps.append({**row, "progress": progress})

    def on_probe(self, row: Mapping[str, Any]) -> None:
        self.probes.append(dict(row))


def train(data: Path, out: Path, *, over: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    options = {"backbone": BACKBONE, "device": "cpu"} | options
    return api.train(data, out, set=config.merge(SMALL, over or {}), **options)


def assert_same_weights(a: Path, b: Path) -> None:
    """Every tensor of student, teacher, centre and optimiser, bit by bit."""
    for name in ("checkpoint/latest.safetensors", "teacher.safetensors"):
        ours, theirs = load_file(a / name), load_file(b / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


# --- the run folder -------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_complete_folder(pictures: Path, tmp_path: Path) -> None:
    watch = Recorder()
    summary = train(pictures, tmp_path / "run", epochs=5, seed=3, watch=watch)
    folder = RunFolder(tmp_path / "run")
    assert summary["step"] == 10
    assert summary["bad_images"] == 0
    assert math.isfinite(summary["loss"])
    assert 0 <= summary["knn_top1"] <= 100
    assert summary["rankme"] >= 1

    rows = [row for row in read_jsonl(folder.metrics) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[-1]["loss"] == summary["loss"]
    assert rows[0].keys() >= {"epoch", "elapsed_s", "lr", "weight_decay", "momentum", "teacher_temp", "teacher_entropy"}
    assert [row["step"] for row in watch.steps] == list(range(1, 11))
    assert [watch.probes[0]["step"], watch.probes[-1]["step"]] == [0, 10]

    settings = config.load(TrainSettings, folder.config)
    assert (settings.seed, settings.epochs, settings.images, settings.batch_size) == (3, 5.0, 16, 8)
    assert settings.data == str(pictures.resolve())
    assert config.build(TrainSettings, settings.model_dump(mode="json"), "again") == settings

    about = json.loads(folder.environment.read_text())
    assert about["versions"]["torch"] == torch.__version__.split("+")[0]
    assert about["device"].startswith("cpu")
    assert not folder.bad_images.exists()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [round(e.value, 4) for e in events.Scalars("loss")] == [round(row["loss"], 4) for row in rows]
    left = {p.name for p in folder.path.iterdir()}
    assert left == {"config.yaml", "metrics.jsonl", "environment.json", "checkpoint", "teacher.safetensors", "tensorboard"}


def test_the_teacher_file_is_the_teacher_of_the_checkpoint_under_plain_names(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "run", epochs=1)
    folder = RunFolder(tmp_path / "run")
    teacher, everything = load_file(folder.teacher), load_file(folder.checkpoint)
    inner = {key.removeprefix("teacher."): value for key, value in everything.items() if key.startswith("teacher.")}
    assert {key.replace("backbone.", "backbone.net.", 1) for key in teacher} == set(inner)
    assert all(torch.equal(teacher[key.replace("backbone.net.", "backbone.", 1)], value) for key, value in inner.items())


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (2.5, 5), (0.1, 1)])
def test_a_budget_in_epochs_is_that_many_steps(pictures: Path, tmp_path: Path, epochs: float, steps: int) -> None:
    assert train(pictures, tmp_path / "run", epochs=epochs)["step"] == steps


def test_a_budget_in_minutes_ends_in_time_and_so_do_the_schedules(pictures: Path, tmp_path: Path) -> None:
    watch = Recorder()
    summary = train(pictures, tmp_path / "run", minutes=0.05, watch=watch)
    assert summary["elapsed_s"] >= 3
    settings = config.load(TrainSettings, tmp_path / "run" / "config.yaml")
    assert (settings.epochs, settings.minutes) == (None, 0.05)
    o, last = settings.optimizer, watch.steps[-1]
    rates = [row["lr"] for row in watch.steps]
    assert 0.5 * o.learning_rate < max(rates) <= o.learning_rate
    assert last["lr"] == pytest.approx(o.final_learning_rate, abs=0.02 * o.learning_rate)
    assert last["weight_decay"] == pytest.approx(o.final_weight_decay, rel=0.02)
    assert last["momentum"] == pytest.approx(1.0, abs=1e-3)
    assert [row["step"] for row in watch.steps if row["progress"] == 1.0] == [last["step"]]
    assert watch.probes[-1]["step"] == summary["step"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pictures: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(pictures, tmp_path / name, epochs=3, seed=seed)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    one, other = (load_file(tmp_path / name / "teacher.safetensors")["backbone.cls_token"] for name in "ac")
    assert not torch.equal(one, other)


def test_workers_do_not_change_the_weights(pictures: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(pictures, tmp_path / str(workers), epochs=3, over={"workers": workers})
    assert_same_weights(tmp_path / "0", tmp_path / "2")


# --- interruptions --------------------------------------------------------------------------------------------------

LONG = 150  # epochs, 300 steps: long enough to be hit in the middle


def command(data: Path, out: Path, *more: str) -> list[str]:
    pairs = [f"{a}.{b}={v}" for a, inner in SMALL.items() if isinstance(inner, dict) for b, v in inner.items()]
    pairs += [f"{key}={value}" for key, value in SMALL.items() if not isinstance(value, dict)]
    sets = [word for pair in [*pairs, *more] for word in ("--set", pair)]
    return ["selfsight", "train", str(data), "--out", str(out), "--backbone", BACKBONE, "--epochs", str(LONG), *sets]


def start(words: list[str]) -> subprocess.Popen[str]:
    """The program in a process of its own, as its console script starts it."""
    program = [sys.executable, "-c", "from selfsight.cli import main; main()", *words[1:], *(["--device", "cpu"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(process: subprocess.Popen[str], reached: Any) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the training did not get there in a minute"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(pictures, out, epochs=LONG)
    return out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_that_its_printed_command_finishes_to_the_same_bits(
    number: signal.Signals,
    code: int,
    pictures: Path,
    uninterrupted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a run"
    process = start(command(pictures, out))
    wait_for(process, lambda: len(read_jsonl(out / "metrics.jsonl")) > 8)
    process.send_signal(number)
    _told, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in error
    assert error.startswith(f"selfsight: stopped by {number.name} at step")
    steps = [row["step"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    assert steps[-1] < 2 * LONG

    line = next(line for line in error.splitlines() if "go on with: " in line)
    words = shlex.split(line.partition("go on with: ")[2])
    assert words == ["selfsight", "train", str(pictures), "--out", str(out), "--resume"]
    with pytest.raises(SystemExit) as stop:
        main(words[1:])
    assert stop.value.code == 0
    assert f"{2 * LONG} steps" in capsys.readouterr().out
    assert_same_weights(out, uninterrupted)
    logged = [row["step"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    assert logged == list(range(1, 2 * LONG + 1))


def test_a_kill_in_the_middle_leaves_a_checkpoint_that_goes_on_to_the_same_bits(
    pictures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = RunFolder(tmp_path / "run")
    process = start(command(pictures, out.path, "save_every_minutes=0.0001"))
    wait_for(process, lambda: out.checkpoint.is_file() and len(read_jsonl(out.metrics)) > 20)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    learner = make_learner(config.load(TrainSettings, out.config), torch.device("cpu"))
    newest, *_ = out.checkpoints  # between two renames the one before is all there is
    checkpoint.restore(newest, learner)
    assert 0 < learner.step < 2 * LONG
    assert api.resume(out.path)["step"] == 2 * LONG
    assert_same_weights(out.path, uninterrupted)


class Breaks(api.Silent):
    """Fails at a step, as a machine does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        if row["step"] == self.step:
            raise RuntimeError("power cut")


def test_stochastic_depth_draws_the_same_after_a_resume(pictures: Path, tmp_path: Path) -> None:
    over = {"backbone": {"drop_path": 0.5, "name": "vit_w32_d2_p8"}, "save_every_minutes": 1e-9}
    train(pictures, tmp_path / "whole", epochs=5, over=over)
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, tmp_path / "broken", epochs=5, over=over, watch=Breaks(5))
    api.resume(tmp_path / "broken")
    assert_same_weights(tmp_path / "broken", tmp_path / "whole")


def test_each_step_is_logged_once_though_the_last_ones_are_trained_again(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, tmp_path / "run", epochs=10, over={"save_every_minutes": 1e-9}, watch=Breaks(9))
    api.resume(tmp_path / "run")
    steps = [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert steps == list(range(1, 21))


def test_a_break_before_the_first_checkpoint_is_resumed_from_the_start(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, tmp_path / "run", epochs=5, watch=Breaks(3))
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert api.resume(tmp_path / "run")["step"] == 10
    train(pictures, tmp_path / "other", epochs=5)
    assert_same_weights(tmp_path / "run", tmp_path / "other")


def test_time_trained_counts_over_resumes(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, tmp_path / "run", minutes=600, over={"save_every_minutes": 1e-9}, watch=Breaks(3))
    # As if nearly all of the ten hours had gone by before the break: what is left is a tenth of a second.
    saved = newest_first(RunFolder(tmp_path / "run"))[0]
    with safe_open(saved, framework="pt") as file:
        words = file.metadata()
    assert 0 < float(words["elapsed"]) < 600 * 60
    words["elapsed"] = str(600 * 60 - 0.1)
    tensors = load_file(saved)
    save_file(tensors, saved, words | {"checksum": str(checkpoint.checksum(tensors, words))})
    watch = Recorder()
    assert api.resume(tmp_path / "run", watch=watch)["elapsed_s"] >= 600 * 60
    assert all(row["elapsed_s"] >= 600 * 60 - 0.1 for row in watch.steps)


def test_resuming_a_finished_run_leaves_it_as_it_is(pictures: Path, tmp_path: Path) -> None:
    first = train(pictures, tmp_path / "run", epochs=2)
    before = load_file(tmp_path / "run" / "teacher.safetensors")
    again = api.resume(tmp_path / "run")
    assert again["step"] == first["step"] == 4
    after = load_file(tmp_path / "run" / "teacher.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_cannot_be_resumed_says_why(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run to resume; expected a folder with config.yaml"):
        api.resume(tmp_path / "nothing")
    data = tmp_path / "data"
    data.mkdir()
    for i in range(9):
        Image.new("RGB", (32, 32), (20 * i, 9, 9)).save(data / f"{i}.png")
    train(data, tmp_path / "run", epochs=1)
    Image.new("RGB", (32, 32)).save(data / "more.png")
    with pytest.raises(InputError, match="holds 10 images now, 9 when the run began; start a new run"):
        api.resume(tmp_path / "run")
    (data / "more.png").unlink()
    latest = tmp_path / "run" / "checkpoint" / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is no readable checkpoint"):
        api.resume(tmp_path / "run")


# --- trainings that are lost ------------------------------------------------------------------------------------------


def test_a_teacher_that_says_nothing_is_noticed(pictures: Path, tmp_path: Path) -> None:
    over = {"objective": {"teacher_temperature": 10.0, "warmup_teacher_temperature": 10.0}, "collapse_window": 0.1}
    with pytest.raises(CollapseError) as error:
        train(pictures, tmp_path / "run", epochs=60, over=over)
    assert str(error.value).startswith("step 100: collapsed, the teacher's answer was uniform")
    assert "Lower objective.teacher_temperature" in str(error.value)
    assert error.value.exit_code == 1


def test_one_answer_to_every_image_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(16):
        Image.new("RGB", (32, 32), (120 + i % 3,) * 3).save(tmp_path / "data" / f"{i}.png")
    over = {
        "objective": {"teacher_temperature": 1e-4, "warmup_teacher_temperature": 1e-4, "center_momentum": 1.0},
        "views": {"jitter": 0.0, "solarize": 0.0},
    }
    with pytest.raises(CollapseError) as error:
        train(tmp_path / "data", tmp_path / "run", epochs=60, over=over)
    assert str(error.value).startswith("step 100: collapsed, the teacher gave all images one prototype")
    assert "Lower objective.center_momentum" in str(error.value)


def test_a_healthy_run_of_the_same_length_is_left_alone(uninterrupted: Path) -> None:
    rows = [row for row in read_jsonl(uninterrupted / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 2 * LONG
    assert any(row["teacher_entropy"] < 0.995 and row["prototype_entropy"] > 0.05 for row in rows)


# --- what the user may get wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("optimizer.learning_rte=1", "no setting 'optimizer.learning_rte'. Did you mean 'learning_rate'?"),
        ("viewz.flip=1", "no setting 'viewz'. Did you mean 'views'?"),
        ("batch_size=0", "'batch_size': Input should be greater than or equal to 1. Got 0."),
        ("batch_size=17", "batch_size: must be at most the 16 images at hand. Got 17."),
        ("views.local_size=12", "views.local_size: must be a multiple of the patch, 8 in vit_w32_d1_p8. Got 12."),
        ("minutes=1", "budget: give either epochs or minutes"),
        ("objective.name=dinoo", "dino"),
        ("backbone.name=5", "backbone"),
        ("backbone.name=vit_w33_d1_p8", "the width must be a multiple of 32"),
        ("views.flip", "--set 'views.flip': expected key=value"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    pair: str, message: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(pictures), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu", "--set", pair]
    if "backbone" not in pair:
        words += ["--backbone", BACKBONE, "--set", "views.global_size=16", "--set", "threads=1"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("selfsight: ")
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_that_holds_a_run_is_refused_and_kept(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "teacher.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds a run already; go on with it by --resume, or give another --out"):
        train(pictures, tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "teacher.safetensors").read_bytes() == before


def test_an_unknown_recipe_names_the_nearest(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--recipe: no recipe 'dinno'. Did you mean 'dino'\?"):
        train(pictures, tmp_path / "run", recipe="dinno")


def test_a_source_of_bad_images_alone_is_an_error_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(5):
        (tmp_path / "data" / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"not one of its 5 images can be read; first 0.png: no known image format"):
        train(tmp_path / "data", tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_bad_images_are_skipped_listed_once_and_counted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    dataset(tmp_path / "drawn", {"train": 16})
    (tmp_path / "drawn" / "train").rename(data)
    (data / "dots" / "broken.png").write_bytes(b"no picture")
    (data / "rings" / "empty.jpg").write_bytes(b"")
    (data / "notes").write_text("words")
    summary = train(data, tmp_path / "run", epochs=4, over={"batch_size": 6}, max_bad=20)
    assert summary["step"] == 12
    assert summary["bad_images"] == 3
    rows = read_jsonl(tmp_path / "run" / "bad_images.jsonl")
    assert {row["key"]: row["reason"] for row in rows} == {
        "dots/broken.png": "no known image format",
        "rings/empty.jpg": "empty file",
        "notes": "no image, by its name and first bytes",
    }
    assert len(rows) == 3


def broken(tmp_path: Path, count: int, bad: int) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(count):
        Image.new("RGB", (32, 32), (i, 99, 255 - i)).save(data / f"{i:03d}.png")
    for i in range(bad):
        (data / f"{i:03d}.png").write_bytes(b"no picture")
    return data


def test_more_bad_images_than_borne_stop_the_run_with_the_list_and_it_goes_on_when_more_are_allowed(tmp_path: Path) -> None:
    data = broken(tmp_path, 40, 6)
    with pytest.raises(
        DataError, match=r"data: [3-6] of 40 images cannot be read .*more than the 5 % .*first .*listed in"
    ) as stopped:
        train(data, tmp_path / "run", epochs=3, over={"batch_size": 8})
    assert stopped.value.exit_code == 2
    listed = read_jsonl(tmp_path / "run" / "bad_images.jsonl")
    assert {row["reason"] for row in listed} == {"no known image format"}
    assert all(int(row["key"][:3]) < 6 for row in listed)
    summary = api.resume(tmp_path / "run", max_bad=20)
    assert (summary["step"], summary["bad_images"]) == (15, 6)


def test_a_few_bad_images_are_borne(tmp_path: Path) -> None:
    assert train(broken(tmp_path, 40, 2), tmp_path / "run", epochs=2, over={"batch_size": 8})["bad_images"] == 2


def test_strict_stops_at_the_first_bad_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"00[01].png: no known image format \(--strict"):
        train(broken(tmp_path, 40, 2), tmp_path / "run", epochs=2, over={"batch_size": 8}, strict=True)
    with pytest.raises(ConfigError, match=r"--max-bad: expected a percentage from 0 to 100\. Got 120"):
        train(tmp_path / "data", tmp_path / "other", epochs=2, max_bad=120)


def test_larger_images_than_the_limit_are_refused(tmp_path: Path) -> None:
    data = broken(tmp_path, 40, 0)
    Image.new("RGB", (200, 100)).save(data / "large.png")
    train(data, tmp_path / "run", epochs=1, over={"batch_size": 8}, max_pixels=10_000)
    rows = read_jsonl(tmp_path / "run" / "bad_images.jsonl")
    assert rows == [{"key": "large.png", "reason": "200x100 pixels, more than the limit of 10000"}]


def test_images_of_five_channels_train_and_embed(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(24):
        tifffile.imwrite(_made(tmp_path / "data" / f"{i}.tif"), draw.integers(0, 60_000, (32, 32, 5), dtype=np.uint16))
    summary = train(tmp_path / "data", tmp_path / "run", epochs=2, over={"batch_size": 8}, channels=5)
    settings = config.load(TrainSettings, tmp_path / "run" / "config.yaml")
    assert (settings.backbone.channels, len(settings.views.mean)) == (5, 5)
    assert settings.views.mean[0] == pytest.approx(30_000 / 65_535, abs=0.03)
    assert summary["bad_images"] == 0
    assert api.embed(str(tmp_path / "run"), tmp_path / "data", tmp_path / "f.parquet")["images"] == 24
    with pytest.raises(DataError, match=r"not one of its 24 images can be read; first .*32 channels, not 4"):
        train(tmp_path / "data", tmp_path / "other", epochs=2, channels=4)


def _made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


# --- where settings come from -----------------------------------------------------------------------------------------


def planned(pictures: Path, out: Path, file: Mapping[str, Any], **options: Any) -> TrainSettings:
    path = out.parent / "given.yaml"
    path.write_text(json.dumps(config.merge(SMALL, file)))
    api.train(pictures, out, config=path, **({"backbone": BACKBONE} | options))
    return config.load(TrainSettings, out / "config.yaml")


def test_set_wins_over_arguments_and_arguments_over_the_file(pictures: Path, tmp_path: Path) -> None:
    file = {"epochs": 1, "optimizer": {"clip": 1.5}, "views": {"flip": 0.25}}
    found = planned(pictures, tmp_path / "run", file, epochs=2, set=["views.flip=0.75"])
    assert (found.epochs, found.optimizer.clip, found.views.flip) == (2.0, 1.5, 0.75)
    assert found.views.global_size == 16


def test_the_file_keeps_its_seed_and_device_where_no_argument_is_given(pictures: Path, tmp_path: Path) -> None:
    found = planned(pictures, tmp_path / "run", {"epochs": 1, "seed": 7, "device": "cpu"})
    assert (found.seed, found.device) == (7, "cpu")


def test_the_backbone_argument_wins_over_the_file(pictures: Path, tmp_path: Path) -> None:
    found = planned(pictures, tmp_path / "run", {"epochs": 1, "backbone": {"name": "vit_w64_d1_p8"}}, backbone=BACKBONE)
    assert found.backbone.name == BACKBONE


@pytest.mark.parametrize(("file", "argument"), [("epochs", "minutes"), ("minutes", "epochs")])
def test_a_budget_given_as_argument_replaces_the_one_of_the_file(
    file: str, argument: str, pictures: Path, tmp_path: Path
) -> None:
    found = planned(pictures, tmp_path / "run", {file: 3}, **{argument: 0.003})
    assert (getattr(found, argument), getattr(found, file)) == (0.003, None)


def test_the_config_of_a_run_is_a_file_of_settings_for_other_images(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "first", epochs=1)
    dataset(tmp_path / "drawn", {"train": 24}, seed=1)
    others = tmp_path / "drawn" / "train"
    api.train(others, tmp_path / "second", config=tmp_path / "first" / "config.yaml")
    found = config.load(TrainSettings, tmp_path / "second" / "config.yaml")
    assert (found.data, found.images) == (str(others.resolve()), 24)
    assert found.objective == config.load(TrainSettings, tmp_path / "first" / "config.yaml").objective


# --- one step -------------------------------------------------------------------------------------------------------


def learner_by_formula() -> Learner:
    """A network whose every weight is a sine of its place: no random generator takes part."""
    objective = DINO(DINOSettings(head=HeadSettings(prototypes=24, hidden=32, bottleneck=8)))
    student, teacher = (
        Network(build_backbone(BackboneSettings(name="vit_w32_d2_p8", image_size=32)), objective.heads(32)) for _ in range(2)
    )
    with torch.no_grad():
        for number, (name, parameter) in enumerate(student.named_parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (1.3 + 0.37 * number) + number)
            base = 1.0 if ("norm" in name and name.endswith("weight")) or name.endswith("weight_g") else 0.0
            scale = 0.0 if name.endswith("weight_g") else 0.15
            parameter.copy_((base + scale * wave).reshape(parameter.shape))
    return Learner(student, make_teacher(student, teacher), objective, make_optimizer(student, torch.device("cpu")))


def batch_by_formula(step: int, batch: int = 4) -> Batch:
    def waves(count: int, size: int) -> torch.Tensor:
        place = torch.arange(count * 3 * size * size, dtype=torch.float64)
        image = torch.div(place, 3 * size * size, rounding_mode="floor") % batch
        return torch.sin(place * (0.11 + 0.05 * image) + 2 * step + image).float().reshape(count, 3, size, size)

    return Batch([waves(2 * batch, 32), waves(3 * batch, 16)], batch)


OPTIMIZER = OptimizerSettings(learning_rate=2e-3, warmup=0.2, freeze_last_layer=0.1)
CURVE = [2.395835, 2.427532, 2.283639, 2.118151, 2.011488, 1.932943, 1.894059, 1.88515, 1.898822, 1.93333, 1.985483, 2.058701]


def test_the_loss_curve_of_a_short_training_has_not_moved() -> None:
    """Stored numbers; other processors and versions of torch move them by less than 1e-4."""
    learner = learner_by_formula()
    losses = []
    for step in range(12):
        rates = rates_at(step / 12, 12, OPTIMIZER, 0.9)
        losses.append(train_step(learner, batch_by_formula(step), rates, 3.0).value.item())
    assert losses == pytest.approx(CURVE, abs=1e-4)
    assert learner.step == 12


def test_the_teacher_becomes_the_running_mean_of_the_student_after_its_step() -> None:
    learner = learner_by_formula()
    before = {name: p.clone() for name, p in learner.teacher.named_parameters()}
    student_before = {name: p.detach().clone() for name, p in learner.student.named_parameters()}
    train_step(learner, batch_by_formula(0), rates_at(0.4, 10, OPTIMIZER, 0.9)._replace(momentum=0.75), 3.0)
    student = dict(learner.student.named_parameters())
    moved = [name for name in student if not torch.equal(student[name], student_before[name])]
    assert len(moved) > 20
    for name, parameter in learner.teacher.named_parameters():
        torch.testing.assert_close(parameter, 0.75 * before[name] + 0.25 * student[name].detach(), atol=1e-7, rtol=1e-6)
        assert parameter.grad is None


@pytest.mark.parametrize(("momentum", "is_student"), [(1.0, False), (0.0, True)])
def test_the_ends_of_the_momentum_keep_the_teacher_or_copy_the_student(momentum: float, is_student: bool) -> None:
    learner = learner_by_formula()
    before = {name: p.clone() for name, p in learner.teacher.named_parameters()}
    train_step(learner, batch_by_formula(0), rates_at(0.4, 10, OPTIMIZER, 0.9)._replace(momentum=momentum), 3.0)
    expected = dict(learner.student.named_parameters()) if is_student else before
    for name, parameter in learner.teacher.named_parameters():
        assert torch.equal(parameter, expected[name].detach()), name


def test_biases_and_norms_do_not_decay_and_matrices_do() -> None:
    learner = learner_by_formula()
    rates = rates_at(0.4, 10, OPTIMIZER, 0.9)
    train_step(learner, batch_by_formula(0), rates, 3.0)
    names = {id(p): name for name, p in learner.student.named_parameters()}
    groups = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in learner.optimizer.param_groups}
    assert set(groups) == {0.0, rates.weight_decay}
    assert rates.weight_decay > 0.04
    shapes = {name: p.ndim for name, p in learner.student.named_parameters() if p.requires_grad}
    assert groups[0.0] == {name for name, ndim in shapes.items() if ndim == 1}
    assert {n for n in groups[0.0] if "norm" in n or n.endswith("bias")} == groups[0.0]
    assert groups[rates.weight_decay] == {name for name, ndim in shapes.items() if ndim > 1}
    assert all(group["lr"] == rates.learning_rate for group in learner.optimizer.param_groups)


def test_the_last_layer_stays_as_it_is_at_first() -> None:
    learner = learner_by_formula()
    last, other = learner.student.heads.image.last_layer.weight_v, learner.student.heads.image.mlp[0].weight
    for step in range(20):
        before = last.detach().clone(), other.detach().clone()
        rates = rates_at(step / 20, 20, OPTIMIZER, 0.9)
        train_step(learner, batch_by_formula(step), rates, 3.0)
        assert rates.last_layer_frozen is (step < 2)
        assert torch.equal(last, before[0]) is (step < 2)
        assert torch.equal(other, before[1]) is (step == 0)  # the rate is 0 at the first step of the warm-up


def test_a_step_takes_global_views_alone_too() -> None:
    learner = learner_by_formula()
    loss = train_step(learner, Batch(batch_by_formula(0).views[:1], 4), rates_at(0.4, 10, OPTIMIZER, 0.9), 3.0)
    assert loss.value.isfinite()
    assert not loss.value.requires_grad


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    trained, fresh = learner_by_formula(), learner_by_formula()
    for step in range(3):
        train_step(trained, batch_by_formula(step), rates_at(0.5, 10, OPTIMIZER, 0.9), 3.0)
    checkpoint.save(tmp_path / "latest.safetensors", trained, 12.5)
    assert checkpoint.restore(tmp_path / "latest.safetensors", fresh) == 12.5
    assert fresh.step == 3
    for learner in (trained, fresh):
        train_step(learner, batch_by_formula(3), rates_at(0.6, 10, OPTIMIZER, 0.9), 3.0)
    for ours, theirs in ((trained.student, fresh.student), (trained.teacher, fresh.teacher)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert torch.equal(trained.objective.loss.center.value, fresh.objective.loss.center.value)


def test_a_checkpoint_of_another_network_does_not_fit(tmp_path: Path) -> None:
    learner = learner_by_formula()
    checkpoint.save(tmp_path / "latest.safetensors", learner, 0.0)
    backbone = build_backbone(BackboneSettings(name="vit_w64_d2_p8", image_size=32))
    objective = DINO(DINOSettings(head=HeadSettings(prototypes=24, hidden=32, bottleneck=8)))
    student = Network(backbone, objective.heads(64))
    teacher = make_teacher(student, Network(build_backbone(backbone.settings), objective.heads(64)))
    other = Learner(student, teacher, objective, make_optimizer(student, torch.device("cpu")))
    with pytest.raises(WeightsError, match=r"does not fit this run's config.yaml"):
        checkpoint.restore(tmp_path / "latest.safetensors", other)
