"""The index of an image folder: used while nothing changes, built again when something does, whatever the names are."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from permissions import as_nobody, public_folder
from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, open_source, scan
from selfsight.data.sources.contents import contents
from selfsight.errors import DataError
from selfsight.runs import cache_folder
from test_sources import encoded, grey_level, put


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of a test are younger than two seconds, and would be listed again for that alone."""
    monkeypatch.setattr(scan, "SETTLED_NS", 0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(["ant/1.png", "ant/2.png", "bee/deep/3.png", "bee/4.png"]):
        put(tmp_path / "set" / name, encoded(number))
    return tmp_path / "set"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Fills with the folders that are listed."""
    seen: list[bytes] = []
    scandir = os.scandir

    def spy(path: bytes) -> object:
        if isinstance(path, bytes):  # the scan asks by bytes, what tells the kind of source does not
            seen.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    return seen


def test_an_unchanged_folder_is_not_listed_again(images: Path, listed: list[bytes]) -> None:
    keys = list(open_source(images).keys)
    assert len(listed) == 4
    listed.clear()
    assert list(open_source(images).keys) == keys
    assert listed == []


def test_the_index_is_found_under_any_spelling_of_the_path(
    images: Path, listed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_source(images)
    listed.clear()
    monkeypatch.chdir(images.parent)
    (images.parent / "link").symlink_to("set")
    for spelling in ("set", "./set/", "link", "set/../set"):
        source = open_source(spelling)
        assert source.location == spelling
        assert grey_level(source, list(source.keys).index("bee/4.png")) == 3
    assert listed == []


@pytest.mark.parametrize("change", ["add", "delete", "rename", "new folder", "new below", "folder gone", "folder renamed"])
def test_a_change_in_the_folder_is_seen(images: Path, change: str) -> None:
    before = set(open_source(images).keys)
    if change == "add":
        put(images / "bee" / "deep" / "new.png")
        expected = before | {"bee/deep/new.png"}
    elif change == "delete":
        (images / "ant" / "1.png").unlink()
        expected = before - {"ant/1.png"}
    elif change == "rename":
        (images / "ant" / "1.png").rename(images / "ant" / "9.png")
        expected = before - {"ant/1.png"} | {"ant/9.png"}
    elif change == "new folder":
        put(images / "cow" / "1.png")
        expected = before | {"cow/1.png"}
    elif change == "new below":
        put(images / "bee" / "deep" / "deeper" / "1.png")
        expected = before | {"bee/deep/deeper/1.png"}
    elif change == "folder gone":
        (images / "bee" / "deep" / "3.png").unlink()
        (images / "bee" / "deep").rmdir()
        expected = before - {"bee/deep/3.png"}
    else:
        (images / "bee" / "deep").rename(images / "bee" / "shallow")
        expected = before - {"bee/deep/3.png"} | {"bee/shallow/3.png"}
    assert set(open_source(images).keys) == expected


def test_a_change_under_the_old_time_is_seen(images: Path) -> None:
    open_source(images)
    times = (images / "ant").stat()
    put(images / "ant" / "new.png")
    os.utime(images / "ant", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "ant/new.png" in list(open_source(images).keys)


def test_a_change_behind_a_link_is_seen(images: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1.png")
    (images / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "linked/1.png" in list(open_source(images).keys)
    put(tmp_path / "elsewhere" / "2.png")
    assert "linked/2.png" in list(open_source(images).keys)


def test_a_folder_that_was_just_changed_is_listed_again(
    images: Path, listed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within the same tick of the file system's clock would leave no trace."""
    monkeypatch.setattr(scan, "SETTLED_NS", 3600 * 10**9)
    open_source(images)
    listed.clear()
    open_source(images)
    assert len(listed) == 4


def test_a_rejected_file_that_became_an_image_is_seen(images: Path) -> None:
    put(images / "ant" / "half", b"")
    assert open_source(images).rejected == [BadImage("ant/half", "no image, by its name and first bytes")]
    put(images / "ant" / "half", encoded(9))
    source = open_source(images)
    assert "ant/half" in list(source.keys)
    assert source.rejected == []


def test_a_damaged_index_is_built_again_without_a_word(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = open_source(images)
    keys = list(source.keys)
    source.index.path.write_bytes(b"ARROW1 and then nothing")
    assert list(open_source(images).keys) == keys
    assert capfd.readouterr() == ("", "")


def test_a_cache_that_cannot_be_written_is_no_fault(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = list(open_source(images).keys)
    monkeypatch.setenv("SELFSIGHT_CACHE", str(put(tmp_path / "file", b"no folder")))
    source = open_source(images)
    assert source.index.path is None
    assert list(source.keys) == keys
    assert list(pickle.loads(pickle.dumps(source)).keys) == keys


def test_a_source_outlives_the_change_of_its_index(images: Path) -> None:
    source = open_source(images)
    packed, keys = pickle.dumps(source), list(source.keys)
    put(images / "ant" / "new.png")
    assert len(open_source(images)) == 5
    again = pickle.loads(packed)
    assert list(again.keys) == keys == list(source.keys)
    np.testing.assert_array_equal(again.labels, source.labels)


def test_a_pickled_source_does_not_carry_its_keys(tmp_path: Path) -> None:
    for number in range(2000):
        put(tmp_path / "set" / f"{number % 2}" / f"{number}.png", b"")
    assert len(pickle.dumps(open_source(tmp_path / "set"))) < 1000


def test_processes_may_index_one_folder_at_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "new cache"))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_keys, [str(images)] * 16)
    assert found == [found[0]] * 16
    assert len(found[0]) == 4
    assert [path.suffix for path in cache_folder("index").iterdir()] == [".arrow"] * len(list(cache_folder("index").iterdir()))


