"""Where the camera, the lamps and the things of a scene stand: pure geometry, in metres.

The world has z upwards and the ground at 0; the camera looks at its origin. Size and place of a thing are those in the picture of
the usual camera, which sees the picture's shorter side 1 metre wide at the origin. So they vary alone, as in a flat scene: what
lies farther off is larger in metres. With sizes of the world, size is metres instead, and what lies farther off looks smaller.
Things stand on the ground. Another camera sees the same world from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.synthesis.scene import Scene, Thing
from selfsight.synthesis.spec import Sizes

Floats: TypeAlias = npt.NDArray[np.float64]

SENSOR = 36.0
"""Millimetres along the shorter side of the picture."""
_CAMERA = {"distance": 1.0, "focal_length": 50.0, "camera_azimuth": 0.0, "camera_elevation": 45.0}
"""The usual one. No place in its picture, nor half a picture around it, is as high as the horizon."""
_EAST, _SOUTH, _UP = np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Eye:
    """A pinhole camera. `intrinsics` [3, 3] and `pose` [4, 4], camera to world, as OpenCV has them: x right, y down, z ahead."""

    size: tuple[int, int]
    intrinsics: Floats
    pose: Floats
    distance: float

    @property
    def place(self) -> Floats:
        return self.pose[:3, 3]

    def ray(self, x: float, y: float) -> Floats:
        """[3], in the world and 1 metre deep, through a place in the picture from 0 to 1 along each side."""
        pixel = np.array([x * self.size[0], y * self.size[1], 1.0])
        return self.pose[:3, :3] @ np.linalg.solve(self.intrinsics, pixel)

    def rays(self, pixels: Floats) -> Floats:
        """[n, 3] as `ray`, through points [n, 2] in pixels."""
        there = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
        return there @ np.linalg.inv(self.intrinsics).T @ self.pose[:3, :3].T

    def seen(self, points: Floats) -> tuple[Floats, Floats]:
        """Points [n, 3] of the world as pixels [n, 2] and planar depth [n]."""
        local = (points - self.place) @ self.pose[:3, :3]
        projected = local @ self.intrinsics.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return projected[:, :2] / projected[:, 2:], local[:, 2]


def eye(scene: Scene) -> Eye:
    """The camera of a scene."""
    return _eye(scene.size, {factor: scene.number(factor) for factor in _CAMERA})


def usual_eye(size: tuple[int, int]) -> Eye:
    """The camera by which things are placed, of a picture of `size` (width, height)."""
    return _eye(size, _CAMERA)


def _eye(size: tuple[int, int], factors: Mapping[str, float]) -> Eye:
    focal, distance = factors["focal_length"], factors["distance"] * _CAMERA["focal_length"] / SENSOR
    azimuth, elevation = math.radians(factors["camera_azimuth"]), math.radians(factors["camera_elevation"])
    # At azimuth 0 it stands south of the scene and looks north.
    back = np.array([-math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation)])
    right = np.array([math.cos(azimuth), -math.sin(azimuth), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, -np.cross(back, right), -back], 1)
    pose[:3, 3] = back * distance
    scale = focal / SENSOR * min(size)
    return Eye(size, np.array([[scale, 0, size[0] / 2], [0, scale, size[1] / 2], [0, 0, 1.0]]), pose, distance)


@dataclass(frozen=True)
class Pose:
    """Of a model of diameter 1: how it is turned [3, 3], how large in metres, where its middle is [3]."""

    turn: Floats
    scale: float
    middle: Floats

    def matrix(self) -> Floats:
        """[4, 4], model to world."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.turn * self.scale
        matrix[:3, 3] = self.middle
        return matrix


def turned(thing: Thing) -> Floats:
    """[3, 3]: `rotation` about the vertical, then `roll` sideways and `pitch` towards the usual camera."""
    rotation, pitch, roll = (math.radians(thing.number(factor)) for factor in ("rotation", "pitch", "roll"))
    return _about(_EAST, pitch) @ _about(_SOUTH, roll) @ _about(_UP, rotation)


