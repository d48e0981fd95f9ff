"""docs/data.md executed: each command on the kind of source that it names, remote ones against servers on this machine."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from moto.server import ThreadedMotoServer

import films
import pictures
from guides import Guide, interpreted, typed
from selfsight.data.sources import SOURCES
from servers import serving
from test_documents import quick

GUIDE = Guide("data")
SHARDS = [f"train-{number:03d}.tar" for number in range(4)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and the same in every other form that the page speaks of."""
    at = tmp_path_factory.mktemp("data")
    photos = pictures.folder(at / "photos", 40, labelled=False)
    pictures.parquet(at / "photos.parquet", 12)
    table = pq.read_table(at / "photos.parquet")
    (at / "parquet").mkdir()
    for number in range(3):
        pq.write_table(table.slice(4 * number, 4), at / "parquet" / f"train-{number}.parquet")
    files = sorted(photos.iterdir())
    with (at / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "site", "split"])
        rows.writerows([f"photos/{p.name}", ("cat", "dog")[i % 2], f"site {i}", "train"] for i, p in enumerate(files))
    for number, name in enumerate(SHARDS):
        members = {f"{number}-{p.stem}.png": p.read_bytes() for p in files[10 * number : 10 * number + 10]}
        pictures.tar(at / "shards" / name, members)
    for number in range(2):
        films.film(at / "clips" / f"{number}.mp4", 40, first=40 * number, grain=True)
    (at / "mixture.yaml").write_text(GUIDE.written_in("yaml")[0], encoding="utf-8")
    (at / "bands").mkdir()
    draw = np.random.default_rng(0)
    for number in range(24):
        bands = draw.integers(0, 256, (32, 32, 5), dtype=np.uint8)
        tifffile.imwrite(at / "bands" / f"{number}.tif", bands, photometric="minisblack", planarconfig="contig")
    return at


@pytest.fixture(scope="module")
def web(place: Path) -> Iterator[str]:
    with serving({f"shards/{name}": (place / "shards" / name).read_bytes() for name in SHARDS}) as server:
        yield server.address


@pytest.fixture(scope="module")
def storage(place: Path) -> Iterator[dict[str, str]]:
    """The environment of an S3 server that holds the shards in `bucket`."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="bucket")
    for name in SHARDS:
        client.upload_file(str(place / "shards" / name), "bucket", f"shards/{name}")
    yield keys | {"AWS_ENDPOINT_URL": address}
    server.stop()


@pytest.mark.parametrize("line", GUIDE.commands, ids=[re.sub(r"\W+", "-", line)[10:60] for line in GUIDE.commands])
def test_each_command_of_the_page_runs(
    line: str,
    place: Path,
    web: str,
    storage: dict[str, str],
    environment_of: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,
) -> None:
    line = quick(line).replace("https://data.example.org", web)
    if "://" in line:
        # The clients of a server outlive it, so they have a process of their own.
        interpreted(f"from selfsight.cli import main; main({shlex.split(line)[1:]})", place, environment_of | storage)
    else:
        monkeypatch.chdir(place)
        typed(line, capsys)
    words = shlex.split(line)
    made = Path(words[words.index("--out") + 1])
    assert (place / made).exists()
    assert not (place / made / "bad_images.jsonl").exists()


def test_each_python_block_of_the_page_runs(place: Path, environment_of: dict[str, str]) -> None:
    for code in GUIDE.python:
        interpreted(quick(code), place, environment_of)
    assert (place / "runs" / "weighted" / "teacher.safetensors").is_file()


def test_the_table_in_the_page_is_one_that_is_read(tmp_path: Path) -> None:
    from selfsight.data.sources import open_source

    (tmp_path / "labels.csv").write_text(GUIDE.written_in("csv")[0], encoding="utf-8")
    for name in ("0000.png", "0001.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        pictures.noise(tmp_path / "photos" / name)
    source = open_source(tmp_path / "labels.csv")
    assert source.classes == ("cat", "dog")
    assert source.column("site").tolist() == ["north", "south"]


def test_the_page_shows_every_kind_of_source_and_every_option() -> None:
    """A new source, or a new option of one, has to be written about."""
    shown = {"folder": "## Folders", "parquet": "## Parquet", "table": "## A table", "shards": "## Tar shards"}
    shown |= {"video": "## Video", "mixture": "## Lists and mixtures"}
    assert set(shown) == set(SOURCES)
    for name, kind in SOURCES.items():
        assert shown[name] in GUIDE.text
        for option in kind.options:
            assert option in GUIDE.text, f"{name}: {option}"
