"""CSV: a row a picture and a row an object, for spreadsheets and data frames."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, Row, box_of, full_box_of

_PICTURE = ("path", "split", "key", "label", "width", "height", "group", "objects")
_OBJECT = ("path", "split", "key", "object", "class", "asset")
# Not x and y, as in the manifest: factors are called that.
_BOX = ("box_left", "box_top", "box_width", "box_height")
_FULL = ("full_left", "full_top", "full_width", "full_height")


class Csv(Format):
    """`samples.csv`, a row a picture with its factors, and `annotations.csv`, a row an object with those of its picture and its
    own; `path` is relative to them and leads to `images/SPLIT/`. `objects` counts those that are seen. What is unknown is empty.

    `box_left`, `box_top`, `box_width`, `box_height` are of what is seen, `full_left` and so on of the whole object, in pixels.
    """

    name = "csv"
    says = "CSV: a row a picture, a row an object, a column a factor"

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        own = _names(each.get("factors") or {} for picture in drawn.pictures for each in picture.objects)
        of_sample = _names(picture.factors() for picture in drawn.pictures)
        of_picture = [name for name in of_sample if name not in own]
        for picture in drawn.pictures:
            picture.link(out / _path(picture))
        _write(out / "samples.csv", [*_PICTURE, *of_sample], (_sample(picture) for picture in drawn.pictures))
        columns = [*_OBJECT, *_BOX, *_FULL, "visible", *of_picture, *own]
        rows = (_annotation(picture, each, of_picture) for picture in drawn.pictures for each in picture.objects)
        _write(out / "annotations.csv", columns, rows)
        return ["annotations.csv", "samples.csv"]


def _names(factors: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for each in factors for name in each))


def _path(picture: Picture) -> str:
    return f"images/{picture.split}/{picture.name}"


def _sample(picture: Picture) -> dict[str, Any]:
    about = {name: picture.row.get(name) for name in _PICTURE}
    about |= {"path": _path(picture), "label": picture.label, "objects": len(picture.objects)}
    return picture.factors() | about


def _annotation(picture: Picture, each: Row, of_picture: Iterable[str]) -> dict[str, Any]:
    factors = {name: picture.row.get(name) for name in of_picture} | dict(each.get("factors") or {})
    about = {"path": _path(picture), "split": picture.split, "key": picture.row["key"]}
    about |= {name: each.get(name) for name in ("object", "class", "asset", "visible")}
    boxes = zip((*_BOX, *_FULL), (*box_of(each), *full_box_of(each)), strict=True)
    return factors | about | dict(boxes)


def _write(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
