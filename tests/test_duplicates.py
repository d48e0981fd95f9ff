"""`selfsight duplicates`: copies, smaller and re-encoded ones found, within one set and between two; what follows in words."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pictures
import selfsight
from selfsight.cli import main
from selfsight.data.sources import open_source
from selfsight.errors import ConfigError, DataError
from selfsight.sheets import fitted

VIT = "random/vit_w32_d1_p8?size=32&pool=mean"
COUNT = 18


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, no two alike."""
    return pictures.folder(tmp_path_factory.mktemp("plain") / "plain", COUNT, classes=3, size=64)


@pytest.fixture(scope="module")
def twins(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same and more: of the first a copy and a smaller one, of the second a re-encoded one under another class."""
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("twins") / "twins"))
    first, second = (plain / key for key in open_source(plain).keys[:2])
    shutil.copy(first, folder / first.parent.name / "copy.png")
    with Image.open(first) as image:
        image.resize((48, 48), Image.Resampling.BICUBIC).save(folder / first.parent.name / "smaller.png")
    with Image.open(second) as image:
        image.save(folder / first.parent.name / "again.jpg", quality=95)
    return folder


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    return


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def keys_of(plain: Path) -> tuple[str, str, str]:
    """(first key, second key, class of the first)."""
    first, second = open_source(plain).keys[:2]
    return first, second, first.split("/")[0]


@pytest.mark.parametrize(("encoder", "above"), [("pixels", 0.99), (VIT, 0.995)])
def test_copies_smaller_and_re_encoded_images_are_found_in_groups(
    encoder: str, above: float, plain: Path, twins: Path, tmp_path: Path
) -> None:
    first, second, kind = keys_of(plain)
    found = selfsight.duplicates(encoder, twins, out=tmp_path, above=above)
    rows = rows_of(tmp_path)
    assert [int(row["group"]) for row in rows].count(0) == 3
    expected = {frozenset(pair) for pair in _pairs([first, f"{kind}/copy.png", f"{kind}/smaller.png"])}
    assert {frozenset((row["first"], row["second"])) for row in rows if row["group"] == "0"} == expected
    (last,) = (row for row in rows if row["group"] == "1")
    assert {last["first"], last["second"]} == {second, f"{kind}/again.jpg"}
    assert [row["cosine"] for row in rows] == sorted((row["cosine"] for row in rows), key=float, reverse=True)
    assert float(rows[0]["cosine"]) == pytest.approx(1, abs=1e-6)
    assert [(row["first"], row["second"]) for row in rows if row["identical"] == "true"] == [
        (rows[0]["first"], rows[0]["second"])
    ]
    assert last["first_label"] != last["second_label"]
    numbers = {name: found[name] for name in ("images", "images2", "pairs", "groups", "identical", "labels_differ", "twins")}
    assert numbers == {
        "images": COUNT + 3, "images2": None, "pairs": 4, "groups": 2, "identical": 1, "labels_differ": 1, "twins": 3,
    }  # fmt: skip
    assert found["share"] == pytest.approx(100 * 3 / (COUNT + 3))
    assert found["share_of_pairs"] == pytest.approx(100 * 4 / ((COUNT + 3) * (COUNT + 2) / 2))


def _pairs(keys: list[str]) -> list[tuple[str, str]]:
    return [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]


def test_test_images_with_a_twin_in_training_are_counted(plain: Path, twins: Path, tmp_path: Path) -> None:
    first, second, kind = keys_of(plain)
    test = pictures.folder(tmp_path / "test", 5, classes=3, size=64, seed=9)
    for name in ("copy.png", "smaller.png", "again.jpg"):
        shutil.copy(twins / kind / name, test / kind / name)
    found = selfsight.duplicates("pixels", plain, test, out=tmp_path / "out", above=0.99)
    pairs = {(row["first"], row["second"], row["identical"]) for row in rows_of(tmp_path / "out")}
    assert pairs == {
        (first, f"{kind}/copy.png", "true"),
        (first, f"{kind}/smaller.png", "false"),
        (second, f"{kind}/again.jpg", "false"),
    }
    assert (found["images"], found["images2"], found["twins"], found["groups"]) == (COUNT, 8, 3, 2)
    assert (found["share"], found["share_of_pairs"]) == (pytest.approx(100 * 3 / 8), pytest.approx(100 * 3 / (8 * COUNT)))


def test_the_same_from_files_of_features_without_images(plain: Path, twins: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for data, file in zip((plain, twins), files, strict=True):
        moved = shutil.copytree(data, tmp_path / data.name)
        selfsight.embed("pixels", moved, file)
        shutil.rmtree(moved)
    expected = selfsight.duplicates("pixels", plain, twins, out=tmp_path / "images", above=0.99)
    found = selfsight.duplicates("pixels", *files, out=tmp_path / "features", above=0.99, format="parquet")
    assert found["identical"] is None and expected["identical"] == COUNT + 1
    assert {**found, "identical": 0, "files": 0} == {**expected, "identical": 0, "files": 0}
    assert found["files"] == [str(tmp_path / "features" / "pairs.parquet")]
    table = pq.read_table(tmp_path / "features" / "pairs.parquet")
    assert table.column_names == ["group", "first", "second", "cosine", "first_label", "second_label"]
    assert [row["first"] for row in table.to_pylist()] == [row["first"] for row in rows_of(tmp_path / "images")]
    shown = selfsight.duplicates("pixels", *files, out=tmp_path / "features", above=0.99, images=plain, images2=twins)
    assert shown["identical"] == COUNT + 1
    assert shown["files"] == [str(tmp_path / "features" / name) for name in ("pairs.csv", "sheet.png")]


def test_the_sheet_begins_with_one_pair_of_each_group(plain: Path, twins: Path, tmp_path: Path) -> None:
    selfsight.duplicates("pixels", twins, out=tmp_path, above=0.99)
    rows = rows_of(tmp_path)
    other = next(row for row in rows if row["group"] == "1")
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB"))
    places = [_place(sheet, twins / row["first"]) for row in (rows[0], other)]
    assert places[0][0] == places[1][0]
    assert places[1][1] - places[0][1] == 2 * 128 + 4 + 3 * 10


def _place(sheet: np.ndarray, path: Path) -> tuple[int, int]:
    """Top and left of a picture on the sheet."""
    with Image.open(path) as image:
        picture = np.asarray(fitted(np.asarray(image.convert("RGB")), 128, 1.0))
    height, width = picture.shape[:2]
    for top, left in np.argwhere((sheet == picture[0, 0]).all(2)).tolist():
        if np.array_equal(sheet[top : top + height, left : left + width], picture):
            return top, left
    raise AssertionError(f"{path} is not on the sheet")


def test_nothing_above_the_level_leaves_an_empty_table_and_no_sheet(plain: Path, twins: Path, tmp_path: Path) -> None:
    selfsight.duplicates("pixels", twins, out=tmp_path, above=0.99)
    assert (tmp_path / "sheet.png").is_file()
    found = selfsight.duplicates("pixels", plain, out=tmp_path, above=0.999)
    assert (found["pairs"], found["groups"], found["twins"], found["share"], found["identical"]) == (0, 0, 0, 0, 0)
    assert 0 < found["highest"] < 0.999
    assert rows_of(tmp_path) == []
    assert found["files"] == [str(tmp_path / "pairs.csv")]
    assert not (tmp_path / "sheet.png").exists()


def test_images_that_cannot_be_read_are_left_out_and_listed(plain: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(plain, tmp_path / "data"))
    broken = data / keys_of(plain)[2] / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more")
    found = selfsight.duplicates("pixels", data, out=tmp_path / "out", max_bad=20)
    assert (found["images"], [image["key"] for image in found["bad_images"]]) == (COUNT, [f"{broken.parent.name}/broken.jpg"])
    assert str(tmp_path / "out" / "bad_images.jsonl") in found["files"]
    with pytest.raises(DataError, match=r"listed in .*strict/bad_images\.jsonl"):
        selfsight.duplicates("pixels", data, out=tmp_path / "strict", strict=True)
    assert "broken.jpg" in (tmp_path / "strict" / "bad_images.jsonl").read_text()


def test_wrong_input_says_what_would_be_right(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--above: expected a cosine above -1, at most 1, got 1\.5"):
        selfsight.duplicates("pixels", plain, out=tmp_path, above=1.5)
    with pytest.raises(DataError, match="plain/: is the first set itself; leave it out"):
        selfsight.duplicates("pixels", plain, f"{plain}/", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert not stopped.value.code
    return [line for line in capsys.readouterr().out.splitlines() if "from the cache" not in line]


def test_the_command_says_what_follows(plain: Path, twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out: list[Any] = ["--out", tmp_path, "--above", 0.99]
    within = run(capsys, "duplicates", "pixels", twins, *out)
    assert within[0] == "4 pairs of cosine 0.99 or more in 2 groups, 1 of them copies to the byte"
    assert within[1].startswith(f"3 of {COUNT + 3} images of {twins} (14.3 %) repeat another: a split at random puts twins")
    assert within[2] == "1 pair with different labels: at most one label of each is right"
    assert within[3].startswith("1.9 % of all pairs are as alike: to this encoder 0.99 tells little")
    assert within[4] == f"done: {tmp_path / 'pairs.csv'}, {tmp_path / 'sheet.png'}"
    between = run(capsys, "duplicates", "pixels", plain, twins, *out)
    assert between[1].startswith(
        f"{COUNT + 3} of {COUNT + 3} images of {twins} (100.0 %) have a twin in {plain}: what is trained"
    )
    assert f"up to 100.0 points of its accuracy on {twins} may be memory" in between[1]
    none = run(capsys, "duplicates", "pixels", plain, *out)
    assert none[0].startswith(f"no two images of {plain} are twins at a cosine of 0.99 or more; the most alike pair has 0.")
