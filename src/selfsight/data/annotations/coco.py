"""COCO: one JSON file of images, and of things with polygons or run lengths; crowds are ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pycocotools import mask as rle

from selfsight.data.annotations.base import Annotated, Annotations, Bools, ByName, Instance, union
from selfsight.data.sources import Source
from selfsight.data.undecodable import UndecodableError
from selfsight.errors import DataError
from selfsight.manifest import unpacked

_BESIDE = "_annotations.coco.json"
"""The name that exports of labelling tools give it, among the images."""


class CocoAnnotations(Annotations):
    """The whole file is read at the start, its masks are decoded one picture at a time."""

    def __init__(self, path: Path, source: Source) -> None:
        self.location = str(path)
        content = _content(path)
        self.names = {row["id"]: str(row["name"]) for row in content.get("categories", [])}
        self.things: dict[Any, list[dict[str, Any]]] = {}
        for row in content["annotations"]:
            self.things.setdefault(row["image_id"], []).append(row)
        self.images = ByName((str(row["file_name"]), row) for row in content["images"])

    def known(self, source: Source, index: int) -> bool:
        return self.images.get(source.keys[index]) is not None

    def of(self, source: Source, index: int) -> Annotated | None:
        image = self.images.get(source.keys[index])
        if image is None:
            return None
        shape = int(image["height"]), int(image["width"])
        rows = [row for row in self.things.get(image["id"], []) if row.get("segmentation")]
        masks = [(row, _mask(row, shape)) for row in rows]
        crowd = union((mask for row, mask in masks if row.get("iscrowd")), shape)
        things = [Instance(mask, self.names.get(row.get("category_id"), "")) for row, mask in masks if not row.get("iscrowd")]
        # A thing within a crowd is told apart from it all the same.
        return Annotated(things, crowd & ~union((thing.mask for thing in things), shape))


def matches(path: Path) -> bool:
    return path.suffix.lower() == ".json" and path.is_file()


def beside(source: Source) -> Path | None:
    path = Path(source.location) / _BESIDE
    return path if path.is_file() else None


def _content(path: Path) -> dict[str, Any]:
    expected = "expected COCO annotations: 'images' (id, file_name, height, width) and 'annotations' (image_id, segmentation)"
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); {expected}") from None
    wanted = {"images": ("id", "file_name", "height", "width"), "annotations": ("image_id",)}
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; {expected}")
    for part, keys in wanted.items():
        rows = content.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and all(key in row for key in keys) for row in rows):
            raise DataError(f"{path}: '{part}' is no list of objects with {', '.join(keys)}; {expected}")
    return content


def _mask(row: dict[str, Any], shape: tuple[int, int]) -> Bools:
    """Of polygons, or of run lengths as numbers or packed; they are for a picture of this shape."""
    outline = row["segmentation"]
    try:
        if isinstance(outline, list):
            packed = rle.merge(rle.frPyObjects(outline, *shape))
        elif isinstance(outline["counts"], list):
            packed = rle.frPyObjects(outline, *outline["size"])
        else:
            packed = {"size": outline["size"], "counts": outline["counts"].encode()}
        mask = unpacked(packed)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UndecodableError(f"annotation {row.get('id', '?')}: its segmentation cannot be read ({error})") from None
    if mask.shape != shape:
        raise UndecodableError(f"annotation {row.get('id', '?')}: its mask is of a picture of another size than 'images' says")
    return mask
