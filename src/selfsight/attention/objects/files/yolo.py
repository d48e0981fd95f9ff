"""A folder that YOLO programs train from: images, labels and `data.yaml`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from selfsight.attention.objects.files.base import CATEGORY, Form, Rows, place_of
from selfsight.attention.objects.looking import Row, mask_of
from selfsight.attention.objects.outline import outline
from selfsight.data.decode import decode
from selfsight.data.sources import Source

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
"""Of the formats that YOLO programs read."""


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
            _add_image(_opened(path / "images" / place), source, row)
        told = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in about.items())
        # Without `path` the folder of this file is meant; "." would be the one where the program is started.
        lines = f"train: images\nval: images\nnames:\n  0: {CATEGORY}\n"
        (path / "data.yaml").write_text(told + lines, encoding="utf-8")

    def _told(self, path: Path) -> Any:
        lines = (path / "data.yaml").read_text(encoding="utf-8").splitlines()
        told = (line[2:].partition(": ") for line in lines if line.startswith("# "))
        return {name: json.loads(value) for name, _, value in told}

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


def _add_image(label: Path, source: Source, row: Row) -> None:
    """The image beside its `label`, with an ending that says what it is, which a key in a shard, a table or a video may not."""
    original, ending = Path(source.location) / row["key"], Path(row["key"]).suffix
    if original.is_file():
        label.with_suffix(ending).symlink_to(original.resolve())
        return
    content = source.image_bytes(row["sample"])
    known = _format_of(content)
    if known is None:  # a frame of a video, or what only this program reads
        decode(content).save(label.with_suffix(".png"))
        return
    right = Image.registered_extensions().get(ending.lower()) == known
    label.with_suffix(ending if right else _ENDINGS[known]).write_bytes(content)


def _format_of(content: bytes) -> str | None:
    """The format of an image, if it is one that YOLO programs read."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format if image.format in _ENDINGS else None
    except UnidentifiedImageError:
        return None
