"""A run goes on under other settings where it stays the same training, and says by name what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import pictures
import small_training
from selfsight import api, config
from selfsight.cli import main
from selfsight.errors import ConfigError, InputError
from selfsight.runs import RunFolder, read_jsonl
from selfsight.ssl.changing import MAY_CHANGE
from selfsight.ssl.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.dataset(tmp_path_factory.mktemp("drawn"), {"train": 16}) / "train"


@pytest.fixture(scope="module")
def four_epochs(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    small_training.train(drawn, out, epochs=4)
    return out


@pytest.fixture
def run(four_epochs: Path, tmp_path: Path) -> RunFolder:
    """Finished, two steps an epoch."""
    return RunFolder(shutil.copytree(four_epochs, tmp_path / "run"))


class Hears(api.Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_larger_budget_goes_on_as_if_it_had_been_given_from_the_start(run: RunFolder, drawn: Path, tmp_path: Path) -> None:
    watch = Hears()
    assert api.resume(run.path, epochs=8, watch=watch)["step"] == 16
    assert watch.said == ["changed: epochs 4.0 -> 8.0. The schedules go on at 50% of the run, it was at 100%"]
    assert read_jsonl(run.changes) == [{"step": 8, "changes": {"epochs": [4.0, 8.0]}}]
    assert config.load(TrainSettings, run.config).epochs == 8
    small_training.train(drawn, tmp_path / "long", epochs=8)
    ours, theirs = (read_jsonl(path / "metrics.jsonl") for path in (run.path, tmp_path / "long"))
    for name in ("lr", "weight_decay", "momentum", "teacher_temp"):
        assert [row[name] for row in ours if row["step"] > 8 and "lr" in row] == [
            row[name] for row in theirs if row["step"] > 8 and "lr" in row
        ]
    assert api.resume(run.path)["step"] == 16
    assert len(read_jsonl(run.changes)) == 1


def test_a_budget_of_the_other_kind_takes_the_place_of_the_first(run: RunFolder) -> None:
    assert api.resume(run.path, minutes=0.05)["elapsed_s"] >= 3
    kept = config.load(TrainSettings, run.config)
    assert (kept.epochs, kept.minutes) == (None, 0.05)
    assert read_jsonl(run.changes)[0]["changes"] == {"epochs": [4.0, None], "minutes": [None, 0.05]}


def test_a_budget_that_is_used_up_is_refused(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"--epochs 3: counts from the start of the run, which has done 4 already; give more"):
        api.resume(run.path, epochs=3)
    assert not run.changes.exists()


def test_what_leaves_the_training_the_same_may_change(run: RunFolder) -> None:
    new = [
        "parts=2",
        "workers=1",
        "precision=bfloat16",
        "log_every=3",
        "save_every_minutes=2",
        "probe_every_epochs=2",
        "epochs=5",
    ]
    assert api.resume(run.path, set=new, max_bad=20)["step"] == 10
    kept = config.load(TrainSettings, run.config)
    assert (kept.parts, kept.workers, kept.precision, kept.tolerance.max_bad) == (2, 1, "bfloat16", 0.2)
    assert set(read_jsonl(run.changes)[0]["changes"]) <= set(MAY_CHANGE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "dinov2"], "--recipe: a resumed run keeps it as it is (dino), because it made all other settings"),
        (["--backbone", "vit_w64_d1_p8"], "--backbone: a resumed run keeps it as it is (vit_w32_d1_p8), because the weights"),
        (["--set", "objective.teacher_temperature=0.1"], "objective.teacher_temperature: a resumed run keeps it as it is (0.02)"),
        (["--set", "objective.name=supervised"], "objective.name: a resumed run keeps it as it is (dino), because heads"),
        (["--set", "batch_size=4"], "batch_size: a resumed run keeps it as it is (8), because the order of the images"),
        (["--set", "views.local_count=3"], "views.local_count: a resumed run keeps it as it is (1), because it is what"),
        (["--set", "optimizer.learning_rate=1"], "optimizer.learning_rate: a resumed run keeps it as it is (0.0001)"),
        (["--seed", "3"], "--seed: a resumed run keeps it as it is (0), because the order"),
        (["--limit", "9"], "--limit: a resumed run keeps it as it is (None), because other images"),
        (["--domain", "aerial"], "--domain: a resumed run keeps it as it is (photos)"),
        (["--init", "pixels"], "--init: a resumed run keeps it as it is (None), because it is where the run began"),
        (["--channels", "1"], "--channels: a resumed run keeps it as it is (3)"),
        (["--set", "wokers=2"], "no setting 'wokers'. Did you mean 'workers'?"),
        (["--set", "minutes=1", "--set", "epochs=9"], "budget: give either epochs or minutes"),
    ],
)
def test_what_may_not_change_is_named(words: list[str], said: str, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.config.read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["train", "--out", str(run.path), "--resume", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1
    assert run.config.read_bytes() == before


def test_other_images_are_refused_and_the_same_ones_are_not(run: RunFolder, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: a resumed run keeps it as it is \(.*train\), because other images"):
        api.resume(run.path, data=tmp_path)
    assert api.resume(run.path, data=drawn, recipe="dino", backbone="vit_w32_d1_p8", seed=0)["step"] == 8


def test_a_file_of_settings_is_held_against_those_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    given: dict[str, Any] = config.read_yaml(run.config) | {"epochs": 6.0}
    file = tmp_path / "settings.yaml"
    file.write_text(config.dump(config.build(TrainSettings, given, "settings")))
    assert api.resume(run.path, config=file)["step"] == 12
    file.write_text("views: {local_count: 5}\n")
    with pytest.raises(ConfigError, match=r"views\.local_count: a resumed run"):
        api.resume(run.path, config=file)