def _keys(location: str) -> list[str]:
    return list(open_source(location).keys)


def test_names_that_are_no_utf8_can_be_read_and_printed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    for number, name in enumerate([b"\xff.png", b"gr\xfc\xdfe.png", "größe.png".encode()]):
        put(Path(os.fsdecode(folder + b"/" + name)), encoded(number))
    source = open_source(tmp_path)
    assert sorted(source.keys) == ["caf\\xe9/\\xff.png", "caf\\xe9/gr\\xfc\\xdfe.png", "caf\\xe9/größe.png"]
    assert json.loads(json.dumps(list(source.keys))) == list(source.keys)
    assert sorted(grey_level(source, i) for i in range(3)) == [0, 1, 2]
    assert source.groups("folder").tolist() == ["caf\\xe9"] * 3
    assert source.rejected == []


def test_names_that_would_read_alike_give_one_sample(tmp_path: Path) -> None:
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")))
    put(tmp_path / "\\xff.png")
    put(tmp_path / "a\\b.png")
    source = open_source(tmp_path)
    assert sorted(source.keys) == ["\\xff.png", "a\\b.png"]
    assert source.rejected == [BadImage("\\xff.png", "its name is no UTF-8 and reads like that of another file")]


def test_a_root_that_is_no_utf8_is_opened(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    put(root / "1.png", encoded(4))
    assert grey_level(open_source(root), 0) == 4


def test_names_with_line_breaks_and_tabs_are_names(tmp_path: Path) -> None:
    put(tmp_path / "two\nlines\t.png", encoded(4))
    source = open_source(tmp_path)
    assert list(source.keys) == ["two\nlines\t.png"]
    assert grey_level(source, 0) == 4


def test_a_link_to_itself_is_a_bad_image_or_no_image(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    source = open_source(tmp_path)
    assert list(source.keys) == ["1.png", "loop.png"]
    assert read_image(source, 1) == BadImage("loop.png", "cannot be read (Too many levels of symbolic links)")
    assert [bad.key for bad in source.rejected] == ["loop"]


def test_many_folders_and_levels_keep_their_order(tmp_path: Path) -> None:
    names = [f"c{number % 7}/{'x/' * (number % 5)}{number:03d}.png" for number in range(300)]
    for name in names:
        put(tmp_path / name, b"")
    source = open_source(tmp_path)
    expected: dict[str, list[str]] = {f"c{label}": [] for label in range(7)}
    for name in sorted(names, key=lambda name: (name.split("/")[:-1], name)):
        expected[name[:2]].append(name)
    turns = [(place, label) for place in range(300) for label in range(7) if place < len(expected[f"c{label}"])]
    assert list(source.keys) == [expected[f"c{label}"][place] for place, label in turns]
    assert source.labels.tolist() == [label for _, label in turns]


def test_a_folder_of_a_hundred_thousand_entries_that_are_read_in_pieces(tmp_path: Path) -> None:
    for number in range(20_000):
        (tmp_path / f"{number * 7919 % 20_000:05d}.png").touch()
    assert list(open_source(tmp_path).keys) == [f"{number:05d}.png" for number in range(20_000)]


# --- permissions ----------------------------------------------------------------------------------------------------


def test_a_file_that_may_not_be_read_is_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", "/dev/null/cache")
    with public_folder() as folder:
        put(folder / "1.png").chmod(0)
        put(folder / "bare").chmod(0)
        source = open_source(folder)
        assert as_nobody(lambda: read_image(source, 0)) == BadImage("1.png", "cannot be read (Permission denied)")
        found = as_nobody(lambda: open_source(folder).rejected)
        assert found == [BadImage("bare", "cannot be read (Permission denied)")]


def test_a_folder_that_may_not_be_listed_is_rejected_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_folder() as folder:
        monkeypatch.setenv("SELFSIGHT_CACHE", str(folder / ".cache"))
        (folder / ".cache").mkdir()
        (folder / ".cache").chmod(0o777)
        put(folder / "open" / "1.png")
        put(folder / "closed" / "2.png")
        (folder / "closed").chmod(0)
        keys, rejected = as_nobody(lambda: (list(open_source(folder).keys), open_source(folder).rejected))
        assert keys == ["open/1.png"]
        assert rejected == [BadImage("closed", "folder cannot be read (Permission denied)")]
        (folder / "closed").chmod(0o755)
        assert as_nobody(lambda: list(open_source(folder).keys)) == ["closed/2.png", "open/1.png"]


def test_a_root_that_may_not_be_listed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", "/dev/null/cache")
    with public_folder() as folder:
        put(folder / "1.png")
        folder.chmod(0o311)
        with pytest.raises(DataError, match=r"\(1 other files, first: .: folder cannot be read \(Permission denied\)\)"):
            as_nobody(lambda: open_source(folder))


# --- what a folder holds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg"], "images"),
        (["a.tar", "b.tar", "deep/er/A.JPG"], "images"),
        (["README.md", "data/train-0.parquet"], "parquet"),
        (["0.tar", "1.tar", "index.json"], "tar"),
        (["clips/a.MP4", "b.mov"], "video"),
        (["a.mp4", "b.tar", "c.tar"], "tar"),
        (["a", "b.txt"], "nothing"),
        ([".hidden.png", ".cache/a.png"], "nothing"),
        ([], "nothing"),
    ],
)
def test_contents_of_a_folder_by_its_names(tmp_path: Path, names: list[str], expected: str) -> None:
    for name in names:
        put(tmp_path / name, b"")
    assert contents(str(tmp_path)) == expected


def test_contents_of_what_is_no_folder_are_nothing(tmp_path: Path) -> None:
    assert contents(str(tmp_path / "nowhere")) == contents(str(put(tmp_path / "a.png"))) == contents("s3://a/b") == "nothing"


def test_contents_of_folders_linked_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path, target_is_directory=True)
    put(tmp_path / "1.tar", b"")
    assert contents(str(tmp_path)) == "tar"
