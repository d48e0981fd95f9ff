"""Tar shards: read as WebDataset and tarfile write them, by random access, whatever state they are in."""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from leaks import held, no_more
from pictures import tar
from selfsight.data.decode import decode
from selfsight.data.loader import read_image, view_batches
from selfsight.data.sources import BadImage, Source, first, open_source
from selfsight.data.sources.braces import expand
from selfsight.data.sources.tar_headers import TarHeaders
from selfsight.data.sources.tar_index import scan
from selfsight.data.views import ViewSettings
from selfsight.errors import DataError

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))


def picture(level: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (level, level, level)).save(file, kind)
    return file.getvalue()


def level(source: Source, index: int) -> int:
    return int(np.asarray(decode(source.image_bytes(index)))[0, 0, 0])


def levels(source: Source) -> list[int]:
    return [level(source, index) for index in range(len(source))]


def shards(folder: Path, sizes: list[int]) -> Path:
    """Labelled shards whose images are of level 0, 1, 2, ..."""
    number = 0
    for shard, size in enumerate(sizes):
        members = {}
        for _ in range(size):
            members |= {f"{number:04d}.png": picture(number), f"{number:04d}.cls": str(number % 3).encode()}
            number += 1
        tar(folder / f"train-{shard:03d}.tar", members)
    return folder


def opened(path: Path, members: dict[str, bytes], options: str = "", form: int = tarfile.PAX_FORMAT) -> Source:
    return open_source(f"{tar(path / 'a.tar', members, form)}{options}")


# --- what WebDataset writes -----------------------------------------------------------------------------------------


