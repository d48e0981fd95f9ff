"""`embed`: a file of features that grows part by part, bears being killed, and takes no more memory for more images."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pictures
from selfsight import api
from selfsight.api import filling
from selfsight.cli import main
from selfsight.data.sources import Source, open_source
from selfsight.data.windows import image_windows
from selfsight.encoders import extract, feature_file, load_encoder
from selfsight.encoders.feature_file import Parts, encoded_part
from selfsight.encoders.features import Stretch
from selfsight.errors import DataError, InputError, SelfsightError
from selfsight.runs import alone, read_jsonl

VIT = "random/vit_w32_d1_p8?size=32"
SMALL_PARTS = "from selfsight.api import filling; filling.PART_BYTES = 1024"
"""Eight rows of a width of 32."""
AT_THE_THIRD_PART = """
import os, signal, sys
seen = []
def hook(event, args):
    if event == "os.rename" and "f.parquet.parts/0" in str(args[1]):
        seen.append(args)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.{name})
sys.addaudithook(hook)
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of three classes, one of them damaged."""
    folder = pictures.folder(tmp_path_factory.mktemp("pictures"), 48, classes=3)
    (folder / open_source(folder).keys[10]).write_bytes(b"\x89PNG damaged")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("whole") / "f.parquet"
    api.embed(VIT, images, out, batch_size=4)
    return pq.read_table(out)


def program(words: list[str], first: str) -> subprocess.CompletedProcess[str]:
    """`selfsight` in a process of its own that does `first` first."""
    code = f"{SMALL_PARTS}\n{first}\nfrom selfsight.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=100, check=False)


def words(images: Path, out: Path, *more: str) -> list[str]:
    return ["embed", VIT, str(images), "--out", str(out), "--batch-size", "4", "--max-bad", "50", *more]


def begun(images: Path | Source, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A file that was left after some parts."""
    monkeypatch.setattr(filling, "PART_BYTES", 1)

    class Impatient(api.Silent):
        def advance(self, what: str, done: int, total: int) -> None:
            if done > 16:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.embed(VIT, images, out, batch_size=4, watch=Impatient(), **options)
    assert feature_file.parts_folder(out).is_dir()


