"""A folder that YOLO programs train from: images, labels and `data.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfsight.attention.objects.files.base import CATEGORY, Form, Rows, place_of
from selfsight.attention.objects.looking import Row, mask_of
from selfsight.attention.objects.outline import outline
from selfsight.data.sources import Source
from selfsight.data.sources.contents import IMAGES


class Yolo(Form):
    """`labels/KEY.txt` with a line for each object: class 0, then middle, width and height of its box as shares of the picture.

    An image without an object has an empty file. `images/` holds links to the images of a folder, and copies of images that lie
    elsewhere, in shards or tables.
    """

    folder = True

    def write(self, rows: Rows, source: Source, about: Mapping[str, Any], path: Path) -> None:
        path.mkdir(parents=True)
        for row in rows():
            place = place_of(row["key"], ".txt")
            labels = _opened(path / "labels" / place)
            labels.write_text("".join(f"0 {self.line(row, each)}\n" for each in row["objects"]), encoding="utf-8")
            ending = Path(row["key"]).suffix
            name = place.with_suffix(ending if ending.lower() in IMAGES else ".jpg").name
            _add_image(_opened(path / "images" / place.with_name(name)), source, row)
        told = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in about.items())
        # Without `path` the folder of this file is meant; "." would be the one where the program is started.
        lines = f"train: images\nval: images\nnames:\n  0: {CATEGORY}\n"
        (path / "data.yaml").write_text(told + lines, encoding="utf-8")

    def line(self, row: Row, each: Row) -> str:
        """What follows the class."""
        left, top, width, height = each["bbox"]
        return _shares([left + width / 2, top + height / 2, width, height], row)


class YoloSegments(Yolo):
    """The same with outlines: class 0, then the corners x y of the polygon around the object; holes are not kept."""

    def line(self, row: Row, each: Row) -> str:
        return _shares([number for corner in outline(mask_of(each)) for number in corner], row)


def _shares(numbers: list[float], row: Row) -> str:
    """Pixels across and down in turn, as shares of width and height."""
    return " ".join(f"{number / row['height' if place % 2 else 'width']:.6f}" for place, number in enumerate(numbers))


def _opened(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _add_image(at: Path, source: Source, row: Row) -> None:
    original = Path(source.location) / row["key"]
    if original.is_file():
        at.symlink_to(original.resolve())
    else:
        at.write_bytes(source.image_bytes(row["sample"]))
