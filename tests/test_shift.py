"""The task shift: where encoders of which it is known what they see break, and every number again from the folder alone."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import blinkered
import pictures
from selfsight import api, manifest, results
from selfsight.comparison.shift_folder import read_shift
from selfsight.comparison.shift_set import open_set
from selfsight.comparison.slices import slices
from selfsight.comparison.split import split
from selfsight.data.sources import open_source
from selfsight.errors import ConfigError, DataError, InputError
from selfsight.reporting.shifts import Names
from selfsight.synthesis.loading import checked
from selfsight.synthesis.refining import refined
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.spec import Refinement, SynthSpec, written


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shift") / "shapes"
    api.synth(blinkered.spec(), folder, count=120, workers=0)
    return folder


@pytest.fixture(scope="module")
def compared(drawn: Path) -> tuple[results.Results, Path, str, str]:
    colour, form, both = blinkered.encoders(drawn.parent / "encoders")
    out = drawn.parent / "out"
    return api.compare(drawn, [colour, form, both], out, incumbent=form, tasks=["shift"], device="cpu"), out, colour, form


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
    gaps = {gap.condition: gap for gap in told(compared).gaps if (gap.a, gap.b) == (form, colour)}
    assert gaps["shift.hue"].high < -50 and gaps["shift.size.small"].low > 20
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
    found, out, *_ = compared
    encoders = [e.spec for e in found.encoders]
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
        agrees((e.change, e.low, e.high), change[e.encoder, e.condition])
        assert e.n == len(scenes) and e.shifted - e.clean == pytest.approx(e.change)
    for gap in record.gaps:
        agrees((gap.difference, gap.low, gap.high), change[gap.b, gap.condition] - change[gap.a, gap.condition])
    scores = {(s.encoder, s.condition): s.value for s in found.scores if (s.task, s.metric) == ("shift", "top1")}
    for encoder in encoders:
        for condition in ("clean", "shift.hue", "shift.size.small"):
            mean = 100 * np.mean([right[encoder, condition, k] for k in scenes])
            assert scores[encoder, condition] == pytest.approx(mean)


def agrees(told: tuple[float, float, float], values: np.ndarray[Any, Any]) -> None:
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
    hidden = Names(files=False)
    assert [hidden.of(value) for value in ("photos/IMG_1.jpg", "shape/ring", 0.25)] == ["file 1", "shape/ring", "0.25"]
    assert "IMG" not in hidden.text("33% of training with background photos/IMG_1.jpg")


def test_a_limit_takes_the_same_scenes_of_every_split(drawn: Path) -> None:
    exam = open_set(drawn, limit=20, seed=1)
    assert len(exam.train.images) == 20
    scenes = [[row["index"] for row in part.rows] for part in exam.tests.values()]
    assert len(scenes[0]) == 20 and scenes[0] == scenes[1] == scenes[2]
    parts = split(open_source(f"{drawn}?split=train"), f"{drawn}?split=test", limit=20, group_by=None, seed=1)
    assert list(parts.test.keys) == list(exam.tests["clean"].images.keys)


def test_what_is_read_back_from_the_folder_is_what_was_found(compared: tuple[results.Results, Path, str, str]) -> None:
    found, outcomes = read_shift(compared[1])
    encoders, record = [e.spec for e in found.encoders], told(compared)
    assert outcomes.slices(encoders) == record.slices
    assert outcomes.effects(encoders) == record.effects
    assert outcomes.gaps([(gap.a, gap.b) for gap in record.gaps if gap.condition == "shift.hue"]) == record.gaps


def test_training_that_shows_what_failed_mends_it(
    drawn: Path, compared: tuple[results.Results, Path, str, str], tmp_path: Path
) -> None:
    """An encoder that sees colour and form leans on colour. Where a third of training has the colours of other classes it cannot,
    and the same pictures under shift.hue are told by their form. The verdict is of other images."""
    _, out, _, form = compared
    both = form.replace("form.onnx", "both.onnx")
    (tmp_path / "shapes.yaml").write_text(written(blinkered.spec()))
    made = api.refine(out, tmp_path / "shapes.yaml", tmp_path / "more.yaml", encoder=both)
    assert {each.condition for each in made["answered"]} >= {"shift.hue"} and (made["count"], made["seed"]) == (120, 0)
    assert all(each.high < 0 and each.p_holm < 0.05 for each in made["failures"])
    data = pictures.folder(tmp_path / "data", 40, classes=2)
    more: dict[str, Any] = {"tasks": ["knn"], "shift": tmp_path / "more.yaml", "shift_count": 120, "before": out, "device": "cpu"}
    found = api.compare(data, [form, both], tmp_path / "out", **more)
    assert found.verdict is not None and found.verdict.endpoint == "knn top1_k20"
    assert {(c.task, c.condition) for c in found.comparisons} >= {("knn", "clean"), ("shift", "shift.hue")}
    assert found.shift is not None and (found.shift.n_train, found.shift.n_test) == (120, 60)
    since = {(each.encoder, each.condition): each for each in found.shift.since if not each.span}
    before = {(e.encoder, e.condition): e.shifted for e in told(compared).effects}
    for key, each in since.items():
        assert key[1] == "clean" or each.before == pytest.approx(before[key])
    mended = since[both, "shift.hue"]
    assert mended.low > 10 and mended.p_holm < 0.01 and "33% of training with hue" in mended.change
    page = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert f"Since {out}" in page and "of the other classes" in page


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"data": "plain"}, DataError, "plain: is no drawn set; expected the folder that 'selfsight synth' left"),
        ({"data": "SET?split=test"}, DataError, "expected the whole set, SET"),
        ({"data": "untested"}, DataError, "untested: has no split 'test' among train; draw it with both"),
        ({"data": "unpaired"}, DataError, "picture 0 of shift.hue has another label than picture 0 of test"),
        ({"data": None}, InputError, "compare: expected DATA, or --shift"),
        ({"test": "SET?split=test"}, ConfigError, "leave --test out"),
        ({"data": None, "shift": blinkered.spec(shift={})}, ConfigError, "expected a factor that leaves what training shows"),
        ({"data": None, "shift": "nowhere.yaml"}, ConfigError, "nowhere.yaml: cannot be read"),
        ({"data": None, "shift": blinkered.spec(), "shift_count": 0}, ConfigError, "--shift-count"),
        (
            {"data": "plain", "shift": "SET"},
            ConfigError,
            "--tasks shift: takes no part in the verdict; plain has labels, so add knn",
        ),
        ({"before": "nowhere"}, InputError, "nowhere: holds no results.json"),
        ({"data": "plain", "tasks": ["knn"], "before": "nowhere"}, ConfigError, "looked at by the task shift; add it to --tasks"),
        ({"before": "OUT"}, DataError, "has none of these encoders, but onnx/"),
        (
            {"data": "moved", "encoder": ["FORM", "pixels"], "before": "OUT"},
            DataError,
            "pictures of clean are others (number 0 in 'size')",
        ),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_leaves_nothing(
    drawn: Path,
    compared: tuple[results.Results, Path, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    kind: type,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SET").symlink_to(drawn)
    (tmp_path / "OUT").symlink_to(compared[1])
    pictures.folder(tmp_path / "plain", 8, classes=2)
    pictures.dataset(tmp_path / "untested", {"train": 6})
    altered(drawn, tmp_path / "unpaired", lambda row: {"label": (row["label"] + 1) % 3} if row["split"] == "shift.hue" else {})
    altered(drawn, tmp_path / "moved", lambda row: {"size": row["size"] / 2})
    if "encoder" in change:
        change = change | {"encoder": [compared[3] if encoder == "FORM" else encoder for encoder in change["encoder"]]}
    with pytest.raises(kind) as raised:
        api.compare(**{"data": "SET", "encoder": ["pixels", "random/vit_w32_d1_p8"], "out": "out", "tasks": ["shift"], **change})
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def altered(drawn: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The same pictures, of which other things are said."""
    content = manifest.read(drawn)
    with manifest.Writer(folder, content.info) as writer:
        for row in content.samples:
            writer.add(row | change(row) | {"path": str(drawn / row["path"])}, [])


