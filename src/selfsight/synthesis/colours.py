"""Colours that all backends have in common. sRGB is taken as linear light to the power 1 / 2.2."""

from __future__ import annotations

import colorsys
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.synthesis.scene import Scene, Thing

Floats: TypeAlias = npt.NDArray[np.float32]

GAMMA = 2.2
_WHITE = 6500.0
_WAVELENGTHS = np.array([610e-9, 549e-9, 468e-9])
"""Of red, green and blue in metres: the dominant ones of sRGB's primaries, about."""
_RADIATION = 0.014387769
"""Planck's second radiation constant h c / k, in metres times kelvin."""


def thing_colour(thing: Thing) -> Floats:
    """sRGB [3]."""
    return _rgb(thing.number("hue"), thing.number("saturation"), thing.number("brightness"))


def ground_colour(scene: Scene) -> Floats:
    """sRGB [3]."""
    return _rgb(*(scene.number(f"background_{part}") for part in ("hue", "saturation", "brightness")))


def _rgb(hue: float, saturation: float, brightness: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 360 / 360, saturation, brightness), dtype=np.float32)


def lamp_colour(kelvin: float) -> Floats:
    """[3]: a black body's radiance at three wavelengths, over that at 6500 K and with green as 1 (Planck's law)."""

    def radiance(temperature: float) -> npt.NDArray[np.float64]:
        return 1 / np.expm1(_RADIATION / (_WAVELENGTHS * temperature))

    relative = radiance(kelvin) / radiance(_WHITE)
    return (relative / relative[1]).astype(np.float32)
