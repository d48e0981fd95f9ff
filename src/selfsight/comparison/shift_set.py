"""A drawn set as an exam: what trains, what tests, and the splits that are the test but for one factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsight import manifest
from selfsight.comparison.outcomes import CLEAN
from selfsight.comparison.slices import is_numbers
from selfsight.data.sources import Source, Subset, first, open_source
from selfsight.errors import DataError

TRAIN, TEST, SHIFT = "train", "test", "shift"
ASSET = "asset"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A split: its images, and the row of the manifest of each."""

    images: Source
    rows: Sequence[Row]

    def limited(self, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> Part:
        return Part(Subset(self.images, chosen), [self.rows[place] for place in chosen])


@dataclass(frozen=True)
class ShiftSet:
    """`tests` holds the split `test` as the condition `clean`, and each split that shifts a factor under its own name.

    `training` has of each factor that varies, or is shifted, what training shows: [low, high] of numbers, else all values.
    `before` is the results folder of a comparison on the same test pictures, `refined` what training here answers to it.
    """

    folder: Path
    train: Part
    tests: dict[str, Part]
    training: dict[str, list[Any]]
    group_by: str | None = None
    before: str | None = None
    refined: tuple[Row, ...] = ()

    @property
    def conditions(self) -> list[str]:
        """The shifted ones."""
        return [condition for condition in self.tests if condition != CLEAN]


def factor_of(condition: str) -> str:
    """`shift.size.small` to `size`."""
    return condition.split(".")[1]


def folder_of(data: str | Path) -> Path:
    """The folder of a drawn set that was given as itself or as its training split; `DataError` for anything else."""
    text = str(data)
    head, mark, split = (text, "", "") if Path(text).exists() else text.rpartition("?")
    if not (Path(head) / "dataset.json").is_file():
        raise DataError(f"--tasks shift: {text}: is no drawn set; expected the folder that 'selfsight synth' left (dataset.json)")
    if mark and split != f"split={TRAIN}":
        raise DataError(f"--tasks shift: {text}: expected the whole set, {head}, which has its own split '{TRAIN}'")
    return Path(head)


def located(folder: Path, split: str) -> str:
    """Where a split is, as a source."""
    return f"{folder}?split={split}"


def open_set(folder: Path, *, limit: int | None = None, seed: int = 0, group_by: str | None = None) -> ShiftSet:
    """`DataError` for a set that cannot be examined. `limit` takes the first N training pictures, and N test pictures of a
    shuffle with their copies in every shifted split, as a comparison does without shifts."""
    info, rows = manifest.read_info(folder), manifest.read_samples(folder)
    missing = [split for split in (TRAIN, TEST) if not any(row["split"] == split for row in rows)]
    if missing:
        known = ", ".join(info.splits) or "none"
        raise DataError(f"--tasks shift: {folder}: has no split '{missing[0]}' among {known}; draw it with both, train and test")
    if any(row["label"] is None for row in rows):
        raise DataError(f"--tasks shift: {folder}: has pictures without a label (mixed: true); expected one class a picture")
    shifted = [split for split in info.splits if split.startswith(f"{SHIFT}.")]
    parts = {split: _part(folder, split, rows) for split in (TRAIN, TEST, *shifted)}
    for split in shifted:
        _check_pairs(folder, split, parts[split], parts[TEST])
    train, tests = parts.pop(TRAIN), {CLEAN: parts.pop(TEST)} | parts
    training = _training(info, train, [factor_of(split) for split in shifted])
    if limit is not None:
        kept = first(train.images, limit)
        train, tests = Part(kept, train.rows[: len(kept)]), _limited(tests, limit, seed)
    spec = info.provenance.get("spec")
    refined = tuple(spec.get("refined", ())) if isinstance(spec, dict) else ()
    return ShiftSet(folder, train, tests, training, group_by, refined=refined)


def _part(folder: Path, split: str, rows: Sequence[Row]) -> Part:
    images = open_source(located(folder, split))
    by_path = {row["path"]: row for row in rows if row["split"] == split}
    return Part(images, [by_path[key] for key in images.keys])


def numbers(part: Part) -> list[int]:
    """Of each picture its number in the split, by which pictures of two splits are a pair."""
    return [row.get("index", place) for place, row in enumerate(part.rows)]


def _check_pairs(folder: Path, split: str, shifted: Part, test: Part) -> None:
    labels = dict(zip(numbers(test), (row["label"] for row in test.rows), strict=True))
    for number, row in zip(numbers(shifted), shifted.rows, strict=True):
        if labels.get(number) != row["label"]:
            what = "has another label than" if number in labels else "has no counterpart,"
            raise DataError(f"{folder}: picture {number} of {split} {what} picture {number} of {TEST}; expected scene for scene")


def _training(info: manifest.DatasetInfo, train: Part, shifted: Sequence[str]) -> dict[str, list[Any]]:
    """What a manifest says of factors that vary; of others, which may be shifted all the same, what the training rows show."""
    columns = train.rows[0].keys() if train.rows else ()
    found = {}
    for factor in dict.fromkeys([*info.factors, *shifted, ASSET]):
        if factor not in columns:
            continue
        values = [row[factor] for row in train.rows if row[factor] is not None]
        told = info.factors.get(factor) or values
        if factor == ASSET and factor not in shifted and len(set(values)) <= len(info.classes):
            continue  # one a class: it says nothing that the class does not say
        found[factor] = [min(told), max(told)] if is_numbers(told) and told else list(dict.fromkeys(told))
    return found


def _limited(tests: dict[str, Part], limit: int, seed: int) -> dict[str, Part]:
    """The same scenes of each; drawn as `split` draws them."""
    clean = tests[CLEAN]
    if limit >= len(clean.images):
        return tests
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clean.images))[:limit])
    scenes = {numbers(clean)[place] for place in chosen}
    kept = {name: np.flatnonzero([number in scenes for number in numbers(part)]) for name, part in tests.items()}
    return {name: part.limited(kept[name]) for name, part in tests.items()}
