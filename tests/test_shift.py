"""The task shift: where encoders of which it is known what they see break, and every number again from the folder alone."""

from __future__ import annotations

import html
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import blinkered
import pictures
from selfsight import api, manifest, results
from selfsight.comparison.shift_set import open_set
from selfsight.comparison.slices import slices
from selfsight.errors import ConfigError, DataError, InputError
from selfsight.synthesis.drawing import draw_dataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shift") / "shapes"
    api.synth(blinkered.spec(), folder, count=120, workers=0)
    return folder


@pytest.fixture(scope="module")
def compared(drawn: Path) -> tuple[results.Results, Path, str, str]:
    colour, form = blinkered.encoders(drawn.parent / "encoders")
    out = drawn.parent / "out"
    return api.compare(drawn, [colour, form], out, tasks=["shift"], device="cpu"), out, colour, form


def told(compared: tuple[results.Results, Path, str, str]) -> results.Shift:
    found = compared[0].shift
    assert found is not None
    return found


def test_what_sees_colour_alone_breaks_under_another_hue_and_not_under_another_size(
    compared: tuple[results.Results, Path, str, str],
) -> None:
    _, _, colour, form = compared
    change = {(e.encoder, e.condition): e for e in told(compared).effects}
    assert change[colour, "shift.hue"].high < -50 and change[colour, "shift.hue"].p_holm < 1e-6
    assert abs(change[colour, "shift.size.small"].change) < 5 and change[colour, "shift.size.small"].p_holm > 0.05
    assert change[form, "shift.size.small"].high < -20 and change[form, "shift.size.small"].p_holm < 1e-3
    assert abs(change[form, "shift.hue"].change) < 5
    gaps = {gap.condition: gap for gap in told(compared).gaps}
    assert gaps["shift.hue"].low > 50 and gaps["shift.size.small"].high < -20  # form minus colour
    assert all(gap.p_holm < 1e-3 for gap in gaps.values())


def test_the_worst_slice_is_the_one_without_colour(compared: tuple[results.Results, Path, str, str]) -> None:
    _, _, colour, form = compared
    worst = told(compared).worst(colour)
    assert worst is not None and worst.p_holm is not None and worst.gap_high is not None
    assert (worst.factor, worst.span) == ("saturation", [0])
    assert worst.p_holm < 0.01 and worst.gap_high < -20 and worst.n >= 10
    [other] = [s for s in told(compared).slices if (s.encoder, s.factor, s.span) == (form, "saturation", [0])]
    assert other.value > worst.high
    assert min(s.n for s in told(compared).slices) >= 10


def test_shifted_values_are_told_from_those_that_training_shows(compared: tuple[results.Results, Path, str, str]) -> None:
    away = defaultdict(set)
    for s in told(compared).slices:
        away[s.condition, s.factor].add(s.outside)
    assert away["shift.size.small", "size"] == {1.0}
    assert away["shift.hue", "hue"] == {0.0}  # of another class, within the range of all
    assert away["clean", "size"] == {0.0}


def test_every_number_follows_from_the_folder(compared: tuple[results.Results, Path, str, str]) -> None:
    found, out, *encoders = compared
    right: dict[tuple[str, str, int], float] = {}
    scene = {row["key"]: (row["condition"], row["pair"]) for row in pq.read_table(out / "factors.parquet").to_pylist()}
    for row in pq.read_table(out / "per_image.parquet").to_pylist():
        assert (row["task"], row["condition"]) == ("shift", scene[row["key"]][0])
        right[row["encoder"], *scene[row["key"]]] = float(row["label"] == row["predicted"])
    scenes = sorted({pair for _, pair in scene.values()})
    change = {
        (encoder, condition): np.array([right[encoder, condition, k] - right[encoder, "clean", k] for k in scenes])
        for encoder in encoders
        for condition in ("shift.hue", "shift.size.small")
    }
    record = told(compared)
    for e in record.effects:
        check((e.change, e.low, e.high), change[e.encoder, e.condition])
        assert e.n == len(scenes) and e.shifted - e.clean == pytest.approx(e.change)
    for gap in record.gaps:
        check((gap.difference, gap.low, gap.high), change[gap.b, gap.condition] - change[gap.a, gap.condition])
    scores = {(s.encoder, s.condition): s.value for s in found.scores if (s.task, s.metric) == ("shift", "top1")}
    for encoder in encoders:
        for condition in ("clean", "shift.hue", "shift.size.small"):
            mean = 100 * np.mean([right[encoder, condition, k] for k in scenes])
            assert scores[encoder, condition] == pytest.approx(mean)


