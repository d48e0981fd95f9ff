"""Where things are in the pictures of a source: masks in several formats behind one contract.

To add a format: a file here with an `Annotations`, a `matches(path)` and a `beside(source)`, and a line in `ANNOTATIONS`;
`tests/test_annotations.py` writes the same scene in each and reads it back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from selfsight.data.annotations import alpha, coco, drawn, png, voc
from selfsight.data.annotations.base import Annotated, Annotations, Bools, Instance, union
from selfsight.data.sources import Source
from selfsight.errors import DataError


class Kind(NamedTuple):
    """`beside` says where masks of this kind lie by the images of a source, if they do."""

    matches: Callable[[Path], bool]
    open: Callable[[Path, Source], Annotations]
    beside: Callable[[Source], Path | None]
    expects: str


ANNOTATIONS: dict[str, Kind] = {
    "drawn": Kind(drawn.matches, drawn.DrawnAnnotations, drawn.beside, "the folder of a drawn set (dataset.json)"),
    "voc": Kind(voc.matches, voc.VocAnnotations, voc.beside, "a VOC folder (SegmentationObject)"),
    "coco": Kind(coco.matches, coco.CocoAnnotations, coco.beside, "a COCO .json"),
    "alpha": Kind(alpha.matches, alpha.AlphaAnnotations, alpha.beside, "the word alpha (cut-outs)"),
    "png": Kind(png.matches, png.PngAnnotations, png.beside, "a folder of .png masks named as the images"),
}
"""In the order in which they are asked."""


def open_annotations(source: Source, masks: str | Path | None = None) -> Annotations | None:
    """The masks at a path, or those found by the images of the source: a manifest, VOC's folders, a COCO file among them, alpha.

    None where no path is given and nothing is found; `DataError` for a path that holds no masks of these pictures.
    """
    for kind in ANNOTATIONS.values():
        path = kind.beside(source) if masks is None else Path(masks) if kind.matches(Path(masks)) else None
        if path is not None:
            found = kind.open(path, source)
            if masks is None and not _knows_one(found, source):
                continue
            return _checked(found, source)
    if masks is None:
        return None
    *others, last = (kind.expects for kind in ANNOTATIONS.values())
    what = "holds no masks" if Path(masks).exists() else "does not exist"
    raise DataError(f"--masks {masks}: {what}; expected {', '.join(others)} or {last}")


def _checked(found: Annotations, source: Source) -> Annotations:
    if not _knows_one(found, source):
        raise DataError(
            f"--masks {found.location}: has no mask of an image of {source.location}, whose first is '{source.keys[0]}'; "
            "expected the same names, endings aside"
        )
    return found


def _knows_one(found: Annotations, source: Source) -> bool:
    return any(found.known(source, index) for index in range(len(source)))


__all__ = ["ANNOTATIONS", "Annotated", "Annotations", "Bools", "Instance", "Kind", "open_annotations", "union"]