def _about(axis: Floats, angle: float) -> Floats:
    """Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def standing(thing: Thing, corners: Floats, usual: Eye, sizes: Sizes = "picture") -> Pose:
    """On the ground: `corners` [n, 3] are points of the model of which one is its lowest, however it is turned."""
    turn = turned(thing)
    lowest = -float((corners @ turn.T)[:, 2].min())
    ray = usual.ray(thing.number("x"), thing.number("y"))
    if sizes == "world":
        scale = thing.number("size")
        return Pose(turn, scale, usual.place + _depth(usual, ray, scale * lowest) * ray)
    wide = _width(thing, usual)
    # It is depth x wide metres large, so its middle must be depth x wide x lowest above the ground.
    depth = usual.place[2] / (wide * lowest - ray[2])
    return Pose(turn, depth * wide, usual.place + depth * ray)


def _depth(eye: Eye, ray: Floats, height: float) -> float:
    """Metres at which a ray that falls is so high above the ground."""
    return float((eye.place[2] - height) / -ray[2])


def before(thing: Thing, hidden: Thing, at: Pose, eye: Eye) -> Pose:
    """Of something that hides a thing: as near to it as their bounding spheres allow, and as large as it in the picture."""
    right, down, ahead = eye.pose[:3, :3].T
    behind = float((at.middle - eye.place) @ ahead)
    wide, short = at.scale / behind, min(eye.size)
    across, along = (
        (thing.number(axis) - hidden.number(axis)) * side / short / hidden.number("size")
        for axis, side in zip("xy", eye.size, strict=True)
    )
    ray = (at.middle - eye.place) / behind + wide * (across * right + along * down)
    depth = (behind - at.scale / 2) / (1 + wide / 2)
    return Pose(turned(thing), depth * wide, eye.place + depth * ray)


def _width(thing: Thing, eye: Eye) -> float:
    """Metres of diameter a metre of depth: of the sphere whose outline in the middle of the picture is `size` wide."""
    half = thing.number("size") / 2 * min(eye.size) / eye.intrinsics[0, 0]
    return 2 * math.sin(math.atan(half))


def beside(thing: Thing, objects: list[Thing], eye: Eye, sizes: Sizes = "picture", sideways: bool = False) -> Thing:
    """The thing moved in the picture, some way or to the left or right, until its circle meets none of the objects'."""
    short, (width, height) = min(eye.size), eye.size
    away = 2 * math.pi * (thing.seed % 3600) / 3600
    step = np.array([math.copysign(1.0, math.cos(away)), 0.0] if sideways else [math.cos(away), math.sin(away)])
    here = np.array([thing.number("x") * width, thing.number("y") * height]) / short
    for _ in range(400):
        thing = _at(thing, here * short / eye.size)
        if all(_apart(thing, other, eye, sizes) for other in objects):
            break
        here = here + 0.02 * step
    return thing


def _at(thing: Thing, place: Floats) -> Thing:
    return replace(thing, factors={**thing.factors, "x": float(place[0]), "y": float(place[1])})


def _apart(one: Thing, other: Thing, eye: Eye, sizes: Sizes) -> bool:
    away = [(one.number(axis) - other.number(axis)) * side / min(eye.size) for axis, side in zip("xy", eye.size, strict=True)]
    return bool(math.hypot(*away) >= (_diameter(one, eye, sizes) + _diameter(other, eye, sizes)) / 2)


def _diameter(thing: Thing, eye: Eye, sizes: Sizes) -> float:
    """Of its circle in the picture, whose shorter side is 1; of a thing of metres, about that of a sphere on the ground."""
    size = thing.number("size")
    if sizes == "picture":
        return size
    depth = _depth(eye, eye.ray(thing.number("x"), thing.number("y")), size / 2)
    return float(size / depth * eye.intrinsics[0, 0] / min(eye.size))


def lamp_direction(number: int, scene: Scene) -> Floats:
    """[3], of length 1: from the scene to a lamp. Azimuth 0 is where the top of the usual camera's picture points to."""
    turn = scene.number("light_azimuth") + 360 * number / max(1, int(scene.number("lights")))
    azimuth, elevation = math.radians(turn), math.radians(scene.number("light_elevation"))
    level = math.sin(azimuth) * _EAST - math.cos(azimuth) * _SOUTH
    return math.cos(elevation) * level + math.sin(elevation) * _UP
