"""A table of image paths, read into an index: paths, labels, splits and the other columns as text."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from selfsight.data.draws import Indices
from selfsight.data.index import Columns
from selfsight.data.sources.indexed import rejections
from selfsight.data.sources.labels import Labelled, is_list, labelled
from selfsight.errors import DataError
from selfsight.runs import read_jsonl

PATHS = ("path", "image", "file", "filename", "filepath", "file_name", "image_path")
_NUMBER = r"^(0|-?[1-9][0-9]*)$"


def path_column(schema: pa.Schema) -> str | None:
    """The first column of text that is named like one of paths."""
    names = {field.name.lower(): field for field in reversed(list(schema))}
    fields = [names[name] for name in PATHS if name in names]
    return next((field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)), None)


def columns(location: str, file: Path, split: str | None) -> Columns:
    """`DataError` where the table cannot be read, has no paths, or no row of this split."""
    table, first_line = read_table(file)
    name = path_column(table.schema)
    if name is None:
        raise DataError(f"{location}: has no column 'path' but {', '.join(table.column_names)}; expected paths of images")
    known = _class_names(file)
    label = _label_column(table)
    labels = Labelled(_NONE, []) if label is None else labelled(table[label], location, label, known)
    rows = _rows_of(table, split, location)
    paths = table[name].cast(pa.large_string()).combine_chunks().take(pa.array(rows))
    given = pc.not_equal(pc.fill_null(pc.utf8_trim_whitespace(paths), ""), "").to_numpy(zero_copy_only=False)
    missing, rows = rows[~given], rows[given]
    if len(rows) == 0:
        raise DataError(f"{location}: names no image in column '{name}'{_of(split)}")
    paths = paths.filter(pa.array(given))
    reasons = [(f"line {row + first_line}".encode(), f"no value in column '{name}'") for row in missing[:1000].tolist()]
    return {
        "path": paths,
        "key": _keys(paths),
        **labels.rows(rows).columns(),
        **_groups(table, (name, label or "label"), rows),
        **rejections(reasons, len(missing), "rows"),
    }


_NONE: Indices = np.empty(0, dtype=np.int64)


def _label_column(table: pa.Table) -> str | None:
    """`label`, one a row or lists of them; or `labels`, which must be lists."""
    if "label" in table.column_names:
        return "label"
    return "labels" if "labels" in table.column_names and is_list(table["labels"].type) else None


def read_table(file: Path) -> tuple[pa.Table, int]:
    """(the table, number of the line or row that holds its first row)."""
    try:
        if file.suffix == ".jsonl":
            return pa.Table.from_pylist(read_jsonl(file)), 1
        if file.suffix.lower() == ".parquet":
            with pa.OSFile(os.fsencode(file)) as raw:
                return pq.ParquetFile(raw).read(), 1
        return _csv(file), 2
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        # Arrow counts the header as a row.
        reason = str(error).partition("\n")[0].replace("CSV parse error: Row #", "line ")
        raise DataError(f"{file}: is no readable table ({reason})") from None


def _csv(file: Path) -> pa.Table:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open("rb") as opened:
        names = next(csv.reader([opened.readline().decode("utf-8-sig")], delimiter=delimiter), [])
    double = [name for place, name in enumerate(names) if name in names[:place]]
    if not names or double:
        raise DataError(f"{file}: {f'has two columns {double[0]!r}' if double else 'is empty'}; expected a header with 'path'")
    reading = pyarrow.csv.ReadOptions(use_threads=False)  # so that an error says in which row
    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    text = dict.fromkeys(names, pa.string())
    values = pyarrow.csv.ConvertOptions(column_types=text, null_values=[""], strings_can_be_null=True)
    with pa.OSFile(os.fsencode(file)) as raw:
        return _with_numbers(pyarrow.csv.read_csv(raw, reading, parsing, values))


def _with_numbers(table: pa.Table) -> pa.Table:
    """Labels as numbers where each is one, and lists of labels; everything else stays the text that it is."""
    if "label" not in table.column_names:
        if "labels" not in table.column_names:
            return table
        return table.set_column(table.schema.get_field_index("labels"), "labels", _lists(table["labels"].to_pylist()))
    column = table["label"]
    if column.null_count == len(column) or not pc.all(pc.match_substring_regex(column, _NUMBER)).as_py():
        return table
    return table.set_column(table.schema.get_field_index("label"), "label", column.cast(pa.int64()))


def _lists(cells: Sequence[str | None]) -> pa.Array:
    """`cat; dog` in a cell are two labels, an empty cell is none."""
    found = [[word for part in (cell or "").split(";") if (word := part.strip())] for cell in cells]
    numbers = all(re.match(_NUMBER, word) for words in found for word in words)
    return pa.array(
        [[int(word) for word in words] for words in found] if numbers else found, pa.list_(pa.int64() if numbers else pa.string())
    )


def _class_names(file: Path) -> Sequence[str]:
    """Of a data set that selfsight has drawn: its numbers have names."""
    try:
        classes = json.loads((file.parent / "dataset.json").read_bytes())["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return [str(name) for name in classes] if isinstance(classes, list) else ()


def _rows_of(table: pa.Table, split: str | None, location: str) -> Indices:
    if split is None:
        return np.arange(table.num_rows)
    if "split" not in table.column_names:
        raise DataError(f"{location}: has no column 'split' to take '{split}' from")
    values = table["split"].cast(pa.string())
    rows = np.flatnonzero(pc.fill_null(pc.equal(values, split), False).to_numpy())
    if len(rows) == 0:
        there = ", ".join(sorted(str(value) for value in values.unique().to_pylist()))
        raise DataError(f"{location}: has no split '{split}'; its splits: {there}")
    return rows


def _keys(paths: pa.Array) -> pa.Array:
    """The paths; one that comes again has #2, #3, ... behind it."""
    codes = paths.dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ascending = codes[order]
    before = np.empty(len(codes), dtype=np.int64)
    before[order] = np.arange(len(codes)) - np.searchsorted(ascending, ascending)
    again = np.flatnonzero(before)
    taken = set(paths.filter(pc.match_substring_regex(paths, "#[0-9#]+$")).to_pylist()) if len(again) else set()
    names = []
    for row in again.tolist():
        name = f"{paths[row]}#{before[row] + 1}"
        while name in taken:
            name += "#"
        names.append(name)
    return pc.replace_with_mask(paths, pa.array(before > 0), pa.array(names, pa.large_string()))


def _groups(table: pa.Table, but: Sequence[str], rows: Indices) -> Columns:
    """Other columns that have a value as text, under `column:NAME`."""
    found = {}
    for field in table.schema:
        if field.name in but or pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            continue
        text = table[field.name].cast(pa.large_string()).combine_chunks().take(pa.array(rows))
        found[f"column:{field.name}"] = pc.fill_null(text, "")
    return found


def _of(split: str | None) -> str:
    return "" if split is None else f" of split '{split}'"
