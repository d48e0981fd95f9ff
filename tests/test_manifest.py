"""The format of a drawn data set: written, closed, read back, and readable before it is closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from selfsight.errors import DataError
from selfsight.manifest import DatasetInfo, Writer, decode_mask, encode_mask, read

# pycocotools copies its masks in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

INFO = DatasetInfo(
    name="three things",
    classes=["a", "b"],
    splits=["train"],
    factors={"size": [0.1, 0.5], "shape": ["disc", "star"]},
    provenance={"seed": 3},
)


def sample(number: int, **factors: Any) -> dict[str, Any]:
    row = {"key": f"{number}.png", "path": f"{number}.png", "split": "train", "label": number % 2, "group": "g"}
    return row | {"width": 9, "height": 5, "size": 0.1 * number} | factors


def thing(number: int, which: int = 0) -> dict[str, Any]:
    mask = np.zeros((5, 9), dtype=bool)
    mask[1:3, number % 5 : number % 5 + 2] = True
    box = {"x": number % 5, "y": 1, "w": 2, "h": 2}
    return {"sample": f"{number}.png", "object": which, "class": "a", **box, "visible": 1.0, "mask": encode_mask(mask)}


@pytest.mark.parametrize("count", [1, 3, 500, 1203])
def test_what_is_written_is_read_back(tmp_path: Path, count: int) -> None:
    samples = [sample(i) for i in range(count)]
    objects = [thing(i, which) for i in range(count) for which in range(i % 3)]
    with Writer(tmp_path, INFO) as writer:
        for i in range(count):
            writer.add(samples[i], [o for o in objects if o["sample"] == f"{i}.png"])
    manifest = read(tmp_path)
    assert manifest.info == INFO
    assert manifest.samples == samples
    assert manifest.objects == objects
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset.json", "objects.parquet", "samples.parquet"]
    assert pq.read_table(tmp_path / "samples.parquet").num_rows == count


def test_a_set_without_objects_is_a_set(tmp_path: Path) -> None:
    with Writer(tmp_path, INFO) as writer:
        writer.add(sample(0), [])
    assert read(tmp_path).objects == []


def test_a_set_without_samples_is_empty(tmp_path: Path) -> None:
    with Writer(tmp_path, INFO):
        pass
    assert read(tmp_path) == (INFO, [], [])


def test_an_unclosed_set_is_readable_up_to_its_last_whole_line(tmp_path: Path) -> None:
    writer = Writer(tmp_path, INFO)
    for i in range(700):
        writer.add(sample(i), [thing(i)])
    manifest = read(tmp_path)
    assert 0 < len(manifest.samples) <= 700
    assert manifest.samples == [sample(i) for i in range(len(manifest.samples))]
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"key": "700.p')
    assert read(tmp_path).samples == manifest.samples


def test_a_drawing_that_fails_leaves_what_it_had_and_no_closed_tables(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no more disk"), Writer(tmp_path, INFO) as writer:
        writer.add(sample(0), [thing(0)])
        raise RuntimeError("no more disk")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset.json", "objects.jsonl", "samples.jsonl"]
    assert read(tmp_path).samples == [sample(0)]
    assert read(tmp_path).objects == [thing(0)]


def test_a_set_drawn_again_after_a_failure_has_each_sample_once(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no more disk"), Writer(tmp_path, INFO) as writer:
        writer.add(sample(0), [thing(0)])
        raise RuntimeError("no more disk")
    with Writer(tmp_path, INFO) as writer:
        for i in range(2):
            writer.add(sample(i), [thing(i)])
    assert [row["key"] for row in read(tmp_path).samples] == ["0.png", "1.png"]
    assert [row["sample"] for row in read(tmp_path).objects] == ["0.png", "1.png"]


def test_a_set_drawn_again_in_the_same_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for count in (3, 2):
        with Writer(tmp_path, INFO) as writer:
            for i in range(count):
                writer.add(sample(i), [thing(i)])
    assert [row["key"] for row in read(tmp_path).samples] == ["0.png", "1.png"]


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 3)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mask_comes_back_pixel_by_pixel(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    found = decode_mask(encode_mask(mask))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, mask)


def test_a_mask_is_coco_json_that_others_read() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2:5] = True
    rle = json.loads(encode_mask(mask))
    assert rle["size"] == [4, 6]
    assert int(coco.area({"size": rle["size"], "counts": rle["counts"].encode()})) == 3
    assert coco.toBbox({"size": rle["size"], "counts": rle["counts"].encode()}).tolist() == [2, 1, 3, 1]


def test_a_folder_that_is_no_set_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no dataset.json; expected a data set that selfsight has drawn"):
        read(tmp_path)
    for text in ("{}", "not json", '{"name": 3}'):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match="expected schema 1"):
            read(tmp_path)
