"""One contract for every source, then what is particular to each."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from films import still
from pictures import tar
from selfsight.data.decode import decode
from selfsight.data.loader import read_image
from selfsight.data.sources import SOURCES, BadImage, Source, Subset, first, open_source
from selfsight.data.sources.mixture import MixtureSource
from selfsight.errors import DataError

LABELS = [0, 1, 1, 0, 1, 0, 0]
CLASSES = ("bird", "cat")


def encoded(level: int, kind: str = "PNG") -> bytes:
    """A picture of 6x4 pixels with one grey level, so that each sample can be told from the others."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (level, level, level)).save(file, kind)
    return file.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(7) if data is None else data)
    return path


def parquet(path: Path, metadata: dict[str, str] | None = None, **columns: object) -> Path:
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def images(count: int, names: bool = True) -> list[dict[str, object]]:
    return [{"bytes": encoded(10 * i), "path": f"{i}.png" if names else None} for i in range(count)]


def _folder(tmp: Path) -> Path:
    for i, label in enumerate(LABELS):
        put(tmp / "set" / CLASSES[label] / f"{i}.png", encoded(10 * i))
    return tmp / "set"


def _parquet(tmp: Path) -> Path:
    sites = [f"site-{i % 3}" for i in range(len(LABELS))]
    return parquet(tmp / "set.parquet", {"labels": ",".join(CLASSES)}, image=images(len(LABELS)), label=LABELS, site=sites)


def _shards(tmp: Path) -> Path:
    for number, part in enumerate((slice(0, 4), slice(4, 7))):
        names = [f"{CLASSES[label]}/{i}.png" for i, label in enumerate(LABELS)][part]
        tar(tmp / "set" / f"{number}.tar", {name: encoded(10 * int(name[-5])) for name in names})
    return tmp / "set"


def _table(tmp: Path) -> Path:
    folder = _folder(tmp)
    rows = [f"set/{CLASSES[label]}/{i}.png,{CLASSES[label]},site-{i % 3}" for i, label in enumerate(LABELS)]
    return put(folder.parent / "set.csv", "\n".join(["path,label,site", *rows]).encode())


def _mixture(tmp: Path) -> Path:
    table = _table(tmp).read_text().splitlines()
    for name, rows in (("front", table[1:4]), ("back", table[4:])):
        put(tmp / f"{name}.csv", "\n".join([table[0], *rows]).encode())
    return put(tmp / "both.yaml", b"mixture: [front.csv, back.csv]")


def _video(tmp: Path) -> Path:
    for i, label in enumerate(LABELS):
        still(tmp / "set" / CLASSES[label] / f"{i}.mkv", np.asarray(decode(encoded(10 * i))))
    return tmp / "set"


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "folder": _folder,
    "mixture": _mixture,
    "parquet": _parquet,
    "shards": _shards,
    "table": _table,
    "video": _video,
}
"""For each kind of source a set of seven labelled images in two classes."""


def test_every_kind_of_source_has_a_contract_test() -> None:
    assert set(BUILDERS) == set(SOURCES)


@pytest.fixture(params=sorted(SOURCES))
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return BUILDERS[request.param](tmp_path)


@pytest.fixture
def source(location: Path) -> Source:
    return open_source(location)


def grey_level(source: Source, index: int) -> int:
    return int(np.asarray(decode(source.image_bytes(index)))[0, 0, 0])


def test_keys_name_every_sample_once(source: Source) -> None:
    assert len(source) == len(LABELS) == len(set(source.keys)) == len(source.keys)
    assert all(isinstance(key, str) and key for key in source.keys)


