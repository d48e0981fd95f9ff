"""What encoders look at against true masks: the measures, and a comparison with them from images to report."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as rle

import annotated
import pictures
from annotated import Scene, Thing
from selfsight import api, masks, results
from selfsight.attention.objects import FINDERS
from selfsight.attention.seeing import Seen
from selfsight.comparison.mask_outcomes import MaskOutcomes
from selfsight.data.annotations import Annotated, Instance
from selfsight.errors import ConfigError, DataError, InputError, WeightsError
from selfsight.evaluate.segmentation import Things, Value, floors, kept, maps_of, own_map, values

VIT, OTHER, CNN = "random/vit_w32_d1_p8?size=32", "random/vit_w32_d1_p8?size=32&seed=1", "random/resnet18?size=64"


def things_of(*regions: np.ndarray, ignored: np.ndarray | None = None) -> Things:
    return Things(Annotated([Instance(each) for each in regions], np.zeros_like(regions[0]) if ignored is None else ignored))


def region(shape: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def upsampled(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel: the value of the place in which its middle lies."""
    out = np.zeros(shape, dtype=bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            out[y, x] = mask[int((y + 0.5) / shape[0] * mask.shape[0]), int((x + 0.5) / shape[1] * mask.shape[1])]
    return out


@pytest.mark.parametrize(("shape", "grid"), [((24, 40), (3, 5)), ((23, 41), (3, 5)), ((7, 5), (7, 5)), ((5, 4), (9, 3))])
def test_overlaps_by_counting_are_those_of_masks_at_the_size_of_the_picture(
    shape: tuple[int, int], grid: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    ignored = rng.random(shape) < 0.2
    things = things_of(*(rng.random((3, *shape)) < 0.4), ignored=ignored)
    found = rng.random((4, *grid)) < 0.5
    slow = [
        [float(masks.jaccard(thing & ~ignored, upsampled(mask, shape) & ~ignored)) for mask in found] for thing in things.masks
    ]
    np.testing.assert_allclose(things.jaccard(found), slow, rtol=0, atol=1e-12)


def slow_share(places: np.ndarray, mass: float, shape: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Without the places that get least, as long as these hold no more than the rest of the mass; at the size of the picture."""
    chosen, dropped = np.zeros(len(places), dtype=bool), 0.0
    for place in sorted(range(len(places)), key=lambda each: float(places[each])):
        dropped += float(places[place])
        chosen[place] = dropped / sum(places.tolist()) > 1 - mass
    return upsampled(chosen.reshape(grid), shape)


def coco_iou(mask: np.ndarray, thing: np.ndarray) -> float:
    first, second = (rle.encode(np.asfortranarray(each.astype(np.uint8))) for each in (mask, thing))
    return float(rle.iou([first], [second], [0])[0, 0])


def box_around(mask: np.ndarray) -> list[float]:
    """Left, top, width, height."""
    ys, xs = np.nonzero(mask)
    return [float(n) for n in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)]


def is_located(mask: np.ndarray, things: list[np.ndarray]) -> bool:
    boxes = np.array([box_around(each) for each in things])
    return bool(rle.iou(np.array([box_around(mask)]), boxes, [0] * len(things)).max() >= 0.5)


def any_scene(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Some things (areas, noise, one pixel, all there is), and what is ignored."""
    top, left = (int(rng.integers(0, side - 1)) for side in shape)
    dot = region(shape, top, top + 1, left, left + 1)
    kinds = [region(shape, top, shape[0], left, shape[1]), rng.random(shape) < 0.3, dot, np.ones(shape, dtype=bool)]
    return [kinds[place] for place in rng.integers(0, 4, rng.integers(1, 4))], rng.random(shape) < rng.choice([0, 0.3])


def test_every_measure_is_that_of_loops_and_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        grid, shape = (int(rng.integers(2, 8)), int(rng.integers(2, 8))), (int(rng.integers(6, 30)), int(rng.integers(6, 30)))
        each, ignored = any_scene(rng, shape)
        things, true = things_of(*each, ignored=ignored), [mask & ~ignored for mask in each if (mask & ~ignored).any()]
        if not true:
            continue
        together = np.any(true, axis=0)
        heads, features = rng.random((3, grid[0] * grid[1])), rng.standard_normal((grid[0] * grid[1], 6)).astype(np.float32)
        seen = Seen(grid, features, features.copy(), heads)
        reached = {(v.method, v.metric): v.value for v in values(seen, things)}
        for metric, mass in (("jaccard_60", 0.6), ("jaccard_80", 0.8)):
            overlaps = [[coco_iou(slow_share(head, mass, shape, grid) & ~ignored, thing) for head in heads] for thing in true]
            assert reached["heads", metric] == pytest.approx(np.mean([max(row) for row in overlaps]), abs=1e-12)
            whole = slow_share(heads.mean(0), mass, shape, grid) & ~ignored
            assert reached["attention", metric] == pytest.approx(np.mean([coco_iou(whole, thing) for thing in true]), abs=1e-12)
        for method, finder in FINDERS.items():
            found = [upsampled(each.mask, shape) for each in finder().find(seen, 1)]
            assert reached[method, "miou"] == pytest.approx(sum(coco_iou(mask & ~ignored, together) for mask in found), abs=1e-12)
            assert reached[method, "corloc"] == sum(is_located(mask, true) for mask in found if mask.any())
        blind = {v.metric: v.value for v in floors(things)["whole picture"]}
        assert blind["jaccard_80"] == pytest.approx(np.mean([coco_iou(~ignored, thing) for thing in true]), abs=1e-12)
        assert blind["miou"] == pytest.approx(coco_iou(~ignored, together), abs=1e-12)
        assert blind["corloc"] == is_located(np.ones(shape, dtype=bool), true)


def test_a_picture_of_12_megapixels_takes_a_few_bytes_a_pixel() -> None:
    shape = (3000, 4000)
    things = [region(shape, 100, 900, 200, 1000), region(shape, 1000, 2000, 1000, 3000), region(shape, 10, 20, 10, 20)]
    seen = seen_of((30, 40), region((30, 40), 1, 9, 2, 10), region((30, 40), 10, 20, 10, 30))
    tracemalloc.start()
    try:
        looked_at = things_of(*things)
        reached = [*values(seen, looked_at), *floors(looked_at)["whole picture"]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reached[-1].value == pytest.approx((800 * 800 + 1000 * 2000 + 100) / 12e6)
    assert peak < 12 * 12_000_000, "three things, what counts, what any holds and a floor are six"


def test_what_is_ignored_neither_helps_nor_hurts() -> None:
    shape = (8, 8)
    thing, void = region(shape, 0, 4, 0, 8), region(shape, 4, 8, 0, 8)
    things = things_of(thing, ignored=void)
    assert things.jaccard(np.ones((1, 1, 1), dtype=bool)).item() == 1.0
    assert len(things_of(void, ignored=void)) == 0


def seen_of(grid: tuple[int, int], *heads: np.ndarray) -> Seen:
    """Each head looks at one region; features are long there where any head looks."""
    attention = np.array([np.where(head.ravel(), 1.0, 1e-4) for head in heads], dtype=np.float32)
    features = np.where(np.any(heads, axis=0).ravel(), 1.0, 1e-4)[:, None] * np.ones(4)
    return Seen(grid, features.astype(np.float32), features.astype(np.float32), attention)


def test_each_thing_is_given_its_best_head_and_the_mean_has_no_choice() -> None:
    grid = (8, 8)
    left, right = region(grid, 2, 6, 0, 2), region(grid, 2, 6, 5, 8)
    reached = {(v.method, v.metric): v.value for v in values(seen_of(grid, left, right, ~left), things_of(left, right))}
    # Of a head all of whose weight is on 8 (12) places, 5 (8) of them hold 60 %, and 7 (10) hold 80 %.
    assert reached["heads", "jaccard_60"] == pytest.approx((5 / 8 + 8 / 12) / 2)
    assert reached["heads", "jaccard_80"] == pytest.approx((7 / 8 + 10 / 12) / 2)
    assert reached["attention", "jaccard_60"] < reached["heads", "jaccard_60"]
    assert {method for method, metric in reached if metric == "corloc"} == set(FINDERS)


def test_one_thing_that_is_looked_at_is_located_and_one_that_is_not_is_missed() -> None:
    grid = (8, 8)
    thing = region(grid, 2, 6, 1, 5)
    for looked, located in ((thing, 1.0), (region(grid, 6, 8, 6, 8), 0.0)):
        reached = {(v.method, v.metric): v.value for v in values(seen_of(grid, looked), things_of(thing))}
        assert reached["attention", "corloc"] == located
        assert (reached["attention", "miou"] > 0.5) == bool(located)


def test_without_attention_the_norm_of_the_features_stands_for_an_encoder() -> None:
    seen = seen_of((4, 4), region((4, 4), 0, 2, 0, 2))
    blind = Seen(seen.grid, seen.patches, seen.patches)
    assert (own_map(seen), own_map(blind)) == ("attention", "norm")
    found = {v.method for v in values(blind, things_of(region((8, 8), 0, 4, 0, 4)))}
    assert "norm" in found and not found & {"heads", "attention"}


def test_the_first_component_parts_a_thing_from_the_border_whichever_way_its_features_point() -> None:
    thing = region((6, 8), 2, 5, 2, 6)
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        features = sign * np.where(thing.ravel()[:, None], 1.0, -1.0) + 0.05 * rng.standard_normal((48, 5))
        seen = Seen((6, 8), features.astype(np.float32), features.astype(np.float32))
        principal = maps_of(seen)["principal"]
        assert principal.min() == 0
        assert (principal.reshape(6, 8) > principal.mean()).tolist() == thing.tolist()
    reached = {(v.method, v.metric): v.value for v in values(seen, things_of(thing))}
    assert reached["principal", "jaccard_80"] > 0.75


def test_a_map_that_is_zero_everywhere_holds_nothing() -> None:
    assert not kept(np.zeros((2, 9)), 0.6).any()
    dead = Seen((3, 3), np.zeros((9, 4), dtype=np.float32), np.zeros((9, 4), dtype=np.float32))
    assert {v.value for v in values(dead, things_of(region((9, 9), 0, 3, 0, 3))) if v.method == "norm"} == {0.0}


def test_floors_look_at_nothing_and_are_given_to_every_measure() -> None:
    shape = (100, 60)
    thing = region(shape, 15, 85, 9, 51)
    found = floors(things_of(thing))
    assert found["whole picture"][0] == Value("floor", "jaccard_60", pytest.approx(0.49))
    assert [round(v.value, 6) for v in found["centred box"]] == [1.0, 1.0, 1.0, 1.0]
    assert thing.mean() == pytest.approx(0.5, abs=0.02)
    assert [v.metric for v in found["centred box"]] == ["jaccard_60", "jaccard_80", "corloc", "miou"]


def test_pictures_of_one_group_are_drawn_together() -> None:
    reached = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0] * 4
    alone, grouped = MaskOutcomes(), MaskOutcomes(groups=np.repeat([f"film {n}" for n in range(8)], 3))
    for outcomes in (alone, grouped):
        for number, value in enumerate(reached):
            outcomes.add(str(number), {"vit": [Value("attention", "jaccard_60", value)]})
    (free,), (bound,) = alone.scores(), grouped.scores()
    assert free.value == bound.value == 50.0
    assert bound.high - bound.low > 1.3 * (free.high - free.low)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[results.Results, Path]:
    """A drawn set, whose masks are found by themselves."""
    at = tmp_path_factory.mktemp("segmentation")
    pictures.dataset(at / "images", {"train": 32, "test": 24})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSIGHT_CACHE", str(at / "cache"))
        data, test = at / "images" / "train", at / "images" / "test"
        wanted = ["knn", "segmentation"]
        found = api.compare(data, [CNN, VIT, "pixels"], at / "out", test=test, tasks=wanted, mask_limit=12)
    return found, at / "out"


def test_scores_and_differences_follow_from_the_values_of_each_picture(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    looked = found.segmentation
    assert looked is not None and looked.n == 12
    by_look: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in pq.read_table(out / "per_image_masks.parquet").to_pylist():
        by_look.setdefault((row["encoder"], row["method"], row["metric"]), {})[row["key"]] = row["value"]
    assert by_look.keys() == {(s.encoder, s.method, s.metric) for s in looked.scores}
    for s in looked.scores:
        each = by_look[s.encoder, s.method, s.metric]
        assert len(each) == s.n == 12
        assert s.value == pytest.approx(100 * np.mean(list(each.values())))
        assert s.low <= s.value <= s.high
    for d in looked.differences:
        a, b = by_look[d.a, d.method_a, d.metric], by_look[d.b, d.method_b, d.metric]
        assert d.difference == pytest.approx(100 * np.mean([b[key] - a[key] for key in a]))


def test_every_encoder_with_places_stands_beside_the_floors_by_its_own_map(compared: tuple[results.Results, Path]) -> None:
    found, _ = compared
    looked = found.segmentation
    assert looked is not None
    assert looked.own == {CNN: "norm", VIT: "attention"}
    own = {(d.a, d.b): (d.method_a, d.method_b) for d in looked.differences if d.metric == "jaccard_60"}
    assert own == {(CNN, VIT): ("norm", "attention")}  # both are floors themselves, as neither has learnt
    assert {s.encoder for s in looked.scores} == {CNN, VIT, "centred box", "whole picture"}
    assert any("centred box of half its area" in line for line in looked.protocol)


def test_pictures_are_looked_at_closely_enough_for_a_mask_to_have_a_shape(compared: tuple[results.Results, Path]) -> None:
    """Patches of 8 and places of 32 pixels: four and seven times 32 and 64 pixels make 16 and 14 places."""
    measured = compared[0].segmentation
    assert measured is not None
    (line,) = [line for line in measured.protocol if "at least 14 places" in line]
    assert line.endswith(": " + ", ".join(f"{spec} {size}" for spec, size in ((CNN, 448), (VIT, 128))))


def test_it_takes_no_part_in_the_verdict(compared: tuple[results.Results, Path]) -> None:
    found, out = compared
    assert found.verdict is not None and found.verdict.endpoint == "knn top1_k20"
    assert {c.task for c in found.comparisons} == {s.task for s in found.scores} == {"knn"}
    assert any("no part of the verdict" in line for line in found.plan)
    assert results.read(out) == found


def test_results_of_before_are_readable(compared: tuple[results.Results, Path], tmp_path: Path) -> None:
    found, out = compared
    old = json.loads((out / "results.json").read_text())
    del old["segmentation"]
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert results.read(tmp_path) == found.model_copy(update={"segmentation": None})


def test_the_report_shows_what_each_looks_at_or_the_numbers_alone(compared: tuple[results.Results, Path]) -> None:
    _, out = compared
    drawn = pq.read_table(out / "assets" / "looks.parquet").to_pylist()
    assert len(drawn) == 8 * 3
    assert {max(Image.open(io.BytesIO(row["jpeg"])).size) for row in drawn} == {208}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('alt=""><small>') == 8 * 2
    silent = api.report(out, images=False).read_text(encoding="utf-8")
    assert "What they look at" in silent and "Jaccard at 60 %" in silent
    assert '"/9j/' not in silent and drawn[0]["key"] not in silent
    api.report(out)


def test_without_labels_masks_are_enough_and_wrong_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    scenes = [Scene(40, 24, [Thing((4 + n, 6, 20 + n, 18), "cat")]) for n in range(6)]
    images, at = annotated.png(tmp_path, scenes)
    assert at is not None
    Image.new("L", (24, 40), 1).save(at / "003.png")
    Image.new("L", (40, 24), 0).save(at / "004.png")
    found = api.compare(images, [VIT, OTHER], tmp_path / "out", tasks=["segmentation"], masks=at, max_bad=50, images=False)
    assert found.verdict is None and found.segmentation is not None
    assert found.segmentation.n == 4  # one is of another size, one is empty
    bad = [json.loads(line) for line in (tmp_path / "out" / "bad_images.jsonl").read_text().splitlines()]
    assert bad == [{"key": "003.jpg", "reason": "its masks are of 24x40 pixels and it has 40x24"}]
    assert not (tmp_path / "out" / "assets" / "looks.parquet").exists()
    with pytest.raises(DataError, match=r"1 of 6 images cannot be read .* listed in .*bad_images\.jsonl"):
        api.compare(images, [VIT, OTHER], tmp_path / "out", tasks=["segmentation"], masks=at)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"tasks": ["segmentation"]}, ConfigError, r"takes no part in the verdict; .* has labels, so add knn or linear"),
        ({}, DataError, r"--tasks segmentation: no masks are by the images of .*; give --masks: .*a COCO \.json"),
        ({"masks": "nowhere"}, DataError, "--masks nowhere: does not exist"),
        ({"masks": "nowhere", "tasks": ["knn"]}, ConfigError, "are looked at by the task segmentation; add it to --tasks"),
        ({"mask_limit": 0}, ConfigError, "--mask-limit: expected a whole number from 1, got 0"),
        ({"tasks": ["segmentatoin"]}, ConfigError, "Did you mean 'segmentation'"),
    ],
)
def test_wrong_input_is_one_line_before_any_work(tmp_path: Path, change: dict[str, object], kind: type, message: str) -> None:
    data = pictures.folder(tmp_path / "data", 16, classes=2)
    with pytest.raises(kind, match=message) as raised:
        api.compare(data, out=tmp_path / "out", **{"encoder": [VIT, OTHER], "tasks": ["knn", "segmentation"], **change})
    assert isinstance(raised.value, InputError) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_where_nothing_is_in_the_masks_there_is_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    images, at = annotated.png(tmp_path, [Scene(40, 24, []), Scene(16, 30, [])])
    with pytest.raises(DataError, match=r"masks: not one of 2 images has a thing in its masks$"):
        api.compare(images, [VIT, OTHER], tmp_path / "out", tasks=["segmentation"], masks=at)


def test_a_comparison_of_encoders_without_places_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    images, _ = annotated.alpha(tmp_path, annotated.ONE * 2)
    with pytest.raises(WeightsError, match="no encoder here has a map of a picture; add a ViT or a CNN"):
        api.compare(images, ["pixels", "random/swin_tiny_patch4_window7_224"], tmp_path / "out", tasks=["segmentation"])
    assert not (tmp_path / "cache" / "features").exists()
