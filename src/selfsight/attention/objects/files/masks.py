"""A folder of PNG files whose pixels are numbers of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsight.attention.objects.files.base import Form, Rows, place_of
from selfsight.attention.objects.looking import Row, mask_of
from selfsight.data.object_ids import Ids, palette
from selfsight.data.sources import Source
from selfsight.runs import write_json_atomic


class Masks(Form):
    """`KEY.png` for every image: 0 is no object, 1 the first one, in the colours of DAVIS, as `propagate` takes them.
    `objects.json` says how they were found."""

    folder = True

    def write(self, rows: Rows, source: Source, about: Mapping[str, Any], path: Path) -> None:
        path.mkdir(parents=True)
        write_json_atomic(path / "objects.json", about)
        for row in rows():
            at = path / place_of(row["key"], ".png")
            at.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(_numbered(row))
            image.putpalette(palette().tobytes())
            image.save(at)

    def _told(self, path: Path) -> Any:
        return json.loads((path / "objects.json").read_text(encoding="utf-8"))


def _numbered(row: Row) -> Ids:
    """[height, width]; where refined masks overlap, the earlier object is above."""
    numbers = np.zeros((row["height"], row["width"]), dtype=np.uint8)
    for number, each in reversed(list(enumerate(row["objects"], 1))):
        numbers[mask_of(each)] = number
    return numbers
