"""Remote shards: a real web server and a real S3 server on this machine, with connections that drop, stall and lie."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leaks import held, no_more
from pictures import tar
from selfsight.data.decode import decode
from selfsight.data.loader import read_image, view_batches
from selfsight.data.sources import Source, open_source, remote, shard_cache
from selfsight.data.sources.remote import Patience, Remote, RemoteFile
from selfsight.data.sources.shard_cache import ShardCache
from selfsight.data.views import ViewSettings
from selfsight.errors import DataError
from servers import FileServer, Proxy, proxy, serving

QUICK = Patience(timeout=5.0, tries=4, pause=0.01)
BLOB = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "Remote", lambda patience: Remote(QUICK))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"a.tar": BLOB}) as files:
        yield files


def shards(folder: Path, sizes: list[int]) -> dict[str, bytes]:
    """Bytes of labelled shards, by name; images of level 0, 1, 2, ..."""
    files, number = {}, 0
    for shard, size in enumerate(sizes):
        members = {}
        for _ in range(size):
            image = io.BytesIO()
            Image.new("RGB", (6, 4), (number, number, number)).save(image, "PNG")
            members |= {f"{number:04d}.png": image.getvalue(), f"{number:04d}.cls": b"%d" % (number % 3)}
            number += 1
        files[f"train-{shard:03d}.tar"] = tar(folder / "made" / f"{shard}.tar", members).read_bytes()
    return files


def levels(source: Source) -> list[int]:
    return [int(np.asarray(decode(source.image_bytes(index)))[0, 0, 0]) for index in range(len(source))]


def downloaded(address: str, patience: Patience = QUICK) -> bytes:
    access = Remote(patience)
    file = access.describe([address])[0]
    assert isinstance(file, RemoteFile), file
    into = io.BytesIO()
    access.download(file, into)
    return into.getvalue()


# --- downloads over HTTP --------------------------------------------------------------------------------------------


def test_a_download_is_one_request(server: FileServer) -> None:
    assert downloaded(f"{server.address}/a.tar") == BLOB
    assert (server.gets, server.sent) == (1, len(BLOB))


def test_a_dropped_connection_is_taken_up_at_the_byte_it_had_reached(server: FileServer) -> None:
    server.drops = 3
    assert downloaded(f"{server.address}/a.tar") == BLOB
    assert server.gets == 4
    assert server.sent < 1.3 * len(BLOB)


def test_drops_do_not_count_while_bytes_arrive(server: FileServer) -> None:
    server.drops, server.cut = 12, 200_000
    assert downloaded(f"{server.address}/a.tar") == BLOB
    assert server.gets >= 13


def test_a_server_without_ranges_sends_all_again(server: FileServer) -> None:
    server.drops, server.ranges = 2, False
    assert downloaded(f"{server.address}/a.tar") == BLOB
    assert server.gets >= 3


def test_a_server_that_always_drops_is_given_up(server: FileServer) -> None:
    server.drops, server.cut = 1000, 10
    with pytest.raises(OSError, match=r"a\.tar: .* \(\d+ of 3000000 bytes came\)"):
        downloaded(f"{server.address}/a.tar")
    assert server.gets == QUICK.tries


def test_a_stall_ends_with_the_time_limit_and_is_tried_again(server: FileServer) -> None:
    server.stalls = 1
    assert downloaded(f"{server.address}/a.tar", Patience(timeout=1.0, tries=4, pause=0.01)) == BLOB
    assert server.gets >= 2
    server.stalls = 1000
    with pytest.raises(OSError, match=r"a\.tar: no answer within 0\.2 s \(0 of 3000000 bytes came\)"):
        downloaded(f"{server.address}/a.tar", Patience(timeout=0.2, tries=3, pause=0.01))


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 4)])
def test_what_cannot_get_better_is_not_tried_again(server: FileServer, status: int, tries: int) -> None:
    server.status = status
    found = Remote(QUICK).describe([f"{server.address}/a.tar"])[0]
    assert isinstance(found, FileNotFoundError if status == 404 else OSError)
    assert ("does not exist" if status == 404 else str(status)) in str(found)
    assert server.gets == tries


def test_no_server_at_all_is_an_error_in_one_line(server: FileServer) -> None:
    address = server.address
    server.server_close()
    found = Remote(QUICK).describe([f"{address}/a.tar"])[0]
    assert isinstance(found, OSError)
    assert "a.tar: Cannot connect to host" in str(found)
    assert len(str(found).splitlines()) == 1


def test_a_file_that_changed_is_not_downloaded(server: FileServer) -> None:
    access = Remote(QUICK)
    file = access.describe([f"{server.address}/a.tar"])[0]
    assert isinstance(file, RemoteFile)
    server.files["a.tar"] = BLOB[::-1]
    with pytest.raises(OSError, match="changed since it was indexed"):
        access.download(file, io.BytesIO())


def test_a_missing_package_and_an_unknown_scheme_are_errors_that_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match=r"^s3:// needs s3fs: pip install 'selfsight\[remote\]'$"):
        open_source("s3://bucket/a.tar")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(DataError, match=r"^https:// needs fsspec\[http\]: pip install 'selfsight\[remote\]'$"):
        open_source("https://127.0.0.1/a.tar")
    with pytest.raises(DataError, match="foo:// is no known scheme"):
        open_source("foo://bucket/a.tar")
    with pytest.raises(DataError, match=r"https:// cannot list files; expected names in braces"):
        Remote().find("https://127.0.0.1/*.tar")


# --- the cache ------------------------------------------------------------------------------------------------------


def cache_at(folder: Path, limit: int = 10**9, patience: Patience = QUICK) -> ShardCache:
    return ShardCache(Remote(patience), folder, limit)


def described(server: FileServer, *names: str) -> list[RemoteFile]:
    found = Remote(QUICK).describe([f"{server.address}/{name}" for name in names])
    return [file for file in found if isinstance(file, RemoteFile)]


def read(cache: ShardCache, file: RemoteFile) -> bytes:
    with cache.open(file) as opened:
        return opened.read()


def test_a_file_is_downloaded_once_and_a_new_version_again(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    assert [read(cache, file) for _ in range(3)] == [BLOB] * 3
    assert server.gets == 1
    server.files["a.tar"] = b"new"
    [file] = described(server, "a.tar")
    assert read(cache, file) == b"new"
    assert server.gets == 2


def test_the_files_used_longest_ago_go_first(server: FileServer, tmp_path: Path) -> None:
    server.files = {f"{number}.tar": bytes([number]) * 1000 for number in range(5)}
    files = described(server, *server.files)
    cache = cache_at(tmp_path / "c", limit=3000)
    for number in (0, 1, 2, 0, 3):  # 1 is the oldest when 3 comes
        assert read(cache, files[number]) == bytes([number]) * 1000
        time.sleep(0.02)
    assert server.gets == 4
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) <= 3000
    read(cache, files[0])
    assert server.gets == 4
    read(cache, files[1])
    assert server.gets == 5


def test_what_is_open_can_be_read_after_it_was_removed(server: FileServer, tmp_path: Path) -> None:
    server.files = {f"{number}.tar": bytes([number]) * 1000 for number in range(5)}
    files = described(server, *server.files)
    cache = cache_at(tmp_path / "c", limit=1)
    opened = [cache.open(file) for file in files]
    assert [file.read() for file in opened] == list(server.files.values())
    for file in opened:
        file.close()
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_a_lost_file_fails_at_once_when_it_is_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    server.drops, server.cut = 1000, 10
    for _ in range(50):
        with pytest.raises(OSError, match="of 3000000 bytes came"):
            cache.open(file)
    assert server.gets == QUICK.tries
    assert list((tmp_path / "c").iterdir()) == []


def test_what_a_killed_process_left_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    part = cache._path(file).with_suffix(".part")
    part.parent.mkdir()
    part.write_bytes(BLOB[:2_000_000])
    assert read(cache, file) == BLOB
    assert server.sent == 1_000_000


@pytest.mark.parametrize("age", [0.0, 1e9])
def test_what_was_left_by_a_crash_of_the_machine_or_is_too_long_is_begun_anew(
    server: FileServer, tmp_path: Path, age: float
) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    part = cache._path(file).with_suffix(".part")
    part.parent.mkdir()
    part.write_bytes(b"rubbish" * (1_000 if age else 1_000_000))
    os.utime(part, (time.time() - age,) * 2)
    assert read(cache, file) == BLOB
    assert server.sent == len(BLOB)


def test_what_was_left_makes_room_but_what_is_being_downloaded_stays(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c", limit=1)
    [file] = described(server, "a.tar")
    (tmp_path / "c").mkdir()
    for name in ("left.part", "busy.part", "old.shard"):
        (tmp_path / "c" / name).write_bytes(b"something")
    with (tmp_path / "c" / "busy.part").open("rb") as busy, shard_cache._locked(busy, 1.0):
        assert read(cache, file) == BLOB
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"busy.part", cache._path(file).name}


def in_processes(count: int, work: Callable[[], bytes | str], method: str = "fork") -> list[bytes | str]:
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    processes = [context.Process(target=_answer, args=(answers, work)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    return found


def _answer(answers: multiprocessing.Queue[bytes | str], work: Callable[[], bytes | str]) -> None:
    try:
        answers.put(work())
    except OSError as error:
        answers.put(str(error))


def test_processes_share_one_download(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    server.drops = 2
    assert in_processes(4, lambda: read(cache, file)) == [BLOB] * 4
    assert server.gets == 3


def test_processes_share_one_failure(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c", patience=Patience(timeout=1, tries=4, pause=0.2))
    [file] = described(server, "a.tar")
    server.drops, server.cut = 1000, 10
    answers = in_processes(4, lambda: read(cache, file))
    assert all("of 3000000 bytes came" in str(answer) for answer in answers)
    assert server.gets == 4


def test_a_process_that_was_killed_while_it_downloaded_leaves_the_lock(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c", patience=Patience(timeout=5, tries=4, pause=0.01))
    [file] = described(server, "a.tar")
    server.stalls = 1
    process = multiprocessing.get_context("fork").Process(target=read, args=(cache, file))
    process.start()
    while server.gets == 0:
        time.sleep(0.01)
    process.kill()
    process.join(10)
    assert read(cache, file) == BLOB
    assert server.gets == 2


def test_a_holder_that_makes_no_progress_is_not_waited_for_without_end(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c", patience=Patience(timeout=0.1, tries=2, pause=0.01))
    [file] = described(server, "a.tar")
    part = cache._path(file).with_suffix(".part")
    part.parent.mkdir()
    with part.open("wb") as locked, shard_cache._locked(locked, 1.0), pytest.raises(OSError, match="makes no progress"):
        cache.open(file)


def test_what_is_expected_is_fetched_in_the_background(server: FileServer, tmp_path: Path) -> None:
    server.files = {f"{number}.tar": bytes([number]) * 1000 for number in range(6)}
    files = described(server, *server.files)
    cache = cache_at(tmp_path / "c")
    before = threading.active_count()
    cache.expect(files)
    cache.expect(files)
    wait(lambda: len(list((tmp_path / "c").glob("*.shard"))) == 6)
    wait(lambda: threading.active_count() <= before)
    assert server.gets == 6
    assert [read(cache, file) for file in files] == list(server.files.values())
    assert server.gets == 6


def test_an_expectation_that_fails_says_nothing_until_the_file_is_read(server: FileServer, tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "c")
    [file] = described(server, "a.tar")
    server.drops, server.cut = 1000, 10
    cache.expect([file])
    with pytest.raises(OSError, match="of 3000000 bytes came"):
        cache.open(file)


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("text", ["0", "-1", "many", "inf", "nan"])
def test_a_limit_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(DataError, match="option 'cache_gb': expected a number above 0"):
        open_source(f"http://127.0.0.1/a.tar?cache_gb={text}")
    monkeypatch.setenv("SELFSIGHT_SHARD_CACHE_GB", text)
    with pytest.raises(DataError, match=f"SELFSIGHT_SHARD_CACHE_GB: expected a number above 0, got '{text}'"):
        open_source("http://127.0.0.1/a.tar")


# --- the source -----------------------------------------------------------------------------------------------------


def test_shards_of_a_web_server_are_indexed_once_and_read(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [3, 2, 4])) as server:
        location = f"{server.address}/train-{{000..002}}.tar"
        source = open_source(location)
        assert levels(source) == list(range(9))
        assert source.keys[3] == "train-001.tar/0003"
        assert source.labels is not None
        assert levels(open_source(location)) == list(range(9))
        assert server.gets == 3


def test_all_is_read_from_a_cache_that_holds_but_one_shard(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [3, 3, 3])) as server:
        source = open_source(f"{server.address}/train-{{000..002}}.tar?cache_gb=1e-9&window=2")
        assert source.window == 2
        order = np.random.default_rng(0).permutation(9)
        assert [int(np.asarray(decode(source.image_bytes(int(i))))[0, 0, 0]) for i in order] == order.tolist()
        assert server.gets > 5
        assert len(list((tmp_path / "cache" / "shards").iterdir())) == 1


def test_a_shard_that_is_missing_is_rejected_and_one_that_is_lost_later_gives_bad_images(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [2, 2])) as server:
        location = f"{server.address}/train-{{000..002}}.tar?cache_gb=1e-9"
        source = open_source(location)
        assert [(bad.key, bad.reason) for bad in source.rejected] == [("train-002.tar", "does not exist")]
        server.drops, server.cut = 1000, 10
        bad = [read_image(source, index) for index in range(4)]
        assert sum("bytes came" in getattr(item, "reason", "") for item in bad) >= 2
        server.drops = 0
        assert levels(open_source(location)) == [0, 1, 2, 3]


def test_a_shard_that_failed_at_the_first_start_is_tried_at_the_next(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [2, 2])) as server:
        files, location = dict(server.files), f"{server.address}/train-{{000..001}}.tar"
        server.drops, server.cut = QUICK.tries * 2, 10
        with pytest.raises(DataError, match=r"no shard holds an image; first: train-000.tar cannot be read \(.* bytes came\)"):
            open_source(location)
        server.drops = 0
        assert levels(open_source(location)) == [0, 1, 2, 3]
        server.files = files | {"train-000.tar": b"damaged"}
        source = open_source(location)
        assert levels(source) == [2, 3]
        assert source.rejected[0].reason == "is no tar archive"


def test_an_address_with_a_query_keeps_it(tmp_path: Path) -> None:
    files = shards(tmp_path, [2])
    with serving({"train-000.tar?key=1": files["train-000.tar"]}) as server:
        source = open_source(f"{server.address}/train-000.tar?key=1")
        assert list(source.keys) == ["train-000.tar/0000", "train-000.tar/0001"]
        assert levels(source) == [0, 1]


def views(source: Source, workers: int) -> list[torch.Tensor]:
    settings = ViewSettings(global_size=8, local_size=8, local_count=2)
    crew = view_batches(source, settings, batch_size=6, seed=1, workers=workers, finish=True)
    found = list(crew.items(0, 6))
    assert [bad for batch in found for bad in batch.bad] == []
    return [view for batch in found for view in batch.views]


def test_forked_workers_read_the_same_as_one_process(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [5, 6, 7])) as server:
        source = open_source(f"{server.address}/train-{{000..002}}.tar?window=1&cache_gb=1e-9")
        alone = views(source, 0)  # the parent has connections of its own by now
        for workers in (1, 2):
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, views(source, workers), strict=True))


def test_a_source_is_pickled_and_read_in_a_spawned_process(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [2, 2])) as server:
        source = open_source(f"{server.address}/train-{{000..001}}.tar?cache_gb=1e-9")
        levels(source)
        assert levels(pickle.loads(pickle.dumps(source))) == [0, 1, 2, 3]
        [answer] = in_processes(1, functools.partial(bytes_of, source), "spawn")
        assert answer == source.image_bytes(3)


def bytes_of(source: Source) -> bytes:
    return source.image_bytes(3)


def test_reading_leaves_no_file_and_no_connection_open(tmp_path: Path) -> None:
    with serving(shards(tmp_path, [2, 2])) as server:
        location = f"{server.address}/train-{{000..001}}.tar?cache_gb=1e-9"
        levels(open_source(location))  # the thread of fsspec starts once
        time.sleep(0.2)
        before = held()
        for _ in range(3):
            source = open_source(location)
            server.drops = 3
            levels(source)
            source.expect(np.arange(4))
            del source
        wait(lambda: no_more(before))


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="module")
def relay(s3: int) -> Iterator[Proxy]:
    # One for all tests: a process keeps its file systems, and those their endpoint.
    with proxy(s3) as server:
        yield server


@pytest.fixture
def bucket(s3: int, relay: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before a bucket `data` with shards below `train/`."""
    import boto3

    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}")
    client.create_bucket(Bucket="data")
    for name, data in shards(tmp_path, [3, 2, 4]).items():
        client.put_object(Bucket="data", Key=f"train/{name}", Body=data)
    client.put_object(Bucket="data", Key="big.tar", Body=BLOB)
    client.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", relay.address)
    yield relay
    relay.drops = relay.dropped = 0


