"""Fine-tuning as a task of a comparison: one search for every encoder, without the labels of the test images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import labelled
from selfsight import api
from selfsight.api import tuned_task
from selfsight.comparison.gather import About, Machine
from selfsight.comparison.plan import make_plan
from selfsight.comparison.run import run_comparison
from selfsight.comparison.split import split
from selfsight.data.sources import Subset, open_source
from selfsight.data.tolerance import Tolerance
from selfsight.errors import WeightsError
from selfsight.evaluate import ImageSet, ImageTask, Predictions

ENCODERS = ["random/vit_w32_d1_p8?size=16", "random/vit_w32_d1_p4?size=16"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_task, "FACTORS", (1.0, 3.0))
    monkeypatch.setattr(tuned_task, "EPOCHS", 6.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.stripes(tmp_path_factory.mktemp("data") / "stripes", (24, 24, 24))


class Watching(api.Silent):
    """Keeps what is said; breaks off in the middle of a run if told to."""

    def __init__(self, breaks: bool = False) -> None:
        self.said: list[str] = []
        self.breaks = breaks

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, what: str, done: int, total: int) -> None:
        if self.breaks and what.startswith("fine-tuning") and done > 500:
            raise RuntimeError("power cut")


def images_of(data: Path) -> tuple[ImageSet, np.ndarray]:
    """A third of the images to be asked about, without their labels; and the labels."""
    source = open_source(data)
    assert source.labels is not None
    chosen = np.arange(len(source)) // 3 % 3 == 0  # the classes take turns
    train, test = (Subset(source, np.flatnonzero(part)) for part in (~chosen, chosen))
    answers, test.labels = test.labels, None
    assert answers is not None
    return ImageSet(ENCODERS[0], train, test), answers


def test_the_search_is_taken_up_where_it_was_broken_off_and_never_made_twice(data: Path, tmp_path: Path) -> None:
    images, answers = images_of(data)

    def run(watch: api.Watch) -> Predictions:
        task = tuned_task.FineTune(tmp_path / "runs", watch, Tolerance(), 0)
        found = list(task.run(images, seed=0, device="cpu"))
        assert len(found) == 1
        return found[0]

    with pytest.raises(RuntimeError, match="power cut"):
        run(Watching(breaks=True))
    assert len(list((tmp_path / "runs").iterdir())) == 1
    first = run(Watching())
    assert first.metric == "top1"
    assert (first.predicted == answers).mean() > 0.7
    assert "x the recipe's rate, the best of 2 by the validation part" in first.note
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all((run / "classifier.json").is_file() and not (run / "checkpoint").exists() for run in runs)
    rates = [yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["learning_rate"] for run in runs]
    assert max(rates) == pytest.approx(3 * min(rates))
    before = {run.name: (run / "metrics.jsonl").stat().st_mtime_ns for run in runs}
    np.testing.assert_array_equal(run(Watching()).predicted, first.predicted)
    assert {run.name: (run / "metrics.jsonl").stat().st_mtime_ns for run in runs} == before
    other = data / str(images.train.keys[0])
    Image.open(other).rotate(90).save(other)
    run(Watching())
    assert len(list((tmp_path / "runs").iterdir())) == 4


class Spy(ImageTask):
    """Notes what it was given, and answers that all is of the first class."""

    primary = "top1"
    random = False

    def __init__(self) -> None:
        self.given: list[ImageSet] = []

    def check(self, encoder: str) -> None:
        return

    def run(self, images: ImageSet, *, seed: int, device: str) -> Iterator[Predictions]:
        self.given.append(images)
        yield Predictions("top1", np.zeros(len(images.test), dtype=np.int64))


def test_a_task_on_images_sees_labels_of_training_images_alone(data: Path, tmp_path: Path) -> None:
    spy = Spy()
    plan = make_plan(ENCODERS, None, ["spy"], 1.0, 1, 0, {"spy": spy})
    parts = split(open_source(data), None, limit=None, group_by=None, seed=0)
    machine = Machine("cpu", 0, 32, print, lambda *given: None, Tolerance())
    results = run_comparison(plan, parts, tmp_path / "out", machine, About("spied"))
    assert [given.encoder for given in spy.given] == ENCODERS
    for given in spy.given:
        assert given.train.labels is not None
        assert (len(given.train), len(given.test)) == (54, 18)
        assert (given.test.labels, given.test.label_sets, given.test.classes) == (None, None, ())
    assert [score.value for score in results.scores if score.metric == "top1"] == pytest.approx([100 / 3] * 2)
    assert {pair.task for pair in results.comparisons} == {"spy"}
    assert results.verdict is not None
    assert results.verdict.endpoint.startswith("spy")


def test_an_encoder_that_cannot_be_trained_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    watch = Watching()
    with pytest.raises(WeightsError, match="--tasks finetune, encoder pixels: it has no weights"):
        api.compare(data, [ENCODERS[0], "pixels"], tmp_path / "out", tasks=["finetune"], device="cpu", watch=watch)
    assert not (tmp_path / "out" / "finetuned").exists()
    assert not any(text.startswith("finetune") for text in watch.said)