def test_a_killed_process_is_gone_on_with_and_nothing_is_computed_twice(
    images: Path, uninterrupted: pa.Table, tmp_path: Path
) -> None:
    out = tmp_path / "f.parquet"
    done = program(words(images, out), AT_THE_THIRD_PART.format(name="SIGKILL"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    kept = len(list((tmp_path / "f.parquet.parts").glob("0*.parquet")))
    assert kept == 2
    said: list[str] = []

    class Listening(api.Silent):
        def say(self, text: str) -> None:
            said.append(text)

    summary = api.embed(VIT, images, out, batch_size=4, watch=Listening())
    assert said == [f"{out}: goes on after 20 of 48 images"]
    assert summary["resumed"] == 19
    assert summary["images"] == 47
    assert pq.read_table(out).equals(uninterrupted)
    assert [row["key"] for row in read_jsonl(tmp_path / "f.parquet.bad_images.jsonl")] == [open_source(images).keys[10]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "f.parquet.bad_images.jsonl"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_writes_what_is_done_and_prints_the_command_that_goes_on(
    name: str, code: int, images: Path, uninterrupted: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.parquet"
    done = program(words(images, out), AT_THE_THIRD_PART.format(name=name))
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(f"selfsight: stopped by {name}: 28 of 48 images are done; go on with: selfsight embed ")
    assert done.stderr.count("\n") == 1
    with pytest.raises(SystemExit) as left:
        main(shlex.split(done.stderr.split("go on with: ")[1])[1:])
    assert left.value.code == 0
    assert "goes on after 28 of 48 images" in capsys.readouterr().out
    assert pq.read_table(out).equals(uninterrupted)


def test_a_full_disk_at_the_end_costs_nothing(images: Path, uninterrupted: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))"
    done = program(words(images, out, "--workers", "0"), limit)
    assert done.returncode == 1, done.stderr
    assert "joined.parquet: cannot be written, files may not grow so large here (ulimit -f): " in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.rglob(".*")) == []
    summary = api.embed(VIT, images, out, batch_size=4)
    assert (summary["resumed"], summary["images_per_second"]) == (47, None)
    assert pq.read_table(out).equals(uninterrupted)


def test_parts_without_a_manifest_are_begun_anew_and_a_lost_row_is_noticed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    (tmp_path / "f.parquet.parts").mkdir()
    (tmp_path / "f.parquet.parts" / "000000000000.parquet").write_bytes(b"of somebody")
    source = open_source(images)
    parts = Parts(out, {"encoder": "x"}, 2)
    stretch = Stretch(0, 2, np.arange(2), np.zeros((2, 3), np.float32), [])
    parts.add(encoded_part([stretch], source, 3, "float32"), 0)
    assert (parts.folder / "manifest.json").is_file()
    (parts.folder / "000000000000.parquet").write_bytes(
        encoded_part([Stretch(0, 1, np.arange(1), np.zeros((1, 3), np.float32), [])], source, 3, "float32")
    )
    with pytest.raises(SelfsightError, match="holds 1 rows, 2 were written; is another embed at work there"):
        parts.join({})
    assert not out.exists()


def test_only_one_writes_a_file_and_other_things_in_its_folder_are_left_alone(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    with alone(out), pytest.raises(InputError, match="another process is writing it; wait for its end"):
        api.embed("pixels", images, out)
    (tmp_path / "f.parquet.parts").mkdir()
    (tmp_path / "f.parquet.parts" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt', which is not of embed"):
        api.embed("pixels", images, out)
    (tmp_path / "f.parquet.parts" / "notes.txt").unlink()
    api.embed("pixels", images, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "f.parquet.bad_images.jsonl"]


def test_a_folder_in_the_place_of_the_file_is_told_at_once(images: Path, tmp_path: Path) -> None:
    (tmp_path / "dir.parquet").mkdir()
    with pytest.raises(InputError, match="is a folder; expected a file to write"):
        api.embed("pixels", images, tmp_path / "dir.parquet")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; expected a folder there"):
        api.embed("pixels", images, tmp_path / "file" / "deeper" / "f.parquet")
    with pytest.raises(InputError, match="is a folder; expected a file to write"):
        api.predict(tmp_path / "run", images, tmp_path / "dir.parquet")
    for verb in (api.search, api.duplicates):
        with pytest.raises(InputError, match="is a file; expected a folder"):
            verb("pixels", images, **({"queries": "x.png"} if verb is api.search else {}), out=tmp_path / "file")


def test_each_file_has_its_own_list_of_bad_images(images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(images, bad)
    (bad / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "bad_images.jsonl").write_text("of a run\n")
    api.embed("pixels", bad, tmp_path / "a.parquet", max_bad=50)
    api.embed("pixels", images, tmp_path / "b.parquet", max_bad=50)
    assert "broken.png" in (tmp_path / "a.parquet.bad_images.jsonl").read_text()
    assert (tmp_path / "bad_images.jsonl").read_text() == "of a run\n"
    assert not (tmp_path / "dir.parquet.parts").exists()


def test_a_damaged_part_is_computed_again(
    images: Path, uninterrupted: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.parquet"
    begun(images, out, monkeypatch)
    second = sorted((tmp_path / "f.parquet.parts").glob("0*.parquet"))[1]
    second.write_bytes(second.read_bytes()[:-20])
    assert api.embed(VIT, images, out, batch_size=4)["resumed"] == 15
    assert pq.read_table(out).equals(uninterrupted)


def test_what_was_begun_with_something_else_is_refused_in_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.parquet"
    begun(images, out, monkeypatch)
    other = pictures.folder(tmp_path / "other", 4, labelled=False)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"encoder": f"{VIT}&seed=1"}, f"with encoder {VIT}, which is now {VIT}&seed=1; remove the folder"),
        ({"data": other}, f"with data {images}, which is now {other}; "),
        ({"limit": 20}, "with a list of images of length 48, which is now 20; "),
        ({"dtype": "float16"}, "with dtype float32, which is now float16; "),
        ({"precision": "bfloat16"}, "with runtime torch, which is now torch in bfloat16; "),
    ]
    for change, message in cases:
        with pytest.raises(InputError, match="was begun") as refused:
            api.embed(**({"encoder": VIT, "data": images, "out": out, "batch_size": 4} | change))
        assert message in str(refused.value)
    (tmp_path / "f.parquet.parts" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest.json: is damaged; remove the folder"):
        api.embed(VIT, images, out)


def test_images_that_were_exchanged_for_others_are_noticed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = pictures.folder(tmp_path / "data", 24, labelled=False), tmp_path / "f.parquet"
    begun(data, out, monkeypatch)
    (data / "0003.png").rename(data / "another.png")
    with pytest.raises(InputError, match="a list of images of length 24, which is now another of that name"):
        api.embed(VIT, data, out)


def test_the_file_says_where_its_features_come_from_and_they_are_those_of_extract(
    images: Path, uninterrupted: pa.Table, tmp_path: Path
) -> None:
    encoder, source = load_encoder(VIT), open_source(images)
    about = json.loads(uninterrupted.schema.metadata[b"selfsight"])
    assert about["fingerprint"] == encoder.fingerprint
    assert (about["encoder"], about["pool"], about["weights"]) == (VIT, "cls", "untrained (seed 0)")
    assert (about["input_size"], about["feature_width"], about["feature_shape"]) == (32, 32, [32])
    assert about["preprocessing"]["mean"] == list(encoder.prepare.mean)
    assert (about["dtype"], about["runtime"], about["classes"]) == ("float32", "torch", list(source.classes))
    assert about["environment"]["versions"]["torch"]
    found = extract(encoder, source, device="cpu", batch_size=4, cache=False)
    vectors = np.stack(uninterrupted["vector"].to_numpy())
    np.testing.assert_array_equal(vectors, found.vectors)
    assert uninterrupted["key"].to_pylist() == [source.keys[i] for i in found.indices]
    assert source.labels is not None
    np.testing.assert_array_equal(uninterrupted["label"].to_numpy(), source.labels[found.indices])


def test_half_as_many_bytes_with_float16_and_row_groups_of_one_size(
    images: Path, uninterrupted: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_file, "_GROUP_ROWS", 20)
    monkeypatch.setattr(filling, "PART_BYTES", 1024)
    api.embed(VIT, images, tmp_path / "f.parquet", batch_size=4, dtype="float16")
    file = pq.ParquetFile(tmp_path / "f.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [20, 20, 7]
    assert file.schema_arrow.field("vector").type == pa.list_(pa.float16(), 32)
    halves = np.stack(file.read()["vector"].to_numpy())
    np.testing.assert_allclose(halves, np.stack(uninterrupted["vector"].to_numpy()), atol=2e-3)


def test_a_dense_pool_is_laid_out_flat_and_its_shape_is_told(images: Path, tmp_path: Path) -> None:
    api.embed(f"{VIT}&pool=patches", images, tmp_path / "f.parquet", limit=6)
    table = pq.read_table(tmp_path / "f.parquet")
    assert json.loads(table.schema.metadata[b"selfsight"])["feature_shape"] == [16, 32]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 512)


def test_numbers_too_large_for_float16_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--dtype float16: features of .* reach .*, which it cannot hold; take float32"):
        api.embed("pixels?size=8&std=1e-6,1e-6,1e-6", images, tmp_path / "f.parquet", dtype="float16")
    with pytest.raises(InputError, match="--dtype: no type 'int8'"):
        api.embed(VIT, images, tmp_path / "f.parquet", dtype="int8")


def test_no_readable_image_leaves_nothing_behind(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 3, labelled=False)
    for path in data.iterdir():
        path.write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match="not one of 3 images can be read"):
        api.embed(VIT, data, tmp_path / "f.parquet", max_bad=100)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


class Drawn(Source):
    """Noise that is made when it is asked for."""

    def __init__(self, count: int) -> None:
        self.location, self.labels, self.classes = "drawn", None, ()
        self.keys = [f"{number:06d}" for number in range(count)]

    def image_bytes(self, index: int) -> bytes:
        data = io.BytesIO()
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data, "PNG")
        return data.getvalue()

    def columns(self) -> tuple[str, ...]:
        return ()

    def column(self, name: str) -> np.ndarray:
        raise KeyError(name)


def most_memory(count: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Bytes at most, in NumPy and Python, and in Arrow."""
    monkeypatch.setattr("selfsight.api.embedding.open_source", lambda data: Drawn(count))
    pool, before = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        api.embed("pixels?size=64", "drawn", out, batch_size=8)
        return tracemalloc.get_traced_memory()[1], int(pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has 48 KiB: 800 of them would be 38 MiB."""
    monkeypatch.setattr(filling, "PART_BYTES", 2**20)
    monkeypatch.setattr(feature_file, "_GROUP_BYTES", 2**20)
    most_memory(16, tmp_path / "first.parquet", monkeypatch)  # what is loaded once and kept
    few = most_memory(100, tmp_path / "few.parquet", monkeypatch)
    many = most_memory(800, tmp_path / "many.parquet", monkeypatch)
    assert pq.read_metadata(tmp_path / "many.parquet").num_rows == 800
    assert many[0] < few[0] + 2**20
    assert 2**20 < many[1] < few[1] + 2**20
    assert sum(many) < 12 * 2**20


@pytest.fixture
def of_all_shapes(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "shapes").mkdir()
    for number in range(40):
        height, width = [(32, 32), (32, 64), (48, 32), (40, 100)][draw.integers(4)]
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.save(tmp_path / "shapes" / f"{number:02d}.png")
    (tmp_path / "shapes" / "07.png").write_bytes(b"\x89PNG damaged")
    return tmp_path / "shapes"


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_shapes_share_no_batch_and_come_in_order(workers: int, of_all_shapes: Path, tmp_path: Path) -> None:
    spec = f"{VIT}&aspect=keep"
    encoder, source = load_encoder(spec), open_source(of_all_shapes)
    api.embed(spec, of_all_shapes, tmp_path / "f.parquet", batch_size=6, workers=workers)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["key"].to_pylist() == [key for key in source.keys if key != "07.png"]
    alone = [encoder.encode(encoder.prepare(Image.open(of_all_shapes / key))[None])[0] for key in table["key"].to_pylist()]
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), torch.stack(alone).numpy(), atol=1e-5)


def test_shapes_are_put_together_within_a_bounded_window(of_all_shapes: Path) -> None:
    encoder, source = load_encoder(f"{VIT}&aspect=keep"), open_source(of_all_shapes)
    windows = list(image_windows(source, encoder.prepare, batch_size=6, workers=0))
    assert [(window.start, window.stop) for window in windows] == [(0, 24), (24, 40)]
    assert [image.key for image in windows[0].bad] == ["07.png"]
    for window in windows:
        indices = [index for part, _ in window.batches for index in part]
        assert sorted(indices) == [index for index in range(window.start, window.stop) if source.keys[index] != "07.png"]
        shapes = [images.shape[1:] for _, images in window.batches]
        for shape in set(shapes):
            sizes = [len(part) for part, images in window.batches if images.shape[1:] == shape]
            assert all(size == 6 for size in sizes[:-1])
            assert sizes[-1] <= 6


def test_a_window_of_one_shape_is_one_run(images: Path) -> None:
    encoder = load_encoder(VIT)
    windows = list(image_windows(open_source(images), encoder.prepare, batch_size=6, workers=0, start=12, stop=25))
    assert [(window.start, window.stop, len(window.batches)) for window in windows] == [
        (12, 18, 1), (18, 24, 1), (24, 25, 1),
    ]  # fmt: skip


def test_features_that_are_no_numbers_end_the_work_and_keep_what_is_done(
    images: Path, uninterrupted: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "PART_BYTES", 1)
    encoder = load_encoder(VIT)
    encode = encoder.encode
    calls: list[int] = []

    def broken(batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(batch))
        return encode(batch) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(encoder, "encode", broken)
    monkeypatch.setattr("selfsight.api.embedding.load_encoder", lambda spec: encoder)
    with pytest.raises(SelfsightError, match="are not finite numbers"):
        api.embed(VIT, images, tmp_path / "f.parquet", batch_size=4, runtime="torch")
    assert api.embed(VIT, images, tmp_path / "f.parquet", batch_size=4)["resumed"] == 8
    assert pq.read_table(tmp_path / "f.parquet").equals(uninterrupted)
