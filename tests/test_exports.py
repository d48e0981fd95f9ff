"""A drawn set in the formats of others: each is read back by a reader of its own and holds what the manifest says."""

from __future__ import annotations

import configparser
import contextlib
import csv
import errno
import io
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pyarrow.json import read_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from selfsight import manifest
from selfsight.errors import ConfigError, DataError, InputError
from selfsight.manifest import DatasetInfo, Writer, decode_mask, encode_mask
from selfsight.synthesis.exports import FORMATS, export
from selfsight.synthesis.exports.polygons import joined, outlines
from selfsight.synthesis.exports.voc import palette
from selfsight.synthesis.frame import box_of
from selfsight.synthesis.meshes import Mesh, diameter, read_ply, write_models

# pycocotools copies its masks in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDE, TALL = (40, 28), (30, 50)
CLASSES = ["bolt", "größe nut"]
Row = dict[str, Any]
Edit = Callable[[Row], Row]


def rectangle(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of boxes (left, top, width, height)."""
    mask = np.zeros(size[::-1], dtype=bool)
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = True
    return mask


def ring(size: tuple[int, int]) -> np.ndarray:
    return rectangle(size, (4, 6, 20, 16)) & ~rectangle(size, (12, 12, 4, 5))


def thing(key: str, number: int, of: str, mask: np.ndarray, **other: Any) -> Row:
    """Its full box is that of what is seen, unless `full` is another."""
    x, y, w, h = box_of(mask)
    full = other.pop("full", (x, y, w, h))
    row = {"sample": key, "object": number, "class": of, "x": x, "y": y, "w": w, "h": h, "visible": 1.0}
    row |= dict(zip(("full_x", "full_y", "full_w", "full_h"), full, strict=True))
    row |= {"mask": encode_mask(mask), "asset": "shape/star", "factors": {"size": 0.1 * number, "x": 0.5}, "keypoints": None}
    return row | {"pose": posed(number, SIZE)} | other


def posed(number: int, size: float) -> list[float]:
    """Turned about the camera's axis by as many degrees as it has tens, some metres ahead."""
    turn = Rotation.from_euler("z", 10 * number, degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = size * turn, (0.1 * number, -0.05, 2 + number)
    return pose.ravel().tolist()


def picture(key: str, path: str, shape: tuple[int, int], label: int | None, place: tuple[str, int], **other: Any) -> Row:
    row = {"key": key, "path": path, "split": path.partition("/")[0], "label": label, "width": shape[0], "height": shape[1]}
    row |= {"group": key, "sequence": place[0], "frame": place[1], "light": 1.5, "background": "mottled, grey"}
    row |= {"depth": f"labels/depth/{key}.npz", "camera": {"intrinsics": [60.0, 0, 20, 0, 60, 14, 0, 0, 1], "pose": ABOVE}}
    return row | {"size": 0.1, "x": 0.5, "asset": "shape/star"} | other


SIZE = 0.25
STAR = Mesh(
    np.array([[0.5, 0, 0], [-0.3, 0.4, 0], [-0.3, -0.4, 0], [0, 0, 0.5]]),
    np.array([[1.0, 0, 0], [-0.6, 0.8, 0], [-0.6, -0.8, 0], [0, 0, 1]]),
    np.array([[0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 2, 1]]),
)
ABOVE = [1.0, 0, 0, 0.5, 0, -1, 0, 0, 0, 0, -1, 3, 0, 0, 0, 1]
"""A camera that looks down from 3 metres."""
TIP = {"tip": [14.5, 9.0, 2], "größe": [8.25, 6.0, 1]}
SAMPLES: list[tuple[Row, list[Row]]] = [
    (
        picture("train/a b", "train/bolt/000001.png", WIDE, 0, ("line 1", 7)),
        [
            thing("train/a b", 1, "bolt", rectangle(WIDE, (3, 2, 13, 9)), keypoints=TIP),
            thing("train/a b", 2, "größe nut", rectangle(WIDE, (20, 1, 4, 14), (28, 10, 9, 11))),
        ],
    ),
    (picture("train/a_b", "train/größe nut/000001.png", WIDE, 1, ("line 1", 4), size=None, x=None, asset=None), []),
    (
        picture("train/A_b", "train/ä b.png", WIDE, 0, ("line 1", 9)),
        [
            # Half of it lies to the left of the picture, and all that is within is seen.
            thing("train/A_b", 1, "bolt", rectangle(WIDE, (0, 18, 5, 10)), full=(-5, 18, 10, 10), visible=0.5),
            thing("train/A_b", 2, "bolt", np.zeros(WIDE[::-1], dtype=bool), full=(8, 8, 3, 3), visible=0.0),
            thing("train/A_b", 3, "bolt", rectangle(WIDE, (30, 20, 10, 8)), full=(30, 18, 10, 10), visible=0.8),
        ],
    ),
    (
        picture("test/000001", "test/größe nut/000001.png", TALL, 1, ("línea/2", 1)),
        [
            thing("test/000001", 1, "größe nut", ring(TALL), keypoints={"tip": [-3.0, 8.0, 2], "größe": None}),
            # Cut off below, and half of the rest hidden.
            thing("test/000001", 2, "bolt", rectangle(TALL, (5, 40, 8, 10)), full=(5, 40, 16, 20), visible=0.25),
        ],
    ),
]


def draw(folder: Path, edit: Edit = lambda row: row, edit_object: Edit = lambda row: row) -> Path:
    info = DatasetInfo(
        name="bolts & nuts", classes=CLASSES, splits=["train", "test"], factors={"size": [0.1, 0.5]}, provenance={"seed": 3}
    )
    rng = np.random.default_rng(0)
    with Writer(folder, info) as writer:
        for row, objects in SAMPLES:
            path = folder / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (row["height"], row["width"], 3), dtype=np.uint8)).save(path)
            (folder / row["depth"]).parent.mkdir(parents=True, exist_ok=True)
            np.savez(folder / row["depth"], depth=depth_of(row))
            writer.add(edit(dict(row)), [edit_object(dict(each)) for each in objects])
    write_models(folder, {"shape/star": STAR, "shape/other": STAR})
    return folder