def test_labels_are_indices_into_the_classes_and_belong_to_their_images(source: Source) -> None:
    assert source.classes == CLASSES
    assert source.labels.dtype == np.int64
    found = {grey_level(source, i) // 10: int(source.labels[i]) for i in range(len(source))}
    assert found == dict(enumerate(LABELS))


def test_every_image_decodes_to_its_own_pixels(source: Source) -> None:
    assert sorted(grey_level(source, i) for i in range(len(source))) == [10 * i for i in range(len(LABELS))]
    assert decode(source.image_bytes(0)).size == (6, 4)


def test_opening_again_gives_the_same_order(source: Source, location: Path) -> None:
    again = open_source(location)
    assert list(again.keys) == list(source.keys)
    np.testing.assert_array_equal(again.labels, source.labels)
    assert [again.image_bytes(i) for i in range(len(again))] == [source.image_bytes(i) for i in range(len(source))]


def test_marks_are_the_same_while_the_images_are(source: Source, location: Path) -> None:
    again = open_source(location)
    assert [again.mark(i) for i in range(len(again))] == [source.mark(i) for i in range(len(source))]
    assert Subset(source, np.array([4, 2])).mark(1) == source.mark(2)


def test_a_file_that_was_written_again_has_another_mark(source: Source, location: Path, tmp_path: Path) -> None:
    marks = [source.mark(i) for i in range(len(source))]
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            path.write_bytes(path.read_bytes())
    again = open_source(location)
    assert all(again.mark(i) != marks[i] for i in range(len(again)))


def test_the_location_is_what_the_user_gave(source: Source, location: Path) -> None:
    assert source.location == str(location)
    assert list(source.rejected) == []


def test_a_pickled_source_is_the_same(source: Source) -> None:
    again = pickle.loads(pickle.dumps(source))
    assert list(again.keys) == list(source.keys)
    assert (again.location, again.classes) == (source.location, source.classes)
    np.testing.assert_array_equal(again.labels, source.labels)
    assert [again.image_bytes(i) for i in range(len(again))] == [source.image_bytes(i) for i in range(len(source))]
    for name in source.columns():
        assert again.column(name).tolist() == source.column(name).tolist()


@pytest.mark.parametrize("warm", [False, True])
def test_forked_workers_read_the_same(source: Source, warm: bool) -> None:
    if warm:  # what the parent has open is theirs too
        source.image_bytes(0)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_read_all, args=(source, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [[source.image_bytes(i) for i in range(len(source))]] * 2


def _read_all(source: Source, queue: multiprocessing.SimpleQueue[list[bytes]]) -> None:
    queue.put([source.image_bytes(i) for i in range(len(source))])


def test_keys_can_be_asked_for_in_every_way_of_a_sequence(source: Source) -> None:
    keys = list(source.keys)
    assert [source.keys[i] for i in range(-7, 7)] == keys + keys
    assert list(source.keys[1:6:2]) == keys[1:6:2]
    assert list(source.keys[::-1]) == keys[::-1]
    assert source.keys.index(keys[3]) == 3
    assert keys[4] in source.keys
    with pytest.raises(IndexError):
        source.keys[7]


def test_an_epoch_takes_every_sample_once_and_each_epoch_in_its_own_order(source: Source) -> None:
    orders = []
    for seed, epoch in itertools.product(range(3), range(3)):
        drawn = source.draws(seed, epoch, np.arange(len(source)))
        assert sorted(drawn.indices) == list(range(len(source)))
        assert drawn.occurrences.tolist() == [0] * len(source)
        orders.append(tuple(drawn.indices))
        some = np.array([4, 0, 4])
        np.testing.assert_array_equal(source.draws(seed, epoch, some).indices, drawn.indices[some])
    assert len(set(orders)) > 4


def test_blocks_begin_with_the_first_sample_and_ascend(source: Source) -> None:
    if source.blocks is not None:
        assert source.blocks[0] == 0
        assert source.blocks[-1] < len(source)
        assert np.all(np.diff(source.blocks) > 0)
    assert source.window >= 1


def test_a_subset_keeps_keys_labels_pixels_and_columns_together(source: Source) -> None:
    indices = np.array([5, 0, 3])
    part = Subset(source, indices)
    assert len(part) == 3
    assert list(part.keys) == [source.keys[i] for i in indices]
    assert part.labels.tolist() == source.labels[indices].tolist()
    assert part.classes == source.classes
    assert [part.image_bytes(i) for i in range(3)] == [source.image_bytes(i) for i in indices]
    assert part.columns() == source.columns()
    for name in source.columns():
        assert part.column(name).tolist() == source.column(name)[indices].tolist()


def test_a_subset_of_a_subset_points_at_the_right_samples(source: Source) -> None:
    part = Subset(Subset(source, np.array([6, 5, 4, 3])), np.array([3, 0]))
    assert list(part.keys) == [source.keys[3], source.keys[6]]
    assert part.image_bytes(1) == source.image_bytes(6)


def test_first_takes_some_of_each_part_and_never_more_than_there_is(source: Source) -> None:
    front = source.keys[:2] if not isinstance(source, MixtureSource) else [source.keys[0], source.keys[3]]
    assert list(first(source, 2).keys) == list(front)
    assert first(source, None) is source
    assert first(source, 7) is source
    assert first(source, 100) is source
    with pytest.raises(DataError, match="--limit: expected a whole number from 1, got 0"):
        first(source, 0)


def test_columns_have_one_text_a_sample(source: Source) -> None:
    assert source.columns()
    for name in source.columns():
        values = source.groups(name)
        assert values.shape == (len(source),)
        assert values.dtype.kind == "U"


def test_an_unknown_column_names_the_nearest(source: Source) -> None:
    known = source.columns()[0]
    with pytest.raises(DataError) as error:
        source.groups(known + "s")
    assert str(error.value) == f"--group-by '{known}s': {source.location} has no such column. Did you mean '{known}'?"


def test_what_is_no_source_says_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: does not exist; expected a folder of images, a .*, ") as error:
        open_source(tmp_path / "nowhere")
    assert all(kind.expects in str(error.value) for kind in SOURCES.values())
    with pytest.raises(DataError, match=r"notes\.txt: is no source of images; expected a folder of images, a .*, "):
        open_source(put(tmp_path / "notes.txt", b"hello"))


# --- folder ---------------------------------------------------------------------------------------------------------


def test_folder_without_subfolders_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.png"):
        put(tmp_path / name)
    source = open_source(tmp_path)
    assert list(source.keys) == ["a.png", "b.png", "c.png"]
    assert source.labels is None
    assert source.classes == ()


def test_folder_with_one_subfolder_has_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "images" / "1.png")
    assert open_source(tmp_path).labels is None


def test_folder_takes_images_at_any_depth_and_labels_by_the_first_level(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "2024" / "may" / "1.png")
    put(tmp_path / "cat" / "2.png")
    put(tmp_path / "dog" / "deep" / "3.png")
    source = open_source(tmp_path)
    assert list(source.keys) == ["cat/2.png", "dog/deep/3.png", "cat/2024/may/1.png"]
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 0]
    assert source.groups("folder").tolist() == ["cat", "dog/deep", "cat/2024/may"]