def test_shards_of_webdataset_itself_are_read_in_order(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            writer.write({"__key__": f"a/sample{number:03d}", "png": picture(number), "cls": number % 3, "json": {"x": 1}})
    source = open_source(f"{tmp_path}/train-{{000..002}}.tar")
    assert list(source.keys)[::4] == ["train-000.tar/a/sample000", "train-001.tar/a/sample004", "train-002.tar/a/sample008"]
    assert source.labels is not None
    assert source.labels.tolist() == [number % 3 for number in range(10)]
    assert source.classes == ("0", "1", "2")
    assert levels(source) == list(range(10))
    assert source.blocks is not None
    assert source.blocks.tolist() == [0, 4, 8]
    assert source.groups("shard")[-1] == "train-002.tar"
    assert source.groups("folder").tolist() == ["a"] * 10
    assert list(source.rejected) == []


def test_a_tar_writer_and_a_reader_of_webdataset_agree_with_ours(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(20):
            writer.write({"__key__": f"größe {number}", "img.jpg": picture(number, "JPEG"), "seg.png": picture(9), "cls": number})
    source = open_source(tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("rb") as file:
        theirs = list(group_by_keys({**member, "__url__": "a.tar"} for member in tar_file_iterator(file)))
    assert [key.partition("/")[2] for key in source.keys] == [sample["__key__"] for sample in theirs]
    assert [source.image_bytes(i) for i in range(20)] == [sample["img.jpg"] for sample in theirs]


@pytest.mark.parametrize(
    ("label", "classes", "labels"),
    [
        ({"cls": [b"2", b" 0\n"]}, ("0", "1", "2"), [2, 0]),
        ({"json": [b'{"cls": 1}', b'{"cls": 0, "label": 7}']}, ("0", "1"), [1, 0]),
        ({"json": [b'{"label": 1}', b'{"label": 1.0}']}, ("0", "1"), [1, 1]),
        ({"json": [b'{"label": "owl"}', b'{"label": "ant"}']}, ("ant", "owl"), [1, 0]),
        ({"cls": [b"1", b"0"], "json": [b'{"cls": 5}', b"{}"]}, ("0", "1"), [1, 0]),
    ],
)
def test_labels_come_from_cls_else_from_json(
    tmp_path: Path, label: dict[str, list[bytes]], classes: tuple[str, ...], labels: list[int]
) -> None:
    members = {}
    for number in range(2):
        members |= {f"{number}.png": picture(number)} | {f"{number}.{kind}": texts[number] for kind, texts in label.items()}
    source = opened(tmp_path, members)
    assert source.classes == classes
    assert source.labels is not None
    assert source.labels.tolist() == labels


@pytest.mark.parametrize("second", [{}, {"2.json": b"{}"}, {"2.json": b"[1]"}, {"2.cls": b"-1"}, {"2.json": b'{"cls": null}'}])
def test_a_sample_without_a_label_makes_the_set_unlabelled(tmp_path: Path, second: dict[str, bytes]) -> None:
    source = opened(tmp_path, {"1.png": picture(1), "1.cls": b"1", "2.png": picture(2), **second})
    assert (len(source), source.labels, source.classes) == (2, None, ())


@pytest.mark.parametrize("broken", [{"2.json": b"{"}, {"2.cls": b""}, {"2.cls": b"\xff\xfe"}, {"2.json": b"[" * 100_000}])
def test_a_sample_whose_label_cannot_be_read_is_rejected(tmp_path: Path, broken: dict[str, bytes]) -> None:
    source = opened(tmp_path, {"1.png": picture(1), "1.cls": b"1", "2.png": picture(2), **broken})
    assert list(source.keys) == ["a.tar/1"]
    assert source.labels is not None
    assert list(source.rejected) == [BadImage("a.tar/2", f"its label cannot be read ({next(iter(broken))})")]


def test_folders_are_classes_where_no_label_is_given(tmp_path: Path) -> None:
    tar(tmp_path / "1.tar", {"./cat/1.jpg": picture(1), "./cat/2.jpg": picture(2)})
    tar(tmp_path / "2.tar", {"dog//deep/3.png": picture(3)})
    source = open_source(tmp_path)
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [0, 0, 1])  # type: ignore[union-attr]
    assert list(source.keys) == ["1.tar/cat/1", "1.tar/cat/2", "2.tar/dog/deep/3"]
    tar(tmp_path / "3.tar", {"cover.png": picture(4)})
    assert open_source(tmp_path).labels is None


def test_of_several_images_jpeg_is_taken_before_png_before_webp_unless_another_is_asked_for(tmp_path: Path) -> None:
    members = {"1.webp": picture(50, "WEBP"), "1.seg.png": picture(1), "1.png": picture(2), "1.left.jpg": picture(90, "JPEG")}
    assert abs(level(opened(tmp_path, members), 0) - 90) < 2
    assert level(opened(tmp_path, members, "?image=seg.png"), 0) == 1
    assert level(opened(tmp_path, members, "?image=.PNG"), 0) == 2
    del members["1.left.jpg"]
    assert level(opened(tmp_path, members), 0) == 2
    with pytest.raises(DataError, match=r"no shard holds an image; first: a.tar/1 has no member .right.png"):
        opened(tmp_path, members, "?image=right.png")
    with pytest.raises(DataError, match="option 'image': expected the extension of the image member"):
        opened(tmp_path, members, "?image=")


def test_files_whose_names_hold_dots_are_samples_of_their_own(tmp_path: Path) -> None:
    source = opened(tmp_path, {f"clip.{number:06d}.png": picture(number) for number in range(9)})
    assert levels(source) == list(range(9))
    assert source.keys[3] == "a.tar/clip.000003"


def test_members_of_a_sample_need_not_stand_together(tmp_path: Path) -> None:
    images = {f"{number}.png": picture(number) for number in range(3)}
    source = opened(tmp_path, images | {f"{number}.cls": b"%d" % number for number in (2, 0, 1)})
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2]


# --- locations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("x-{08..11}.tar", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a}{}", ["{a}{}"]),
        ("{,x}", ["", "x"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, names: list[str]) -> None:
    assert expand(pattern) == names


def test_braces_for_too_many_names_are_an_error() -> None:
    with pytest.raises(DataError, match="the braces stand for 10000000000 names; expected at most 1000000"):
        expand("{0..99999}{0..99999}.tar")


LOCATIONS = ["", "/train-*.tar", "/train-{000..002}.tar", "/**/*.tar", "/train-{000,001}.tar", "/train-001.tar"]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_folder_a_pattern_and_braces_find_shards(tmp_path: Path, location: str) -> None:
    source = open_source(f"{shards(tmp_path / 'set', [2, 3, 1])}{location}")
    assert levels(source) == {"/train-001.tar": [2, 3, 4], "/train-{000,001}.tar": [0, 1, 2, 3, 4]}.get(location, [*range(6)])


def test_keys_tell_shards_of_the_same_name_apart(tmp_path: Path) -> None:
    for part in "ab":
        tar(tmp_path / part / "0.tar", {"1.png": picture(1)})
    assert list(open_source(tmp_path).keys) == ["a/0.tar/1", "b/0.tar/1"]


def test_a_shard_that_is_missing_is_rejected_and_found_when_it_comes(tmp_path: Path) -> None:
    location = f"{shards(tmp_path, [1, 1])}/train-{{000..002}}.tar"
    source = open_source(location)
    assert len(source) == 2
    assert list(source.rejected) == [BadImage("train-002.tar", "does not exist")]
    tar(tmp_path / "train-002.tar", {"9.png": picture(9), "9.cls": b"1"})
    assert levels(open_source(location)) == [0, 1, 9]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_a_compressed_archive_says_to_decompress_it(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match=r"is a compressed archive, .*; decompress it to \.tar"):
        open_source(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "b.tar")
    with pytest.raises(DataError, match=r"is compressed with gzip, .*; decompress it"):
        open_source(tmp_path / "b.tar")


def test_a_pattern_without_a_match_and_a_folder_without_shards_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .tar shard is there"):
        open_source(f"{tmp_path}/*.tar")
    with pytest.raises(DataError, match=r"no shard holds an image; first: nowhere.tar does not exist"):
        open_source(f"{tmp_path}/nowhere.tar")


# --- tar ------------------------------------------------------------------------------------------------------------

NAMES = [
    "plain.png",
    "two words/größe 漢字 🐦.png",
    "a" * 99 + ".png",
    "folder/" * 20 + "deep.png",
    "ordner-ü/" * 30 + "b" * 120 + ".png",
    "semi;colon'quote.png",
]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_members_of_every_form_are_those_of_tarfile(tmp_path: Path, form: str) -> None:
    names = [name for name in NAMES if form != "ustar" or not ("aaa" in name or "bbb" in name)]  # ustar cannot name those
    path = tar(tmp_path / "a.tar", {name: picture(number) for number, name in enumerate(names)}, FORMS[form])
    with tarfile.open(path) as archive:
        theirs = [(member.name, member.offset_data, member.size) for member in archive]
    with path.open("rb") as file:
        headers = TarHeaders(file, path.stat().st_size)
        ours = [(member.name, member.offset, member.size) for member in headers]
    assert (ours, headers.fault) == (theirs, None)
    source = open_source(path)
    assert list(source.keys) == [f"a.tar/{name[:-4]}" for name in names]
    assert levels(source) == list(range(len(names)))


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (member("link.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link, no file"),
        (member("hard.png", tarfile.LNKTYPE, linkname="good.png"), "is a link, no file"),
        (member("device.png", tarfile.CHRTYPE), "is a device or a pipe, no file"),
        (member("pipe.png", tarfile.FIFOTYPE), "is a device or a pipe, no file"),
        (member("/etc/passwd.png"), "path escapes the archive"),
        (member("../../up.png"), "path escapes the archive"),
        (member("a/../../up.png"), "path escapes the archive"),
        (member("..\\up.png"), "path escapes the archive"),
        (member("\x1b[31mred.png"), "name holds control characters"),
        (member("two\nlines.png"), "name holds control characters"),
        (member("empty.png"), "its image is empty"),
        (member("README"), "is no image, by its name"),
        (member("notes.txt"), "has no image among its members"),
    ],
)
def test_what_is_no_sample_is_rejected_with_its_reason(tmp_path: Path, form: str, hostile: tarfile.TarInfo, reason: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=FORMS[form]) as archive:
        for info, data in ((member("folder", tarfile.DIRTYPE), b""), (member("good.png"), picture(7)), (hostile, b"")):
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "a.tar")
    assert list(source.keys) == ["a.tar/good"]
    assert level(source, 0) == 7
    assert [bad.reason for bad in source.rejected] == [reason]
    assert all(bad.key.isprintable() for bad in source.rejected)


