"""The folders that YOLO programs (Ultralytics) train from: boxes, outlines or keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from selfsight.manifest import decode_mask
from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import DrawnSet, Picture, Row, box_of, keypoints_of
from selfsight.synthesis.exports.polygons import joined, outlines

_ROLES = {"train": ("train",), "val": ("val", "validation", "valid", "test"), "test": ("test",)}
"""What each key of data.yaml names: the first of these splits that there is. Programs insist on train and val."""


class Yolo(Format):
    """`images/SPLIT/NAME`, `labels/SPLIT/NAME.txt` and `data.yaml`.

    A line for each object: its class from 0, then middle, width and height of its box as shares of the picture. A picture without
    objects has an empty file. `data.yaml` has no `path`, and so means its own folder; "." would be that in which a program is
    started. Where the set has no split for `val`, it is test, else what is trained on.
    """

    name = "yolo"
    says = "Ultralytics YOLO: boxes"

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        keypoints = drawn.keypoint_names()
        splits = drawn.splits()
        for split, pictures in splits.items():
            (out / "labels" / split).mkdir(parents=True)
            for picture in pictures:
                picture.link(out / "images" / split / picture.name)
                lines = (f"{drawn.classes.index(e['class'])} {self.line(picture, e, keypoints)}\n" for e in picture.objects)
                (out / "labels" / split / f"{picture.stem}.txt").write_text("".join(lines), encoding="utf-8")
        about = _folders(list(splits)) | {"names": dict(enumerate(drawn.classes))} | self.more(drawn, keypoints)
        (out / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return ["data.yaml"]

    def line(self, picture: Picture, each: Row, keypoints: list[str]) -> str:
        """What follows the class."""
        return _box(picture, each)

    def more(self, drawn: DrawnSet, keypoints: list[str]) -> dict[str, object]:
        """What else `data.yaml` says."""
        return {}


class YoloSegments(Yolo):
    """Lines of the class and the corners x y of the outline, as shares of the picture. Holes are filled; an object in several
    parts is one line around all, which goes from part to part on a line without width."""

    name = "yolo-segments"
    says = "Ultralytics YOLO: outlines; holes are filled"

    def line(self, picture: Picture, each: Row, keypoints: list[str]) -> str:
        return _shares(joined(outlines(decode_mask(each["mask"]))), picture)


class YoloPose(Yolo):
    """Lines of the class, the box, then x, y and visibility (0, 1, 2) of each keypoint, in the order of `kpt_names`. A point that
    the object has not, or that lies beyond the edge of the picture, is 0 0 0."""

    name = "yolo-pose"
    says = "Ultralytics YOLO: boxes and keypoints"
    needs = "keypoints"

    def lack(self, drawn: DrawnSet) -> str | None:
        if drawn.keypoint_names():
            return None
        return "has no keypoints, which yolo-pose writes; take yolo, or draw with a backend that knows keypoints"

    def line(self, picture: Picture, each: Row, keypoints: list[str]) -> str:
        there, (width, height) = keypoints_of(each), picture.size
        points = []
        for name in keypoints:
            point = there.get(name)
            inside = point is not None and point.visible and 0 <= point.x <= width and 0 <= point.y <= height
            points.append(f"{_shares(point[:2], picture)} {point.visible}" if point is not None and inside else "0 0 0")
        return " ".join([_box(picture, each), *points])

    def more(self, drawn: DrawnSet, keypoints: list[str]) -> dict[str, object]:
        named = {number: list(keypoints) for number in range(len(drawn.classes))}
        return {"kpt_shape": [len(keypoints), 3], "kpt_names": named}


def _folders(splits: list[str]) -> dict[str, str]:
    found = {role: next((split for split in names if split in splits), None) for role, names in _ROLES.items()}
    train = found["train"] or splits[0]
    folders = {"train": train, "val": found["val"] or train}
    if found["test"] is not None:
        folders["test"] = found["test"]
    return {role: f"images/{split}" for role, split in folders.items()}


def _box(picture: Picture, each: Row) -> str:
    left, top, width, height = box_of(each)
    return _shares([left + width / 2, top + height / 2, width, height], picture)


def _shares(numbers: npt.ArrayLike, picture: Picture) -> str:
    """Pixels across and down in turn, as shares of width and height."""
    shares = np.reshape(numbers, (-1, 2)) / picture.size
    return " ".join(map("{:.6f}".format, shares.ravel().tolist()))
