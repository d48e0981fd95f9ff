"""Numbers to colours in even steps, for eyes of all kinds and for print in grey."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_LEVELS = 256
_PATH = np.array(
    [
        # lightness, chroma and hue in degrees: night blue, violet, red, orange, pale yellow
        [0.16, 0.050, 275.0],
        [0.36, 0.150, 300.0],
        [0.56, 0.190, 355.0],
        [0.74, 0.165, 410.0],
        [0.97, 0.100, 465.0],
    ]
)
_TO_LMS = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]])
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
"""From OKLab to linear sRGB (Ottosson 2020, "A perceptual color space for image processing")."""


@cache
def colour_map() -> Bytes:
    """[256, 3]: from dark to light in steps that are the same distance apart in OKLab, so that no step looks like an edge."""
    lab = _along_path()
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0, length[-1], _LEVELS)
    found = np.stack([np.interp(even, length, lab[:, axis]) for axis in range(3)], axis=1)
    return np.rint(255 * _srgb(found)).astype(np.uint8)


def heat(values: npt.NDArray[np.floating]) -> Bytes:
    """[...] of 0 to 1 -> [..., 3]."""
    return colour_map()[np.rint(np.clip(values, 0, 1) * (_LEVELS - 1)).astype(np.intp)]


def _along_path() -> Doubles:
    """[n, 3]: OKLab along the path, densely, smooth through its corners."""
    from scipy.interpolate import PchipInterpolator

    at = np.linspace(0, 1, 16 * _LEVELS)
    lightness, chroma, hue = PchipInterpolator(np.linspace(0, 1, len(_PATH)), _PATH)(at).T
    angle = np.deg2rad(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)


def _srgb(lab: Doubles) -> Doubles:
    linear = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
