"""A drawn scene: its picture and what is known of every pixel, and the rows of the manifest that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.manifest import encode_mask
from selfsight.synthesis.scene import Scene, Thing

Floats: TypeAlias = npt.NDArray[np.float64]

LABELS = ("instances", "semantic", "boxes", "full_boxes", "visible", "depth", "normals", "keypoints", "camera", "sequences")
"""What a backend may know: numbers of objects and of classes a pixel, boxes of what is seen and of the whole object, share of it
that is seen; depth, normals, keypoints and camera of rendered scenes; pictures that follow one another."""


class Full(NamedTuple):
    """An object as if nothing hid it and the picture had no edge: its box (left, top, width, height) and area in pixels."""

    box: tuple[int, int, int, int]
    area: int


class Camera(NamedTuple):
    """A pinhole. `intrinsics` [3, 3] in pixels, `pose` [4, 4] from the camera to the world in metres; axes are those of OpenCV:
    x right, y down, z ahead."""

    intrinsics: Floats
    pose: Floats


class Keypoint(NamedTuple):
    """`x`, `y` in pixels; `visible` as in COCO: 2 is seen, 1 hidden, 0 outside the picture; `place` is in metres."""

    x: float
    y: float
    visible: int
    place: tuple[float, float, float]


class Solid(NamedTuple):
    """An object in space: `pose` [4, 4] from its model, which is of diameter 1, to the camera."""

    pose: Floats
    keypoints: Mapping[str, Keypoint]


@dataclass(frozen=True)
class Frame:
    """`image` is [height, width, 3]. `instances` [height, width] holds 0 where there is no object, else the number of the nearest
    one, from 1 in the order of `Scene.objects`; `full` has one entry an object.

    Of rendered scenes: `depth` [height, width] in metres along the camera's axis, inf where there is nothing; `normals` [height,
    width, 3] of length 1 as the camera has its axes, 0 where there is nothing; the camera; and a solid an object.
    """

    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    full: Sequence[Full]
    depth: npt.NDArray[np.float32] | None = None
    normals: npt.NDArray[np.float32] | None = None
    camera: Camera | None = None
    solids: Sequence[Solid] = ()


def semantic(scene: Scene, frame: Frame, classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """[height, width]: 0 where there is no object, else the number of its class, from 1 in the order of `classes`."""
    numbers = [0, *(classes.index(str(thing.name)) + 1 for thing in scene.objects)]
    return np.array(numbers, dtype=np.uint8)[frame.instances]


def sample_row(scene: Scene, classes: Sequence[str], paths: Mapping[str, str], camera: Camera | None = None) -> dict[str, Any]:
    """The row of `samples.parquet`. Of factors of objects it holds those of the first one."""
    width, height = scene.size
    row: dict[str, Any] = {"key": scene.key, **paths, "split": scene.split, "index": scene.index}
    row["label"] = None if scene.label is None else classes.index(scene.label)
    row |= {"width": width, "height": height, "group": f"{scene.split}/{scene.sequence}" if scene.sequence else scene.key}
    if scene.sequence:
        row |= {"sequence": scene.sequence, "frame": scene.frame}
    if camera is not None:
        row["camera"] = {"intrinsics": camera.intrinsics.ravel().tolist(), "pose": camera.pose.ravel().tolist()}
    first = scene.objects[0] if scene.objects else None
    return row | dict(scene.factors) | ({"asset": first.asset, **first.factors} if first else {})


def object_rows(scene: Scene, frame: Frame) -> list[dict[str, Any]]:
    """Rows of `objects.parquet`, one an object; one of which nothing is seen has a box of no size."""
    return [_object_row(scene, number, thing, frame) for number, thing in enumerate(scene.objects, 1)]


def _object_row(scene: Scene, number: int, thing: Thing, frame: Frame) -> dict[str, Any]:
    seen, full = frame.instances == number, frame.full[number - 1]
    x, y, w, h = box_of(seen)
    return {
        "sample": scene.key,
        "object": number,
        "class": thing.name,
        "x": x,
        "y": y,
        "w": w,
        "h": h,
        **dict(zip(("full_x", "full_y", "full_w", "full_h"), full.box, strict=True)),
        "visible": int(seen.sum()) / full.area if full.area else 0.0,
        "mask": encode_mask(seen),
        "asset": thing.asset,
        "factors": dict(thing.factors),
        **(_in_space(frame.solids[number - 1]) if frame.solids else {}),
    }


def _in_space(solid: Solid) -> dict[str, Any]:
    points = solid.keypoints.items()
    return {
        "pose": solid.pose.ravel().tolist(),
        "keypoints": {name: [point.x, point.y, point.visible] for name, point in points} or None,
        "keypoints_3d": {name: list(point.place) for name, point in points} or None,
    }


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of [height, width]; zeros of an empty one."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(xs):
        return 0, 0, 0, 0
    return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)
