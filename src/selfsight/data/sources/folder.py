"""A folder of images: one sub-folder a class, or images in no particular order at any depth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.draws import Indices
from selfsight.data.index import Columns, Index, Keys, open_or_build, shown
from selfsight.data.sources.contents import contents
from selfsight.data.sources.indexed import IndexedSource, file_mark, rejected, rejections
from selfsight.data.sources.scan import Listing, Tree, join, scan, unchanged
from selfsight.errors import DataError


class FolderSource(IndexedSource):
    """Every image below a folder, by folder and name, with one of each class in turn; hidden files are left out.

    Labels: the first folder of the relative path, if at least two such folders hold images and no image lies outside them;
    else the source is unlabelled. Symbolic links are followed, each real folder once. The folder is listed once: an index
    remembers it for as long as no folder in it changes.
    """

    def __init__(self, location: str) -> None:
        self.root = os.fsencode(location)
        index = open_or_build(
            ["folder", "1", str(Path(location).resolve())],
            fresh=lambda index: unchanged(self.root, index),
            build=lambda: _columns(scan(self.root)),
        )
        if len(index["name"]) == 0:
            expected = "expected files such as .jpg or .png, at any depth"
            raise DataError(f"{location}: holds no image; {expected}{_why(index)}")
        super().__init__(location, index)

    def _keys(self) -> Sequence[str]:
        return FolderKeys(self.index, "name", range(len(self.index["name"])))

    def image_bytes(self, index: int) -> bytes:
        with open(self.root + b"/" + _path(self.index, index), "rb") as file:  # noqa: PTH123 (bytes)
            return file.read()

    def mark(self, index: int) -> bytes:
        return file_mark(self.root + b"/" + _path(self.index, index))

    def columns(self) -> tuple[str, ...]:
        return ("folder",)

    def column(self, name: str) -> npt.NDArray[np.str_]:
        names = np.array([shown(folder) for folder in self.index["folders"].to_pylist()])
        return names[self.index["folder"].to_numpy()]


class FolderKeys(Keys):
    """Relative paths, put together from the name of a file and that of its folder."""

    def _one(self, row: int) -> str:
        return shown(_path(self._index, row))

    def _many(self, rows: pa.Array) -> list[str]:
        folders = self._index["folders"].take(self._index["folder"].take(rows)).to_pylist()
        names = self._index["name"].take(rows).to_pylist()
        return [shown(join(folder, name)) for folder, name in zip(folders, names, strict=True)]


def matches(location: str) -> bool:
    return Path(location).is_dir() and contents(location) in ("images", "nothing")


def _path(index: Index, row: int) -> bytes:
    return join(index["folders"][index["folder"][row].as_py()].as_py(), index["name"][row].as_py())


def _columns(tree: Tree) -> Columns:
    """The index of a tree: `folders`, and for each image in order its `folder` (a number), `name` and `label`."""
    # By parts, so that what stands below one folder stands together.
    sequence = sorted(range(len(tree.folders)), key=lambda number: tree.folders[number].split(b"/"))
    folders = [tree.folders[number] for number in sequence]
    times = np.array(tree.times, dtype=np.int64).reshape(-1, 2)[sequence]
    table = _table(tree.listing, sequence)
    rows = pc.sort_indices(table, [("folder", "ascending"), ("name", "ascending")]).to_numpy()
    rows, doubles = _without_doubles(table, rows, folders)
    labels, classes = _classes(table["folder"].to_numpy()[rows], folders)
    if classes:
        turns = _turns(labels, len(classes))
        rows, labels = rows[turns], labels[turns]
    listing = tree.listing
    return {
        "folders": pa.array(folders, pa.large_binary()),
        "modified": pa.array(times[:, 0]),
        "changed": pa.array(times[:, 1]),
        "started": pa.array([tree.started], pa.int64()),
        "folder": table["folder"].take(pa.array(rows)),
        "name": table["name"].take(pa.array(rows)),
        "label": pa.array(labels),
        "class": pa.array(classes, pa.large_binary()),
        "others": pa.array([listing.others], pa.int64()),
        **rejections(sorted(listing.rejected + doubles), listing.rejected_count + len(doubles)),
    }


def _table(listing: Listing, sequence: Sequence[int]) -> pa.RecordBatch:
    """The images, their folders numbered by their places in `sequence`; takes them out of the listing."""
    place = np.empty(len(sequence), dtype=np.int32)
    place[sequence] = np.arange(len(sequence), dtype=np.int32)
    pool = pa.system_memory_pool()
    names = pa.concat_arrays([pa.array([], pa.large_binary()), *listing.names], pool)
    listing.names.clear()
    folders = pa.concat_arrays([pa.array([], pa.int32()), *listing.folders], pool)
    listing.folders.clear()
    return pa.record_batch({"folder": pa.array(place[folders.to_numpy()]), "name": names})


def _classes(numbers: npt.NDArray[np.int32], folders: Sequence[bytes]) -> tuple[Indices, list[bytes]]:
    """(label of each image, classes), both empty where the folders are none: images outside them, or one folder alone."""
    used = np.unique(numbers)
    tops = [folders[number].split(b"/", 1)[0] for number in used]
    classes = sorted(set(tops))
    if len(classes) < 2 or b"" in classes:
        return np.empty(0, dtype=np.int64), []
    label = np.zeros(len(folders), dtype=np.int64)
    label[used] = np.searchsorted(np.array(classes, dtype=object), np.array(tops, dtype=object))
    return label[numbers], classes


def _turns(labels: Indices, count: int) -> Indices:
    """One of each class in turn, so that the first N samples hold all classes; `labels` ascend."""
    turn = np.arange(len(labels)) - np.searchsorted(labels, np.arange(count))[labels]
    return np.lexsort((labels, turn))


def _without_doubles(table: pa.RecordBatch, rows: Indices, folders: Sequence[bytes]) -> tuple[Indices, list[tuple[bytes, str]]]:
    """Leave out files whose names are no UTF-8 and read like those of others once escaped: keys must tell samples apart."""
    escaped = pc.any(pc.match_substring(table["name"], "\\")).as_py() or any(b"\\" in folder for folder in folders)
    if not escaped or (_is_text(table["name"]) and _is_text(pa.array(folders, pa.large_binary()))):
        return rows, []
    seen: set[str] = set()
    kept, doubles = [], []
    for row in rows:
        path = join(folders[table["folder"][row].as_py()], table["name"][row].as_py())
        if shown(path) in seen:
            doubles.append((path, "its name is no UTF-8 and reads like that of another file"))
        else:
            seen.add(shown(path))
            kept.append(row)
    return np.array(kept, dtype=np.int64), doubles


def _is_text(names: pa.Array) -> bool:
    try:
        names.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _why(index: Index) -> str:
    found, others = rejected(index), int(index.numbers("others")[0])
    if found:
        count = int(index.numbers("rejected_count")[0]) + others
        return f" ({count} other files, first: {found[0].key}: {found[0].reason})"
    return f" ({others} files of other kinds)" if others else ""