def test_hidden_files_and_the_notes_of_webdataset_are_left_out(tmp_path: Path) -> None:
    source = opened(tmp_path, {"._1.png": b"x", "1.png": picture(1), "a/.DS_Store": b"x", "__info__.json": b"{"})
    assert (list(source.keys), list(source.rejected)) == (["a.tar/1"], [])


def test_a_sparse_file_is_rejected_and_what_follows_it_is_read(tmp_path: Path) -> None:
    after = tar(tmp_path / "b.tar", {"good.png": picture(7)}).read_bytes()
    sparse = bytearray(member("hole.png", size=512).tobuf(tarfile.GNU_FORMAT))
    sparse[156:157], sparse[482] = b"S", 1
    sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + 256 + sum(sparse[156:]))
    more = bytes(504) + b"\1" + bytes(7), bytes(512)
    (tmp_path / "a.tar").write_bytes(bytes(sparse) + b"".join(more) + bytes(512) + after)
    source = open_source(tmp_path / "a.tar")
    assert (levels(source), list(source.rejected)) == ([7], [BadImage("a.tar/hole.png", "is a sparse file")])


def test_large_sizes_and_names_that_are_no_text_are_understood(tmp_path: Path) -> None:
    header = member("x.png").tobuf(tarfile.USTAR_FORMAT)
    odd = bytearray(header)
    odd[:5] = b"\xff.png"
    odd[124:136] = b"\x80" + (10).to_bytes(11, "big")
    odd[148:156] = b"%06o\0 " % (sum(odd[:148]) + 256 + sum(odd[156:]))
    data = bytes(odd) + b"0123456789" + bytes(502)
    assert next(iter(TarHeaders(io.BytesIO(data), len(data)))) == ("\\xff.png", "0", 512, 10)
    signed = sum(byte - 256 * (byte > 127) for byte in odd[:148] + odd[156:]) + 256
    odd[148:156] = b"%06o\0 " % signed
    data = bytes(odd) + b"0123456789" + bytes(502)
    assert next(iter(TarHeaders(io.BytesIO(data), len(data)))).size == 10


