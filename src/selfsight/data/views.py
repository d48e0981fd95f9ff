"""Multi-crop views: what is drawn for each view, and where it is cut.

Caron et al. 2021 (DINO), section 3.1 and appendix: two *global* views of a large part of the image and several *local* ones of
a small part, each flipped, colour-jittered, greyed, blurred and (the second global one) solarised with given probabilities.

Every draw is a pure function of (seed, epoch, sample, occurrence, view), see `draws`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from selfsight.config import Settings
from selfsight.data.draws import Floats, Indices, uniforms

# Columns of the uniform numbers drawn for one view. Twenty for ten tries of area and aspect, then one each.
_TRIES = 10
_TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _ORDER, _GREY, _BLUR, _SIGMA, _SOLARIZE = range(
    2 * _TRIES, 2 * _TRIES + 13
)
_COLUMNS = 2 * _TRIES + 13


class ViewSettings(Settings):
    """How views are cut and coloured; the defaults are the published ones (main_dino.py)."""

    global_size: int = Field(224, ge=8)
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_size: int = Field(96, ge=8)
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_count: int = Field(8, ge=0)
    flip: float = Field(0.5, ge=0, le=1)
    vertical_flip: bool = False
    jitter: float = Field(0.8, ge=0, le=1)
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.2, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    grey: float = Field(0.2, ge=0, le=1)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = Field(0.2, ge=0, le=1)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def count(self) -> int:
        return 2 + self.local_count

    def size(self, view: int) -> int:
        return self.global_size if view < 2 else self.local_size

    def scale(self, view: int) -> tuple[float, float]:
        return self.global_scale if view < 2 else self.local_scale


@dataclass(frozen=True)
class Photometry:
    """What is done to the pixels of n views; each field is one value a view.

    `order` is a permutation index 0..23 of (brightness, contrast, saturation, hue); hue is a share of the full circle.
    """

    flip: npt.NDArray[np.bool_]
    vertical: npt.NDArray[np.bool_]
    brightness: Floats
    contrast: Floats
    saturation: Floats
    hue: Floats
    order: npt.NDArray[np.int64]
    grey: npt.NDArray[np.bool_]
    sigma: Floats
    solarize: npt.NDArray[np.bool_]


def view_uniforms(seed: int, epoch: int, samples: Sequence[int] | Indices, occurrence: int | Indices, view: int) -> Floats:
    """The uniform numbers [samples, columns] that decide everything about one view of each sample."""
    return uniforms(seed, epoch, samples, occurrence, view, _COLUMNS)


def crop_box(u: Floats, width: int, height: int, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random resized crop, from one row of `uniforms`.

    Area share uniform in `scale`, aspect log-uniform in [3/4, 4/3], ten tries, then a central crop: the rule of torchvision's
    `RandomResizedCrop.get_params`.
    """
    low, high = math.log(3 / 4), math.log(4 / 3)
    for attempt in range(_TRIES):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * u[2 * attempt])
        aspect = math.exp(low + (high - low) * u[2 * attempt + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(u[_TOP] * (height - h + 1)), int(u[_LEFT] * (width - w + 1))
            return left, top, left + w, top + h
    ratio = width / height
    w, h = width, height
    if ratio < 3 / 4:
        h = round(width / (3 / 4))
    elif ratio > 4 / 3:
        w = round(height * (4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut(image: Image.Image, box: tuple[int, int, int, int], size: int) -> npt.NDArray[np.uint8]:
    """The box of an RGB image, resized with antialiased bicubic interpolation to [size, size, 3]."""
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def draw_photometry(u: Floats, view: int, settings: ViewSettings) -> Photometry:
    """Turn uniform numbers [n, columns] of one view into what is done to its pixels."""

    def factor(column: int, strength: float) -> Floats:
        value = np.maximum(0.0, 1 - strength) + (min(1.0, strength) + strength) * u[:, column]
        return np.where(u[:, _JITTER] < settings.jitter, value, 1.0)

    kind = min(view, 2)
    low, high = settings.blur_sigma
    jittered = u[:, _JITTER] < settings.jitter
    flips = u[:, _FLIP]
    return Photometry(
        flip=flips < settings.flip,
        # The second half of the same number decides on the vertical flip: fractional part of a scaled uniform is uniform.
        vertical=((flips * 4096) % 1 < 0.5) & settings.vertical_flip,
        brightness=factor(_BRIGHTNESS, settings.brightness),
        contrast=factor(_CONTRAST, settings.contrast),
        saturation=factor(_SATURATION, settings.saturation),
        hue=np.where(jittered, (2 * u[:, _HUE] - 1) * settings.hue, 0.0),
        order=(u[:, _ORDER] * 24).astype(np.int64),
        grey=u[:, _GREY] < settings.grey,
        sigma=np.where(u[:, _BLUR] < settings.blur[kind], low + (high - low) * u[:, _SIGMA], 0.0),
        solarize=(u[:, _SOLARIZE] < settings.solarize) & (view == 1),
    )
