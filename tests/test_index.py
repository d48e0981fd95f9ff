"""The memory-mapped index: written once, shared by many, trusted only while its bytes fit its name."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from permissions import as_nobody, public_folder
from selfsight.data.index import Columns, Index, open_or_build
from selfsight.errors import DataError
from selfsight.runs import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    return cache_folder("index")


def columns(names: list[str] | None = None) -> Columns:
    names = ["a", "größe 漢字", "c d"] if names is None else names
    return {"key": pa.array(names, pa.large_string()), "label": pa.array(range(len(names)), pa.int64()), "one": pa.array(["x"])}


def opened(build: Callable[[], Columns] = columns, fresh: bool = True) -> Index:
    return open_or_build(["test", "here"], lambda index: fresh, build)


def never() -> Columns:
    raise AssertionError("the index was built again")


def test_an_index_keeps_columns_of_different_lengths() -> None:
    index = opened()
    assert list(index.texts("key")) == ["a", "größe 漢字", "c d"]
    assert index.numbers("label").tolist() == [0, 1, 2]
    assert index["one"].to_pylist() == ["x"]


def test_numbers_are_the_mapped_file_itself() -> None:
    labels = opened().numbers("label")
    assert labels.dtype == np.int64
    assert not labels.flags.owndata
    assert not labels.flags.writeable


def test_a_fresh_index_is_used_and_a_stale_one_is_built_again() -> None:
    opened()
    assert opened(never).texts("key")[0] == "a"
    again = opened(lambda: columns(["new"]), fresh=False)
    assert list(again.texts("key")) == ["new"]
    assert list(opened(never).texts("key")) == ["new"]


def test_subjects_have_indexes_of_their_own() -> None:
    one = open_or_build(["folder", "a"], lambda index: True, lambda: columns(["one"]))
    two = open_or_build(["folder", "b"], lambda index: True, lambda: columns(["two"]))
    assert (one.texts("key")[0], two.texts("key")[0]) == ("one", "two")


def test_a_version_in_use_outlives_the_next_one_and_then_goes(cache: Path) -> None:
    held = opened(lambda: columns(["old"]))
    packed = pickle.dumps(held)
    opened(lambda: columns(["new"]), fresh=False)
    assert list(pickle.loads(packed).texts("key")) == ["old"]
    assert len(list(cache.iterdir())) == 2
    path = held.path
    del held
    opened(lambda: columns(["newest"]), fresh=False)
    assert not path.exists()


def test_a_version_held_by_another_process_outlives_the_next_one() -> None:
    code = (
        "import sys; from selfsight.data.index import open_or_build\n"
        "index = open_or_build(['test', 'here'], lambda index: True, dict)\n"
        "print(index.path, flush=True); sys.stdin.read()"
    )
    first = opened().path
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert Path(other.stdout.readline().strip()) == first
        opened(lambda: columns(["new"]), fresh=False)
        assert first.exists()
        other.stdin.close()
    opened(lambda: columns(["newest"]), fresh=False)
    assert not first.exists()


def test_a_pickled_index_without_its_file_says_so() -> None:
    index = opened()
    packed = pickle.dumps(index)
    index.path.unlink()
    with pytest.raises(DataError, match=r"\.arrow: this index was removed while it was in use; start again"):
        pickle.loads(packed)
    assert list(index.texts("key")) == ["a", "größe 漢字", "c d"], "what is mapped stays"


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
def test_a_file_that_was_cut_is_built_again(cut: int) -> None:
    path = opened().path
    path.write_bytes(path.read_bytes()[:cut])
    assert list(opened(lambda: columns(["again"])).texts("key")) == ["again"]


def test_a_file_with_one_wrong_byte_is_built_again() -> None:
    path = opened().path
    data = bytearray(path.read_bytes())
    data[data.index("größe".encode())] ^= 1
    path.write_bytes(data)
    assert list(opened(lambda: columns(["again"])).texts("key")) == ["again"]


def test_a_cache_folder_that_is_none_leaves_the_index_in_memory(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    index = opened()
    assert index.path is None
    assert list(pickle.loads(pickle.dumps(index)).texts("key")) == ["a", "größe 漢字", "c d"]
    assert pickle.loads(pickle.dumps(index)).numbers("label").tolist() == [0, 1, 2]


def test_a_cache_folder_of_somebody_else_leaves_the_index_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_folder() as folder:
        monkeypatch.setenv("SELFSIGHT_CACHE", str(folder))
        assert as_nobody(lambda: (opened().path, opened().texts("key")[0])) == (None, "a")


def test_two_processes_may_write_one_index_at_once(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        found = pool.map(_written, range(40))
    assert all(keys == [f"{number}"] for number, keys in enumerate(found))
    assert not [path for path in cache.iterdir() if path.suffix != ".arrow"]
    assert len(list(opened(never).texts("key"))) == 1


def _written(number: int) -> list[str]:
    return list(opened(lambda: columns([str(number)]), fresh=False).texts("key"))


def test_keys_are_a_sequence_whose_slices_are_views() -> None:
    names = [f"{number:05d}" for number in range(10_000)]
    keys = opened(lambda: columns(names)).texts("key")
    assert len(keys) == 10_000
    assert (keys[0], keys[-1]) == (names[0], names[-1])
    assert list(keys) == names
    assert list(keys[9000:10:-7]) == names[9000:10:-7]
    assert keys[100:200][5:][0] == names[105]
    assert keys.index("00042") == 42
    assert list(pickle.loads(pickle.dumps(keys[5:8]))) == names[5:8]
    with pytest.raises(IndexError):
        keys[10_000]


def test_keys_that_are_no_utf8_can_be_printed_and_written_to_json() -> None:
    names = pa.array([b"caf\xe9.png", "größe".encode()], pa.large_binary())
    keys = opened(lambda: {"key": names}).texts("key")
    assert list(keys) == ["caf\\xe9.png", "größe"]
    assert keys[0] == "caf\\xe9.png"
    assert json.loads(json.dumps(list(keys))) == list(keys)


def test_an_empty_column_is_no_fault() -> None:
    index = opened(lambda: columns([]))
    assert len(index.texts("key")) == len(index.numbers("label")) == 0
    assert list(index.texts("key")) == []