def test_a_shard_cut_at_any_place_gives_the_samples_before_the_cut(tmp_path: Path) -> None:
    data = tar(
        tmp_path / "whole.tar", {f"{n}.{k}": v for n in range(3) for k, v in (("png", picture(n)), ("cls", b"1"))}
    ).read_bytes()
    end = 3 * 2048  # each sample has two members of two blocks
    cuts = {place + shift for place in range(0, end + 1, 512) for shift in (-1, 0, 1, 100, 511)}
    for cut in sorted(cut for cut in cuts if 0 <= cut <= end):
        samples = scan(io.BytesIO(data[:cut]), cut)
        whole = (cut - 1537) // 2048 + 1
        # Of the very first sample it cannot be known that it had a label.
        early = not whole and cut >= 512 + len(picture(0))
        assert samples.keys.to_pylist() == (["0"] if early else [str(n) for n in range(whole)]), cut
        assert samples.labels.to_pylist() == ([None] if early else ["1"] * whole)
        faults = [bad.reason for bad in samples.rejected if not bad.key]
        assert len(faults) == 1
        assert faults[0].startswith(("is empty", "is no tar archive", "is cut off inside", "ends without the end mark")), faults


def test_a_sample_cut_off_before_its_label_does_not_unlabel_the_others(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"1.png": picture(1), "1.cls": b"1", "2.png": picture(2), "2.cls": b"0"})
    path.write_bytes(path.read_bytes()[: 3 * 1024])
    source = open_source(path)
    assert source.labels is not None
    assert list(source.rejected) == [
        BadImage("a.tar", "ends without the end mark of an archive"),
        BadImage("a.tar/2", "is cut off before its label"),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "is no tar archive"),
        (bytes(range(256)) * 8, "is no tar archive"),
        (bytes(1024), None),
        (b"\x89PNG" + bytes(2000), "is no tar archive"),
    ],
)
def test_a_shard_that_is_none_is_rejected_and_alone_an_error(tmp_path: Path, data: bytes, reason: str | None) -> None:
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(DataError, match="no shard holds an image" + (f"; first: bad.tar {reason}" if reason else "")):
        open_source(tmp_path / "bad.tar")
    tar(tmp_path / "good.tar", {"1.png": picture(1)})
    source = open_source(tmp_path)
    assert levels(source) == [1]
    assert list(source.rejected) == ([BadImage("bad.tar", reason)] if reason else [])


def test_a_damaged_header_ends_a_shard(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2), "3.png": picture(3)})
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 1
    path.write_bytes(data)
    source = open_source(path)
    assert (levels(source), list(source.rejected)) == ([1], [BadImage("a.tar", "has a damaged header at byte 1024")])


def test_no_bytes_whatever_stop_a_scan() -> None:
    """Damage at random places: a scan ends, and what it gives lies inside the file."""
    rng = random.Random(0)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, name in enumerate(NAMES):
            archive.addfile(member(name, size=len(picture(number))), io.BytesIO(picture(number)))
    whole = file.getvalue()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randint(0, len(data))]
        samples = scan(io.BytesIO(data), len(data))
        assert np.all(samples.offsets + samples.sizes <= len(data))
        assert len(set(samples.keys.to_pylist())) == len(samples.keys)


# --- the index ------------------------------------------------------------------------------------------------------


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counted(file: Any, size: int, image: str | None) -> Any:
        calls.append(size)
        return scan(file, size, image)

    monkeypatch.setattr("selfsight.data.sources.shards.scan", counted)
    return calls


