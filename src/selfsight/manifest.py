"""The format of a drawn data set (schema 1): what `synth` writes and other programs read.

::

    dataset.json      name, classes, splits, factors with their training ranges, provenance
    samples.parquet   key, path, split, label, width, height, group, one column a factor
    objects.parquet   sample (key), object, class, x, y, w, h (pixels), visible (share), mask (COCO RLE as JSON)

What `synth` writes holds besides: of samples their index in the split and the paths of label pictures (instances, semantic); of
objects the box of the whole object (full_x, full_y, full_w, full_h), asset and factors. Columns of later versions may be more.

While a set is being written its rows stream to `samples.jsonl` and `objects.jsonl`; closing writes the Parquet files. An
unclosed set is readable.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco
from pydantic import BaseModel, ConfigDict, ValidationError

from selfsight.errors import DataError
from selfsight.runs import append_jsonl, read_jsonl, rewrite_jsonl, write_atomic, write_json_atomic, write_text_atomic

_TABLES = ("samples", "objects")
_BUFFER = 500


class DatasetInfo(BaseModel):
    """`dataset.json`. `factors` maps a factor to its range (low, high) or its values in the training split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    name: str
    classes: list[str]
    splits: list[str]
    factors: dict[str, list[Any]]
    provenance: dict[str, Any]


class Manifest(NamedTuple):
    """A data set read back; rows are dictionaries."""

    info: DatasetInfo
    samples: list[dict[str, Any]]
    objects: list[dict[str, Any]]


def encode_mask(mask: npt.NDArray[np.bool_]) -> str:
    """[height, width] as COCO run-length encoding in JSON."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return json.dumps({"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()})


def decode_mask(text: str) -> npt.NDArray[np.bool_]:
    """The inverse of `encode_mask`."""
    rle = json.loads(text)
    return unpacked({"size": rle["size"], "counts": rle["counts"].encode()})


def unpacked(rle: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """[height, width] of COCO's packed run lengths."""
    with warnings.catch_warnings():
        # pycocotools hands its masks over in a way that NumPy 2 warns of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return np.asarray(coco.decode(rle), dtype=bool)


class Writer:
    """Appends samples and objects; leaving the context without an error closes the set.

    With `going_on` the rows of a set in the folder stay, be it closed or not, and `done` holds the keys of its samples; rows are
    then on the disk as soon as they are added. `order` gives the place of a sample in the tables, by default that of adding.
    """

    def __init__(
        self, folder: Path, info: DatasetInfo, *, going_on: bool = False, order: Callable[[str], int] | None = None
    ) -> None:
        self.folder, self._order, self._buffer = folder, order, 1 if going_on else _BUFFER
        folder.mkdir(parents=True, exist_ok=True)
        self.done = self._kept() if going_on else frozenset()
        if not going_on:
            self._remove()
        write_json_atomic(folder / "dataset.json", info.model_dump(mode="json"))
        self._rows: dict[str, list[dict[str, Any]]] = {table: [] for table in reversed(_TABLES)}  # a sample is done with its row

    def _remove(self) -> None:
        """The tables of a set drawn here before."""
        for table in _TABLES:
            for ending in ("jsonl", "parquet"):
                (self.folder / f"{table}.{ending}").unlink(missing_ok=True)

    def _kept(self) -> frozenset[str]:
        """Keys of what is there. Tables of a closed set become streams again; they go when both are whole."""
        tables = [self.folder / f"{table}.parquet" for table in _TABLES]
        for table in tables:
            if table.is_file() and not (stream := table.with_suffix(".jsonl")).is_file():
                rows = pq.read_table(table).to_pylist()
                write_text_atomic(stream, "".join(json.dumps(row) + "\n" for row in rows))
        for table in tables:
            table.unlink(missing_ok=True)
        done = frozenset(row["key"] for row in rewrite_jsonl(self.folder / "samples.jsonl", lambda row: True))
        rewrite_jsonl(self.folder / "objects.jsonl", lambda row: row["sample"] in done)
        return done

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._flush()
        if error is None:
            self._close()

    def add(self, sample: dict[str, Any], objects: list[dict[str, Any]]) -> None:
        self._rows["samples"].append(sample)
        self._rows["objects"] += objects
        if len(self._rows["samples"]) >= self._buffer:
            self._flush()

    def _flush(self) -> None:
        for table, rows in self._rows.items():
            append_jsonl(self.folder / f"{table}.jsonl", rows)
            rows.clear()

    def _close(self) -> None:
        for table in _TABLES:
            rows = read_jsonl(self.folder / f"{table}.jsonl")
            if (order := self._order) is not None:
                rows.sort(key=lambda row: order(row["key"] if "key" in row else row["sample"]))
            write_atomic(self.folder / f"{table}.parquet", partial(pq.write_table, pa.Table.from_pylist(rows)))
        for table in _TABLES:
            (self.folder / f"{table}.jsonl").unlink()


def read(folder: str | Path) -> Manifest:
    """A set, closed or not; `DataError` where there is none or it is damaged."""
    return Manifest(read_info(folder), read_samples(folder), _table(Path(folder), "objects"))


def read_info(folder: str | Path) -> DatasetInfo:
    """What is said of the whole set; `DataError` where there is none or it is damaged."""
    path = Path(folder) / "dataset.json"
    try:
        return DatasetInfo.model_validate_json(path.read_bytes())
    except OSError:
        raise DataError(f"{folder}: holds no dataset.json; expected a data set that selfsight has drawn") from None
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}; expected schema 1") from None


def read_samples(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of its pictures without those of its objects, whose masks are most of a set."""
    return _table(Path(folder), "samples")


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    closed = folder / f"{name}.parquet"
    with suppress(FileNotFoundError):  # a set that is drawn on goes from tables back to streams, perhaps at this moment
        rows: list[dict[str, Any]] = pq.read_table(closed).to_pylist()
        return rows
    return read_jsonl(folder / f"{name}.jsonl")
