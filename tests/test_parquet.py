"""Parquet files: many as one source, images read by row group, what is damaged left out."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from permissions import as_nobody, public_folder
from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, Source, open_source
from selfsight.data.sources.parquet import ParquetSource
from selfsight.errors import DataError
from test_sources import encoded, grey_level, images, parquet, put


def noise(count: int, size: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows whose bytes cannot be compressed."""
    draw = np.random.default_rng(seed)
    return [{"bytes": draw.bytes(size), "path": None} for _ in range(count)]


def files(folder: Path, *counts: int, labels: bool = True) -> Path:
    start = 0
    for number, count in enumerate(counts):
        rows = [{"bytes": encoded(start + i), "path": None} for i in range(count)]
        columns = {"image": rows, "site": [f"site {number}"] * count}
        path = folder / "data" / f"train-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet(path, {"labels": "even,odd"}, **columns, **({"label": [(start + i) % 2 for i in range(count)]} if labels else {}))
        start += count
    return folder


# --- many files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling", ["{0}", "{0}/data", "{0}/data/train-*.parquet", "{0}/data/*0000[01].parquet", "{0}/**/*.parquet"]
)
def test_a_folder_or_a_pattern_is_one_source_in_the_order_of_the_names(tmp_path: Path, spelling: str) -> None:
    source = open_source(spelling.format(files(tmp_path, 3, 2)))
    assert [grey_level(source, i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert list(source.keys) == ["train-00000/0", "train-00000/1", "train-00000/2", "train-00001/0", "train-00001/1"]
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.classes == ("even", "odd")
    assert source.groups("site").tolist() == ["site 0"] * 3 + ["site 1"] * 2


def test_files_that_say_their_names_keep_them_if_all_differ(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", image=[{"bytes": b"", "path": "x"}])
    parquet(tmp_path / "b.parquet", image=[{"bytes": b"", "path": "y"}])
    assert list(open_source(tmp_path).keys) == ["x", "y"]
    parquet(tmp_path / "b.parquet", image=[{"bytes": b"", "path": "x"}])
    assert list(open_source(tmp_path).keys) == ["a/0", "b/0"]


def test_names_of_classes_in_several_files_are_put_together(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", image=images(2), label=["cow", "ant"])
    parquet(tmp_path / "b.parquet", image=images(2), label=["bee", "cow"])
    source = open_source(tmp_path)
    assert source.classes == ("ant", "bee", "cow")
    assert source.labels.tolist() == [2, 0, 1, 2]


def test_a_pattern_that_fits_nothing_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test-\*\.parquet: does not exist"):
        open_source(files(tmp_path, 1) / "data" / "test-*.parquet")


def test_a_file_named_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    parquet(tmp_path / "a[0].parquet", image=images(1))
    parquet(tmp_path / "a0.parquet", image=images(2))
    assert len(open_source(tmp_path / "a[0].parquet")) == 1


def test_files_of_different_columns_name_both(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", image=images(1), label=[0])
    parquet(tmp_path / "b.parquet", image=images(1), label=["x"])
    with pytest.raises(DataError) as error:
        open_source(tmp_path)
    expected = f"{tmp_path}/b.parquet: its columns differ from those of {tmp_path}/a.parquet: label string instead of label int64"
    assert str(error.value) == expected


def test_a_damaged_file_of_several_is_left_out_and_listed(tmp_path: Path) -> None:
    files(tmp_path, 2, 2, 2)
    path = tmp_path / "data" / "train-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    put(tmp_path / "data" / "train-00003.parquet", b"")
    source = open_source(tmp_path)
    assert list(source.keys) == ["train-00000/0", "train-00000/1", "train-00002/0", "train-00002/1"]
    assert [grey_level(source, i) for i in range(4)] == [0, 1, 4, 5]
    assert source.groups("site").tolist() == ["site 0"] * 2 + ["site 2"] * 2
    assert [bad.key for bad in source.rejected] == [str(path), str(tmp_path / "data" / "train-00003.parquet")]
    assert "Parquet magic bytes not found in footer" in source.rejected[0].reason


def test_a_half_written_file_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    files(tmp_path, 2, 2)
    path = tmp_path / "data" / "train-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert len(open_source(tmp_path)) == 2
    path.write_bytes(whole)
    assert len(open_source(tmp_path)) == 4


def test_files_that_are_all_damaged_are_an_error(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / f"{name}.parquet", b"nothing of the sort")
    with pytest.raises(DataError, match=r"not one of 2 Parquet files can be read; first: .*a\.parquet: Parquet magic"):
        open_source(tmp_path)


def test_a_file_that_may_not_be_read_is_left_out_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", "/dev/null/cache")
    with public_folder() as folder:
        files(folder, 1, 1)
        (folder / "data" / "train-00000.parquet").chmod(0)
        keys, rejected = as_nobody(lambda: (list(open_source(folder).keys), open_source(folder).rejected))
        assert keys == ["train-00001/0"]
        assert "Permission denied" in rejected[0].reason


def test_folders_whose_names_are_no_utf8_are_opened(tmp_path: Path) -> None:
    files(tmp_path / "größe 漢字", 1, 1)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    source = open_source((tmp_path / "größe 漢字").rename(odd))
    assert [grey_level(source, i) for i in range(2)] == [0, 1]


# --- layouts --------------------------------------------------------------------------------------------------------


def test_images_may_be_a_plain_binary_column(tmp_path: Path) -> None:
    for kind in (pa.binary(), pa.large_binary()):
        source = open_source(parquet(tmp_path / f"{kind}.parquet", image=pa.array([encoded(3), encoded(4), None], kind)))
        assert [grey_level(source, i) for i in range(2)] == [3, 4]
        assert list(source.keys) == ["0", "1", "2"]
        assert read_image(source, 2).reason == "cannot be read (no bytes in this row)"


def test_the_columns_of_cifar_are_known(tmp_path: Path) -> None:
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": ["apple", "bear"]},
        "coarse_label": {"names": ["fruit", "beast"]},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    source = open_source(parquet(tmp_path / "a.parquet", metadata, img=images(2), fine_label=[1, 0], coarse_label=[1, 0]))
    assert source.classes == ("apple", "bear")
    assert source.labels.tolist() == [1, 0]
    assert source.columns() == ("coarse_label",)
    assert grey_level(source, 1) == 10


def test_metadata_in_another_form_name_no_classes(tmp_path: Path) -> None:
    for number, text in enumerate(["no json", "[]", '{"info": null}', '{"info": {"features": {"label": 3}}}']):
        path = parquet(tmp_path / f"{number}.parquet", {"huggingface": text}, image=images(2), label=[1, 0])
        assert open_source(path).classes == ("0", "1")


def test_a_label_that_is_no_class_number_says_so(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", image=images(2), label=[0, 10**12])
    with pytest.raises(DataError, match="holds 1000000000000; expected class numbers below 1,000,000, or names"):
        open_source(path)


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Two files of five row groups each, of about 200 kB a group."""
    for number in range(2):
        table = pa.table({"image": noise(50, 20_000, number), "label": [i % 2 for i in range(50)]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=10)
    return str(tmp_path)


def test_what_fits_into_memory_is_mixed_freely(large: str) -> None:
    assert open_source(large).blocks is None


def test_what_does_not_fit_is_read_in_blocks_of_row_groups(large: str) -> None:
    source = open_source(f"{large}?cache_mb=1")
    assert source.blocks.tolist() == list(range(0, 100, 10))
    assert source.window == 5
    order = source.draws(0, 0, np.arange(100)).indices
    assert sorted(order) == list(range(100))
    assert all(len(set(order[start : start + 50] // 10)) == 5 for start in (0, 50))


def test_an_epoch_in_blocks_reads_each_row_group_once(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(f"{large}?cache_mb=1")
    reads: list[int] = []
    read = ParquetSource._read

    def spy(self: ParquetSource, group: int, rows: int) -> pa.Array:
        reads.append(group)
        return read(self, group, rows)

    monkeypatch.setattr(ParquetSource, "_read", spy)
    for index in source.draws(0, 0, np.arange(100)).indices:
        source.image_bytes(int(index))
    assert sorted(reads) == list(range(10))


def test_no_image_is_read_while_opening(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParquetSource, "_read", None)
    assert len(open_source(large)) == 100


def test_row_groups_that_are_kept_stay_below_the_budget(large: str) -> None:
    source = open_source(f"{large}?cache_mb=1")
    for index in np.random.default_rng(0).permutation(100):
        source.image_bytes(int(index))
        assert sum(group.nbytes for group in source._groups._kept.values()) <= 2**20


def test_a_row_group_above_the_budget_is_read_all_the_same(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": noise(30, 100_000)}), tmp_path / "a.parquet", row_group_size=15)
    source = open_source(f"{tmp_path}/a.parquet?cache_mb=1")
    assert source.window == 1
    assert [len(source.image_bytes(i)) for i in (0, 29, 14, 15)] == [100_000] * 4


def test_row_groups_without_rows_are_no_blocks(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"image": pa.binary()})) as file:
        for count in (2, 0, 3):
            file.write_table(pa.table({"image": pa.array(["x" * 700_000] * count, pa.binary())}), row_group_size=10)
    source = open_source(f"{tmp_path}/a.parquet?cache_mb=1")
    assert len(source) == 5
    assert source.image_bytes(4) == b"x" * 700_000


def test_a_pickled_source_carries_no_images(large: str) -> None:
    source = open_source(large)
    source.image_bytes(0)
    packed = pickle.dumps(source)
    assert len(packed) < 2000
    assert pickle.loads(packed).image_bytes(99) == source.image_bytes(99)


def test_an_unknown_or_wrong_option_says_what_it_takes(large: str) -> None:
    with pytest.raises(DataError, match="option 'cache_mb': expected a whole number from 1, got 'much'"):
        open_source(f"{large}?cache_mb=much")


# --- change ---------------------------------------------------------------------------------------------------------


def test_an_unchanged_set_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsight.data.sources import parquet_index

    files(tmp_path, 2, 2)
    open_source(tmp_path)
    monkeypatch.setattr(parquet_index, "_read", None)
    assert len(open_source(tmp_path)) == 4


@pytest.mark.parametrize("change", ["more rows", "new file", "file gone"])
def test_a_change_of_the_files_is_seen(tmp_path: Path, change: str) -> None:
    files(tmp_path, 2, 2)
    assert len(open_source(tmp_path)) == 4
    if change == "file gone":
        (tmp_path / "data" / "train-00001.parquet").unlink()
    else:
        files(tmp_path, *((2, 3) if change == "more rows" else (2, 2, 1)))
    assert len(open_source(tmp_path)) == {"more rows": 5, "new file": 5, "file gone": 2}[change]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "train-00001.parquet: No such file or directory"),
        (b"x" * 5000, "Parquet magic bytes not found in footer"),
    ],
)
def test_a_file_that_is_gone_or_damaged_since_gives_bad_images(tmp_path: Path, data: bytes | None, reason: str) -> None:
    source = open_source(files(tmp_path, 2, 2))
    path = tmp_path / "data" / "train-00001.parquet"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    assert reason in bad(source, 2).reason
    assert bad(source, 2).key == "train-00001/0"
    assert grey_level(source, 0) == 0


def test_a_column_of_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    source = open_source(files(tmp_path, 2, 2))
    (tmp_path / "data" / "train-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"train-00001\.parquet: column 'site' cannot be read \(No such file or directory\)"):
        source.groups("site")


def test_a_file_that_was_replaced_since_gives_bad_images(tmp_path: Path) -> None:
    source = open_source(files(tmp_path, 2, 2))
    files(tmp_path, 2, 3)
    assert bad(source, 3).reason == f"cannot be read ({tmp_path}/data/train-00001.parquet has changed since it was opened)"


def test_a_damaged_page_gives_bad_images_of_its_row_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([b"a" * 1000, b"b" * 1000])}), path, row_group_size=1, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36
    path.write_bytes(data)
    source = open_source(path)
    assert f"cannot be read (row group 0 of {path}:" in bad(source, 0).reason
    assert source.image_bytes(1) == b"b" * 1000


def bad(source: Source, index: int) -> BadImage:
    found = read_image(source, index)
    assert isinstance(found, BadImage)
    return found