def depth_of(row: Row) -> np.ndarray:
    """[height, width] in metres: ground at 3 metres, a horizon in the first picture, sky in the last row."""
    depth = np.full((row["height"], row["width"]), 3, dtype=np.float32)
    depth += np.linspace(0, 1, row["width"], dtype=np.float32)
    if row["key"] == "train/a b":
        depth[-3], depth[-2] = 12.3456, 800
    depth[-1] = np.inf
    return depth


def without(*columns: str) -> Edit:
    return lambda row: {name: value for name, value in row.items() if name not in columns}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("set") / "drawn set")


@pytest.fixture(scope="module")
def exported(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        export(drawn, name, folder / name)
    return {name: folder / name for name in FORMATS}


def seen(split: str | None = None) -> list[tuple[Row, list[Row]]]:
    """What an export must tell of."""
    rows = [(row, [each for each in objects if each["visible"]]) for row, objects in SAMPLES]
    return [(row, objects) for row, objects in rows if split in (None, row["split"])]


def content(path: Path) -> bytes:
    return path.read_bytes()


def drawn_file(drawn: Path, key: str) -> bytes:
    return content(drawn / next(row["path"] for row, _ in SAMPLES if row["key"] == key))


def pictures_of(folder: Path) -> list[Path]:
    labels = ("SegmentationObject", "SegmentationClass", "depth", "mask", "mask_visib")
    return sorted(path for path in folder.rglob("*.png") if path.parent.name not in labels)


# What holds for every format


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_counts_what_it_wrote_and_what_nobody_sees(name: str, drawn: Path, tmp_path: Path) -> None:
    made = export(drawn, name, tmp_path / "out")
    assert {key: made[key] for key in ("images", "objects", "hidden")} == {"images": 4, "objects": 6, "hidden": 1}
    assert made["files"] and all(Path(file).exists() and Path(file).is_relative_to(tmp_path / "out") for file in made["files"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert FORMATS[name].name == name and len(FORMATS[name].says) < 80


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_are_the_drawn_ones_and_take_no_room(name: str, drawn: Path, exported: dict[str, Path]) -> None:
    originals = {(drawn / row["path"]).stat().st_ino for row, _ in SAMPLES}
    found = pictures_of(exported[name])
    assert {path.stat().st_ino for path in found} == originals and len(found) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_names_are_unique_whatever_the_case_and_bear_lists(name: str, exported: dict[str, Path]) -> None:
    names = [str(path.relative_to(exported[name])).casefold() for path in pictures_of(exported[name])]
    assert len(set(names)) == 4 and not any(" " in path.name for path in pictures_of(exported[name]))


@pytest.mark.parametrize("name", FORMATS)
def test_one_split_alone_has_the_names_that_it_has_in_the_whole(
    name: str, drawn: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    made = export(drawn, name, tmp_path / "out", split="train")
    assert (made["images"], made["objects"], made["hidden"]) == (3, 4, 1)
    whole = {path.relative_to(exported[name]) for path in pictures_of(exported[name])}
    assert {path.relative_to(tmp_path / "out") for path in pictures_of(tmp_path / "out")} < whole


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_that_is_missing_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    folder = draw(tmp_path / "set")
    (folder / "test/größe nut/000001.png").unlink()
    (tmp_path / ".out.writing").mkdir()  # of a process that was killed
    with pytest.raises(DataError, match=r"000001.png: is missing"):
        export(folder, name, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", FORMATS)
def test_twice_the_same_set_gives_the_same_files(name: str, drawn: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    export(drawn, name, tmp_path)  # an empty folder will do
    files = {path.relative_to(tmp_path): content(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {p.relative_to(exported[name]): content(p) for p in exported[name].rglob("*") if p.is_file()}


def test_where_a_disk_has_no_hard_links_pictures_are_copied(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    export(drawn, "yolo", tmp_path / "out")
    copies = pictures_of(tmp_path / "out")
    assert {content(path) for path in copies} == {content(drawn / row["path"]) for row, _ in SAMPLES}
    assert all(path.stat().st_nlink == 1 for path in copies)


# What is refused


def test_a_misspelt_format_or_split_is_told_the_nearest(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no format 'yolo-segment'. Did you mean 'yolo-segments'"):
        export(drawn, "yolo-segment", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no pictures of 'tran'. Did you mean 'train'"):
        export(drawn, "csv", tmp_path / "out", split="tran")
    assert not any(tmp_path.iterdir())


def test_nothing_is_written_over_nor_into_the_set(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; expected a new folder"):
        export(drawn, "coco", tmp_path / "out")
    (tmp_path / "way").symlink_to(drawn)
    for inside in (drawn / "train" / "coco", drawn, tmp_path / "way" / "coco"):
        with pytest.raises(InputError, match="whose pictures are read"):
            export(drawn, "coco", inside)
    assert sorted(path.name for path in drawn.iterdir()) == [
        "dataset.json",
        "labels",
        "models",
        "objects.parquet",
        "samples.parquet",
        "test",
        "train",
    ]


@pytest.mark.parametrize(
    ("name", "edit", "edit_object", "told"),
    [
        ("yolo-pose", without(), without("keypoints"), "has no keypoints, which yolo-pose writes; take yolo"),
        ("mot", without("sequence"), without(), "train/a b is of no sequence"),
        ("mot", lambda row: row | {"frame": 1}, without(), "sequence 'line 1' of train has several pictures of one frame"),
        ("mot", lambda row: row | {"width": row["frame"]}, without(), "'line 1' of train has pictures of several sizes"),
        (
            "coco",
            without(),
            lambda row: row | {"class": "cog"},
            "train/a b: has an object of class 'cog'; dataset.json knows bolt",
        ),
        ("bop", without("camera"), without(), "train/a b lacks camera, depth or a pose, which bop writes; take coco, or draw"),
        ("bop", without("depth"), without(), "train/a b lacks camera, depth or a pose"),
        ("bop", without(), without("pose"), "train/a b lacks camera, depth or a pose"),
        (
            "bop",
            without(),
            lambda row: row | {"asset": "new"},
            r"models/models\.json has no model of 'new', which bop writes; draw",
        ),
        (
            "bop",
            without(),
            lambda row: row | {"pose": posed(1, 0.3 + 0.1 * row["object"])},
            "'shape/star' of class 'bolt' is 0.40 to 0.60 metres large; BOP's models have one size: give 'size' one value and",
        ),
        ("csv", lambda row: row | {"path": f"train/../../{row['path']}"}, without(), "leads out of the set"),
        ("coco", lambda row: row | {"split": "../train"}, without(), "its split ../train leads out of the set"),
    ],
)
def test_what_the_set_has_not_is_said_before_anything_is_written(
    name: str, edit: Edit, edit_object: Edit, told: str, tmp_path: Path
) -> None:
    folder = draw(tmp_path / "set", edit, edit_object)
    with pytest.raises(DataError, match=told) as caught:
        export(folder, name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_that_is_not_finished_or_is_none_is_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set")
    (folder / "samples.jsonl").write_text("")
    with pytest.raises(DataError, match="is not finished"):
        export(folder, "coco", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no dataset\.json"):
        export(tmp_path, "coco", tmp_path.with_name("elsewhere"))


def test_voc_has_no_numbers_for_more_than_254_objects(tmp_path: Path) -> None:
    info = DatasetInfo(name="many", classes=["dot"], splits=["train"], factors={}, provenance={})
    dots = [thing("train/1", n + 1, "dot", rectangle(WIDE, (n % 40, n // 40, 1, 1))) for n in range(255)]
    with Writer(tmp_path / "set", info) as writer:
        writer.add(picture("train/1", "train/1.png", WIDE, None, ("s", 1)), dots)
    with pytest.raises(DataError, match="train/1 has 255 objects; voc numbers 254 at most, take coco"):
        export(tmp_path / "set", "voc", tmp_path / "out")


# COCO


def loaded(folder: Path, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(folder / "annotations" / f"instances_{split}.json")


@pytest.mark.parametrize("split", ["train", "test"])
def test_coco_masks_are_ours_to_the_pixel(split: str, drawn: Path, exported: dict[str, Path]) -> None:
    coco = loaded(exported["coco"], split)
    assert [coco.cats[number]["name"] for number in (1, 2)] == CLASSES
    images = list(coco.imgs.values())
    assert [image["key"] for image in images] == [row["key"] for row, _ in seen(split)]
    for image, (row, objects) in zip(images, seen(split), strict=True):
        assert (image["width"], image["height"]) == (row["width"], row["height"])
        assert content(exported["coco"] / "images" / split / image["file_name"]) == drawn_file(drawn, row["key"])
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        for annotation, each in zip(found, objects, strict=True):
            mask = decode_mask(each["mask"])
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() and annotation["bbox"] == [each[side] for side in "xywh"]
            assert CLASSES[annotation["category_id"] - 1] == each["class"] and annotation["iscrowd"] == 0
            assert annotation["visible_fraction"] == each["visible"]
            assert annotation["bbox_full"] == [each[f"full_{side}"] for side in "xywh"]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("name", ["coco", "coco-polygons"])
def test_coco_evaluation_of_the_truth_against_itself_is_perfect(name: str, kind: str, exported: dict[str, Path]) -> None:
    truth = loaded(exported[name], "train")
    found = []
    for each in truth.anns.values():
        place = {"bbox": each["bbox"]} if kind == "bbox" else {"segmentation": truth.annToRLE(each)}
        found.append({"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.9, **place})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0 and evaluation.stats[8] == 1.0


def test_coco_numbers_pictures_and_objects_over_all_splits(exported: dict[str, Path]) -> None:
    both = [loaded(exported["coco"], split) for split in ("train", "test")]
    assert [number for coco in both for number in coco.imgs] == [1, 2, 3, 4]
    assert [number for coco in both for number in coco.anns] == [1, 2, 3, 4, 5, 6]


def test_coco_has_keypoints_of_the_classes_that_have_some(exported: dict[str, Path]) -> None:
    coco = loaded(exported["coco"], "train")
    assert coco.cats[1]["keypoints"] == ["tip", "größe"] and coco.cats[2]["keypoints"] == ["tip"]
    first, second = coco.anns[1], coco.anns[2]
    assert first["keypoints"] == [14.5, 9.0, 2, 8.25, 6.0, 1] and first["num_keypoints"] == 2
    assert second["keypoints"] == [0, 0, 0] and second["num_keypoints"] == 0


def test_coco_polygons_cover_the_masks_but_for_holes(exported: dict[str, Path]) -> None:
    overlaps, parts = [], []
    for split in ("train", "test"):
        coco = loaded(exported["coco-polygons"], split)
        masks = [decode_mask(each["mask"]) for _, objects in seen(split) for each in objects]
        for annotation, mask in zip(coco.anns.values(), masks, strict=True):
            covered = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(covered, ndimage.binary_fill_holes(mask)) and annotation["area"] == mask.sum()
            parts.append(len(annotation["segmentation"]))
            if mask.sum() > 100:
                overlaps.append((covered & mask).sum() / (covered | mask).sum())
    assert parts == [1, 2, 1, 1, 1, 1] and len(overlaps) == 3 and min(overlaps) >= 0.9


# Outlines


def winding(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How often a closed line goes around the middle of each pixel; the slow way, a ray to the right of each."""
    found = np.zeros(size[::-1], dtype=int)
    for y in range(size[1]):
        for x in range(size[0]):
            for (x0, y0), (x1, y1) in pairwise([*polygon, polygon[0]]):
                if min(y0, y1) <= y + 0.5 < max(y0, y1) and x0 + (y + 0.5 - y0) / (y1 - y0) * (x1 - x0) > x + 0.5:
                    found[y, x] += 1 if y1 > y0 else -1
    return found


@pytest.mark.parametrize("seed", range(6))
def test_outlines_of_any_mask_cover_it_with_its_holes_filled(seed: int) -> None:
    size = (11, 9)
    mask = np.random.default_rng(seed).random(size[::-1]) < 0.3 + 0.1 * seed
    filled = ndimage.binary_fill_holes(mask, np.ones((3, 3)))
    parts = outlines(mask)
    assert len(parts) == ndimage.label(filled)[1]
    assert np.array_equal(sum(winding(part, size) for part in parts), filled)
    assert np.array_equal(winding(joined(parts), size), filled)


def test_an_outline_notes_turns_alone() -> None:
    assert sorted(map(tuple, outlines(rectangle(WIDE, (3, 2, 13, 9)))[0].tolist())) == [(3, 2), (3, 11), (16, 2), (16, 11)]
    assert outlines(np.zeros((4, 5), dtype=bool)) == []
    assert len(outlines(np.eye(3, dtype=bool))) == 3


# YOLO


def label_lines(folder: Path, picture: Path) -> list[list[float]]:
    text = (folder / "labels" / picture.parent.name / f"{picture.stem}.txt").read_text()
    return [[float(number) for number in line.split()] for line in text.splitlines()]


def yolo_pictures(folder: Path, drawn: Path) -> list[tuple[Row, list[Row], list[list[float]]]]:
    """(row, objects, lines) of each picture; pictures are told by their bytes."""
    by_content = {content(path): path for path in pictures_of(folder)}
    found = [(row, objects, by_content[drawn_file(drawn, row["key"])]) for row, objects in seen()]
    assert all(path.parent == folder / "images" / row["split"] for row, _, path in found)
    return [(row, objects, label_lines(folder, path)) for row, objects, path in found]


@pytest.mark.parametrize("name", ["yolo", "yolo-segments", "yolo-pose"])
def test_yolo_says_where_pictures_are_and_what_classes_are_called(name: str, exported: dict[str, Path]) -> None:
    about = yaml.safe_load((exported[name] / "data.yaml").read_text(encoding="utf-8"))
    assert about["names"] == dict(enumerate(CLASSES))
    assert {role: about[role] for role in ("train", "val", "test")} == {
        "train": "images/train",
        "val": "images/test",
        "test": "images/test",
    }
    assert all((exported[name] / about[role]).is_dir() for role in ("train", "val", "test"))
    assert "path" not in about


@pytest.mark.parametrize("name", ["yolo", "yolo-pose"])
def test_yolo_boxes_are_those_of_the_manifest(name: str, drawn: Path, exported: dict[str, Path]) -> None:
    for row, objects, lines in yolo_pictures(exported[name], drawn):
        width, height = row["width"], row["height"]
        for each, (number, *shares) in zip(objects, lines, strict=True):
            across, down, w, h = np.array(shares[:4]) * [width, height, width, height]
            assert CLASSES[int(number)] == each["class"]
            assert [across - w / 2, down - h / 2, w, h] == pytest.approx([each[side] for side in "xywh"], abs=1e-4)


def test_yolo_outlines_go_around_all_parts_of_an_object(drawn: Path, exported: dict[str, Path]) -> None:
    for row, objects, lines in yolo_pictures(exported["yolo-segments"], drawn):
        size = (row["width"], row["height"])
        for each, (number, *shares) in zip(objects, lines, strict=True):
            polygon = np.array(shares).reshape(-1, 2) * size
            assert np.array_equal(polygon.round(), polygon.round(3)) and CLASSES[int(number)] == each["class"]
            filled = ndimage.binary_fill_holes(decode_mask(each["mask"]))
            assert np.array_equal(winding(polygon.round().astype(int), size), filled)


def test_yolo_poses_are_of_points_within_the_picture(drawn: Path, exported: dict[str, Path]) -> None:
    about = yaml.safe_load((exported["yolo-pose"] / "data.yaml").read_text(encoding="utf-8"))
    assert about["kpt_shape"] == [2, 3] and about["kpt_names"][1] == ["tip", "größe"]
    points = [line[5:] for _, _, lines in yolo_pictures(exported["yolo-pose"], drawn) for line in lines]
    assert points[0] == pytest.approx([14.5 / 40, 9 / 28, 2, 8.25 / 40, 6 / 28, 1], abs=1e-6)
    assert points[1:] == [[0] * 6] * 5


def test_yolo_without_a_test_split_validates_on_what_it_trains_on(drawn: Path, tmp_path: Path) -> None:
    export(drawn, "yolo", tmp_path / "out", split="train")
    about = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))
    assert about["train"] == about["val"] == "images/train" and "test" not in about


# Pascal VOC


def voc(folder: Path, split: str) -> list[ElementTree.Element]:
    names = (folder / "ImageSets" / "Main" / f"{split}.txt").read_text(encoding="utf-8").split()
    assert names == (folder / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()
    return [ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot() for name in names]


def text(node: ElementTree.Element, path: str) -> str:
    found = node.findtext(path)
    assert found is not None
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_voc_boxes_count_from_one_and_include_their_last_pixels(split: str, drawn: Path, exported: dict[str, Path]) -> None:
    for root, (row, objects) in zip(voc(exported["voc"], split), seen(split), strict=True):
        assert content(exported["voc"] / "JPEGImages" / text(root, "filename")) == drawn_file(drawn, row["key"])
        size = [int(text(root, f"size/{side}")) for side in ("width", "height", "depth")]
        assert size == [row["width"], row["height"], 3]
        for node, each in zip(root.findall("object"), objects, strict=True):
            left, top, right, bottom = (int(text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            around = rectangle((row["width"], row["height"]), (left - 1, top - 1, right - left + 1, bottom - top + 1))
            assert text(node, "name") == each["class"] and box_of(around) == tuple(each[side] for side in "xywh")


def test_voc_tells_what_leaves_the_picture_from_what_is_hidden(exported: dict[str, Path]) -> None:
    nodes = [node for split in ("train", "test") for root in voc(exported["voc"], split) for node in root.findall("object")]
    flags = [(int(text(node, "truncated")), int(text(node, "occluded"))) for node in nodes]
    assert flags == [(0, 0), (0, 0), (1, 0), (0, 1), (0, 0), (1, 1)]


def test_voc_label_pictures_hold_the_numbers_of_objects_and_of_classes(exported: dict[str, Path]) -> None:
    classes = (exported["voc"] / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert classes == CLASSES
    for split in ("train", "test"):
        for root, (row, objects) in zip(voc(exported["voc"], split), seen(split), strict=True):
            name = Path(text(root, "filename")).with_suffix(".png")
            with Image.open(exported["voc"] / "SegmentationObject" / name) as image:
                assert image.mode == "P" and image.getpalette() == palette().ravel().tolist()
                of_objects = np.asarray(image)
            with Image.open(exported["voc"] / "SegmentationClass" / name) as image:
                of_classes = np.asarray(image)
            assert of_objects.shape == (row["height"], row["width"]) and of_objects.max() == len(objects)
            for number, each in enumerate(objects, 1):
                assert np.array_equal(of_objects == number, decode_mask(each["mask"]))
                assert set(of_classes[of_objects == number]) == {CLASSES.index(each["class"]) + 1}
            assert not of_classes[of_objects == 0].any()


def test_voc_colours_are_those_of_the_development_kit() -> None:
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        255: (224, 224, 192),
    }
    assert {number: tuple(palette()[number].tolist()) for number in known} == known


# MOTChallenge


def test_mot_lines_are_full_boxes_of_numbered_frames(drawn: Path, exported: dict[str, Path]) -> None:
    found = {path.parent.relative_to(exported["mot"]).as_posix(): path for path in exported["mot"].rglob("seqinfo.ini")}
    assert set(found) == {"train/line_1", "test/línea_2"}
    for name, path in found.items():
        split = name.split("/")[0]
        frames = sorted(seen(split), key=lambda each: each[0]["frame"])
        ini = configparser.ConfigParser()
        ini.read_string(path.read_text(encoding="utf-8"))
        about = ini["Sequence"]
        assert (about["name"], about.getint("seqLength")) == (name.split("/")[1], len(frames))
        assert (about.getint("imWidth"), about.getint("imHeight")) == (frames[0][0]["width"], frames[0][0]["height"])
        for number, (row, _) in enumerate(frames, 1):
            assert content(path.parent / about["imDir"] / f"{number:06d}{about['imExt']}") == drawn_file(drawn, row["key"])
        lines = [list(map(float, line.split(","))) for line in (path.parent / "gt" / "gt.txt").read_text().splitlines()]
        expected = [
            [number, each["object"], *full, 1, CLASSES.index(each["class"]) + 1, each["visible"]]
            for number, (_, objects) in enumerate(frames, 1)
            for each in objects
            for full in [(each["full_x"] + 1, each["full_y"] + 1, each["full_w"], each["full_h"])]
        ]
        assert lines == expected and len(lines) == {"train": 4, "test": 2}[split]


# BOP


def bop(folder: Path, split: str, name: str) -> dict[str, Any]:
    return json.loads((folder / split / "000000" / f"scene_{name}.json").read_text())


def test_bop_has_poses_of_rotations_alone_and_models_in_millimetres(exported: dict[str, Path]) -> None:
    out = exported["bop"]
    names = json.loads((out / "models" / "names.json").read_text(encoding="utf-8"))
    assert names == {str(n): {"class": name, "asset": "shape/star"} for n, name in enumerate(CLASSES, 1)}
    info = json.loads((out / "models" / "models_info.json").read_text())
    for number in (1, 2):
        points = read_ply(out / "models" / f"obj_{number:06d}.ply").points
        assert points == pytest.approx(STAR.points * SIZE * 1000, rel=1e-6)
        assert info[str(number)]["diameter"] == pytest.approx(pdist(STAR.points).max() * SIZE * 1000, rel=1e-6)
        box = [info[str(number)][f"{what}_{axis}"] for what in ("min", "size") for axis in "xyz"]
        assert box == pytest.approx([*points.min(0), *np.ptp(points, 0)])
    for split in ("train", "test"):
        truth, cameras = bop(out, split, "gt"), bop(out, split, "camera")
        for number, (row, objects) in enumerate(seen(split)):
            for found, each in zip(truth[str(number)], objects, strict=True):
                pose, turn = np.reshape(each["pose"], (4, 4)), np.reshape(found["cam_R_m2c"], (3, 3))
                assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) > 0
                assert SIZE * turn == pytest.approx(pose[:3, :3]) and found["cam_t_m2c"] == pytest.approx(1000 * pose[:3, 3])
                assert CLASSES[found["obj_id"] - 1] == each["class"]
            camera = cameras[str(number)]
            # The middle of the first pixel is 0, 0.
            assert camera["cam_K"] == [60, 0, 19.5, 0, 60, 13.5, 0, 0, 1]
            turn = np.reshape(camera["cam_R_w2c"], (3, 3))
            assert turn @ [500, 0, 3000] + camera["cam_t_w2c"] == pytest.approx(np.zeros(3))  # the camera's own place
            assert row["camera"]["pose"] == ABOVE and turn @ [0, 0, -1] == pytest.approx([0, 0, 1])


def test_bop_depth_is_within_half_a_step_and_0_where_it_is_out_of_reach(drawn: Path, exported: dict[str, Path]) -> None:
    steps = []
    for split in ("train", "test"):
        cameras = bop(exported["bop"], split, "camera")
        for number, (row, _) in enumerate(seen(split)):
            folder = exported["bop"] / split / "000000"
            assert content(folder / "rgb" / f"{number:06d}.png") == drawn_file(drawn, row["key"])
            with Image.open(folder / "depth" / f"{number:06d}.png") as image:
                assert image.mode == "I;16"
                depth = np.asarray(image).astype(float)
            step, expected = cameras[str(number)]["depth_scale"], 1000.0 * depth_of(row)
            steps.append(step)
            within = expected < 65535
            assert np.abs(depth * step - expected)[within].max() <= step / 2 + 1e-6 and not depth[~within].any()
    assert steps == [1, 0.1, 0.1, 0.1]  # only the first picture shows what is 12 metres away


def test_bop_tells_what_is_seen_of_each_object_and_what_its_whole_would_cover(exported: dict[str, Path]) -> None:
    out = exported["bop"]
    for split in ("train", "test"):
        truth, about = bop(out, split, "gt"), bop(out, split, "gt_info")
        for number, (_, objects) in enumerate(seen(split)):
            for place, (each, info) in enumerate(zip(objects, about[str(number)], strict=True)):
                pixels = []
                for folder in ("mask", "mask_visib"):
                    with Image.open(out / split / "000000" / folder / f"{number:06d}_{place:06d}.png") as image:
                        assert image.mode == "L" and set(np.unique(image)) <= {0, 255}
                        pixels.append(np.asarray(image) > 0)
                mask, visible = pixels
                assert np.array_equal(visible, decode_mask(each["mask"])) and (mask | visible == mask).all()
                assert np.array_equal(mask, visible | outlined(truth[str(number)][place], visible.shape))
                assert info["px_count_visib"] == visible.sum()
                assert info["visib_fract"] == info["px_count_visib"] / info["px_count_all"] == pytest.approx(each["visible"])
                assert info["px_count_valid"] == mask[:-1].sum() - (mask[-2].sum() if (split, number) == ("train", 0) else 0)
                ys, xs = np.nonzero(visible)
                assert info["bbox_visib"] == [xs.min(), ys.min(), np.ptp(xs), np.ptp(ys)]
                full = [each[f"full_{side}"] for side in "xywh"]
                assert info["bbox_obj"] == [*full[:2], full[2] - 1, full[3] - 1]


def outlined(truth: Row, shape: tuple[int, int]) -> np.ndarray:
    """[height, width]: pixels whose middles lie in the hull of the projected star, which is convex; the slow way."""
    points = 1000 * SIZE * STAR.points @ np.reshape(truth["cam_R_m2c"], (3, 3)).T + truth["cam_t_m2c"]
    flat = np.array([[60 * x / z + 20, 60 * y / z + 14] for x, y, z in points])
    hull = flat[ConvexHull(flat).vertices]
    return winding(hull, shape[::-1]) != 0


def test_bop_looks_in_its_test_for_what_is_seen_enough(drawn: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    targets = json.loads((exported["bop"] / "test_targets_bop19.json").read_text())
    assert targets == [{"im_id": 0, "inst_count": 1, "obj_id": of, "scene_id": 0} for of in (2, 1)]
    hardly = draw(tmp_path / "set", edit_object=lambda row: row | {"visible": min(row["visible"], 0.09)})
    export(hardly, "bop", tmp_path / "hardly")
    assert json.loads((tmp_path / "hardly" / "test_targets_bop19.json").read_text()) == []
    export(drawn, "bop", tmp_path / "train", split="train")
    assert not (tmp_path / "train" / "test_targets_bop19.json").exists()


def test_bop_scenes_are_of_a_thousand_pictures_at_most(
    drawn: Path, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsight.synthesis.exports.bop._PICTURES", 2)
    export(drawn, "bop", tmp_path / "out")
    scenes = sorted(path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("scene_gt.json"))
    assert scenes == ["test/000000", "train/000000", "train/000001"]
    parts = [json.loads((tmp_path / "out" / "train" / f"00000{n}" / "scene_gt.json").read_text()) for n in (0, 1)]
    whole = bop(exported["bop"], "train", "gt")
    assert [*parts[0].values(), *parts[1].values()] == list(whole.values()) and list(parts[1]) == ["0"]


def test_depth_that_is_damaged_is_one_line_and_so_is_a_model(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set")
    (folder / "labels/depth/test/000001.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match=r"test/000001\.npz: is missing or holds no depth"):
        export(folder, "bop", tmp_path / "out")
    for damage in (lambda whole: whole[:-1], lambda whole: b"ply\nformat ascii 1.0\n", lambda whole: whole[:-4] + b"\xff\0\0\0"):
        write_models(folder, {"shape/star": STAR})
        model = folder / "models" / "star.ply"
        model.write_bytes(damage(model.read_bytes()))
        with pytest.raises(DataError, match=r"star\.ply: (is no model|has triangles of vertices that it has not)"):
            export(folder, "bop", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("seed", range(4))
def test_a_diameter_is_the_largest_distance_of_any_two_points(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(300, 3)) * [1, 2, 0.5 * seed]  # flat at first
    assert diameter(points) == pytest.approx(pdist(points).max(), rel=1e-6)


# Tables


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_an_object_with_boxes_and_all_factors(drawn: Path, exported: dict[str, Path]) -> None:
    rows = table(exported["csv"] / "annotations.csv")
    expected = [(row, each) for row, objects in seen() for each in objects]
    for found, (row, each) in zip(rows, expected, strict=True):
        assert content(exported["csv"] / found["path"]) == drawn_file(drawn, row["key"])
        assert (found["split"], found["key"], found["class"]) == (row["split"], row["key"], each["class"])
        for of, prefix in (("box", ""), ("full", "full_")):
            box = [int(found[f"{of}_{side}"]) for side in ("left", "top", "width", "height")]
            assert box == [each[f"{prefix}{side}"] for side in "xywh"]
        assert [float(found[name]) for name in ("visible", "light")] == [each["visible"], row["light"]]
        assert {name: float(found[name]) for name in ("size", "x")} == each["factors"]
        assert found["background"] == "mottled, grey"


def test_csv_has_a_row_a_picture_even_without_objects(drawn: Path, exported: dict[str, Path]) -> None:
    rows = table(exported["csv"] / "samples.csv")
    for found, (row, objects) in zip(rows, seen(), strict=True):
        assert content(exported["csv"] / found["path"]) == drawn_file(drawn, row["key"])
        assert found["label"] == CLASSES[row["label"]] and int(found["objects"]) == len(objects)
        assert (int(found["width"]), int(found["height"])) == (row["width"], row["height"])
        assert found["size"] == ("" if row["size"] is None else str(row["size"]))


# Hugging Face


def test_imagefolder_rows_stand_beside_their_pictures(drawn: Path, exported: dict[str, Path]) -> None:
    for split in ("train", "test"):
        lines = read_json(exported["imagefolder"] / split / "metadata.jsonl").to_pylist()  # as `datasets` does
        for found, (row, objects) in zip(lines, seen(split), strict=True):
            assert content(exported["imagefolder"] / split / found["file_name"]) == drawn_file(drawn, row["key"])
            assert found["label"] == CLASSES[row["label"]]
            assert found["file_name"].split("/")[0] == found["label"].replace(" ", "_")
            assert found["objects"]["bbox"] == [[each[side] for side in "xywh"] for each in objects]
            assert found["objects"]["categories"] == [each["class"] for each in objects]
            assert (found["light"], found["size"], found["background"]) == (1.5, row["size"], "mottled, grey")


def test_imagefolder_names_every_split_in_its_card(exported: dict[str, Path]) -> None:
    _, head, _ = (exported["imagefolder"] / "README.md").read_text(encoding="utf-8").split("---\n")
    (config,) = yaml.safe_load(head)["configs"]
    assert config["data_files"] == [{"split": name, "path": f"{name}/**"} for name in ("train", "test")]


def test_without_labels_pictures_lie_in_the_folder_of_their_split(tmp_path: Path) -> None:
    export(draw(tmp_path / "set", lambda row: row | {"label": None}), "imagefolder", tmp_path / "out")
    assert len(list((tmp_path / "out" / "train").glob("*.png"))) == 3
    assert "label" not in json.loads((tmp_path / "out" / "test" / "metadata.jsonl").read_text())


# Older sets


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("yolo-pose", "mot", "bop")])
def test_sets_of_before_full_boxes_and_factors_of_objects_are_exported_too(name: str, tmp_path: Path) -> None:
    full = ("full_x", "full_y", "full_w", "full_h")
    folder = draw(tmp_path / "set", without("sequence", "frame"), without(*full, "factors", "asset", "keypoints"))
    assert export(folder, name, tmp_path / "out")["objects"] == 6
    assert len(manifest.read(folder).samples) == len(pictures_of(tmp_path / "out"))
