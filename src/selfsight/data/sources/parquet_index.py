"""What is known of Parquet files without reading their images: row groups, keys and labels."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfsight.data.draws import Indices
from selfsight.data.index import Columns, Index, shown
from selfsight.data.sources.indexed import rejections
from selfsight.data.sources.labels import Labelled, class_names, is_list, labelled
from selfsight.errors import DataError

_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label")
_LISTS = "labels"
_THREADS = 8


@dataclass(frozen=True)
class Layout:
    """Which columns hold what. `image` is the path of the encoded bytes within a row (`image.bytes`, or `image` itself)."""

    image: str
    name: str | None
    label: str | None
    others: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """The small part of a file: a row a sample with `key` and `label`, where there are such; groups as (number, rows, bytes)."""

    schema: pa.Schema
    rows: pa.Table
    groups: list[tuple[int, int, int]]


def is_pattern(location: str) -> bool:
    return glob.has_magic(location) and not os.path.lexists(location)


def files_at(location: str) -> list[str]:
    """Absolute paths of a file, of the Parquet files below a folder (hidden ones left out) or of a pattern, sorted."""
    whole = Path(location).absolute()
    if is_pattern(location):
        return sorted(path for path in glob.glob(str(whole), recursive=True) if Path(path).is_file())  # noqa: PTH207 (absolute)
    if whole.is_dir():
        found = sorted(whole.rglob("*.[pP][aA][rR][qQ][uU][eE][tT]"))
        return [str(path) for path in found if not any(part.startswith(".") for part in path.relative_to(whole).parts)]
    return [str(whole)]


def marks(files: Sequence[str]) -> Indices:
    """[files, 3]: size and times of change, by which a file is known again; -1 for one that is gone."""
    return np.array([_mark(path) for path in files], dtype=np.int64).reshape(-1, 3)


def _mark(path: str) -> tuple[int, int, int]:
    try:
        status = Path(path).stat()
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def unchanged(files: Sequence[str], index: Index) -> bool:
    known = [os.fsencode(path) for path in files]
    return index["file"].to_pylist() == known and np.array_equal(index.numbers("mark"), marks(files).ravel())


def columns(location: str, files: Sequence[str]) -> Columns:
    """The index of some files. Of several, the damaged ones are left out and listed; a single one is a `DataError`."""
    before = marks(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(_read, files))
    bad = [(path, str(found)) for path, found in zip(files, read, strict=True) if isinstance(found, OSError)]
    good = {number: found for number, found in enumerate(read) if isinstance(found, File)}
    if not good:
        raise DataError(f"{location}: {_nothing_read(bad)}")
    _check_alike(good, files)
    groups = [(number, *group) for number, file in good.items() for group in file.groups]
    starts = np.cumsum([0, *(rows for _, _, rows, _ in groups)])
    if starts[-1] == 0:
        raise DataError(f"{location}: holds no rows; expected at least one image")
    return {
        "file": pa.array([os.fsencode(path) for path in files], pa.large_binary()),
        "mark": pa.array(before.ravel()),
        "group_file": pa.array([number for number, _, _, _ in groups], pa.int64()),
        "group_number": pa.array([place for _, place, _, _ in groups], pa.int64()),
        "group_start": pa.array(starts),
        "group_bytes": pa.array([size for _, _, _, size in groups], pa.int64()),
        "key": _keys(good, files),
        **_labels(list(good.values()), location).columns(),
        **rejections([(os.fsencode(path), reason) for path, reason in bad], len(bad)),
    }


def _nothing_read(bad: Sequence[tuple[str, str]]) -> str:
    path, reason = bad[0]
    if len(bad) == 1:
        return f"is no readable Parquet file ({reason})"
    return f"not one of {len(bad)} Parquet files can be read; first: {path}: {reason}"


def _read(path: str) -> File | OSError:
    try:
        with opened(os.fsencode(path)) as file:
            return _file(file, layout_of(file.schema_arrow, path))
    except OSError as error:
        return error


@contextmanager
def opened(path: bytes) -> Iterator[pq.ParquetFile]:
    """A file, whose faults become an `OSError` of one line."""
    try:
        with pa.OSFile(path) as raw, pq.ParquetFile(raw) as file:
            yield file
    except (OSError, pa.ArrowException, IndexError) as error:
        number = getattr(error, "errno", None)
        raise OSError(os.strerror(number) if number else str(error).partition("\n")[0] or type(error).__name__) from None


def _file(file: pq.ParquetFile, layout: Layout) -> File:
    about = file.metadata
    image = next(place for place in range(about.num_columns) if about.schema.column(place).path == layout.image)
    groups = [about.row_group(place) for place in range(about.num_row_groups)]
    table = file.read([name for name in (layout.name, layout.label) if name])
    rows = {}
    if layout.name:
        rows["key"] = pc.struct_field(table[layout.name.partition(".")[0]], "path").cast(pa.large_string())
    if layout.label:
        label = table[layout.label]
        rows["label"] = label.cast(label.type.value_type) if pa.types.is_dictionary(label.type) else label
    sizes = [(place, group.num_rows, group.column(image).total_uncompressed_size) for place, group in enumerate(groups)]
    return File(file.schema_arrow, pa.table(rows), [size for size in sizes if size[1]])


def _check_alike(good: Mapping[int, File], files: Sequence[str]) -> None:
    first = next(iter(good))
    expected = good[first].schema
    for number, file in good.items():
        if not file.schema.equals(expected):
            here, there = ({f"{field.name} {field.type}" for field in schema} for schema in (file.schema, expected))
            only = ", ".join(sorted(here - there)) or "nothing else"
            lacks = ", ".join(sorted(there - here)) or "nothing else"
            raise DataError(f"{files[number]}: its columns differ from those of {files[first]}: {only} instead of {lacks}")


def _labels(files: Sequence[File], location: str) -> Labelled:
    schema = files[0].schema
    name = layout_of(schema, location).label
    if name is None:
        return Labelled(np.empty(0, dtype=np.int64), [])
    column = pa.chunked_array([chunk for file in files for chunk in file.rows["label"].chunks])
    return labelled(column, location, name, class_names(schema.metadata or {}, name))


def _keys(good: Mapping[int, File], files: Sequence[str]) -> pa.Array:
    """`image.path` where it names every row uniquely, else the row number, behind the name of the file if there are several."""
    if all("key" in file.rows.column_names for file in good.values()):
        paths = pa.chunked_array([chunk for file in good.values() for chunk in file.rows["key"].chunks], pa.large_string())
        if paths.null_count == 0 and pc.all(pc.not_equal(paths, "")).as_py() and _all_differ(whole := paths.combine_chunks()):
            return whole
    numbers = [pa.array(np.arange(sum(rows for _, rows, _ in file.groups))).cast(pa.large_string()) for file in good.values()]
    if len(files) == 1:
        return numbers[0]
    base = os.path.commonpath([str(Path(path).parent) for path in files])
    names = [shown(os.fsencode(Path(path).relative_to(base).with_suffix(""))) for path in files]
    slash = pa.scalar("/", pa.large_string())
    heads = [pa.scalar(names[number], pa.large_string()) for number in good]
    return pa.concat_arrays([pc.binary_join_element_wise(*pair, slash) for pair in zip(heads, numbers, strict=True)])


def _all_differ(names: pa.Array) -> bool:
    """Sorting takes less memory than a table of those that were seen; what is in order already takes none."""
    if pc.all(pc.less(names[:-1], names[1:])).as_py():
        return True
    ordered = names.take(pc.sort_indices(names))
    return not pc.any(pc.equal(ordered[:-1], ordered[1:])).as_py()


def layout_of(schema: pa.Schema, location: str) -> Layout:
    """Raises `DataError` where no column holds encoded images."""
    image = next((name for name in _IMAGES if name in schema.names), None)
    if image is None:
        expected = "expected image.bytes, image.path"
        raise DataError(f"{location}: has no column 'image' but {', '.join(schema.names)}; {expected}")
    kind = schema.field(image).type
    lists = [_LISTS] if _LISTS in schema.names and is_list(schema.field(_LISTS).type) else []
    label = next((name for name in (*_LABELS, *lists) if name in schema.names), None)
    others = tuple(name for name in schema.names if name not in (image, label))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return Layout(image, None, label, others)
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{location}: column '{image}' is {kind}; expected a struct with a field 'bytes' of encoded images")
    return Layout(f"{image}.bytes", f"{image}.path" if kind.get_field_index("path") >= 0 else None, label, others)
