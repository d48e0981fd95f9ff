"""`selfsight search`: the nearest images, the index that is kept, features from a file, and what is no query."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pictures
import selfsight
from selfsight import metrics, neighbours
from selfsight.api import Silent
from selfsight.cli import main
from selfsight.data.decode import DecodeSettings
from selfsight.data.sources import open_source
from selfsight.data.sources.folder import FolderSource
from selfsight.errors import ConfigError, DataError
from selfsight.retrieval import Index, Origin, kept_index
from selfsight.retrieval.features_file import Gathered
from selfsight.retrieval.sheet import QUERY
from selfsight.retrieval.store import state_of
from selfsight.sheets import fitted

VIT = "random/vit_w32_d1_p8?size=32"
COUNT = 24


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("search") / "photos", COUNT, classes=3, size=64)


@pytest.fixture(scope="module")
def embedded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "features.parquet"
    selfsight.embed("pixels", photos, out)
    return out


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    return


def cosines(embedded: Path) -> tuple[list[str], list[str], np.ndarray]:
    """(keys, class of each, all cosines), in double precision."""
    table = pq.read_table(embedded)
    vectors = np.array(table["vector"].to_pylist(), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = table["key"].to_pylist()
    return keys, [key.split("/")[0] for key in keys], vectors @ vectors.T


# --- neighbours -----------------------------------------------------------------------------------------------------


def test_a_folder_of_another_program_is_left_alone(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "photos", 4, labelled=False)
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "index.json").write_text('{"name": "my project"}')
    with pytest.raises(DataError, match=r"its index\.json is not one of selfsight search; give another folder"):
        selfsight.search("pixels", data, ["0000.png"], index=tmp_path / "proj")
    assert (tmp_path / "proj" / "index.json").read_text() == '{"name": "my project"}'


def test_a_key_finds_the_others_by_falling_cosine_and_never_itself(photos: Path, embedded: Path) -> None:
    keys, labels, cosine = cosines(embedded)
    found = selfsight.search("pixels", photos, [keys[5], keys[0]], k=4)
    assert (found["images"], found["exact"], found["bad_images"], found["files"]) == (COUNT, True, [], [])
    for place, rows in zip((5, 0), found["results"], strict=True):
        expected = [i for i in np.argsort(-cosine[place], kind="stable") if i != place][:4]
        assert [row["key"] for row in rows] == [keys[i] for i in expected]
        assert [row["label"] for row in rows] == [labels[i] for i in expected]
        assert [row["cosine"] for row in rows] == pytest.approx([cosine[place, i] for i in expected], abs=1e-5)
        assert [(row["query"], row["rank"]) for row in rows] == [(keys[place], rank) for rank in (1, 2, 3, 4)]


@pytest.mark.parametrize("encoder", ["pixels", VIT])
def test_a_file_finds_its_copy_first_and_a_smaller_jpeg_of_it_too(encoder: str, photos: Path, tmp_path: Path) -> None:
    source = open_source(photos)
    original = photos / source.keys[7]
    copy, smaller = tmp_path / "copy.png", tmp_path / "smaller.jpg"
    shutil.copy(original, copy)
    with Image.open(original) as image:
        image.resize((48, 48), Image.Resampling.BICUBIC).save(smaller, quality=90)
    found = selfsight.search(encoder, photos, [copy, smaller], k=100)
    first, second = found["results"]
    assert len(first) == len(second) == COUNT
    assert (first[0]["key"], second[0]["key"]) == (source.keys[7], source.keys[7])
    assert first[0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert 0.8 < second[0]["cosine"] < 1


def test_a_path_that_is_a_key_too_means_the_file_where_the_two_differ(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other = open_source(photos).keys[3], open_source(photos).keys[4]
    monkeypatch.chdir(photos)
    (same,) = selfsight.search("pixels", photos, key, k=COUNT)["results"]
    assert key not in {row["key"] for row in same}
    monkeypatch.chdir(tmp_path)
    Path(key).parent.mkdir()
    shutil.copy(photos / other, key)
    (differing,) = selfsight.search("pixels", photos, key, k=1)["results"]
    assert differing[0]["key"] == other


def test_images_that_cannot_be_read_are_left_out_and_listed(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    key = open_source(data).keys[0]
    (data / key).with_name("broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    found = selfsight.search("pixels", data, key, tmp_path / "out", max_bad=10)
    assert found["images"] == COUNT
    assert [image["key"] for image in found["bad_images"]] == [f"{Path(key).parent}/broken.jpg"]
    assert "broken.jpg" in (tmp_path / "out" / "bad_images.jsonl").read_text()
    # The index that was kept remembers them, and how images were read.
    again = selfsight.search("pixels", data, key, tmp_path / "out", max_bad=10)
    assert again["bad_images"] == found["bad_images"]
    assert "broken.jpg" in (tmp_path / "out" / "bad_images.jsonl").read_text()
    with pytest.raises(DataError, match="--strict stops at the first"):
        selfsight.search("pixels", data, key, strict=True)
    with pytest.raises(DataError, match="not one of"):
        selfsight.search("pixels", data, key, max_pixels=1, max_bad=100)
    assert selfsight.search("pixels", data, key, max_bad=10)["images"] == COUNT


def test_a_save_that_was_broken_off_is_made_again(moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Index, path: Path) -> None:
        raise OSError("power cut")

    key, at = open_source(moving).keys[0], tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(Index, "_write_vectors", broken)
        with pytest.raises(OSError, match="power cut"):
            selfsight.search("pixels", moving, key, index=at)
    heard = Heard()
    assert selfsight.search("pixels", moving, key, index=at, watch=heard)["images"] == COUNT
    assert "is no whole index" in heard.lines[0]


# --- what is written ------------------------------------------------------------------------------------------------


def test_the_table_is_the_same_in_every_form_and_only_one_stays(photos: Path, tmp_path: Path) -> None:
    key = open_source(photos).keys[2]
    expected = selfsight.search("pixels", photos, key, k=3)["results"][0]
    for form in ("csv", "parquet", "json"):
        found = selfsight.search("pixels", photos, key, tmp_path, k=3, format=form)
        assert found["files"] == [str(tmp_path / f"results.{form}"), str(tmp_path / "sheet.png")]
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"results.{form}", "sheet.png"]
        rows = _rows(tmp_path / f"results.{form}")
        assert [{**row, "cosine": 0, "rank": int(row["rank"])} for row in rows] == [{**row, "cosine": 0} for row in expected]
        assert [float(row["cosine"]) for row in rows] == pytest.approx([row["cosine"] for row in expected], abs=1e-6)


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return json.loads(path.read_text()) if path.suffix == ".json" else pq.read_table(path).to_pylist()


def test_the_sheet_shows_query_and_neighbours_as_they_are(photos: Path, tmp_path: Path) -> None:
    keys = list(open_source(photos).keys[:2])
    found = selfsight.search("pixels", photos, keys, tmp_path, k=12)
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB"))
    for rows in found["results"]:
        for name, side in ((rows[0]["query"], QUERY), (rows[0]["key"], 128), (rows[11]["key"], 128)):
            with Image.open(photos / name) as image:
                assert _holds(sheet, np.asarray(fitted(np.asarray(image.convert("RGB")), side, 1.0)))


def _holds(sheet: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    tops, lefts = np.nonzero((sheet[:, :, :] == picture[0, 0]).all(2))
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], picture)
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)
    )


def test_measures_are_those_of_the_features(photos: Path, embedded: Path) -> None:
    _, labels, _ = cosines(embedded)
    vectors = np.array(pq.read_table(embedded)["vector"].to_pylist(), dtype=np.float32)
    numbers = np.unique(labels, return_inverse=True)[1]
    expected = neighbours.retrieval(metrics.normalize(vectors), numbers, [1, 5, 10])
    found = selfsight.search("pixels", photos, measure=True)
    assert found["measure"] == expected._asdict()
    assert (found["results"], expected.queries) == ([], COUNT)


# --- the index ------------------------------------------------------------------------------------------------------


@pytest.fixture
def moving(photos: Path, tmp_path: Path) -> Iterator[Path]:
    """Images of the test's own, to change."""
    yield Path(shutil.copytree(photos, tmp_path / "moving"))


