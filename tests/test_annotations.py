"""The contract of annotations: one scene, written in each format, reads back equal; what is wrong is told in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as rle

import annotated
from annotated import ONE, SEVERAL, WRITERS, Scene, Thing
from selfsight.data.annotations import ANNOTATIONS, open_annotations
from selfsight.data.annotations.base import ByName
from selfsight.data.annotations.outlines import mask_of
from selfsight.data.sources import Source, Subset, open_source
from selfsight.data.undecodable import UndecodableError
from selfsight.errors import DataError
from selfsight.manifest import encode_mask, unpacked

NAMED = {"coco", "voc", "drawn"}


def test_every_format_has_a_writer_here() -> None:
    assert WRITERS.keys() == ANNOTATIONS.keys()


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_one_thing_reads_back_equal_in_every_format(tmp_path: Path, name: str) -> None:
    images, masks = WRITERS[name](tmp_path, ONE)
    source = open_source(images)
    found = open_annotations(source, masks)
    assert found is not None
    for index, scene in enumerate(ONE):
        truth = found.of(source, index)
        assert found.known(source, index) and truth is not None
        np.testing.assert_array_equal([thing.mask for thing in truth.instances], scene.masks())
        np.testing.assert_array_equal(truth.ignored, scene.ignored())
        assert [thing.name for thing in truth.instances] == [thing.name if name in NAMED else "" for thing in scene.things]


@pytest.mark.parametrize("name", ["coco", "voc", "png"])
def test_several_things_and_what_is_ignored_read_back_equal(tmp_path: Path, name: str) -> None:
    images, masks = WRITERS[name](tmp_path, SEVERAL)
    source = open_source(images)
    found = open_annotations(source, masks)
    assert found is not None
    for index, scene in enumerate(SEVERAL):
        truth = found.of(source, index)
        assert truth is not None
        np.testing.assert_array_equal([thing.mask for thing in truth.instances], scene.masks())
        np.testing.assert_array_equal(truth.ignored, scene.ignored())


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_a_part_of_a_source_has_the_masks_of_its_own_pictures(tmp_path: Path, name: str) -> None:
    images, masks = WRITERS[name](tmp_path, ONE)
    part = Subset(open_source(images), np.array([1]))
    found = open_annotations(part, masks)
    truth = found.of(part, 0) if found else None
    assert truth is not None
    np.testing.assert_array_equal(truth.instances[0].mask, ONE[1].masks()[0])


def test_images_in_folders_of_their_class_find_the_masks_by_the_end_of_their_names(tmp_path: Path) -> None:
    images, masks = annotated.png(tmp_path, ONE)
    (tmp_path / "by-class" / "cat").mkdir(parents=True)
    (images / "000.jpg").rename(tmp_path / "by-class" / "cat" / "000.jpg")
    source = open_source(tmp_path / "by-class")
    found = open_annotations(source, masks)
    assert found is not None and found.known(source, 0)


def test_a_picture_for_which_two_masks_could_be_meant_says_so(tmp_path: Path) -> None:
    images, masks = annotated.png(tmp_path, ONE)
    assert masks is not None
    for part in ("a", "b"):
        (masks / part).mkdir()
        shutil.copy(masks / "000.png", masks / part)
    (masks / "000.png").unlink()
    source = open_source(images)
    found = open_annotations(source, masks)
    assert found is not None
    with pytest.raises(UndecodableError, match=r"^2 could be meant: [ab]/000\.png, [ab]/000\.png$"):
        found.of(source, 0)
    assert found.of(source, 1) is not None


def test_names_are_told_apart_by_as_much_as_it_takes() -> None:
    names = ["a/1.jpg", "a/1.png", "b/1.jpg", "b/2.jpg", "c/2.jpg", "3.jpg"]
    things = ByName((name, name) for name in names)
    asked = ["a/1.png", "b/1.webp", "x/3.png", "13.jpg", "x/b/2.jpg"]
    assert [things.get(key) for key in asked] == ["a/1.png", "b/1.jpg", "3.jpg", None, "b/2.jpg"]
    for key, meant in (("2.jpg", "b/2.jpg, c/2.jpg"), ("a/1.webp", "a/1.jpg, a/1.png")):
        assert things.known(key)
        with pytest.raises(UndecodableError, match=f"^2 could be meant: {meant}$"):
            things.get(key)


def test_only_the_ending_of_an_image_is_left_aside() -> None:
    """Keys of shards have none, and what follows their last dot belongs to the name."""
    things = ByName((name, name) for name in ("x.1.png", "x.2.png", "x.png", "v1.5"))
    asked = ["s.tar/x.1", "x.2.JPG", "x.3", "x", "v1", "v1.5", "v1.5.jpg"]
    assert [things.get(key) for key in asked] == ["x.1.png", "x.2.png", None, "x.png", None, "v1.5", "v1.5"]


def test_black_and_white_is_one_thing_and_beside_numbers_255_is_void(tmp_path: Path) -> None:
    images, masks = annotated.png(tmp_path, [Scene(8, 6, [Thing((1, 1, 5, 4), "cat")])])
    assert masks is not None
    source = open_source(images)
    white = np.zeros((6, 8), dtype=np.uint8)
    white[1:4, 1:5] = 255
    for image in (Image.fromarray(white), Image.fromarray(white).convert("RGB"), Image.fromarray(white).convert("1")):
        image.save(masks / "000.png")
        truth = (open_annotations(source, masks) or pytest.fail("not opened")).of(source, 0)
        assert truth is not None and not truth.ignored.any()
        np.testing.assert_array_equal(truth.instances[0].mask, white == 255)


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    assert open_annotations(open_source(annotated.pictures(tmp_path / "plain", ONE))) is None


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ("nowhere", r"--masks .*nowhere: does not exist; expected .*a COCO \.json, .* or a folder of \.png masks"),
        ("notes.txt", r"notes\.txt: holds no masks; expected"),
        ("empty", r"empty: holds no \.png; expected masks named as the images"),
        ("list.json", r"list\.json: holds a list; expected COCO annotations"),
        ("half.json", r"half\.json: 'annotations' is no list of objects with image_id; expected COCO"),
        ("cut.json", r"cut\.json: no JSON \(.*\); expected COCO annotations"),
        ("others", r"others: has no mask of an image of .*images, whose first is '000\.jpg'; expected the same names"),
    ],
)
def test_a_place_without_masks_is_told_in_one_line(tmp_path: Path, masks: str, message: str) -> None:
    annotated.pictures(tmp_path / "images", ONE, ".jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("three")
    for name, text in (("list.json", "[]"), ("half.json", '{"images": [], "annotations": 3}'), ("cut.json", '{"images"')):
        (tmp_path / name).write_text(text)
    (tmp_path / "others").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "others" / "elsewhere.png")
    with pytest.raises(DataError, match=message) as raised:
        open_annotations(open_source(tmp_path / "images"), tmp_path / masks)
    assert "\n" not in str(raised.value)


def test_masks_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    images, masks = annotated.png(tmp_path, ONE)
    assert masks is not None
    source = open_source(images)
    found = open_annotations(source, masks)
    assert found is not None
    rng = np.random.default_rng(0)
    for pixels, reason in ((rng.integers(0, 256, (24, 40, 3)), "is in colours"), (rng.integers(0, 256, (24, 40)), "no labels")):
        Image.fromarray(pixels.astype(np.uint8)).save(masks / "000.png")
        with pytest.raises(UndecodableError, match=reason):
            found.of(source, 0)
    (masks / "000.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UndecodableError, match="no known image format"):
        found.of(source, 0)


Change = Callable[[dict[str, Any]], object]


def changed_coco(at: Path, change: Change) -> tuple[Source, Path]:
    """A COCO file of two pictures, 000 of 40x24 and 001 of 16x30 pixels, in which something is amiss."""
    images, masks = annotated.coco(at, ONE)
    assert masks is not None
    content = json.loads(masks.read_text())
    change(content)
    masks.write_text(json.dumps(content))
    return open_source(images), masks


def with_outline(outline: object) -> Change:
    return lambda content: content["annotations"][0].update(segmentation=outline)


def runs(counts: object, size: object = (24, 40)) -> dict[str, object]:
    return {"size": size, "counts": counts}


TRIANGLE = [1, 1, 20, 1, 20, 20]


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([[1, 1, 20, 20]], "a polygon has 4 numbers; expected x and y of three points or more"),
        ([TRIANGLE, [1, 1, 20, 20]], "a polygon has 4 numbers"),
        ([[1, 1]], "a polygon has 2 numbers"),
        ([[]], "a polygon has 0 numbers"),
        ([[*TRIANGLE, 5]], "a polygon has 7 numbers"),
        (TRIANGLE, "a polygon is no list of numbers x, y, x, y"),
        ([[[1, 1], [20, 1], [20, 20]]], "a polygon is no list of numbers"),
        ([[str(number) for number in TRIANGLE]], "a polygon is no list of numbers"),
        ([[None, *TRIANGLE[1:]]], "a polygon is no list of numbers"),
        ([[float("nan"), *TRIANGLE[1:]]], r"a point at \(nan, 1\) is nowhere near 40x24 pixels"),
        ([[*TRIANGLE[:5], float("inf")]], r"a point at \(20, inf\) is nowhere near"),
        ([[10**400, *TRIANGLE[1:]]], r"a point at \(100000000, 1\) is nowhere near"),
        ([[81, *TRIANGLE[1:]]], r"a point at \(81, 1\) is nowhere near"),
        ("TRIANGLE", "neither polygons nor run lengths"),
        ({"size": [24, 40]}, "neither polygons nor run lengths .'size' and 'counts'."),
        (runs([81], [9, 9]), r"another size, \[9, 9\], not \[24, 40\]"),
        (runs([960], [40, 24]), "another size"),
        (runs([960], "24x40"), "another size"),
        (runs([5, 5]), "its run lengths add up to 10 pixels, and the picture has 960"),
        (runs([5, 960]), "its run lengths add up to 965 pixels"),
        (runs([2**33, 5]), "its run lengths add up to 8589934597 pixels"),
        (runs([]), "its run lengths add up to 0 pixels"),
        (runs([-5, 5, 960]), "its run lengths are no whole numbers from 0"),
        (runs([5.5, 5, 949.5]), "its run lengths are no whole numbers from 0"),
        (runs(None), "its run lengths are no whole numbers from 0"),
        (runs("rubbish~~~"), "its counts are no packed run lengths"),
        (runs("\N{SNOWMAN}"), "its counts are no packed run lengths"),
        (runs("P" * 20), "its counts are no packed run lengths"),
        (runs("PP"), "its packed run lengths break off"),
        (runs("5555"), "its run lengths add up to 25 pixels"),
    ],
)
def test_a_damaged_coco_outline_names_its_annotation_and_what_is_amiss(tmp_path: Path, outline: object, reason: str) -> None:
    source, masks = changed_coco(tmp_path, with_outline(outline))
    found = open_annotations(source, masks)
    assert found is not None
    with pytest.raises(UndecodableError, match=f"annotation 0: its segmentation cannot be read .*{reason}") as raised:
        found.of(source, 0)
    assert "\n" not in str(raised.value)
    assert found.of(source, 1) is not None


@pytest.mark.parametrize("outline", [None, [], {}])
def test_a_thing_with_a_box_alone_is_not_taken_for_ground(tmp_path: Path, outline: object) -> None:
    source, masks = changed_coco(
        tmp_path, lambda content: content["annotations"][0].update(segmentation=outline, bbox=[1, 1, 9, 9])
    )
    found = open_annotations(source, masks)
    assert found is not None
    with pytest.raises(UndecodableError, match="annotation 0: has no segmentation, so that its thing would count as ground"):
        found.of(source, 0)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("images", {"height": 0}, "image 7: 'height' must be a whole number from 1, got 0"),
        ("images", {"width": "40"}, "image 7: 'width' must be a whole number from 1, got '40'"),
        ("images", {"width": None}, "image 7: 'width' must be a whole number from 1, got None"),
        ("images", {"width": float("nan")}, "image 7: 'width' must be a whole number from 1, got nan"),
        ("images", {"height": 24.5}, "image 7: 'height' must be a whole number from 1, got 24.5"),
        ("images", {"height": 10**5, "width": 10**5}, "image 7: 100000x100000 pixels, more than the limit of 200000000"),
        ("images", {"file_name": None}, "image 7: its file_name is no text but None"),
        ("images", {"id": [7]}, r"image \[7\]: its id is neither a whole number nor text"),
        ("images", {"id": 8}, "image 8: two have this id"),
        ("images", {"file_name": "val/001.jpg"}, "images 7 and 8 have one file_name, 'val/001.jpg'"),
        ("annotations", {"image_id": 99}, "annotation 0: its image_id 99 is none of 'images'"),
        ("annotations", {"image_id": "7"}, "annotation 0: its image_id '7' is none of 'images'"),
        ("annotations", {"image_id": [7], "id": "one\ntwo"}, r"annotation 'one\\ntwo': its image_id \[7\] is none of 'images'"),
        ("annotations", {"category_id": 9}, "annotation 0: its category_id 9 is none of 'categories'"),
        ("annotations", {"iscrowd": "0"}, "annotation 0: 'iscrowd' must be 0 or 1, got '0'"),
        ("categories", {"name": 3}, "category 0: its name is no text but 3"),
        ("categories", {"id": 1}, "category 1: two have this id"),
    ],
)
def test_a_coco_file_that_contradicts_itself_is_told_in_one_line(
    tmp_path: Path, part: str, change: dict[str, object], message: str
) -> None:
    source, masks = changed_coco(tmp_path, lambda content: content[part][0].update(change))
    with pytest.raises(DataError, match=rf"instances\.json: {message}") as raised:
        open_annotations(source, masks)
    assert "\n" not in str(raised.value)


def test_outlines_are_the_masks_that_pycocotools_makes_of_them() -> None:
    rng = np.random.default_rng(0)
    for shape in ((24, 40), (30, 16), (1, 7), (300, 200)):
        for share in (0.0, 0.03, 0.5, 1.0):
            mask = rng.random(shape) < share
            packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            text = {"size": list(shape), "counts": packed["counts"].decode()}
            numbers = {"size": list(shape), "counts": annotated.run_lengths(mask)}
            for outline in (text, numbers):
                np.testing.assert_array_equal(mask_of(outline, shape), mask)
        height, width = shape
        polygons = [(rng.uniform(-0.5, 1.5, (points, 2)) * (width, height)).ravel().tolist() for points in (3, 5, 40)]
        whole = unpacked(rle.merge(rle.frPyObjects(polygons, height, width)))
        np.testing.assert_array_equal(mask_of(polygons, shape), whole)


def test_a_drawn_set_whose_mask_is_of_another_size_says_so(tmp_path: Path) -> None:
    images, _ = annotated.drawn(tmp_path, ONE)
    table = pq.read_table(tmp_path / "set" / "objects.parquet")
    place = table.column_names.index("mask")
    table = table.set_column(place, "mask", pa.array([encode_mask(np.ones((9, 9), dtype=bool)), *table["mask"].to_pylist()[1:]]))
    pq.write_table(table, tmp_path / "set" / "objects.parquet")
    source = open_source(images)
    found = open_annotations(source)
    assert found is not None
    with pytest.raises(UndecodableError, match=r"the mask of .*000\.png .* cannot be read .*another size, \[9, 9\]"):
        found.of(source, 0)
