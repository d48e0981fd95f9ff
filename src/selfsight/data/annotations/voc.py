"""Pascal VOC: `SegmentationObject` numbers the things of a picture, `SegmentationClass` names them, 255 is a void outline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfsight.data.annotations.base import Annotated, Annotations, Bools, Instance
from selfsight.data.annotations.png import VOID, Labels, listed, read_labels
from selfsight.data.sources import Source
from selfsight.data.undecodable import UndecodableError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_OBJECTS, _KINDS = "SegmentationObject", "SegmentationClass"


class VocAnnotations(Annotations):
    """The folder of a VOC year (`VOCdevkit/VOC2012`), whose images are in its `JPEGImages`."""

    def __init__(self, path: Path, source: Source) -> None:
        self.location = str(path)
        self.files = listed(path / _OBJECTS)
        self.classes = path / _KINDS

    def known(self, source: Source, index: int) -> bool:
        return self.files.known(source.keys[index])

    def of(self, source: Source, index: int) -> Annotated | None:
        path = self.files.get(source.keys[index])
        if path is None:
            return None
        objects = read_labels(path)
        beside = self.classes / path.name
        kinds = read_labels(beside) if beside.is_file() else np.zeros_like(objects)
        if kinds.shape != objects.shape:
            raise UndecodableError(f"{beside}: is {_size(kinds)} and {path} {_size(objects)}; expected the same")
        masks = (objects == number for number in np.unique(objects) if number not in (0, VOID))
        return Annotated([Instance(mask, _name(kinds, mask)) for mask in masks], objects == VOID)


def matches(path: Path) -> bool:
    return (path / _OBJECTS).is_dir()


def beside(source: Source) -> Path | None:
    """The folder in which the `JPEGImages` are that were given."""
    folder = Path(source.location).absolute().parent
    return folder if Path(source.location).name == "JPEGImages" and matches(folder) else None


def _name(kinds: Labels, mask: Bools) -> str:
    number = int(np.bincount(kinds[mask]).argmax())
    return CLASSES[number - 1] if 0 < number <= len(CLASSES) else ""


def _size(labels: Labels) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"
