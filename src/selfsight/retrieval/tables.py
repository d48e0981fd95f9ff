"""What was found, as files: a table as CSV, Parquet or JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from selfsight.errors import ConfigError, nearest
from selfsight.runs import write_atomic, write_text_atomic

FORMATS = ("csv", "parquet", "json")


def check_format(name: str) -> None:
    if name not in FORMATS:
        raise ConfigError(f"--format: no format '{name}'. {nearest(name, FORMATS)}")


def write_table(table: pa.Table, folder: Path, name: str, form: str) -> Path:
    """Write `NAME.FORM` into the folder; the same table in another form, of an earlier search, does not stay beside it."""
    for other in FORMATS:
        (folder / f"{name}.{other}").unlink(missing_ok=True)
    path = folder / f"{name}.{form}"
    if form == "json":
        write_text_atomic(path, json.dumps(table.to_pylist(), indent=1) + "\n")
    elif form == "parquet":
        write_atomic(path, lambda temporary: pq.write_table(table, temporary))
    else:
        options = pyarrow.csv.WriteOptions(quoting_style="needed")
        write_atomic(path, lambda temporary: pyarrow.csv.write_csv(table, str(temporary), options))
    return path
