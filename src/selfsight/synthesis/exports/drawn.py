"""A finished set as exports look at it: its pictures, what is seen in each, and a name for each that is unique in one folder."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from selfsight import manifest
from selfsight.errors import ConfigError, DataError, nearest
from selfsight.synthesis.frame import LABELS
from selfsight.synthesis.names import free, plain

Row = Mapping[str, Any]
Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

_NO_FACTORS = {"key", "path", "split", "index", "label", "width", "height", "group", "asset", "sequence", "frame", *LABELS}


class Keypoint(NamedTuple):
    """In pixels; `visible` as COCO has it: 0 is not labelled, 1 hidden, 2 seen."""

    x: float
    y: float
    visible: int


@dataclass(frozen=True)
class Picture:
    """`row` is its row of the manifest, `objects` are the rows of those that are seen, `folder` is that of the set.

    `stem` and `name` (the same with the ending of the file) are unlike those of any other picture of the set, whatever the case
    of letters. `label` is the class of the whole picture, if it has one.
    """

    row: Row
    objects: tuple[Row, ...]
    folder: Path
    stem: str
    label: str | None

    @property
    def file(self) -> Path:
        """Where its pixels lie."""
        return self.folder / self.row["path"]

    @property
    def name(self) -> str:
        return self.stem + self.file.suffix

    @property
    def split(self) -> str:
        return str(self.row["split"])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.row["width"]), int(self.row["height"])

    def factors(self) -> dict[str, Any]:
        """Those of the picture and of its first object."""
        return {name: value for name, value in self.row.items() if name not in _NO_FACTORS}

    def link(self, to: Path) -> None:
        """The file at `to`: a hard link, or a copy where the disk has no such links."""
        if not self.file.is_file():
            raise DataError(f"{self.file}: is missing, though the set has a row of it; draw the set anew")
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.file.resolve(), to)
        except OSError:
            shutil.copyfile(self.file, to)


@dataclass(frozen=True)
class DrawnSet:
    """`pictures` are in the order of the manifest; `hidden` counts the objects of which nothing is seen.

    `keypoints` names the points of each class that has some, `assets` are all pairs of a class and an asset, in the order of
    classes and of names; like the names of pictures they are those of the whole set.
    """

    folder: Path
    info: manifest.DatasetInfo
    pictures: tuple[Picture, ...]
    hidden: int
    keypoints: Mapping[str, list[str]]
    assets: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> list[str]:
        return self.info.classes

    def splits(self) -> dict[str, list[Picture]]:
        """The pictures of each split that has any."""
        found: dict[str, list[Picture]] = defaultdict(list)
        for picture in self.pictures:
            found[picture.split].append(picture)
        return dict(found)

    def keypoint_names(self) -> list[str]:
        """Of all classes, in the order in which they first come."""
        return list(dict.fromkeys(name for names in self.keypoints.values() for name in names))


def box_of(each: Row) -> Box:
    """Of what is seen of an object."""
    return each["x"], each["y"], each["w"], each["h"]


def full_box_of(each: Row) -> Box:
    """Of the whole object, though hidden or beyond the edge; of what is seen where the set does not tell."""
    if each.get("full_w") is None:
        return box_of(each)
    return each["full_x"], each["full_y"], each["full_w"], each["full_h"]


def keypoints_of(each: Row) -> dict[str, Keypoint]:
    """By name; a table gives every object the names of all, with None where it has no such point."""
    told = each.get("keypoints") or {}
    return {name: Keypoint(float(at[0]), float(at[1]), int(at[2])) for name, at in told.items() if at is not None}


def read_set(folder: Path, split: str | None) -> DrawnSet:
    """The set, or one split of it; `DataError` where it is damaged or not finished, `ConfigError` for a split that is none."""
    content = manifest.read(folder)
    if any(folder.glob("*.jsonl")):
        raise DataError(f"{folder}: is not finished; draw it to its end, then export it")
    _check(folder, content)
    known = dict.fromkeys(row["split"] for row in content.samples)
    if not known:
        raise DataError(f"{folder}: holds no picture; expected one at least")
    if split is not None and split not in known:
        raise ConfigError(f"--split: no pictures of '{split}'. {nearest(split, known)}")
    there = [row for row in content.samples if split in (None, row["split"])]
    stems = _stems(content.samples)
    seen, hidden = _objects(content.objects, {row["key"] for row in there})
    pictures = [_picture(folder, content.info.classes, row, seen[row["key"]], stems[row["key"]]) for row in there]
    return DrawnSet(folder, content.info, tuple(pictures), hidden, _keypoints(content), _assets(content))


def _check(folder: Path, content: manifest.Manifest) -> None:
    for row in content.samples:
        for what in ("path", "split"):  # both become places in the export
            path = PurePosixPath(row[what])
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{folder}: {row['key']}: its {what} {row[what]} leads out of the set; expected one within")
    for each in content.objects:
        if each["class"] not in content.info.classes:
            known = ", ".join(content.info.classes)
            raise DataError(f"{folder}: {each['sample']}: has an object of class '{each['class']}'; dataset.json knows {known}")


def _keypoints(content: manifest.Manifest) -> dict[str, list[str]]:
    names: dict[str, dict[str, None]] = {name: {} for name in content.info.classes}
    for each in content.objects:
        names[each["class"]].update(dict.fromkeys(keypoints_of(each)))
    return {name: list(found) for name, found in names.items() if found}


def _assets(content: manifest.Manifest) -> tuple[tuple[str, str], ...]:
    pairs = {(each["class"], each["asset"]) for each in content.objects if each.get("asset") is not None}
    return tuple(sorted(pairs, key=lambda pair: (content.info.classes.index(pair[0]), pair[1])))


def _objects(rows: Iterable[Row], keys: set[str]) -> tuple[dict[str, list[Row]], int]:
    """(those that are seen by key of their picture, how many are not)."""
    seen: dict[str, list[Row]] = defaultdict(list)
    hidden = 0
    for each in rows:
        if each["sample"] not in keys:
            continue
        if each["visible"] > 0 and each["w"] and each["h"]:
            seen[each["sample"]].append(each)
        else:
            hidden += 1
    return seen, hidden


def _picture(folder: Path, classes: list[str], row: Row, objects: list[Row], stem: str) -> Picture:
    label = None if row.get("label") is None else classes[row["label"]]
    return Picture(row, tuple(objects), folder, stem, label)


def _stems(samples: Iterable[Row]) -> dict[str, str]:
    """Of each key. They depend on the whole set, so that a picture is called the same in an export of one split."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for row in samples:
        stem = plain(row["key"].removesuffix(PurePosixPath(row["path"]).suffix))
        found[row["key"]] = free(stem, taken)
    return found
