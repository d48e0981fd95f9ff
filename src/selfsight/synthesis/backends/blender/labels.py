"""What is known of a rendered scene: which object is seen where, how far off, how much of it, and where its keypoints are.

Blender's passes tell it of one ray a pixel, which goes through the pixel at random. Within an object that is as good as any;
along outlines it would make masks ragged. There a ray is cast through the pixel's centre, so that every mask is what the
geometry says of centres, the same beside other things as alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, minimum_filter

from selfsight.synthesis.backends.blender.placing import Eye
from selfsight.synthesis.backends.blender.stage import Placed, Stage
from selfsight.synthesis.frame import Full, Keypoint, Solid, box_of
from selfsight.synthesis.silhouettes import covered

Floats: TypeAlias = npt.NDArray[np.float32]

SKY = 1e9
"""Metres from which Blender's depth is that of nothing."""
_NEAR = 1e-3
_BEYOND = 8
"""Pictures beside this one into which a whole object is followed."""
_TOUCHING = 0.02
"""Of the diameter of an object: a keypoint so far below its surface is still on it."""


def corrected(
    stage: Stage, eye: Eye, passes: Mapping[str, Floats], objects: int
) -> tuple[npt.NDArray[np.uint16], Floats, Floats]:
    """(numbers of objects [h, w], planar depth in metres [h, w], inf where nothing is, normals [h, w, 3] as in `Frame`)."""
    numbers = np.rint(passes["IndexOB"][..., 0]).astype(np.int64)
    numbers[numbers > objects] = 0
    depth = passes["Depth"][..., 0].copy()
    depth[depth > SKY] = np.inf
    normals = passes["Normal"].astype(np.float64)
    ys, xs = np.nonzero(minimum_filter(numbers, 3) != maximum_filter(numbers, 3))
    if len(ys):
        hit = _cast(stage, eye, np.stack([xs, ys], 1).astype(np.float64) + 0.5)
        numbers[ys, xs] = np.where(hit.number > objects, 0, hit.number)
        depth[ys, xs] = hit.depth
        normals[ys, xs] = hit.normal
    local = normals @ eye.pose[:3, :3]
    length = np.linalg.norm(local, axis=2, keepdims=True)
    local = np.divide(local, length, out=np.zeros_like(local), where=length > 0)
    return numbers.astype(np.uint16), depth, local.astype(np.float32)


class _Hits(NamedTuple):
    """What rays meet first: number of the thing [n], 0 for none; planar depth [n], inf for none; normal [n, 3]."""

    number: npt.NDArray[np.int64]
    depth: npt.NDArray[np.float64]
    normal: npt.NDArray[np.float64]


def _cast(stage: Stage, eye: Eye, pixels: npt.NDArray[np.float64]) -> _Hits:
    """Through points [n, 2] of the picture."""
    rays = eye.rays(pixels)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    cast, depsgraph, origin = stage.scene.ray_cast, stage.layer.depsgraph, eye.place.tolist()
    hits = [cast(depsgraph, origin, ray) for ray in rays.tolist()]
    number = np.array([thing.pass_index if hit else 0 for hit, _, _, _, thing, _ in hits])
    place = np.array([tuple(at) for _, at, *_ in hits])
    normal = np.array([tuple(way) for _, _, way, *_ in hits])
    normal *= -np.sign((normal * rays).sum(1, keepdims=True))
    there = np.array([hit for hit, *_ in hits])
    return _Hits(number, np.where(there, (place - eye.place) @ eye.pose[:3, 2], np.inf), normal * there[:, None])


def whole(eye: Eye, one: Placed, seen: npt.NDArray[np.bool_]) -> Full:
    """The object with nothing before it, as far as it is in front of the camera; `seen` [h, w] is its mask."""
    matrix = one.pose.matrix()
    pixels, depth = eye.seen(one.model.points @ matrix[:3, :3].T + matrix[:3, 3])
    if depth.min() < _NEAR:
        return Full(box_of(seen), int(seen.sum()))
    width, height = eye.size
    low = np.maximum(np.floor(pixels.min(0)), [-_BEYOND * width, -_BEYOND * height]).astype(int)
    high = np.minimum(np.ceil(pixels.max(0)), [(_BEYOND + 1) * width, (_BEYOND + 1) * height]).astype(int)
    left, top = (int(value) for value in low)
    wide, tall = (int(value) for value in np.maximum(high - low, 1))
    mask = covered(pixels, one.model.triangles, one.model.edges, (left, top, wide, tall))
    x, y, w, h = box_of(mask)
    return _holding(Full((left + x, top + y, w, h) if w else (0, 0, 0, 0), int(mask.sum())), seen)


def _holding(full: Full, seen: npt.NDArray[np.bool_]) -> Full:
    """What is seen is of the whole, though a pixel of it may be cast where the outline was drawn just beside."""
    many = int(seen.sum())
    if not many:
        return full
    x, y, w, h = box_of(seen)
    if not full.area:
        return Full((x, y, w, h), many)
    left, top, wide, high = full.box
    right, bottom = max(left + wide, x + w), max(top + high, y + h)
    left, top = min(left, x), min(top, y)
    return Full((left, top, right - left, bottom - top), max(full.area, many))


def solid(stage: Stage, eye: Eye, one: Placed) -> Solid:
    """Pose and keypoints, as the camera sees them."""
    pose = np.linalg.inv(eye.pose) @ one.pose.matrix()
    found = {name: _keypoint(stage, eye, one, place) for name, place in one.model.keypoints.items()}
    return Solid(pose, found)


def _keypoint(stage: Stage, eye: Eye, one: Placed, place: npt.NDArray[np.float64]) -> Keypoint:
    there = (one.pose.matrix() @ [*place, 1.0])[:3]
    [(x, y)], [depth] = eye.seen(there[None])
    local = (there - eye.place) @ eye.pose[:3, :3]
    visible = 0
    if depth > _NEAR and 0 <= x < eye.size[0] and 0 <= y < eye.size[1]:
        before = depth - _cast(stage, eye, np.array([[x, y]])).depth[0]
        visible = 2 if before <= _TOUCHING * one.pose.scale else 1
    return Keypoint(float(x), float(y), visible, (float(local[0]), float(local[1]), float(local[2])))