def test_an_index_is_used_again_and_built_anew_when_an_image_changes(moving: Path, tmp_path: Path) -> None:
    keys, at = open_source(moving).keys, tmp_path / "index"
    heard = Heard()
    selfsight.search("pixels", moving, keys[0], index=at, watch=heard)
    assert sorted(path.name for path in at.iterdir()) == ["index.json", "vectors.npy"]
    before = (at / "vectors.npy").read_bytes()
    heard.lines.clear()
    selfsight.search("pixels", moving, keys[0], index=at, watch=heard)
    assert heard.lines == [f"index of {COUNT} images from {at}"]
    shutil.copy(moving / keys[1], moving / keys[0])
    heard.lines.clear()
    found = selfsight.search("pixels", moving, keys[0], index=at, watch=heard)
    assert (
        heard.lines[0]
        == f"{at}: {moving}, or how its images are read, has changed since this index was built, so it is built again"
    )
    assert (at / "vectors.npy").read_bytes() != before
    assert found["results"][0][0]["key"] == keys[1]
    assert found["results"][0][0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_the_cache_keeps_an_index_for_each_encoder(moving: Path, cache_of_the_tests: Path) -> None:
    for encoder in ("pixels", VIT):
        for known in (False, True):
            heard = Heard()
            selfsight.search(encoder, moving, open_source(moving).keys[0], watch=heard)
            assert any(line.startswith(f"index of {COUNT} images") for line in heard.lines) == known
    assert (cache_of_the_tests / "search").is_dir()


def test_knowing_an_index_again_reads_no_image_of_a_folder(photos: Path) -> None:
    class Unread(FolderSource):
        def image_bytes(self, index: int) -> bytes:
            raise AssertionError("an image was read")

    assert state_of(Unread(str(photos)), DecodeSettings()) == state_of(open_source(photos), DecodeSettings())


def test_what_was_gathered_is_not_gathered_again(tmp_path: Path) -> None:
    def never() -> Gathered:
        raise AssertionError("features were gathered")

    vectors = np.eye(3, dtype=np.float32)
    origin = Origin("/photos", "pixels", "fingerprint", "state", lambda: Gathered(vectors, ["a", "b", "c"], None))
    kept_index(origin, tmp_path / "at", print)
    again = kept_index(replace(origin, gather=never), tmp_path / "at", print)
    assert (again.contents.keys, again.contents.labels) == (["a", "b", "c"], None)
    with pytest.raises(AssertionError, match="gathered"):
        kept_index(replace(origin, gather=never, state="another"), tmp_path / "at", print)


def test_an_index_of_another_encoder_or_of_other_images_is_refused(photos: Path, moving: Path, tmp_path: Path) -> None:
    at, key = tmp_path / "index", open_source(photos).keys[0]
    selfsight.search("pixels", photos, key, index=at)
    kept = (at / "index.json").read_bytes()
    with pytest.raises(DataError, match=r"--index .*index: holds features of pixels, which is not pixels\?size=16 with its"):
        selfsight.search("pixels?size=16", photos, key, index=at)
    with pytest.raises(DataError, match=r"--index .*index: is of .*photos, not of .*moving; give another folder"):
        selfsight.search("pixels", moving, key, index=at)
    with pytest.raises(DataError, match="is there and holds no index"):
        selfsight.search("pixels", photos, key, index=photos)
    assert (at / "index.json").read_bytes() == kept


def test_a_damaged_index_is_built_again(photos: Path, tmp_path: Path) -> None:
    at, key = tmp_path / "index", open_source(photos).keys[0]
    expected = selfsight.search("pixels", photos, key, index=at)["results"]
    (at / "vectors.npy").write_bytes(b"no vectors")
    heard = Heard()
    assert selfsight.search("pixels", photos, key, index=at, watch=heard)["results"] == expected
    assert "is no whole index" in heard.lines[0] and "built again" in heard.lines[0]


def test_a_large_set_is_compressed_and_still_ranked_by_exact_cosines(photos: Path, embedded: Path, tmp_path: Path) -> None:
    keys, _, cosine = cosines(embedded)
    for _ in range(2):
        found = selfsight.search("pixels", photos, keys[5], index=tmp_path / "at", k=2, exact_below=COUNT)
        assert not found["exact"]
        assert (tmp_path / "at" / "index.faiss").is_file()
        for row in found["results"][0]:
            assert row["cosine"] == pytest.approx(cosine[5, keys.index(row["key"])], abs=1e-5)
        assert keys[5] not in {row["key"] for row in found["results"][0]}
    assert selfsight.search("pixels", photos, keys[5], index=tmp_path / "at")["exact"]
    assert not (tmp_path / "at" / "index.faiss").exists()


# --- features from a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_features_of_embed_are_enough_without_any_image(kind: pa.DataType, moving: Path, tmp_path: Path) -> None:
    file = tmp_path / "features.parquet"
    selfsight.embed("pixels", moving, file)
    expected = selfsight.search("pixels", moving, open_source(moving).keys[0], k=3)["results"][0]
    query = tmp_path / "query.png"
    shutil.copy(moving / expected[0]["key"], query)
    table = pq.read_table(file)
    width = table["vector"].type.list_size
    column = table["vector"].cast(pa.list_(kind, width))
    pq.write_table(table.set_column(table.column_names.index("vector"), "vector", column), file, row_group_size=10)
    key = expected[0]["query"]
    shutil.rmtree(moving)
    found = selfsight.search("pixels", file, [key, query], tmp_path / "out", k=3)
    assert [(row["key"], row["label"]) for row in found["results"][0]] == [(row["key"], row["label"]) for row in expected]
    assert found["results"][1][0]["key"] == expected[0]["key"]
    assert found["files"] == [str(tmp_path / "out" / "results.csv")]


def test_a_features_file_knows_where_its_images_were_and_can_be_told_where_they_are(moving: Path, tmp_path: Path) -> None:
    file, out, key = tmp_path / "features.parquet", tmp_path / "out", open_source(moving).keys[0]
    selfsight.embed("pixels", moving, file)
    with_sheet = [str(out / "results.csv"), str(out / "sheet.png")]
    assert selfsight.search("pixels", file, key, out)["files"] == with_sheet
    moved = moving.rename(tmp_path / "elsewhere")
    assert selfsight.search("pixels", file, key, out)["files"] == with_sheet[:1]
    assert selfsight.search("pixels", file, key, out, images=moved)["files"] == with_sheet


def test_a_features_file_that_does_not_fit_is_refused(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"features\.parquet: holds features of pixels, which is not random/"):
        selfsight.search(VIT, embedded, "a.png")
    table = pq.read_table(embedded)
    about = json.loads(table.schema.metadata[b"selfsight"])
    del about["fingerprint"]
    _check(table.replace_schema_metadata({"selfsight": json.dumps(about)}), tmp_path, "its metadata has no 'fingerprint'")
    _check(table.slice(0, 0), tmp_path, "holds no row")
    place = table.column_names.index("vector")
    ragged = pa.array([[1.0] * (1 + row % 2) for row in range(COUNT)], pa.list_(pa.float32()))
    _check(
        table.set_column(place, "vector", ragged), tmp_path, r"column 'vector' is of type list<.*>; expected a fixed-size list"
    )
    nan = pa.array([[float("nan"), 1.0]] * COUNT, pa.list_(pa.float32(), 2))
    _check(table.set_column(place, "vector", nan), tmp_path, "not finite numbers")


def _check(table: pa.Table, folder: Path, message: str) -> None:
    pq.write_table(table, folder / "wrong.parquet")
    with pytest.raises(DataError, match=f"wrong.parquet: .*{message}"):
        selfsight.search("pixels", folder / "wrong.parquet", "a.png")


# --- what is wrong, and the command line ----------------------------------------------------------------------------


def test_what_is_no_query_says_what_would_be_one(photos: Path, tmp_path: Path) -> None:
    key = open_source(photos).keys[0]
    text = pictures.noise(tmp_path / "text.png").with_suffix(".txt")
    text.write_text("no image")
    with pytest.raises(DataError, match=r"text\.txt: is no image \(.*\); expected an image file or a key"):
        selfsight.search("pixels", photos, text)
    with pytest.raises(DataError, match=f"elsewhere/{Path(key).name}: is neither .* Did you mean '{key}'"):
        selfsight.search("pixels", photos, f"elsewhere/{Path(key).name}")
    with pytest.raises(DataError, match=f"Did you mean '{key}'"):
        selfsight.search("pixels", photos, key.replace(".png", ".jpg"))
    with pytest.raises(DataError, match=r"Keys look like '.*\.png'"):
        selfsight.search("pixels", photos, "@@@")
    with pytest.raises(ConfigError, match="QUERY: expected an image file"):
        selfsight.search("pixels", photos)
    with pytest.raises(ConfigError, match=r"--format: no format 'cvs'\. Did you mean 'csv'"):
        selfsight.search("pixels", photos, key, format="cvs")
    with pytest.raises(DataError, match="--k: expected a whole number from 1, got 0"):
        selfsight.search("pixels", photos, key, k=0)


def test_measuring_images_without_labels_says_what_is_missing(tmp_path: Path) -> None:
    plain = pictures.folder(tmp_path / "plain", 4, labelled=False)
    with pytest.raises(DataError, match=r"--measure: .*plain has no labels; expected a sub-folder for each class"):
        selfsight.search("pixels", plain, measure=True)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_the_command_prints_table_measures_and_files(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = open_source(photos).keys[0]
    assert run("search", "pixels", photos, key, "--out", tmp_path / "out", "--k", 2, "--measure") == 0
    printed = capsys.readouterr().out
    expected = selfsight.search("pixels", photos, key, k=2)["results"][0]
    for row in expected:
        assert f"{row['rank']} │ {row['key']} │ {row['cosine']:.4f} │ {row['label']}" in " ".join(printed.split())
    assert f"each of {COUNT} images asks for the others of its class, in percent: mAP " in printed
    assert printed.splitlines()[-1] == f"done: {tmp_path / 'out' / 'results.csv'}, {tmp_path / 'out' / 'sheet.png'}"
    assert run("search", "pixels", photos, "no-such.png") == 2
    assert capsys.readouterr().err.startswith("selfsight: no-such.png: is neither an image file nor a key of ")
