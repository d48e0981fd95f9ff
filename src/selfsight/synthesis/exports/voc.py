"""Pascal VOC: an XML file for each picture, lists of names, and label pictures in VOC's colours."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.manifest import decode_mask
from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, Row, box_of, full_box_of

Numbers = npt.NDArray[np.uint8]

_MOST = 254
"""Numbers of a label picture: 0 is the ground, and 255 is VOC's for pixels of nobody."""
_HIDDEN = 0.05
"""The share of an object from which VOC calls it occluded."""


class Voc(Format):
    """`JPEGImages/NAME` with the ending of the drawn file, `Annotations/NAME.xml`, `ImageSets/Main/SPLIT.txt` and
    `ImageSets/Segmentation/SPLIT.txt`, `SegmentationObject/NAME.png` (numbers of the objects in the order of the XML) and
    `SegmentationClass/NAME.png` (numbers of the lines of `classes.txt`, from 1).

    Boxes are of what is seen, in pixels from 1, the last ones included. `truncated` is an object whose full box leaves the
    picture. `occluded` is one of which more than 5 % of what lies in the picture is hidden; of a truncated one only the share of
    its full box in the picture is known, and is taken for the share of the object.
    """

    name = "voc"
    says = "Pascal VOC: XML a picture, label pictures of objects and classes"

    def lack(self, drawn: DrawnSet) -> str | None:
        if len(drawn.classes) > _MOST:
            return f"has {len(drawn.classes)} classes; voc numbers {_MOST} at most, take coco"
        full = next((picture for picture in drawn.pictures if len(picture.objects) > _MOST), None)
        if full is not None:
            return f"{full.row['key']} has {len(full.objects)} objects; voc numbers {_MOST} at most, take coco"
        return None

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        for name in ("Annotations", "SegmentationObject", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
            (out / name).mkdir(parents=True)
        colours = palette().tobytes()
        for picture in drawn.pictures:
            picture.link(out / "JPEGImages" / picture.name)
            tree = ElementTree.ElementTree(_annotation(drawn, picture))
            ElementTree.indent(tree)
            tree.write(out / "Annotations" / f"{picture.stem}.xml", encoding="utf-8")
            for folder, numbers in zip(("SegmentationObject", "SegmentationClass"), _numbered(drawn, picture), strict=True):
                image = Image.fromarray(numbers)
                image.putpalette(colours)
                image.save(out / folder / f"{picture.stem}.png")
        for split, pictures in drawn.splits().items():
            for task in ("Main", "Segmentation"):
                _write_lines(out / "ImageSets" / task / f"{split}.txt", [picture.stem for picture in pictures])
        _write_lines(out / "classes.txt", drawn.classes)
        return ["Annotations", "classes.txt"]


def palette() -> Numbers:
    """[256, 3]: of each number, its lowest bits are the highest of red, green and blue, the next three the second highest, and
    so on (`VOClabelcolormap` of the VOC development kit)."""
    numbers = np.arange(256)[:, None, None]
    bits = numbers >> (3 * np.arange(8)[:, None] + np.arange(3)) & 1
    return (bits << (7 - np.arange(8))[:, None]).sum(1).astype(np.uint8)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _annotation(drawn: DrawnSet, picture: Picture) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _leaves(root, {"folder": drawn.info.name, "filename": picture.name})
    _leaves(ElementTree.SubElement(root, "source"), {"database": drawn.info.name})
    width, height = picture.size
    _leaves(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _leaves(root, {"segmented": 1})
    for each in picture.objects:
        node = ElementTree.SubElement(root, "object")
        truncated, occluded = _out_of_sight(each, picture)
        flags = {"truncated": int(truncated), "occluded": int(occluded), "difficult": 0}
        _leaves(node, {"name": each["class"], "pose": "Unspecified", **flags})
        x, y, w, h = box_of(each)
        _leaves(ElementTree.SubElement(node, "bndbox"), {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h})
    return root


def _leaves(node: ElementTree.Element, values: dict[str, str | int]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(node, name).text = str(value)


def _out_of_sight(each: Row, picture: Picture) -> tuple[bool, bool]:
    """(truncated, occluded)."""
    left, top, width, height = full_box_of(each)
    across, down = picture.size
    inside = (min(left + width, across) - max(left, 0)) * (min(top + height, down) - max(top, 0)) / (width * height)
    return inside < 1, each["visible"] < (1 - _HIDDEN) * inside


def _numbered(drawn: DrawnSet, picture: Picture) -> tuple[Numbers, Numbers]:
    """(numbers of objects, of classes), [height, width]."""
    objects = np.zeros(picture.size[::-1], dtype=np.uint8)
    classes = objects.copy()
    for number, each in enumerate(picture.objects, 1):
        mask = decode_mask(each["mask"])
        objects[mask], classes[mask] = number, drawn.classes.index(each["class"]) + 1
    return objects, classes