def check(told: tuple[float, float, float], values: np.ndarray[Any, Any]) -> None:
    """A mean in points and its interval, by drawing pictures one by one in place of counts of outcomes."""
    rng = np.random.default_rng(5)
    means = [100 * values[rng.integers(len(values), size=len(values))].mean() for _ in range(4000)]
    assert told[0] == pytest.approx(100 * values.mean())
    np.testing.assert_allclose(told[1:], np.percentile(means, [2.5, 97.5]), atol=2.5)


def test_slices_follow_from_the_factors_in_the_folder(compared: tuple[results.Results, Path, str, str]) -> None:
    _, out, *_ = compared
    value = {row["key"]: row for row in pq.read_table(out / "factors.parquet").to_pylist() if row["condition"] == "clean"}
    outcomes = [row for row in pq.read_table(out / "per_image.parquet").to_pylist() if row["condition"] == "clean"]
    for s in (s for s in told(compared).slices if s.gap is not None and s.factor in ("size", "saturation")):
        answers = [row for row in outcomes if row["encoder"] == s.encoder]
        low, high = s.span[0], s.span[-1]
        inside = [r["label"] == r["predicted"] for r in answers if low <= value[r["key"]][s.factor] <= high]
        rest = [r["label"] == r["predicted"] for r in answers if not low <= value[r["key"]][s.factor] <= high]
        # A picture that lies on the edge of two thirds counts below it.
        assert s.n == pytest.approx(len(inside), abs=1)
        assert s.value == pytest.approx(100 * np.mean(inside), abs=100 / s.n + 1e-6)
        assert s.gap == pytest.approx(100 * (np.mean(inside) - np.mean(rest)), abs=200 / s.n)


def test_slices_are_thirds_of_numbers_and_each_of_few_values() -> None:
    values = [*np.linspace(0, 1, 30), None]
    cut = slices("size", values)
    assert [len(s.rows) for s in cut] == [10, 10, 10]
    assert cut[0].span[1] == cut[1].span[0] and 30 not in np.concatenate([s.rows for s in cut])
    assert [(s.span, s.rows.tolist()) for s in slices("count", [1, 2, 1])] == [((1,), [0, 2]), ((2,), [1])]
    assert [s.span for s in slices("texture", ["dots", "own", "dots"])] == [("dots",), ("own",)]


def test_the_report_is_drawn_from_the_folder_alone(compared: tuple[results.Results, Path, str, str]) -> None:
    _, out, _colour, _form = compared
    (out / "report.html").unlink()
    page = html.unescape(api.report(out, images=False).read_text(encoding="utf-8"))
    for part in (
        'id="shifts"',
        "plot-conditions",
        "plot-gaps",
        "plot-factor-1",
        "Hue hurts it",
        "it gets least of saturation 0:",
    ):
        assert part in page, part


def test_a_limit_takes_the_same_scenes_of_every_split(drawn: Path) -> None:
    exam = open_set(drawn, limit=20, seed=1)
    assert len(exam.train.images) == 20
    scenes = [[row["index"] for row in part.rows] for part in exam.tests.values()]
    assert len(scenes[0]) == 20 and scenes[0] == scenes[1] == scenes[2]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"data": "plain"}, DataError, "plain: is no drawn set; expected the folder that 'selfsight synth' left"),
        ({"data": "SET?split=test"}, DataError, "expected the whole set, SET"),
        ({"data": "untested"}, DataError, "untested: has no split 'test' among train; draw it with both"),
        ({"data": "unpaired"}, DataError, "picture 1 of shift.hue has another label than picture 1 of test"),
        ({"data": None}, InputError, "compare: expected DATA, or --shift"),
        ({"test": "SET?split=test"}, ConfigError, "leave --test out"),
        ({"data": None, "shift": blinkered.spec(shift={})}, ConfigError, "expected a factor that leaves what training shows"),
        ({"data": None, "shift": "nowhere.yaml"}, ConfigError, "nowhere.yaml: cannot be read"),
        ({"data": None, "shift": blinkered.spec(), "shift_count": 0}, ConfigError, "--shift-count"),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_leaves_nothing(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], kind: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SET").symlink_to(drawn)
    pictures.folder(tmp_path / "plain", 8, classes=2)
    draw_dataset(tmp_path / "untested", {"train": 6}, 0, 32, lambda done, total: None)
    broken(drawn, tmp_path / "unpaired")
    with pytest.raises(kind) as raised:
        api.compare(**{"data": "SET", "encoder": ["pixels", "random/vit_w32_d1_p8"], "out": "out", "tasks": ["shift"], **change})
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def broken(drawn: Path, folder: Path) -> None:
    """A set whose shifted pictures are of other scenes than those of the test."""
    content = manifest.read(drawn)
    with manifest.Writer(folder, content.info) as writer:
        for row in content.samples:
            other = (row["label"] + 1) % 3 if row["split"] == "shift.hue" and row["index"] == 1 else row["label"]
            writer.add(row | {"label": other, "path": str(drawn / row["path"])}, [])
