"""The contract of annotations: one scene, written in each format, reads back equal; what is wrong is told in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotated
from annotated import ONE, SEVERAL, WRITERS, Scene, Thing
from selfsight.data.annotations import ANNOTATIONS, open_annotations
from selfsight.data.annotations.base import ByName
from selfsight.data.sources import Subset, open_source
from selfsight.data.undecodable import UndecodableError
from selfsight.errors import DataError

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


def test_what_two_masks_could_be_meant_for_has_none(tmp_path: Path) -> None:
    images, masks = annotated.png(tmp_path, ONE)
    assert masks is not None
    for part in ("a", "b"):
        (masks / part).mkdir()
        shutil.copy(masks / "000.png", masks / part)
    (masks / "000.png").unlink()
    source = open_source(images)
    found = open_annotations(source, masks)
    assert found is not None
    assert [found.known(source, index) for index in range(2)] == [False, True]


def test_names_are_told_apart_by_as_much_as_it_takes() -> None:
    names = ["a/1.jpg", "a/1.png", "b/1.jpg", "b/2.jpg", "c/2.jpg", "3.jpg"]
    things = ByName((name, name) for name in names)
    asked = ["a/1.png", "b/1.webp", "2.jpg", "x/3.png", "13.jpg", "a/1.webp", "x/b/2.jpg"]
    assert [things.get(key) for key in asked] == ["a/1.png", "b/1.jpg", None, "3.jpg", None, None, "b/2.jpg"]


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


def test_a_damaged_coco_outline_names_its_annotation(tmp_path: Path) -> None:
    images, masks = annotated.coco(tmp_path, ONE)
    assert masks is not None
    content = json.loads(masks.read_text())
    source = open_source(images)
    for outline, reason in (({"size": [24, 40]}, "counts"), ({"size": [9, 9], "counts": [81]}, "another size")):
        content["annotations"][0]["segmentation"] = outline
        masks.write_text(json.dumps(content))
        found = open_annotations(source, masks)
        assert found is not None
        with pytest.raises(UndecodableError, match=f"annotation 0: .*{reason}"):
            found.of(source, 0)
