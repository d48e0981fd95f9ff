"""What objects are written as: every form is read back by those who read it, and holds what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

import films
import pictures
from selfsight.attention.objects.files import FORMS, check_names, form_and_place
from selfsight.attention.objects.files.base import place_of
from selfsight.attention.objects.looking import Row
from selfsight.data.object_ids import read_ids
from selfsight.data.sources import Source, open_source
from selfsight.errors import ConfigError, DataError, InputError
from selfsight.manifest import encode_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ABOUT = {"encoder": "random/x", "method": "lost", "count": 2}
BLOCKS = [(slice(2, 9), slice(3, 20)), (slice(20, 31), slice(16, 32))]


def block(number: int) -> np.ndarray:
    mask = np.zeros((32, 32), dtype=bool)
    mask[BLOCKS[number]] = True
    return mask


def row_of(source: Source, sample: int, found: list[int]) -> Row:
    objects = []
    for number in found:
        down, across = BLOCKS[number]
        bbox = [across.start, down.start, across.stop - across.start, down.stop - down.start]
        rle = json.loads(encode_mask(block(number)))
        objects.append({"segmentation": rle, "bbox": bbox, "area": bbox[2] * bbox[3], "score": 0.9 - number / 10})
    return {"sample": sample, "key": source.keys[sample], "width": 32, "height": 32, "objects": objects}


def written(name: str, source: Source, out: Path) -> Path:
    """Two objects in the first image, none in the second, one in the last; the third could not be read."""
    rows = [row_of(source, 0, [0, 1]), row_of(source, 1, []), row_of(source, 3, [1])]

    def again() -> Iterator[Row]:
        return iter(rows)

    FORMS[name].write(again, source, ABOUT, out)
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(pictures.folder(tmp_path_factory.mktemp("pictures"), 4, classes=2))


def test_pycocotools_loads_the_file(source: Source, tmp_path: Path) -> None:
    coco = COCO(str(written("coco", source, tmp_path / "o.json")))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [source.keys[i] for i in (0, 1, 3)]
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "object"}]
    assert coco.dataset["info"] == ABOUT
    first, nothing, last = ([coco.anns[i] for i in coco.getAnnIds(imgIds=image)] for image in (1, 2, 4))
    assert nothing == []
    assert [each["score"] for each in first] == [0.9, 0.8]
    for each, number in [(first[0], 0), (first[1], 1), (last[0], 1)]:
        np.testing.assert_array_equal(coco.annToMask(each), block(number))
        assert masks.toBbox(masks.encode(np.asfortranarray(block(number).astype(np.uint8)))).tolist() == each["bbox"]
        assert each["area"] == block(number).sum()


def test_png_masks_hold_numbers(source: Source, tmp_path: Path) -> None:
    out = written("masks", source, tmp_path / "masks")
    numbers = read_ids(out / place_of(source.keys[0], ".png"))
    np.testing.assert_array_equal(numbers, block(0) + 2 * block(1))
    assert not np.asarray(Image.open(out / place_of(source.keys[1], ".png"))).any()
    assert json.loads((out / "objects.json").read_text()) == ABOUT
    assert len(list(out.rglob("*.png"))) == 3


@pytest.mark.parametrize("name", ["yolo", "yolo-seg"])
def test_yolo_labels_lie_beside_the_images_they_are_of(name: str, source: Source, tmp_path: Path) -> None:
    out = written(name, source, tmp_path / "set")
    settings: dict[str, Any] = yaml.safe_load((out / "data.yaml").read_text())
    assert settings == {"train": "images", "val": "images", "names": {0: "object"}}
    for sample in (0, 1, 3):
        image = out / "images" / source.keys[sample]
        assert image.is_symlink()
        assert image.read_bytes() == source.image_bytes(sample)
    lines = (out / "labels" / place_of(source.keys[0], ".txt")).read_text().splitlines()
    assert (out / "labels" / place_of(source.keys[1], ".txt")).read_text() == ""
    assert len(lines) == 2
    for line, (down, across) in zip(lines, BLOCKS, strict=True):
        kind, *numbers = line.split()
        assert kind == "0"
        left, right, top, bottom = across.start, across.stop, down.start, down.stop
        wanted: list[float] = [left, top, right, top, right, bottom, left, bottom]
        if name == "yolo":
            wanted = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        np.testing.assert_allclose(np.array(numbers, dtype=float) * 32, wanted, atol=1e-4)


def test_images_that_are_no_files_are_copied(tmp_path: Path) -> None:
    source = open_source(pictures.parquet(tmp_path / "set.parquet", 4))
    out = written("yolo", source, tmp_path / "set")
    images = sorted((out / "images").rglob("*.*"))
    assert len(images) == 3
    assert [image.read_bytes() for image in images] == [source.image_bytes(sample) for sample in (0, 1, 3)]
    labels = sorted(path.relative_to(out / "labels").with_suffix("") for path in (out / "labels").rglob("*.txt"))
    assert [image.relative_to(out / "images").with_suffix("") for image in images] == labels


@pytest.mark.parametrize(
    ("out", "format", "message"),
    [
        ("o.json", "voc", r"--format: no format 'voc'\. Valid are: coco, masks, yolo, yolo-seg"),
        ("o.txt", None, r"o\.txt: expected a file that ends in \.json \(COCO\), or --format yolo, yolo-seg, masks for a folder"),
        ("o.json", "yolo", r"--format yolo writes a folder"),
        ("o", "coco", r"--format coco writes a file that ends in \.json"),
        ("full", "masks", r"full: is not empty; expected a new folder"),
        ("full", "yolo", r"full: is not empty; expected a new folder"),
        ("full/mine.json", None, r"mine\.json: is there already and not of objects; give another --out"),
        ("file/o.json", None, r"file is a file; expected a folder there"),
    ],
)
def test_where_nothing_can_be_written_is_told(out: str, format: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.json").write_text('{"info": {"year": 2017},\n"images": []}')
    (tmp_path / "full" / "data.yaml").write_text("# method: by hand\ntrain: images\n")
    (tmp_path / "file").touch()
    with pytest.raises((InputError, ConfigError), match=message):
        form_and_place(tmp_path / out, format)


def test_a_form_is_known_by_the_ending_or_named(tmp_path: Path) -> None:
    assert form_and_place(tmp_path / "o.json", None) == (FORMS["coco"], tmp_path / "o.json")
    (tmp_path / "empty").mkdir()
    assert form_and_place(tmp_path / "empty", "yolo-seg") == (FORMS["yolo-seg"], tmp_path / "empty")


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_says_how_it_was_found(name: str, source: Source, tmp_path: Path) -> None:
    assert FORMS[name].about(tmp_path / "set") is None
    assert FORMS[name].about(written(name, source, tmp_path / "set")) == ABOUT


def test_frames_of_a_video_are_written_as_pictures_that_others_read(tmp_path: Path) -> None:
    source = open_source(f"{films.film(tmp_path / 'clip.mp4', 4)}?every=1")
    out = written("yolo", source, tmp_path / "set")
    images = sorted((out / "images").iterdir())
    assert [image.name for image in images] == [f"{source.keys[sample]}.png" for sample in (0, 1, 3)]
    for image, sample in zip(images, (0, 1, 3), strict=True):
        with Image.open(image) as shown:
            assert shown.format == "PNG"
            assert films.number_in(np.asarray(shown)) == sample
        assert (out / "labels" / f"{source.keys[sample]}.txt").is_file()


def test_no_key_leads_outside_and_no_two_to_one_file(tmp_path: Path) -> None:
    assert place_of("../a/./b.v2.JPEG", ".txt").parts == ("_", "a", "b.v2.txt")
    assert place_of("/abs/shard.tar/000.5", ".png").parts == ("abs", "shard.tar", "000.5.png")
    assert place_of("s3://bucket/x.jpg").parts == ("s3_", "bucket", "x.jpg")
    pictures.noise(tmp_path / "same.png")
    pictures.noise(tmp_path / "same.jpg")
    with pytest.raises(DataError, match=r"same\.(png|jpg) and same\.(png|jpg) would have the same name; take --format coco"):
        check_names(open_source(tmp_path))
