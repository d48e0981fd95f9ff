"""Images with any number of labels: in Parquet files, tables, subsets and mixtures; and parts held back of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import labelled
import pictures
from selfsight.data.holdout import hold_out, in_classes_of, labels_of, strata
from selfsight.data.sources import Source, Subset, first, open_source
from selfsight.errors import DataError

LISTS = [["cat"], [], ["dog", "bird"], None, ["bird"], ["cat", "dog", "bird"]]
SETS = [[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]]
CLASSES = ("bird", "cat", "dog")


def images(count: int) -> list[dict[str, object]]:
    data = b"\x89PNG"
    return [{"bytes": data, "path": f"{i}.png"} for i in range(count)]


def parquet(path: Path, labels: pa.Array, name: str = "labels", metadata: dict[str, str] | None = None) -> Source:
    table = pa.table({"image": images(len(labels)), name: labels}).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=2)
    return open_source(path)


def check(source: Source) -> None:
    assert (source.classes, source.labels) == (CLASSES, None)
    assert source.label_sets is not None
    assert source.label_sets.dtype == np.bool_
    np.testing.assert_array_equal(source.label_sets, np.array(SETS, dtype=bool))


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
@pytest.mark.parametrize("name", ["label", "labels"])
def test_a_parquet_column_of_lists_is_a_set_of_labels_an_image(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    source = parquet(tmp_path / "set.parquet", pa.array(LISTS, kind), name)
    check(source)
    check(pickle.loads(pickle.dumps(source)))
    check(open_source(tmp_path / "set.parquet"))


def test_numbers_in_lists_take_their_names_from_the_hugging_face_features(tmp_path: Path) -> None:
    numbers = [None if each is None else [CLASSES.index(name) for name in each] for each in LISTS]
    feature = {"feature": {"names": list(CLASSES), "_type": "ClassLabel"}, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    column = pa.array(numbers, pa.list_(pa.int64()))
    check(parquet(tmp_path / "named.parquet", column, metadata=metadata))
    assert parquet(tmp_path / "plain.parquet", column).classes == ("0", "1", "2")


def test_a_column_labels_that_holds_no_lists_is_a_column_like_any_other(tmp_path: Path) -> None:
    source = parquet(tmp_path / "set.parquet", pa.array(["a", "b", "a"]))
    assert (source.labels, source.label_sets, source.classes) == (None, None, ())
    assert source.columns() == ("labels",)


def test_lists_that_are_all_empty_are_no_labels(tmp_path: Path) -> None:
    source = parquet(tmp_path / "set.parquet", pa.array([[], None, []], pa.list_(pa.string())))
    assert (source.labels, source.label_sets, source.classes) == (None, None, ())


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_has_lists_too_and_keeps_all_classes_in_a_split(tmp_path: Path, ending: str) -> None:
    for number in range(6):
        pictures.noise(tmp_path / f"{number}.png", number)
    file = tmp_path / f"table.{ending}"
    if ending == "parquet":
        columns = {"path": [f"{i}.png" for i in range(6)], "labels": pa.array(LISTS, pa.list_(pa.string()))}
        pq.write_table(pa.table(columns | {"split": ["a", "b"] * 3}), file)
    else:
        mark = "\t" if ending == "tsv" else ","
        rows = [mark.join([f"{i}.png", "; ".join(each or []), "ab"[i % 2]]) for i, each in enumerate(LISTS)]
        file.write_text("\n".join([mark.join(["path", "labels", "split"]), *rows]))
    check(open_source(file))
    half = open_source(f"{file}?split=a")
    assert half.classes == CLASSES
    np.testing.assert_array_equal(half.label_sets, np.array(SETS, dtype=bool)[::2])


def test_subsets_and_first_samples_keep_their_sets(tmp_path: Path) -> None:
    source = parquet(tmp_path / "set.parquet", pa.array(LISTS, pa.list_(pa.string())))
    part = Subset(source, np.array([5, 2]))
    np.testing.assert_array_equal(part.label_sets, np.array([SETS[5], SETS[2]], dtype=bool))
    np.testing.assert_array_equal(first(source, 3).label_sets, np.array(SETS[:3], dtype=bool))


def test_in_a_mixture_with_single_labels_those_are_sets_of_one(tmp_path: Path) -> None:
    source = parquet(tmp_path / "set.parquet", pa.array(LISTS, pa.list_(pa.string())))
    table = pa.table({"image": images(2), "label": ["dog", "eel"]})
    pq.write_table(table, tmp_path / "single.parquet")
    both = open_source([str(tmp_path / "set.parquet"), str(tmp_path / "single.parquet")])
    assert both.classes == (*source.classes, "eel")
    assert both.labels is None
    expected = [[*row, 0] for row in SETS] + [[0, 0, 1, 0], [0, 0, 0, 1]]
    for each in (both, pickle.loads(pickle.dumps(both))):
        np.testing.assert_array_equal(each.label_sets, np.array(expected, dtype=bool))
    pictures.folder(tmp_path / "plain", 3, labelled=False)
    unlabelled = open_source([str(tmp_path / "set.parquet"), str(tmp_path / "plain")])
    assert (unlabelled.labels, unlabelled.label_sets, unlabelled.classes) == (None, None, ())


def test_every_class_of_two_images_or_more_is_held_in_its_share_and_a_single_one_trains() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    kept, held = hold_out(strata(labels), 0.2, 0)
    assert sorted([*kept, *held]) == list(range(63))
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 2, 1, 0]
    again, other = hold_out(strata(labels), 0.2, 0)[1], hold_out(strata(labels), 0.2, 1)[1]
    np.testing.assert_array_equal(held, again)
    assert not np.array_equal(held, other)


def test_groups_are_held_whole_and_one_group_is_not_divided() -> None:
    labels, groups = np.arange(40) % 2, np.repeat([f"g{i}" for i in range(10)], 4)
    kept, held = hold_out(strata(labels), 0.2, 0, groups)
    assert len(held) == 8
    assert not set(groups[kept]) & set(groups[held])
    assert hold_out(strata(labels), 0.2, 0, np.repeat("one", 40))[1].size == 0


def test_of_several_labels_the_rarest_counts() -> None:
    sets = np.zeros((40, 3), dtype=bool)
    sets[:, 0] = True
    sets[:5, 1] = True
    sets[39] = False
    assert np.bincount(strata(sets)).tolist() == [34, 5, 0, 1]
    held = hold_out(strata(sets), 0.2, 0)[1]
    assert sets[held, 1].sum() == 1


def test_labels_of_another_source_are_matched_by_name(tmp_path: Path) -> None:
    labelled.stripes(tmp_path / "some", (2, 0, 2))
    (tmp_path / "some" / "diagonal").rmdir()
    source = in_classes_of(open_source(tmp_path / "some"), labelled.KINDS, "--validation some")
    assert sorted(labels_of(source).tolist()) == [0, 0, 2, 2]
    assert source.classes == labelled.KINDS
    with pytest.raises(DataError, match="--validation some: class 'across' is not among the training classes cat"):
        in_classes_of(open_source(tmp_path / "some"), ("cat", "down"), "--validation some")
    pictures.folder(tmp_path / "plain", 2, labelled=False)
    with pytest.raises(DataError, match="plain: has no labels; expected a sub-folder for each class"):
        labels_of(open_source(tmp_path / "plain"))
