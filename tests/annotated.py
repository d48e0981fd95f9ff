"""The same scenes with the same masks, written in every format that is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from selfsight.data.annotations.voc import CLASSES
from selfsight.manifest import DatasetInfo, Writer, encode_mask


class Thing(NamedTuple):
    """left, top, right, bottom, and its class."""

    box: tuple[int, int, int, int]
    name: str


class Scene(NamedTuple):
    width: int
    height: int
    things: list[Thing]
    void: tuple[int, int, int, int] | None = None

    def masks(self) -> list[np.ndarray]:
        return [area(self, thing.box) for thing in self.things]

    def ignored(self) -> np.ndarray:
        return area(self, self.void) if self.void else np.zeros((self.height, self.width), dtype=bool)

    def picture(self) -> Image.Image:
        """Bright things on dark noise."""
        pixels = np.random.default_rng(self.width).integers(0, 60, (self.height, self.width, 3), dtype=np.uint8)
        for number, mask in enumerate(self.masks()):
            pixels[mask] += np.uint8(140 + 20 * number)
        return Image.fromarray(pixels)


class Written(NamedTuple):
    """Where the images are, and what is given as `masks`: None where it is found by itself."""

    images: Path
    masks: Path | None


ONE = [Scene(40, 24, [Thing((4, 6, 20, 18), "cat")]), Scene(16, 30, [Thing((2, 10, 12, 28), "dog")])]
SEVERAL = [
    Scene(40, 24, [Thing((4, 6, 20, 18), "cat"), Thing((24, 2, 38, 20), "dog")], (20, 6, 22, 18)),
    Scene(16, 30, [Thing((2, 10, 12, 28), "dog")], (12, 10, 14, 28)),
]


def area(scene: Scene, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((scene.height, scene.width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def pictures(folder: Path, scenes: Sequence[Scene], ending: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        scene.picture().save(folder / f"{number:03d}{ending}")
    return folder


def coco(at: Path, scenes: Sequence[Scene]) -> Written:
    """The first thing of a picture as a polygon, others as run lengths, the void as a crowd."""
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        images.append({"id": 7 + number, "file_name": f"val/{number:03d}.jpg", "width": scene.width, "height": scene.height})
        for place, thing in enumerate(scene.things):
            left, top, right, bottom = thing.box
            outline: object = [[left, top, right, top, right, bottom, left, bottom]]
            if place:
                packed = rle.encode(np.asfortranarray(area(scene, thing.box).astype(np.uint8)))
                outline = {"size": packed["size"], "counts": packed["counts"].decode()}
            kind = ("cat", "dog").index(thing.name)
            annotations.append({"id": len(annotations), "image_id": 7 + number, "category_id": kind, "segmentation": outline})
        if scene.void:
            counts = run_lengths(scene.ignored())
            row = {"image_id": 7 + number, "category_id": 0, "iscrowd": 1}
            annotations.append(row | {"segmentation": {"size": [scene.height, scene.width], "counts": counts}})
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (at / "instances.json").write_text(json.dumps(content))
    return Written(pictures(at / "val", scenes), at / "instances.json")


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


def _numbers(scene: Scene, numbers: Sequence[int]) -> Image.Image:
    labels = np.zeros((scene.height, scene.width), dtype=np.uint8)
    for number, mask in zip(numbers, scene.masks(), strict=True):
        labels[mask] = number
    labels[scene.ignored()] = 255
    return Image.fromarray(labels)


def voc(at: Path, scenes: Sequence[Scene]) -> Written:
    for number, scene in enumerate(scenes):
        kinds = [CLASSES.index(thing.name) + 1 for thing in scene.things]
        for part, numbers in (("SegmentationObject", range(1, len(kinds) + 1)), ("SegmentationClass", kinds)):
            (at / "VOC2012" / part).mkdir(parents=True, exist_ok=True)
            image = _numbers(scene, list(numbers))
            image.putpalette([value for shade in range(256) for value in (shade, 255 - shade, 7)])
            image.save(at / "VOC2012" / part / f"{number:03d}.png")
    return Written(pictures(at / "VOC2012" / "JPEGImages", scenes, ".jpg"), None)


def png(at: Path, scenes: Sequence[Scene]) -> Written:
    (at / "masks").mkdir()
    for number, scene in enumerate(scenes):
        _numbers(scene, range(1, len(scene.things) + 1)).save(at / "masks" / f"{number:03d}.png")
    return Written(pictures(at / "images", scenes, ".jpg"), at / "masks")


def drawn(at: Path, scenes: Sequence[Scene]) -> Written:
    pictures(at / "set" / "test", scenes)
    info = DatasetInfo(name="boxes", classes=["cat", "dog"], splits=["test"], factors={}, provenance={})
    with Writer(at / "set", info) as writer:
        for number, scene in enumerate(scenes):
            path = f"test/{number:03d}.png"
            sample = {"key": path, "path": path, "split": "test", "width": scene.width, "height": scene.height}
            rows = [
                {"sample": path, "object": place, "class": thing.name, "mask": encode_mask(mask)}
                for place, (thing, mask) in enumerate(zip(scene.things, scene.masks(), strict=True))
            ]
            writer.add(sample, rows)
    return Written(at / "set" / "test", None)


def alpha(at: Path, scenes: Sequence[Scene]) -> Written:
    (at / "cut").mkdir()
    for number, scene in enumerate(scenes):
        image = scene.picture()
        image.putalpha(Image.fromarray(scene.masks()[0].astype(np.uint8) * 255))
        image.save(at / "cut" / f"{number:03d}.png")
    return Written(at / "cut", None)


WRITERS: dict[str, Callable[[Path, Sequence[Scene]], Written]] = {
    "coco": coco,
    "voc": voc,
    "png": png,
    "drawn": drawn,
    "alpha": alpha,
}
