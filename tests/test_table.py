"""Tables of paths: CSV, TSV, Parquet, and the data sets that selfsight draws."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from permissions import as_nobody, public_folder
from selfsight.data.loader import read_image
from selfsight.data.sources import BadImage, open_source, table_index
from selfsight.errors import DataError
from selfsight.manifest import DatasetInfo, Writer
from test_sources import encoded, grey_level, put

NAMES = ["a.png", "two words, and a comma.png", "größe 漢字 🐦.png", 'a "quote".png', "sub/b.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        put(tmp_path / "images" / name, encoded(number))
    return tmp_path


def table(folder: Path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    return put(folder / name, text.encode(encoding))


def quoted(*cells: str) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_name_can_stand_in_a_csv(folder: Path, encoding: str, end: str) -> None:
    text = end.join(["path", *(quoted(f"images/{name}") for name in NAMES)])
    source = open_source(table(folder, text, encoding=encoding))
    assert list(source.keys) == [f"images/{name}" for name in NAMES]
    assert [grey_level(source, i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert source.labels is None
    assert source.classes == ()


def test_a_tsv_has_tabs(folder: Path) -> None:
    source = open_source(table(folder, "label\tpath\nx\timages/a.png\ny\timages/sub/b.png\n", "list.tsv"))
    assert list(source.keys) == ["images/a.png", "images/sub/b.png"]
    assert source.classes == ("x", "y")


@pytest.mark.parametrize("name", table_index.PATHS)
def test_the_column_of_paths_has_one_of_several_names(folder: Path, name: str) -> None:
    assert len(open_source(table(folder, f"x,{name.capitalize()}\n1,images/a.png\n"))) == 1


def test_paths_may_be_absolute(folder: Path, tmp_path: Path) -> None:
    source = open_source(table(tmp_path / "elsewhere", f"path\n{folder}/images/sub/b.png\n"))
    assert grey_level(source, 0) == 4


def test_a_parquet_table_of_paths_is_read(folder: Path) -> None:
    columns = {"image": [f"images/{name}" for name in NAMES], "label": ["x", "y", "x", "y", "x"], "site": [1.5, None, 2, 3, 4]}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    source = open_source(folder / "list.parquet")
    assert [grey_level(source, i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.groups("site").tolist() == ["1.5", "", "2", "3", "4"]


# --- labels and columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["cow", "ant", "cow"], ("ant", "cow"), [1, 0, 1]),
        (["2", "0", "2"], ("0", "1", "2"), [2, 0, 2]),
        (["002", "001", "002"], ("001", "002"), [1, 0, 1]),
        (["10", "9", "x"], ("10", "9", "x"), [0, 1, 2]),
        (["true", "false", "NA"], ("NA", "false", "true"), [2, 1, 0]),
        (["", "", ""], (), None),
        (["-1", "-1", "-1"], (), None),
    ],
)
def test_labels_are_names_or_numbers(
    folder: Path, labels: list[str], classes: tuple[str, ...], numbers: list[int] | None
) -> None:
    rows = [f"images/{name},{label}" for name, label in zip(["a.png", "sub/b.png", "a.png"], labels, strict=True)]
    source = open_source(table(folder, "\n".join(["path,label", *rows])))
    assert source.classes == classes
    assert (None if source.labels is None else source.labels.tolist()) == numbers


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x", ""], "column 'label' has 1 empty values; expected a class in each row"),
        (["-2", "1"], "column 'label' holds -2; expected class numbers from 0"),
        (["1", "5000000"], "column 'label' holds 5000000; expected class numbers below 1,000,000, or names"),
    ],
)
def test_labels_that_are_wrong_say_how(folder: Path, labels: list[str], message: str) -> None:
    path = table(folder, "path,label\n" + "".join(f"images/a.png,{label}\n" for label in labels))
    with pytest.raises(DataError) as error:
        open_source(path)
    assert str(error.value) == f"{path}: {message}"


def test_other_columns_are_groups(folder: Path) -> None:
    source = open_source(table(folder, "patient,path,day\n007,images/a.png,\n008,images/sub/b.png,2024-05-01\n"))
    assert source.columns() == ("patient", "day")
    assert source.groups("patient").tolist() == ["007", "008"]
    assert source.groups("day").tolist() == ["", "2024-05-01"]


def test_a_split_is_taken_and_knows_all_classes(folder: Path) -> None:
    path = table(folder, "path,label,split\nimages/a.png,ant,train\nimages/sub/b.png,cow,test\nimages/a.png,bee,train\n")
    train, test = open_source(f"{path}?split=train"), open_source(f"{path}?split=test")
    assert train.classes == test.classes == ("ant", "bee", "cow")
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [2]
    assert list(test.keys) == ["images/sub/b.png"]
    assert len(open_source(path)) == 3
    assert open_source(path).groups("split").tolist() == ["train", "test", "train"]


def test_a_split_that_is_not_there_names_those_that_are(folder: Path) -> None:
    path = table(folder, "path,split\nimages/a.png,train\nimages/a.png,val\n")
    with pytest.raises(DataError, match="has no split 'test'; its splits: train, val"):
        open_source(f"{path}?split=test")
    plain = "path\nimages/a.png\n"
    with pytest.raises(DataError, match="has no column 'split' to take 'test' from"):
        open_source(f"{table(folder, plain, 'other.csv')}?split=test")


# --- rows that are odd ----------------------------------------------------------------------------------------------


def test_a_path_that_comes_again_has_a_key_of_its_own(folder: Path) -> None:
    names = ["a.png", "a.png#2", "sub/b.png", "a.png", "a.png", "sub/b.png"]
    put(folder / "images" / "a.png#2", encoded(9))
    source = open_source(table(folder, "path\n" + "".join(f"images/{name}\n" for name in names)))
    keys = [key.removeprefix("images/") for key in source.keys]
    assert keys == ["a.png", "a.png#2", "sub/b.png", "a.png#2#", "a.png#3", "sub/b.png#2"]
    assert [grey_level(source, i) for i in range(6)] == [0, 9, 4, 0, 0, 4]


def test_rows_without_a_path_are_rejected_by_their_line(folder: Path) -> None:
    source = open_source(table(folder, "path,label\nimages/a.png,x\n,y\n  ,y\nimages/sub/b.png,y\n"))
    assert list(source.keys) == ["images/a.png", "images/sub/b.png"]
    assert source.labels.tolist() == [0, 1]
    reason = "no value in column 'path'"
    assert source.rejected == [BadImage("line 3", reason), BadImage("line 4", reason)]


def test_a_missing_file_is_a_bad_image(folder: Path) -> None:
    source = open_source(table(folder, "path\nimages/gone.png\nimages/a.png\n"))
    assert read_image(source, 0) == BadImage("images/gone.png", "cannot be read (No such file or directory)")
    assert grey_level(source, 1) == 0


def test_a_table_in_the_wrong_place_says_where_it_looked(folder: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "elsewhere", "path\nimages/a.png\n")
    with pytest.raises(DataError) as error:
        open_source(path)
    assert str(error.value) == (
        f"{path}: 'images/a.png' is not there; expected paths that start at {tmp_path}/elsewhere, or absolute ones"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label\nimages/a.png,x\nimages/b.png\n",
            r"is no readable table \(line 3: Expected 2 columns, got 1: images/b",
        ),
        ('path,label\nimages/a.png,x\n"images/b.png,y\n', r"is no readable table \(line 3: Expected 2 columns, got 1"),
        ("name,label\nimages/a.png,x\n", "has no column 'path' but name, label; expected paths of images"),
        ("path,path\na,b\n", "has two columns 'path'; expected a header with 'path'"),
        ("", "is empty; expected a header with 'path'"),
        ("path,label\n", "names no image in column 'path'"),
        ("path,label\n,x\n", "names no image in column 'path'"),
    ],
)
def test_a_table_that_is_wrong_says_where(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(table(folder, text))


def test_a_table_in_another_encoding_says_so(folder: Path) -> None:
    with pytest.raises(DataError, match=r"is no readable table .*invalid UTF8 data"):
        open_source(table(folder, "path\nimages/größe.png\n", encoding="latin-1"))
    with pytest.raises(DataError, match=r"is no readable table \('utf-8' codec"):
        open_source(table(folder, "path,größe\nimages/a.png,1\n", encoding="latin-1"))


def test_a_table_that_may_not_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", "/dev/null/cache")
    with public_folder() as place:
        path = table(place, "path\na.png\n")
        path.chmod(0)
        with pytest.raises(DataError, match=r"list.csv: cannot be read \(Permission denied\)"):
            as_nobody(lambda: open_source(path))


# --- change, and sets that selfsight drew ---------------------------------------------------------------------------


def test_a_table_is_read_again_only_when_it_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(folder, "path\nimages/a.png\n")
    open_source(path)
    with monkeypatch.context() as patch:
        patch.setattr(table_index, "read_table", None)
        assert len(open_source(path)) == 1
    table(folder, "path\nimages/a.png\nimages/sub/b.png\n")
    assert len(open_source(path)) == 2


def test_a_pickled_table_carries_no_rows(folder: Path) -> None:
    path = table(folder, "path,label\n" + "".join(f"images/a.png,{i % 2}\n" for i in range(3000)))
    source = open_source(path)
    assert len(pickle.dumps(source)) < 1000
    assert list(pickle.loads(pickle.dumps(source)).keys)[-1] == "images/a.png#3000"


@pytest.mark.parametrize("closed", [True, False])
def test_a_set_that_selfsight_drew_is_opened_with_its_splits_and_classes(tmp_path: Path, closed: bool) -> None:
    info = DatasetInfo(name="x", classes=["dots", "rings"], splits=["train", "test"], factors={}, provenance={})
    writer = Writer(tmp_path, info)
    for number, split in enumerate(["train", "train", "test"]):
        put(tmp_path / split / f"{number}.png", encoded(number))
        name = f"{split}/{number}.png"
        writer.add({"key": name, "path": name, "split": split, "label": 0, "group": f"g{number}", "size": 0.5}, [])
    writer.__exit__(None if closed else KeyboardInterrupt, None if closed else KeyboardInterrupt(), None)
    source = open_source(f"{tmp_path}?split=train")
    assert list(source.keys) == ["train/0.png", "train/1.png"]
    assert source.classes == ("dots", "rings")
    assert source.groups("group").tolist() == ["g0", "g1"]
    assert grey_level(open_source(f"{tmp_path}?split=test"), 0) == 2
    assert len(open_source(tmp_path)) == 3