SIGNS: dict[str, Any] = {
    "name": "signs",
    "classes": {"ring": {"assets": "shape/ring", "factors": {"hue": {"uniform": [0, 40]}}}, "star": {"assets": "shape/star"}},
    "factors": {"texture": ["own", "dots"], "count": {"integers": [1, 6]}, "size": {"uniform": [0.3, 0.6]}},
    "shift": {"size": {"uniform": [0.1, 0.2]}, "hue": "others"},
}


def weak(condition: str, factor: str, *span: Any) -> Refinement:
    return Refinement(encoder="e", condition=condition, factor=factor, span=span, value=50, n=20, change="")


def test_a_refined_spec_mixes_what_fails_into_training_and_leaves_the_rest() -> None:
    spec = checked(SynthSpec.model_validate(SIGNS), "signs")
    asked = [
        weak("clean", "size", 0.3, 0.4),
        weak("shift.size", "size"),
        weak("clean", "texture", "dots"),
        weak("clean", "count", 5, 9),
    ]
    answer = refined(spec, [*asked, weak("clean", "hue", 20, 300), weak("clean", "asset", "shape/ring")])
    new = checked(answer.spec, "signs")
    assert {name: way.shorthand() for name, way in new.training.items()} == {
        "size": {"mixture": [{"uniform": [0.3, 0.6]}, {"uniform": [0.3, 0.4]}, {"uniform": [0.1, 0.2]}], "weights": [4, 1, 1]},
        "texture": {"mixture": [["own", "dots"], "dots"], "weights": [2, 1]},
        "count": {"mixture": [{"integers": [1, 6]}, {"integers": [5, 6]}], "weights": [2, 1]},
        "hue": {"mixture": [{"uniform": [0, 360]}, {"uniform": [20, 300]}], "weights": [2, 1]},
    }
    ring = new.classes["ring"].training["hue"].shorthand()
    assert ring == {"mixture": [{"uniform": [0, 40]}, {"uniform": [20, 40]}], "weights": [2, 1]}
    assert len(answer.answered) == 5 and answer.left[0].startswith("asset: is no factor")
    assert sample(new, 0, "test", 3) == sample(spec, 0, "test", 3)
    others = refined(spec, [weak("shift.hue", "hue")]).spec.classes["ring"].training["hue"]
    assert others.span() == [0, 360] and refined(new, asked).spec.training["size"].span() == [0.1, 0.6]


def test_a_refinement_that_cannot_be_is_one_line(compared: tuple[results.Results, Path, str, str], tmp_path: Path) -> None:
    out, spec = compared[1], tmp_path / "signs.yaml"
    spec.write_text(written(SynthSpec.model_validate(SIGNS)))
    with pytest.raises(InputError, match="is there already"):
        api.refine(out, spec, spec)
    with pytest.raises(ConfigError, match=r"has no shift\.size\.small; expected the spec that drew"):
        api.refine(out, spec, tmp_path / "more.yaml", encoder=compared[3])
    with pytest.raises(ConfigError, match="is not among those of"):
        api.refine(out, spec, tmp_path / "more.yaml", encoder="pixels")
    assert not (tmp_path / "more.yaml").exists()
