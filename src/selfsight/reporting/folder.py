"""What a results folder holds, loaded for drawing. Everything beside `results.json` may be missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsight import results as results_file
from selfsight.errors import InputError
from selfsight.results import Results
from selfsight.runs import read_jsonl

Table = dict[str, list[Any]]


@dataclass(frozen=True)
class Features2d:
    """The map of one encoder: `x` and `y` [n], the keys, and class indices (-1 where an image has no label)."""

    encoder: str
    keys: list[str]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class LookedAt:
    """The picture of what one encoder looks at in one image, and how much of the truth its map shares (0 to 1); of the truth
    itself the encoder is empty."""

    key: str
    encoder: str
    value: float
    jpeg: bytes

    @property
    def name(self) -> str:
        """Another one than that of the image alone."""
        return f"{self.key}\0{self.encoder}"


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder in memory; what was missing on disk is empty here."""

    path: Path
    results: Results
    outcomes: Table
    maps: list[Features2d]
    thumbs: dict[str, bytes]
    curves: list[dict[str, Any]]
    neighbours: list[dict[str, Any]]
    bad_images: list[dict[str, Any]]
    looks: list[LookedAt]


def load(path: Path, images: bool = True) -> ResultsFolder:
    """Read the folder; without `images` the pictures and the file names stay on the disk."""
    results = results_file.read(path)
    classes = results.data.classes
    assets = path / "assets"
    outcome = ["key", "encoder", "task", "condition", "metric", "seed", "label", "predicted"]
    thumbs = _table(assets / "thumbs.parquet", ["key", "jpeg"]) if images else {}
    return ResultsFolder(
        path=path,
        results=results,
        outcomes=_table(path / "per_image.parquet", outcome),
        maps=_maps(_table(assets / "map.parquet", ["encoder", "key", "x", "y", "label"]), classes),
        thumbs=dict(zip(thumbs.get("key", []), thumbs.get("jpeg", []), strict=True)),
        curves=_json_list(assets / "curves.json"),
        neighbours=_json_list(assets / "neighbours.json") if images else [],
        bad_images=read_jsonl(path / "bad_images.jsonl") if images else [],
        looks=_looks(_table(assets / "looks.parquet", ["key", "encoder", "value", "jpeg"])) if images else [],
    )


def _looks(table: Table) -> list[LookedAt]:
    columns = (table.get(name, []) for name in ("key", "encoder", "value", "jpeg"))
    return [LookedAt(*row) for row in zip(*columns, strict=True)]


def class_indices(values: Sequence[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    """Labels as indices into `classes`, whether stored as indices or as names; -1 for none or unknown."""
    known = {name: index for index, name in enumerate(classes)}
    return np.array([_class_index(value, known) for value in values], dtype=np.int64)


def _class_index(value: Any, known: dict[str, int]) -> int:
    if isinstance(value, str):
        return known.get(value, -1)
    if value is None or value != value or not 0 <= int(value) < len(known):
        return -1
    return int(value)


def _table(path: Path, columns: list[str]) -> Table:
    if not path.is_file():
        return {}
    try:
        table: Table = pq.read_table(path, columns=columns).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: {error}; expected a Parquet file with the columns {', '.join(columns)}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; expected {', '.join(columns)}")
    return table


def _json_list(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); expected what 'selfsight compare' wrote") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list, got {type(rows).__name__}")
    return rows


def _maps(table: Table, classes: Sequence[str]) -> list[Features2d]:
    if not table:
        return []
    encoders = np.array(table["encoder"], dtype=object)
    labels = class_indices(table["label"], classes)
    x, y = (np.array(table[axis], dtype=np.float64) for axis in ("x", "y"))
    maps = []
    for encoder in dict.fromkeys(table["encoder"]):
        rows = np.flatnonzero(encoders == encoder)
        keys = [table["key"][row] for row in rows]
        maps.append(Features2d(encoder, keys, x[rows], y[rows], labels[rows]))
    return maps
