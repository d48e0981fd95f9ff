"""Drawn pictures: balanced, repeatable, grey, and with masks that lie on what was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsight.data.sources import open_source
from selfsight.manifest import decode_mask, read
from selfsight.synthesis.drawing import draw_dataset
from selfsight.synthesis.surfaces import CLASSES, PATTERNS, SHAPES, draw, sample

# pycocotools copies its masks in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 40


def test_every_class_comes_equally_often() -> None:
    patterns = [sample(0, index).pattern for index in range(5 * len(CLASSES))]
    assert {name: patterns.count(name) for name in CLASSES} == dict.fromkeys(CLASSES, 5)
    assert set(CLASSES) == set(PATTERNS)


def test_every_shape_comes_and_says_nothing_about_the_class() -> None:
    """Of 2,400 pictures each pair of class and shape is expected 50 times; 4 standard deviations are allowed."""
    count = 300 * len(CLASSES)
    surfaces = [sample(0, index) for index in range(count)]
    expected = count / len(CLASSES) / len(SHAPES)
    for name in CLASSES:
        for shape in SHAPES:
            found = sum(s.pattern == name and s.shape == shape for s in surfaces)
            assert abs(found - expected) < 4 * expected**0.5


def test_a_picture_is_a_function_of_seed_and_index() -> None:
    for index in range(len(CLASSES)):
        first, second = (draw(sample(3, index, SIZE)) for _ in range(2))
        assert sample(3, index, SIZE) == sample(3, index, SIZE)
        np.testing.assert_array_equal(np.asarray(first[0]), np.asarray(second[0]))
        np.testing.assert_array_equal(first[1], second[1])


def test_other_seeds_and_indices_give_other_pictures() -> None:
    pictures = {np.asarray(draw(sample(seed, index, SIZE))[0]).tobytes() for seed in range(3) for index in range(24)}
    assert len(pictures) == 72


@pytest.mark.parametrize("size", [16, 48, 97])
def test_a_picture_is_grey_and_of_the_size_asked_for(size: int) -> None:
    image, mask = draw(sample(0, 1, size))
    assert (image.mode, image.size, mask.shape) == ("RGB", (size, size), (size, size))
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    assert pixels.std() > 3


def test_the_mask_is_neither_empty_nor_everything() -> None:
    shares = [draw(sample(1, index, SIZE))[1].mean() for index in range(60)]
    assert min(shares) > 0.02
    assert max(shares) < 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_is_where_the_object_was_drawn(shape: str) -> None:
    """Another pattern of the same object, all else equal, may change pixels on the mask and nowhere else."""
    surface = replace(sample(0, 0, SIZE), shape=shape, pattern="stripes")
    image, mask = draw(surface)
    other, same_mask = draw(replace(surface, pattern="dots"))
    np.testing.assert_array_equal(mask, same_mask)
    changed = np.abs(np.asarray(image).astype(int) - np.asarray(other).astype(int))[..., 0] > 3
    near = np.zeros_like(mask)  # pixels that the edge runs through are half object
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near |= np.roll(mask, (dy, dx), (0, 1))
    assert not (changed & ~near).any()
    assert changed[mask].mean() > 0.5


def test_moving_an_object_moves_its_mask() -> None:
    surface = replace(sample(0, 0, 80), radius=12.0, x=30.0, y=40.0)
    mask, moved = draw(surface)[1], draw(replace(surface, x=35.0, y=37.0))[1]
    np.testing.assert_array_equal(np.roll(mask, (-3, 5), (0, 1)), moved)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, {"train": 24, "test": 16}, 5, SIZE, lambda done, total: None)
    return folder


def test_a_drawn_set_is_a_source_of_its_classes(drawn: Path) -> None:
    for split, count in (("train", 24), ("test", 16)):
        source = open_source(drawn / split)
        assert source.classes == tuple(sorted(CLASSES))
        assert np.bincount(source.labels).tolist() == [count // len(CLASSES)] * len(CLASSES)


def test_the_manifest_describes_every_picture_and_its_object(drawn: Path) -> None:
    manifest = read(drawn)
    assert manifest.info.classes == list(CLASSES)
    assert len(manifest.samples) == len(manifest.objects) == 40
    assert len({row["key"] for row in manifest.samples}) == 40
    for row, thing in zip(manifest.samples, manifest.objects, strict=True):
        with Image.open(drawn / row["path"]) as image:
            assert image.size == (row["width"], row["height"]) == (SIZE, SIZE)
        assert row["path"].split("/")[:2] == [row["split"], CLASSES[row["label"]]]
        assert (thing["sample"], thing["class"]) == (row["key"], CLASSES[row["label"]])
        mask = decode_mask(thing["mask"])
        inside = mask[thing["y"] : thing["y"] + thing["h"], thing["x"] : thing["x"] + thing["w"]]
        assert inside.sum() == mask.sum() > 0
        assert inside.any(0).all() or inside.any(0)[[0, -1]].all()
        assert inside.any(1)[[0, -1]].all()


def test_masks_in_the_manifest_are_those_of_the_drawing(drawn: Path) -> None:
    for index, thing in enumerate(read(drawn).objects[:8]):
        np.testing.assert_array_equal(decode_mask(thing["mask"]), draw(sample(10, index, SIZE))[1])


def test_the_same_seed_gives_the_same_files_and_another_seed_others(drawn: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 5), ("other", 6)):
        draw_dataset(tmp_path / name, {"train": 24, "test": 16}, seed, SIZE, lambda done, total: None)
    paths = sorted(p.relative_to(drawn) for p in drawn.rglob("*.png"))
    assert len(paths) == 40
    assert all((drawn / p).read_bytes() == (tmp_path / "same" / p).read_bytes() for p in paths)
    assert not any((drawn / p).read_bytes() == (tmp_path / "other" / p).read_bytes() for p in paths)


def test_no_picture_is_in_two_splits(drawn: Path) -> None:
    contents = [p.read_bytes() for p in drawn.rglob("*.png")]
    assert len(set(contents)) == 40


def test_progress_is_told_picture_by_picture(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    draw_dataset(tmp_path, {"train": 3, "test": 2}, 0, 16, lambda done, total: told.append((done, total)))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
