"""A comparison from images to verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pictures
from selfsight import api, results
from selfsight.comparison.labelfree import spread
from selfsight.comparison.plan import make_plan
from selfsight.comparison.split import split
from selfsight.comparison.verdict import decide
from selfsight.data.sources import open_source
from selfsight.errors import ConfigError, DataError, InputError, WeightsError
from selfsight.results import Comparison, Cost

FLOORS = ["pixels", "random/vit_w32_d1_p8?size=32", "random/vit_w32_d1_p8?size=32&seed=1"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[results.Results, Path]:
    at = tmp_path_factory.mktemp("compare")
    data = pictures.folder(at / "data", 160, classes=4)
    (data / "bricks" / "notes").write_text("no image")
    (data / "bricks" / "broken.png").write_bytes(b"\x89PNG broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSIGHT_CACHE", str(at / "cache"))
        return api.compare(data, FLOORS, at / "out", seeds=2), at / "out"


def test_folder_holds_everything_that_the_report_needs(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"results.json", "per_image.parquet", "split.parquet", "bad_images.jsonl", "report.html"} <= names
    assert {"assets/map.parquet", "assets/thumbs.parquet", "assets/curves.json"} <= names
    assert results.read(out) == found


def test_bad_files_are_listed_with_their_reason_and_counted(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    rows = {row["key"]: row["reason"] for row in map(json.loads, (out / "bad_images.jsonl").read_text().splitlines())}
    assert rows.keys() == {"bricks/notes", "bricks/broken.png"}
    assert found.data.bad_images == 2
    assert found.data.n_train + found.data.n_test == 160


def test_scores_can_be_recomputed_from_the_per_image_outcomes(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    table = pq.read_table(out / "per_image.parquet").to_pylist()
    for score in found.scores:
        if score.metric == "balanced_accuracy":
            continue
        rows = [
            r for r in table
            if (r["encoder"], r["task"], r["metric"], r["seed"]) == (score.encoder, score.task, score.metric, score.seed)
        ]  # fmt: skip
        assert len(rows) == score.n == found.data.n_test
        assert np.mean([r["label"] == r["predicted"] for r in rows]) * 100 == pytest.approx(score.value)
        assert score.low <= score.value <= score.high


def test_split_is_written_down_and_disjoint(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    rows = pq.read_table(out / "split.parquet").to_pylist()
    parts = {part: {r["key"] for r in rows if r["part"] == part} for part in ("train", "test")}
    assert (len(parts["train"]), len(parts["test"])) == (found.data.n_train, found.data.n_test)
    assert not parts["train"] & parts["test"]


def test_best_floor_is_the_challenger_where_there_are_only_floors(compared: tuple[results.Results, Path]) -> None:
    found, _ = compared
    best = max(FLOORS[1:], key=lambda e: np.mean([s.value for s in found.scores if s.encoder == e and s.metric == "top1"]))
    assert found.verdict is not None
    assert (found.verdict.incumbent, found.verdict.challenger) == ("pixels", best)
    assert [e.role for e in found.encoders].count("floor") == 1


def test_holm_counts_the_whole_declared_family(compared: tuple[results.Results, Path]) -> None:
    found, _ = compared
    assert [(c.b, c.task) for c in found.comparisons] == [(b, t) for t in ("knn", "linear") for b in FLOORS[1:]]
    smallest = min(found.comparisons, key=lambda c: c.p)
    assert smallest.p_holm == pytest.approx(min(1.0, 4 * smallest.p))


def test_cost_is_measured_for_every_encoder(compared: tuple[results.Results, Path]) -> None:
    found, _ = compared
    cost = {c.encoder: c for c in found.cost}
    assert cost.keys() == set(FLOORS)
    vit = cost[FLOORS[1]]
    assert vit.parameters > 10_000
    assert vit.images_per_second > 1
    assert vit.peak_memory_mb > 1


def test_random_tasks_run_under_every_seed_and_others_once(compared: tuple[results.Results, Path]) -> None:
    found, _ = compared
    seeds = {(s.task, s.metric): set() for s in found.scores}
    for s in found.scores:
        seeds[s.task, s.metric].add(s.seed)
    assert seeds["linear", "top1"] == {0, 1}
    assert seeds["knn", "top1_k20"] == {0}


def test_the_same_encoder_under_two_names_is_no_difference(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 64, classes=2)
    same = ["random/vit_w32_d1_p8?size=32", "random/vit_w32_d1_p8?size=32&seed=0"]
    found = api.compare(data, same, tmp_path / "out")
    for pair in found.comparisons:
        assert (pair.difference, pair.low, pair.high, pair.p) == (0, 0, 0, 1)
    assert found.verdict is not None
    assert found.verdict.decision in ("undecided", "replace")  # replace only if one run happened to be 20 % faster


def test_limit_takes_the_first_training_and_a_shuffle_of_the_test_images(tmp_path: Path) -> None:
    train, test = pictures.parquet(tmp_path / "train.parquet", 60), pictures.parquet(tmp_path / "test.parquet", 50, seed=1)
    source = open_source(train)
    parts = split(source, str(test), limit=20, group_by=None, seed=3)
    assert list(parts.train.keys) == list(source.keys[:20])
    assert len(parts.test) == 20
    assert set(parts.test.keys) != set(open_source(test).keys[:20])
    again = split(open_source(train), str(test), limit=20, group_by=None, seed=3)
    assert list(again.test.keys) == list(parts.test.keys)


def test_a_source_that_tells_its_training_and_test_images_apart_is_split_so(tmp_path: Path) -> None:
    drawn = pictures.dataset(tmp_path / "drawn", {"train": 32, "test": 8, "holdout": 4})
    parts = split(open_source(drawn), None, limit=None, group_by=None, seed=0)
    for part, name, count in ((parts.train, "train", 32), (parts.test, "test", 8)):
        assert len(part) == count and set(part.column("split")) == {name}
    assert not parts.made and parts.description.startswith("its own")
    assert parts.notes == ["4 images of other splits take no part"]
    training = open_source(f"{drawn}?split=train")
    assert split(training, None, limit=None, group_by=None, seed=0).made
    with pytest.raises(DataError, match="1 groups of 'background' of the test images are also in the training images"):
        split(open_source(drawn), None, limit=None, group_by="background", seed=0)


def test_groups_stay_in_one_part_and_are_resampled_whole(tmp_path: Path) -> None:
    data = pictures.parquet(tmp_path / "data.parquet", 240, column="patient")
    source = open_source(data)
    parts = split(source, None, limit=None, group_by="patient", seed=0)
    assert not set(parts.train.groups("patient")) & set(parts.test.groups("patient"))
    found = api.compare(data, FLOORS[:2], tmp_path / "out", group_by="patient")
    assert found.data.group_by == "patient"
    assert any("resample" in note for note in found.data.notes)


def test_test_labels_are_matched_by_class_name(tmp_path: Path) -> None:
    train = pictures.folder(tmp_path / "train", 40, classes=4)
    test = pictures.folder(tmp_path / "test", 40, classes=4, seed=1)
    for path in (test / "bricks").iterdir():
        path.unlink()
    (test / "bricks").rmdir()
    parts = split(open_source(train), str(test), limit=None, group_by=None, seed=0)
    names = {parts.test.classes[label] for label in parts.test.labels}
    assert names == {"cells", "checks", "dots"}
    assert all(parts.test.classes[parts.test.labels[i]] == parts.test.keys[i].split("/")[0] for i in range(len(parts.test)))


def pair(difference: float, low: float, high: float) -> Comparison:
    return Comparison(
        a="cnn", b="vit", task="linear", metric="top1", difference=difference, low=low, high=high,
        p=0.5, p_holm=0.5, only_a=40, only_b=40, n=400,
    )  # fmt: skip


def cost(name: str, speed: float, parameters: int) -> Cost:
    return Cost(
        encoder=name,
        parameters=parameters,
        feature_width=8,
        images_per_second=speed,
        peak_memory_mb=1,
        device="cpu",
        batch_size=1,
    )


@pytest.mark.parametrize(
    ("interval", "speed", "parameters", "decision"),
    [
        ((2.0, 0.5, 3.5), 100, 100, "replace"),
        ((-2.0, -3.5, -0.5), 100, 100, "keep"),
        ((0.1, -0.9, 1.1), 100, 100, "undecided"),
        ((0.1, -0.9, 1.1), 121, 100, "replace"),
        ((0.1, -0.9, 1.1), 100, 80, "replace"),
        ((0.1, -1.1, 1.3), 500, 10, "undecided"),
        ((0.1, -0.9, 1.1), 119, 90, "undecided"),
        ((0.0, 0.0, 0.0), 100, 100, "undecided"),
    ],
)
def test_verdict_follows_the_stated_rule(
    interval: tuple[float, float, float], speed: float, parameters: int, decision: str
) -> None:
    verdict = decide(pair(*interval), cost("cnn", 100, 100), cost("vit", speed, parameters), 1.0)
    assert verdict.decision == decision
    assert (verdict.needed_n is not None) == (decision == "undecided")


def test_undecided_says_how_many_test_images_would_settle_it() -> None:
    verdict = decide(pair(1.0, -1.2, 3.2), cost("cnn", 100, 100), cost("vit", 100, 100), 1.0)
    # variance of the paired difference: 80/400 - 0.01^2; half width below 1 point: 1.96^2 * variance / 0.01^2
    assert verdict.needed_n == pytest.approx(1.96**2 * (0.2 - 0.0001) / 0.0001, rel=1e-3)


def test_without_labels_there_is_no_verdict_but_advice_what_to_label(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 40, labelled=False)
    found = api.compare(data, FLOORS[:2], tmp_path / "out")
    assert found.verdict is None
    assert found.labelling is not None
    assert len(found.labelling.picks) == len(set(found.labelling.picks)) == found.labelling.count == 40
    assert (tmp_path / "out" / "assets" / "neighbours.json").is_file()
    assert "label" in (tmp_path / "out" / "report.html").read_text().lower()


def test_picks_cover_all_kinds_before_they_repeat_one() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(6, 16)
    kinds = np.repeat(np.arange(6), [60, 20, 10, 5, 3, 2])
    vectors = (centres[kinds] + 0.05 * rng.normal(size=(100, 16))).astype(np.float32)
    assert set(kinds[spread(vectors, 6)]) == set(range(6))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"encoder": ["pixels"]}, ConfigError, "at least two encoders, got 1"),
        ({"encoder": ["pixels", "pixels"]}, ConfigError, "same encoder is given twice"),
        ({"encoder": ["pixels", "efficientnet-lite"]}, WeightsError, "efficientnet-lite0"),
        ({"incumbent": "runs/x"}, ConfigError, "not among the encoders"),
        ({"tasks": ["knm"]}, ConfigError, "Did you mean 'knn'"),
        ({"margin": -1}, ConfigError, "--margin"),
        ({"seeds": 0}, ConfigError, "--seeds"),
        ({"limit": 0}, DataError, "--limit"),
        ({"group_by": "patient"}, DataError, "no such column"),
        ({"test": "nowhere"}, DataError, "does not exist"),
        ({"margin": float("nan")}, ConfigError, "--margin"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path: Path, change: dict[str, object], kind: type, message: str) -> None:
    data = pictures.folder(tmp_path / "data", 16, classes=2)
    arguments = {"encoder": FLOORS[:2], **change}
    with pytest.raises(kind) as raised:
        api.compare(data, out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_plan_names_rule_family_and_defaults() -> None:
    plan = make_plan(["efficientnet-lite0", "pixels", "random/vit_tiny_patch16_224"], None, ["knn", "linear"], 1.0, 1, 0)
    text = "\n".join(plan.lines())
    assert "incumbent: efficientnet-lite0" in text
    assert "endpoint: linear top1" in text
    assert "over 4 comparisons" in text
    assert plan.floors == {"pixels", "random/vit_tiny_patch16_224"}


def test_damaged_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json"):
        api.report(tmp_path)
    (tmp_path / "results.json").write_text('{"title": "x"}')
    with pytest.raises(InputError, match="schema 1"):
        api.report(tmp_path)


def test_folders_named_after_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pictures.folder(tmp_path / "data" / part, 8, classes=2)
    with pytest.raises(DataError, match="are splits, not classes"):
        api.compare(tmp_path / "data", FLOORS[:2], tmp_path / "out")


def test_too_few_groups_give_no_interval_and_so_no_verdict(tmp_path: Path) -> None:
    data = pictures.parquet(tmp_path / "data.parquet", 40, column="patient")
    with pytest.raises(DataError, match="at least 5"):
        api.compare(data, FLOORS[:2], tmp_path / "out", group_by="patient")
