"""COCO: a JSON file for each split, masks as run lengths or as polygons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from pycocotools import mask as masks

from selfsight.manifest import decode_mask
from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, Row, box_of, full_box_of, keypoints_of
from selfsight.synthesis.exports.polygons import outlines


class Coco(Format):
    """`annotations/instances_SPLIT.json` and `images/SPLIT/`, whose names its `file_name`s are.

    Categories are numbered from 1 in the order of the classes, pictures and objects from 1 over all splits. Beside what COCO
    knows an annotation has `visible_fraction`, the share of the object that is seen, and `bbox_full`, the box of the whole.
    """

    name = "coco"
    says = "COCO: boxes, masks as run lengths, keypoints; a JSON file a split"

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        places, numbers = count(1), count(1)
        categories = [_category(number, name, drawn) for number, name in enumerate(drawn.classes, 1)]
        files = []
        for split, pictures in drawn.splits().items():
            placed = [(next(places), picture) for picture in pictures]
            for picture in pictures:
                picture.link(out / "images" / split / picture.name)
            files.append(f"annotations/instances_{split}.json")
            (out / files[-1]).parent.mkdir(parents=True, exist_ok=True)
            with (out / files[-1]).open("w", encoding="utf-8") as file:
                head = {"info": {"description": drawn.info.name}, "licenses": [], "categories": categories}
                file.write(json.dumps(head)[:-1] + ',\n"images": [')
                _write_list(file, (_image(number, picture) for number, picture in placed))
                file.write('],\n"annotations": [')
                _write_list(file, self._annotations(drawn, placed, numbers))
                file.write("]}\n")
        return files

    def _annotations(
        self, drawn: DrawnSet, placed: list[tuple[int, Picture]], numbers: Iterator[int]
    ) -> Iterator[dict[str, Any]]:
        for image, picture in placed:
            for each in picture.objects:
                rle = json.loads(each["mask"])
                yield {
                    "id": next(numbers),
                    "image_id": image,
                    "category_id": drawn.classes.index(each["class"]) + 1,
                    "bbox": box_of(each),
                    "area": int(masks.area({**rle, "counts": rle["counts"].encode()})),
                    "segmentation": self.segmentation(each),
                    "iscrowd": 0,
                    "visible_fraction": each["visible"],
                    "bbox_full": full_box_of(each),
                    **_points(each, drawn.keypoints.get(each["class"], [])),
                }

    def segmentation(self, each: Row) -> Any:
        """The mask of an object."""
        return json.loads(each["mask"])


class CocoPolygons(Coco):
    """The same with masks as polygons, for programs that read no run lengths.

    A polygon goes around each part of what is seen, along the edges of its pixels. A hole cannot be told: it is filled, while
    `area` leaves it out.
    """

    name = "coco-polygons"
    says = "COCO with masks as polygons, one a part; holes are filled"

    def segmentation(self, each: Row) -> Any:
        return [polygon.ravel().tolist() for polygon in outlines(decode_mask(each["mask"]))]


def _category(number: int, name: str, drawn: DrawnSet) -> dict[str, Any]:
    category = {"id": number, "name": name, "supercategory": ""}
    return category | ({"keypoints": drawn.keypoints[name], "skeleton": []} if name in drawn.keypoints else {})


def _image(number: int, picture: Picture) -> dict[str, Any]:
    width, height = picture.size
    return {"id": number, "file_name": picture.name, "width": width, "height": height, "key": picture.row["key"]}


def _points(each: Row, names: list[str]) -> dict[str, Any]:
    """x, y and visibility of each name in turn, zeros where the object has no such point."""
    if not names:
        return {}
    there = keypoints_of(each)
    points = [there[name] if name in there and there[name].visible else (0, 0, 0) for name in names]
    return {"keypoints": [number for point in points for number in point], "num_keypoints": sum(p[2] > 0 for p in points)}


def _write_list(file: TextIO, items: Iterable[dict[str, Any]]) -> None:
    for place, item in enumerate(items):
        file.write((",\n" if place else "\n") + json.dumps(item))
