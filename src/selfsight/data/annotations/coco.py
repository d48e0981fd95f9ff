"""COCO: one JSON file of images, and of things with polygons or run lengths; crowds are ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from selfsight.data.annotations.base import Annotated, Annotations, Bools, ByName, Instance, union
from selfsight.data.annotations.outlines import mask_of
from selfsight.data.sources import Source
from selfsight.data.undecodable import MAX_PIXELS, UndecodableError
from selfsight.errors import DataError

_BESIDE = "_annotations.coco.json"
"""The name that exports of labelling tools give it, among the images."""
_EXPECTED = "expected COCO annotations: 'images' (id, file_name, height, width) and 'annotations' (image_id, segmentation)"

Row = dict[str, Any]


class CocoAnnotations(Annotations):
    """The whole file is read and checked at the start, its masks are decoded one picture at a time.

    A thing without a mask would count as ground, so a picture with one cannot be read.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.location = str(path)
        content = _content(path)
        try:
            self.names = _by_id(content["categories"], "category", _named)
            by_id = _by_id(content["images"], "image", _sized)
            _told_apart(by_id.values())
            self.things = _things(content["annotations"], by_id, self.names)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
        self.images = ByName((row["file_name"], row) for row in by_id.values())

    def known(self, source: Source, index: int) -> bool:
        return self.images.known(source.keys[index])

    def of(self, source: Source, index: int) -> Annotated | None:
        image = self.images.get(source.keys[index])
        if image is None:
            return None
        shape = int(image["height"]), int(image["width"])
        masks = [(row, _mask(row, shape)) for row in self.things.get(image["id"], [])]
        crowd = union((mask for row, mask in masks if row.get("iscrowd")), shape)
        things = [Instance(mask, self._name(row)) for row, mask in masks if not row.get("iscrowd")]
        # A thing within a crowd is told apart from it all the same.
        return Annotated(things, crowd & ~union((thing.mask for thing in things), shape))

    def _name(self, row: Row) -> str:
        category = self.names.get(row.get("category_id"))
        return str(category["name"]) if category else ""


def matches(path: Path) -> bool:
    return path.suffix.lower() == ".json" and path.is_file()


def beside(source: Source) -> Path | None:
    path = Path(source.location) / _BESIDE
    return path if path.is_file() else None


def _content(path: Path) -> dict[str, list[Row]]:
    """The lists of images, annotations and categories (which may be left out), each of objects."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error}); {_EXPECTED}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; {_EXPECTED}")
    wanted = {"images": ("id", "file_name", "height", "width"), "annotations": ("image_id",), "categories": ("id", "name")}
    content = {"categories": []} | {part: rows for part, rows in content.items() if part in wanted}
    for part, keys in wanted.items():
        rows = content.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and all(key in row for key in keys) for row in rows):
            raise DataError(f"{path}: '{part}' is no list of objects with {', '.join(keys)}; {_EXPECTED}")
    return content


def _by_id(rows: Iterable[Row], what: str, check: Callable[[Row], None]) -> dict[Any, Row]:
    """Rows that pass their `check`, which raises `ValueError`, as does an id that two of them have."""
    found: dict[Any, Row] = {}
    for row in rows:
        number = row["id"]
        if not isinstance(number, int | str):
            raise ValueError(f"{what} {number!r}: its id is neither a whole number nor text")
        check(row)
        if number in found:
            raise ValueError(f"{what} {number!r}: two have this id")
        found[number] = row
    return found


def _named(row: Row) -> None:
    if not isinstance(row["name"], str):
        raise ValueError(f"category {row['id']!r}: its name is no text but {row['name']!r}")


def _sized(row: Row) -> None:
    if not isinstance(row["file_name"], str) or not row["file_name"]:
        raise ValueError(f"image {row['id']!r}: its file_name is no text but {row['file_name']!r}")
    for side in ("height", "width"):
        length = row[side]
        if type(length) not in (int, float) or not 1 <= length <= MAX_PIXELS or length != int(length):
            raise ValueError(f"image {row['id']!r}: '{side}' must be a whole number from 1, got {length!r}")
    if row["height"] * row["width"] > MAX_PIXELS:
        raise ValueError(f"image {row['id']!r}: {row['width']}x{row['height']} pixels, more than the limit of {MAX_PIXELS}")


def _told_apart(images: Iterable[Row]) -> None:
    by_name: dict[str, Row] = {}
    for row in images:
        other = by_name.setdefault(row["file_name"], row)
        if other is not row:
            raise ValueError(f"images {other['id']!r} and {row['id']!r} have one file_name, {row['file_name']!r}")


def _things(rows: Iterable[Row], images: Mapping[Any, Row], categories: Mapping[Any, Row]) -> dict[Any, list[Row]]:
    """By the image that they are of; `ValueError` where that, or their category, is not in the file."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        for key, known, part in (("image_id", images, "images"), ("category_id", categories, "categories")):
            number = row.get(key)
            if known and (key in row) and (not isinstance(number, int | str) or number not in known):
                raise ValueError(f"{_title(row)}: its {key} {number!r} is none of '{part}'")
        if row.get("iscrowd") not in (None, 0, 1):
            raise ValueError(f"{_title(row)}: 'iscrowd' must be 0 or 1, got {row['iscrowd']!r}")
        found.setdefault(row["image_id"], []).append(row)
    return found


def _title(row: Row) -> str:
    return f"annotation {row['id']!r}" if "id" in row else "an annotation without id"


def _mask(row: Row, shape: tuple[int, int]) -> Bools:
    if not row.get("segmentation"):
        raise UndecodableError(f"{_title(row)}: has no segmentation, so that its thing would count as ground")
    try:
        return mask_of(row["segmentation"], shape)
    except ValueError as error:
        raise UndecodableError(f"{_title(row)}: its segmentation cannot be read ({error})") from None
