"""A drawn set as other programs read it.

To add a format: a file here with a `Format`, and a row in `FORMATS`; `tests/test_exports.py` runs what holds for all of them over
every row.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selfsight.errors import ConfigError, InputError, nearest
from selfsight.runs import alone, place_for_folder, remove_folder, room_for
from selfsight.synthesis.backends import BACKENDS
from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.bop import Bop
from selfsight.synthesis.exports.coco import Coco, CocoPolygons
from selfsight.synthesis.exports.imagefolder import ImageFolder
from selfsight.synthesis.exports.mot import Mot
from selfsight.synthesis.exports.table import Csv
from selfsight.synthesis.exports.voc import Voc
from selfsight.synthesis.exports.yolo import Yolo, YoloPose, YoloSegments
from selfsight.synthesis.spec import SynthSpec

FORMATS: dict[str, Format] = {
    "coco": Coco(),
    "coco-polygons": CocoPolygons(),
    "yolo": Yolo(),
    "yolo-segments": YoloSegments(),
    "yolo-pose": YoloPose(),
    "voc": Voc(),
    "mot": Mot(),
    "bop": Bop(),
    "csv": Csv(),
    "imagefolder": ImageFolder(),
}


def export(folder: str | Path, format: str, out: str | Path, split: str | None = None) -> dict[str, Any]:
    """Write the finished set in `folder`, or one `split` of it, to the new folder `out`, whole or not at all.

    Pictures are hard links to those of the set where the disk allows it, so that they take no room, and copies elsewhere: who
    changes a linked picture in place changes the set. Objects of which nothing is seen are left out.

    Returns a summary: images, objects, hidden (objects left out), files (those to hand to a reader). Raises `ConfigError` for a
    format or split that is none, `DataError` where the set is damaged, not finished or lacks what the format needs, `InputError`
    where `out` holds something or lies in the set.
    """
    check_formats([format])
    place = place_for_folder(out).resolve()
    if place.is_relative_to(Path(folder).resolve()):
        raise InputError(f"--out {out}: lies in {folder}, whose pictures are read; give a place outside")
    with alone(place):
        if place.is_dir() and any(place.iterdir()):
            raise InputError(f"--out {out}: is not empty; expected a new folder")
        made = _written(FORMATS[format], Path(folder), place, split)
    return made | {"files": [str(Path(out) / name) for name in made["files"]]}


def check_formats(formats: Iterable[str]) -> None:
    """`ConfigError` for one that is none."""
    for format in formats:
        if format not in FORMATS:
            raise ConfigError(f"--export: no format '{format}'. {nearest(format, FORMATS)}")


def check_drawable(formats: Iterable[str], spec: SynthSpec) -> None:
    """`ConfigError` for a format of things that the spec, or its backend, never draws, or that the spec rules out."""
    there = BACKENDS[spec.backend].labels | ({"sequences"} if spec.sequence else set())
    for format in formats:
        needs = FORMATS[format].needs
        if needs is not None and needs not in there:
            why = "which a spec draws that has 'sequence'" if needs == "sequences" else f"which {spec.backend} does not draw"
            can = ", ".join(name for name, each in FORMATS.items() if each.needs is None or each.needs in there)
            raise ConfigError(f"--export {format}: needs {needs}, {why}; this one gives {can}")
        reason = FORMATS[format].impossible(spec)
        if reason is not None:
            raise ConfigError(f"--export {format}: {reason}")


def _written(format: Format, folder: Path, place: Path, split: str | None) -> dict[str, Any]:
    temporary = place.with_name(f".{place.name}.writing")
    remove_folder(temporary)  # of a process that was killed meanwhile
    try:
        with room_for(temporary):
            made = format.write(folder, temporary, split)
        if place.is_dir():
            place.rmdir()
        temporary.replace(place)
    finally:
        remove_folder(temporary)
    return made


__all__ = ["FORMATS", "Format", "check_drawable", "check_formats", "export"]
