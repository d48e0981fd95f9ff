"""One JSON file in the format of COCO, masks as run-length encodings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from selfsight.attention.objects.files.base import CATEGORY, Form, Rows
from selfsight.attention.objects.looking import Row
from selfsight.data.sources import Source

_LONGEST = 2**20


class Coco(Form):
    """What pycocotools loads. The file is written image by image, so that many of them need no memory."""

    folder = False

    def write(self, rows: Rows, source: Source, about: Mapping[str, Any], path: Path) -> None:
        """`about` goes into `info`; the id of an image is its number in the source, from 1."""
        numbers = count(1)
        images = (_image(row) for row in rows())
        annotations = (_annotation(row, each, next(numbers)) for row in rows() for each in row["objects"])
        with path.open("w", encoding="utf-8") as file:
            file.write(f'{{"info": {json.dumps(about)},\n"categories": [{{"id": 1, "name": "{CATEGORY}"}}],\n"images": [')
            _write_list(file, images)
            file.write('],\n"annotations": [')
            _write_list(file, annotations)
            file.write("]}\n")

    def _told(self, path: Path) -> Any:
        """All of it stands in the first line, which in the files of others may be everything."""
        with path.open(encoding="utf-8") as file:
            first = file.readline(_LONGEST)
        return json.loads(first.rstrip(",\n") + "}").get("info")


def _image(row: Row) -> Row:
    return {"id": row["sample"] + 1, "file_name": row["key"], "width": row["width"], "height": row["height"]}


def _annotation(row: Row, each: Row, number: int) -> Row:
    return {"id": number, "image_id": row["sample"] + 1, "category_id": 1, "iscrowd": 0, **each}


def _write_list(file: TextIO, items: Iterable[Row]) -> None:
    for place, item in enumerate(items):
        file.write((",\n" if place else "\n") + json.dumps(item))