def test_folder_with_an_image_outside_the_classes_is_unlabelled(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "dog" / "2.png")
    put(tmp_path / "cover.png")
    source = open_source(tmp_path)
    assert len(source) == 3
    assert source.labels is None


def test_folder_without_images_in_a_subfolder_gives_it_no_class(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "dog" / "2.png")
    put(tmp_path / "notes" / "read.txt", b"text")
    assert open_source(tmp_path).classes == ("cat", "dog")


def test_folder_loop_of_links_ends(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a" / "1.png")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set", target_is_directory=True)
    assert list(open_source(tmp_path / "set").keys) == ["a/1.png"]


def test_folder_linked_from_outside_is_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1.png")
    put(tmp_path / "set" / "b" / "2.png")
    for name in ("a", "c"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    source = open_source(tmp_path / "set")
    assert list(source.keys) == ["a/1.png", "b/2.png"]
    assert grey_level(source, 0) == 7


def test_folder_leaves_hidden_files_and_folders_out(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    put(tmp_path / ".hidden.png")
    put(tmp_path / ".thumbnails" / "2.png")
    source = open_source(tmp_path)
    assert list(source.keys) == ["1.png"]
    assert list(source.rejected) == []


def test_folder_rejects_what_is_no_image_and_says_why(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    put(tmp_path / "sub" / "notes", b"some words")
    put(tmp_path / "empty", b"")
    assert open_source(tmp_path).rejected == [
        BadImage("empty", "no image, by its name and first bytes"),
        BadImage("sub/notes", "no image, by its name and first bytes"),
    ]


def test_folder_says_nothing_of_files_that_lie_beside_images_everywhere(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    for name in ("1.txt", "1.json", "labels.CSV", "Thumbs.db", "desktop.ini", "clip.mp4", "part.parquet", ".DS_Store"):
        put(tmp_path / name, b"something")
    source = open_source(tmp_path)
    assert list(source.keys) == ["1.png"]
    assert source.rejected == []


def test_folder_lists_a_thousand_rejected_files_and_counts_the_rest(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    for number in range(1234):
        put(tmp_path / f"{number:04d}.odd", b"words")
    found = open_source(tmp_path).rejected
    assert len({bad.key for bad in found[:-1]}) == 1000
    assert found[-1] == BadImage("...", "234 more files were left out; 1000 are listed")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("name", ["bare", "download.dat", "photo.original"])
def test_folder_knows_an_image_without_its_extension(tmp_path: Path, name: str, kind: str) -> None:
    put(tmp_path / name, encoded(40, kind))
    source = open_source(tmp_path)
    assert list(source.keys) == [name]
    assert abs(grey_level(source, 0) - 40) <= 1


def test_folder_image_under_the_extension_of_another_format_is_read(tmp_path: Path) -> None:
    put(tmp_path / "really_a_png.jpg", encoded(40, "PNG"))
    assert grey_level(open_source(tmp_path), 0) == 40


@pytest.mark.parametrize("name", ["UPPER.PNG", "two words.png", "größe 漢字 🐦.png", "semi;colon'quote.png", "a.b.c.png"])
def test_folder_takes_any_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a class" / name)
    source = open_source(tmp_path)
    assert list(source.keys) == [f"a class/{name}"]
    assert grey_level(source, 0) == 7


def test_folder_without_images_is_an_error_that_names_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError) as error:
        open_source(tmp_path)
    assert str(error.value) == f"{tmp_path}: holds no image; expected files such as .jpg or .png, at any depth"
    put(tmp_path / "sub" / "notes.txt", b"words")
    with pytest.raises(DataError, match=r"at any depth \(1 files of other kinds\)$"):
        open_source(tmp_path)
    put(tmp_path / "sub" / "notes", b"words")
    with pytest.raises(DataError, match=r"\(2 other files, first: sub/notes: no image, by its name and first bytes\)$"):
        open_source(tmp_path)


def test_folder_file_that_vanished_is_a_bad_image(tmp_path: Path) -> None:
    path = put(tmp_path / "1.png")
    source = open_source(tmp_path)
    path.unlink()
    assert read_image(source, 0) == BadImage("1.png", "cannot be read (No such file or directory)")


def test_folder_link_to_nothing_is_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    put(tmp_path / "here.png")
    source = open_source(tmp_path)
    bad = read_image(source, list(source.keys).index("gone.png"))
    assert bad == BadImage("gone.png", "cannot be read (No such file or directory)")


@pytest.mark.timeout(3)
@pytest.mark.parametrize("name", ["pipe", "pipe.png"])
def test_folder_with_a_pipe_in_it_opens_and_does_not_wait_for_it(tmp_path: Path, name: str) -> None:
    put(tmp_path / "1.png")
    os.mkfifo(tmp_path / name)
    source = open_source(tmp_path)
    assert list(source.keys) == ["1.png"]
    assert [bad.key for bad in source.rejected] == [name]


# --- parquet --------------------------------------------------------------------------------------------------------


def test_parquet_takes_class_names_from_the_hugging_face_features(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    source = open_source(parquet(tmp_path / "a.parquet", metadata, image=images(3), label=[2, 0, 1]))
    assert source.classes == ("ant", "bee", "cow")
    assert source.labels.tolist() == [2, 0, 1]
    assert list(source.keys) == ["0.png", "1.png", "2.png"]


def test_parquet_takes_class_names_from_the_labels_metadata(tmp_path: Path) -> None:
    source = open_source(parquet(tmp_path / "a.parquet", {"labels": "ant,bee,cow"}, image=images(2), label=[1, 0]))
    assert source.classes == ("ant", "bee", "cow")


def test_parquet_without_class_names_counts_its_classes(tmp_path: Path) -> None:
    source = open_source(parquet(tmp_path / "a.parquet", None, image=images(3), label=[0, 2, 2]))
    assert source.classes == ("0", "1", "2")


def test_parquet_without_labels_is_unlabelled(tmp_path: Path) -> None:
    source = open_source(parquet(tmp_path / "a.parquet", None, image=images(2)))
    assert source.labels is None
    assert source.classes == ()


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_labels_may_be_names(tmp_path: Path, dictionary: bool) -> None:
    names = pa.array(["cow", "ant", "cow"])
    source = open_source(
        parquet(tmp_path / "a.parquet", None, image=images(3), label=names.dictionary_encode() if dictionary else names)
    )
    assert source.classes == ("ant", "cow")
    assert source.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "metadata", "message"),
    [
        ([0, None], None, "column 'label' has 1 empty values; expected a class in each row"),
        (["a", None], None, "column 'label' has 1 empty values; expected a class in each row"),
        ([0, -1], None, "column 'label' holds -1; expected class numbers from 0"),
        ([0, 3], {"labels": "a,b"}, "label 3 has no name; the metadata names 2 classes"),
        ([0.5, 1.0], None, "column 'label' is double; expected class numbers or names"),
    ],
)
def test_parquet_labels_that_are_wrong_say_how(
    tmp_path: Path, labels: list[object], metadata: dict[str, str] | None, message: str
) -> None:
    path = parquet(tmp_path / "a.parquet", metadata, image=images(2), label=labels)
    with pytest.raises(DataError) as error:
        open_source(path)
    assert str(error.value) == f"{path}: {message}"


def test_parquet_without_image_column_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'image' but picture, label; expected image.bytes, image.path"):
        open_source(parquet(tmp_path / "a.parquet", None, picture=["x"], label=[0]))


def test_parquet_image_column_of_another_type_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'image' is int64; expected a struct with a field 'bytes'"):
        open_source(parquet(tmp_path / "a.parquet", None, image=[1]))


def test_parquet_without_rows_is_an_error(tmp_path: Path) -> None:
    empty = pa.array([], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    with pytest.raises(DataError, match="holds no rows; expected at least one image"):
        open_source(parquet(tmp_path / "a.parquet", None, image=empty))


@pytest.mark.parametrize("data", [b"", b"PAR1 but not really", b"hello" * 100])
def test_parquet_that_is_none_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="is no readable Parquet file"):
        open_source(put(tmp_path / "a.parquet", data))


def test_parquet_row_without_bytes_is_a_bad_image(tmp_path: Path) -> None:
    rows = [*images(2), {"bytes": None, "path": "lost.png"}, None]
    source = open_source(parquet(tmp_path / "a.parquet", None, image=rows))
    assert len(source) == 4
    assert read_image(source, 2).reason == "cannot be read (no bytes in this row)"
    assert read_image(source, 3).reason == "cannot be read (no bytes in this row)"
    assert grey_level(source, 1) == 10


@pytest.mark.parametrize("paths", [["a", "a"], ["a", None], [None, None], ["a", ""]])
def test_parquet_paths_that_do_not_name_the_rows_give_way_to_row_numbers(tmp_path: Path, paths: list[str | None]) -> None:
    rows = [{"bytes": encoded(i), "path": path} for i, path in enumerate(paths)]
    assert list(open_source(parquet(tmp_path / "a.parquet", None, image=rows)).keys) == ["0", "1"]


def test_parquet_of_many_row_groups_keeps_its_order(tmp_path: Path) -> None:
    table = pa.table({"image": images(20), "label": list(range(20))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    source = open_source(tmp_path / "a.parquet")
    assert [grey_level(source, i) for i in range(20)] == [10 * i for i in range(20)]
