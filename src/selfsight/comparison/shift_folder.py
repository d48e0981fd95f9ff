"""The answers to a drawn set, read back from a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from selfsight import results
from selfsight.comparison.outcomes import CLEAN, Key, Outcomes
from selfsight.comparison.plan import SHIFT
from selfsight.comparison.shift_outcomes import ShiftOutcomes
from selfsight.errors import InputError
from selfsight.evaluate import Shift
from selfsight.results import Results

PLAIN = ("key", "condition", "pair", "label")
"""Columns of `factors.parquet` that are no factor."""


def read_shift(folder: Path | str) -> tuple[Results, ShiftOutcomes]:
    """What a comparison found, and the outcomes that it follows from; `InputError` where it had no task `shift`."""
    folder = Path(folder)
    found = results.read(folder)
    paths = folder / "factors.parquet", folder / "per_image.parquet"
    if found.shift is None or not all(path.is_file() for path in paths):
        raise InputError(f"{folder}: holds no shifts; expected the --out folder of 'selfsight compare SET --tasks shift'")
    rows, answers = (pq.read_table(path).to_pylist() for path in paths)
    made = ShiftOutcomes(SHIFT, Shift.primary, {}, {}, {}, {factor.name: factor.training for factor in found.shift.factors})
    for condition in dict.fromkeys(row["condition"] for row in rows):
        _add(made, condition, [row for row in rows if row["condition"] == condition])
    place = {name: {key: number for number, key in enumerate(part.keys)} for name, part in made.answers.items()}
    for row in answers:
        if row["task"] == SHIFT:
            key, part = Key(row["encoder"], SHIFT, row["metric"]), made.answers[row["condition"]]
            seeds = part.predicted.setdefault(key, {})
            seeds.setdefault(row["seed"], np.full(len(part.keys), -1, dtype=np.int64))
            seeds[row["seed"]][place[row["condition"]][row["key"]]] = row["predicted"]
    return found, made


def _add(made: ShiftOutcomes, condition: str, rows: list[dict[str, Any]]) -> None:
    labels = np.array([row["label"] for row in rows], dtype=np.int64)
    made.answers[condition] = Outcomes([row["key"] for row in rows], labels, None, {}, condition)
    made.scenes[condition] = np.array([row["pair"] for row in rows], dtype=np.int64)
    made.values[condition] = {name: [row[name] for row in rows] for name in made.training}


def encoders_of(outcomes: ShiftOutcomes) -> list[str]:
    return [key.encoder for key in outcomes.answers[CLEAN].predicted]