def test_only_shards_that_changed_are_scanned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch)
    shards(tmp_path, [2, 2, 2])
    (tmp_path / "train-001.tar").write_bytes((tmp_path / "train-001.tar").read_bytes()[:4096])
    before = open_source(tmp_path)
    assert len(calls) == 3
    again = open_source(tmp_path)
    assert len(calls) == 3
    assert list(again.keys) == list(before.keys)
    tar(tmp_path / "train-000.tar", {"new.png": picture(99), "new.cls": b"4"})
    tar(tmp_path / "train-009.tar", {"also.png": picture(98), "also.cls": b"0"})
    source = open_source(tmp_path)
    assert len(calls) == 5
    assert levels(source) == [99, 2, 3, 4, 5, 98]
    assert source.labels is not None
    assert source.labels.tolist() == [4, 2, 0, 1, 2, 0]
    assert list(source.rejected) == list(before.rejected) != []


def test_a_shard_that_was_shortened_after_the_scan_gives_bad_images(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2)})
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:1030])
    assert level(source, 0) == 1
    assert read_image(source, 1) == BadImage("a.tar/2", "cannot be read (its shard was shortened since it was indexed)")
    path.unlink()
    assert read_image(source, 0) == BadImage("a.tar/1", "cannot be read (No such file or directory)")


def test_shards_without_samples_are_no_blocks(tmp_path: Path) -> None:
    shards(tmp_path, [2, 0, 3])
    source = open_source(tmp_path)
    assert source.blocks is not None
    assert source.blocks.tolist() == [0, 2]
    assert levels(source) == list(range(5))
    assert source.groups("shard").tolist() == ["train-000.tar"] * 2 + ["train-002.tar"] * 3


def test_a_few_samples_hold_all_classes_although_archives_hold_one_after_the_other(tmp_path: Path) -> None:
    source = opened(tmp_path, {f"{kind}/{n}.png": picture(n) for kind in ("ant", "bee", "cow") for n in range(5)})
    part = first(source, 7)
    assert part.labels is not None
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert part.keys[3] == "a.tar/bee/0"
    assert part.blocks is not None


# --- shuffling, workers ---------------------------------------------------------------------------------------------


def test_an_epoch_takes_every_sample_once_and_few_shards_at_a_time(tmp_path: Path) -> None:
    source = open_source(f"{shards(tmp_path, [7] * 9)}?window=2")
    drawn = source.draws(seed=3, epoch=1, positions=np.arange(63)).indices
    assert sorted(drawn) == list(range(63))
    assert [len({index // 7 for index in drawn[start : start + 14]}) for start in range(0, 56, 14)] == [2] * 4
    other = source.draws(seed=3, epoch=2, positions=np.arange(63)).indices
    assert [index // 7 for index in drawn] != [index // 7 for index in other]


def settings() -> ViewSettings:
    return ViewSettings(global_size=8, local_size=8, local_count=2)


def views(source: Source, workers: int) -> list[torch.Tensor]:
    crew = view_batches(source, settings(), batch_size=6, seed=1, workers=workers, finish=True)
    found = list(crew.items(0, 9))
    assert [bad for batch in found for bad in batch.bad] == []
    return [view for batch in found for view in batch.views]


def test_views_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    source = open_source(f"{shards(tmp_path, [5, 6, 7])}?window=1")
    alone = views(source, 0)
    for workers in (1, 2):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, views(source, workers), strict=True))


def test_a_source_is_pickled_without_its_samples(tmp_path: Path) -> None:
    source = open_source(f"{shards(tmp_path, [40, 40])}?window=1")
    packed = pickle.dumps(source)
    assert len(packed) < 1500
    again: Source = pickle.loads(packed)
    assert (list(again.keys), again.window) == (list(source.keys), 1)
    assert again.blocks is not None
    assert levels(again) == levels(source)


def test_reading_leaves_no_file_open_and_no_thread(tmp_path: Path) -> None:
    shards(tmp_path, [3, 3])
    (tmp_path / "train-001.tar").write_bytes(b"no tar")
    before = held()
    source = open_source(tmp_path)
    opened = held()
    assert no_more(before, files=2)  # the index
    for _ in range(20):
        levels(source)
    assert no_more(opened)
    del source
    assert no_more(before)


def test_json_stays_out_of_the_index(tmp_path: Path) -> None:
    text: Callable[[int], bytes] = lambda n: json.dumps({"cls": n, "caption": "x" * 5000}).encode()  # noqa: E731
    source = opened(tmp_path, {f"{n}.{k}": v for n in range(3) for k, v in (("png", picture(n)), ("json", text(n)))})
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.arrow")) < 10_000