@pytest.mark.parametrize(
    "location", ["s3://data/train/train-{000..002}.tar", "s3://data/train/*.tar", "s3://data/train", "s3://data/"]
)
def test_shards_of_a_bucket_are_read(bucket: Proxy, location: str) -> None:
    if location == "s3://data/":
        with pytest.raises(DataError, match=r"no shard holds an image; first: big.tar is no tar archive"):
            open_source(location)
        return
    source = open_source(location)
    assert levels(source) == list(range(9))
    assert list(source.keys)[:1] == ["train-000.tar/0000"]


def test_connections_to_a_bucket_may_drop(bucket: Proxy) -> None:
    bucket.drops, bucket.cut = 5, 300_000
    assert downloaded("s3://data/big.tar", Patience(timeout=20, tries=6, pause=0.01)) == BLOB
    assert bucket.dropped == 5


def test_a_bucket_whose_connections_always_drop_is_given_up(bucket: Proxy) -> None:
    access = Remote(Patience(timeout=3, tries=2, pause=0.01))
    file = access.describe(["s3://data/big.tar"])[0]
    assert isinstance(file, RemoteFile)
    bucket.drops, bucket.cut = 10_000, 100
    with pytest.raises(OSError, match=r"s3://data/big\.tar: .*"):
        access.download(file, io.BytesIO())


def test_a_bucket_without_the_file_says_so(bucket: Proxy) -> None:
    with pytest.raises(DataError, match=r"no shard holds an image; first: nowhere\.tar does not exist"):
        open_source("s3://data/nowhere.tar")
    with pytest.raises(DataError, match=r"s3://data/nothing: no \.tar shard is there"):
        open_source("s3://data/nothing")


def test_forked_workers_read_from_a_bucket(bucket: Proxy) -> None:
    source = open_source("s3://data/train/train-{000..002}.tar?window=1&cache_gb=1e-9")
    alone = views(source, 0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, views(source, 2), strict=True))


def test_other_file_systems_of_fsspec_do_as_well() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/set/a.tar", BLOB)
    assert Remote(QUICK).find("memory://set/*.tar") == ["memory:///set/a.tar"]
    assert downloaded("memory://set/a.tar") == BLOB
    assert remote._scheme("GS://b/k") == "gs"
