"""Lamps over a flat scene: directions, colours, shadows and the shading of slightly domed things.

Light is counted in linear values. On ground without shadow the lamps give the same light
from whichever side and height they shine, so that only shadows and shading tell of these.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.synthesis.colours import GAMMA, lamp_colour
from selfsight.synthesis.scene import Scene

Floats: TypeAlias = npt.NDArray[np.float32]

_DOME = 0.6
"""Sine of the tilt of a thing's surface at its outline."""
_HEIGHT = 0.16
"""How high a thing stands, in its diameters."""
_BRIGHTEST = 1.9


class Lamp(NamedTuple):
    """`x` and `y` point along the picture towards the lamp (y down), `z` is the sine of its height; of length 1 together."""

    x: float
    y: float
    z: float

    def shadow(self, size: float) -> tuple[float, float]:
        """How far the shadow of a thing of diameter `size` is thrown, in the unit of `size`."""
        length = -_HEIGHT * size / self.z
        return self.x * length, self.y * length


def lamps(scene: Scene) -> list[Lamp]:
    count, elevation = int(scene.number("lights")), math.radians(scene.number("light_elevation"))
    across = math.cos(elevation)
    turns = [math.radians(scene.number("light_azimuth") + 360 * k / count) for k in range(count)]
    return [Lamp(across * math.sin(turn), -across * math.cos(turn), math.sin(elevation)) for turn in turns]


def shading(lamp: Lamp, x: Floats, y: Floats) -> Floats:
    """Light of one lamp on a dome at places in radii from its middle, over that on flat ground."""
    tilt = np.minimum(np.float32(_DOME) * np.hypot(x, y), np.float32(_DOME))
    upright = np.sqrt(1 - tilt * tilt)
    across = np.float32(_DOME) * (x * np.float32(lamp.x) + y * np.float32(lamp.y))
    return np.clip((across + upright * np.float32(lamp.z)) / np.float32(lamp.z), 0, np.float32(_BRIGHTEST))


def lit(albedo: Floats, lamplight: Floats, scene: Scene) -> Floats:
    """sRGB [h, w, 3] of albedo [h, w, 3], linear, under `lamplight` [lamps, h, w] beside the ambient light.

    It is above 1 where it is too bright for the usual exposure.
    """
    ambient = scene.number("ambient")
    light = np.full(albedo.shape, np.float32(ambient), dtype=np.float32)
    if len(lamplight):
        light += np.float32(1 - ambient) * lamplight.mean(0)[..., None] * lamp_colour(scene.number("light_temperature"))
    shown: Floats = np.power(albedo * light * np.float32(scene.number("light")), np.float32(1 / GAMMA))
    return shown
