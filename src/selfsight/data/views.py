"""Multi-crop views: what is drawn for each view, and where it is cut.

Caron et al. 2021 (DINO), section 3.1 and appendix: two *global* views of a large part of the image and several *local* ones of
a small part, each flipped, colour-jittered, greyed, blurred and (the second global one) solarised with given probabilities.

Every draw is a pure function of (seed, epoch, sample, occurrence, view), see `draws`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from selfsight.config import Settings
from selfsight.data.decode import DecodeSettings, Pixels
from selfsight.data.draws import Floats, Indices, uniforms

# Columns of the uniform numbers drawn for one view. Twenty for ten tries of area and aspect, then one each.
_TRIES = 10
_TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _ORDER, _GREY, _BLUR, _SIGMA, _SOLARIZE = range(
    2 * _TRIES, 2 * _TRIES + 13
)
_VERTICAL, _QUARTERS, _STAIN = range(2 * _TRIES + 13, 2 * _TRIES + 16)
_COLUMNS = _STAIN + 6


class ViewSettings(Settings):
    """How views are cut and coloured; the defaults are the published ones (main_dino.py).

    With a `gram_size` the global views are cut once more, the same parts turned and flipped alike, at that size and in their own
    colours: what the Gram teacher of DINOv3 looks at.
    """

    global_size: int = Field(default=224, ge=8)
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_size: int = Field(default=96, ge=8)
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_count: int = Field(default=8, ge=0)
    gram_size: int | None = Field(default=None, ge=8)
    flip: float = Field(default=0.5, ge=0, le=1)
    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    quarter_turns: bool = False
    jitter: float = Field(default=0.8, ge=0, le=1)
    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grey: float = Field(default=0.2, ge=0, le=1)
    stain: float = Field(default=0.0, ge=0, le=0.5)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = Field(default=0.2, ge=0, le=1)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    read: DecodeSettings = DecodeSettings()

    @model_validator(mode="after")
    def _one_mean_a_channel(self) -> ViewSettings:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.read.channels:
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {self.read.channels} channels")
        return self

    @property
    def count(self) -> int:
        return 2 + self.local_count

    @property
    def total(self) -> int:
        """With those of the Gram teacher, which come last."""
        return self.count if self.gram_size is None else self.count + 2

    def size(self, view: int) -> int:
        if self.gram_size is not None and view >= self.count:
            return self.gram_size
        return self.global_size if view < 2 else self.local_size

    def scale(self, view: int) -> tuple[float, float]:
        return self.global_scale if view < 2 else self.local_scale


@dataclass(frozen=True)
class Photometry:
    """What is done to the pixels of n views; each field is one value a view.

    `order` is a permutation index 0..23 of (brightness, contrast, saturation, hue); hue is a share of the full circle;
    `quarters` counts turns by 90 degrees; `stain` [n, 6] is what is added to the strength of three stains and to their
    background.
    """

    flip: npt.NDArray[np.bool_]
    vertical: npt.NDArray[np.bool_]
    quarters: npt.NDArray[np.int64]
    brightness: Floats
    contrast: Floats
    saturation: Floats
    hue: Floats
    order: npt.NDArray[np.int64]
    grey: npt.NDArray[np.bool_]
    sigma: Floats
    solarize: npt.NDArray[np.bool_]
    stain: Floats

    def rows(self, chosen: Indices | slice) -> Photometry:
        return Photometry(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def uncoloured(self) -> Photometry:
        """Turned and flipped as before, and nothing else."""
        one, none, off = np.ones_like(self.brightness), np.zeros_like(self.hue), np.zeros_like(self.grey)
        out = replace(self, brightness=one, contrast=one, saturation=one, hue=none, sigma=none)
        return replace(out, grey=off, solarize=off, stain=np.zeros_like(self.stain))

    @staticmethod
    def joined(parts: Sequence[Photometry]) -> Photometry:
        return Photometry(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Photometry)}
        )


def view_uniforms(seed: int, epoch: int, samples: Sequence[int] | Indices, occurrence: int | Indices, view: int) -> Floats:
    """The uniform numbers [samples, columns] that decide everything about one view of each sample."""
    return uniforms(seed, epoch, samples, occurrence, view, _COLUMNS)


def crop_boxes(u: Floats, width: Indices, height: Indices, scale: tuple[float, float]) -> Indices:
    """Random resized crops of n images: [n, 4] as (left, top, right, bottom), from rows of `view_uniforms`.

    Area share uniform in `scale`, aspect log-uniform in [3/4, 4/3], ten tries, then a central crop: the rule of torchvision's
    `RandomResizedCrop.get_params`.
    """
    width, height = np.asarray(width, dtype=np.int64), np.asarray(height, dtype=np.int64)
    area = (width * height)[:, None] * (scale[0] + (scale[1] - scale[0]) * u[:, 0 : 2 * _TRIES : 2])
    aspect = np.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * u[:, 1 : 2 * _TRIES : 2])
    w, h = np.rint(np.sqrt(area * aspect)).astype(np.int64), np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    rows, attempt = np.arange(len(u)), fits.argmax(1)
    w, h = w[rows, attempt], h[rows, attempt]
    left, top = (u[:, _LEFT] * (width - w + 1)).astype(np.int64), (u[:, _TOP] * (height - h + 1)).astype(np.int64)
    none = ~fits.any(1)
    w = np.where(none, np.minimum(width, np.rint(height * (4 / 3)).astype(np.int64)), w)
    h = np.where(none, np.minimum(height, np.rint(width / (3 / 4)).astype(np.int64)), h)
    left, top = np.where(none, (width - w) // 2, left), np.where(none, (height - h) // 2, top)
    return np.stack([left, top, left + w, top + h], axis=1)


def cut(pixels: Pixels, box: Sequence[int], size: int) -> Tensor:
    """The box of an image [H, W, C], resized with antialiased bicubic interpolation to [C, size, size] of the same type.

    Cut first, so that no pixel from outside the box shines in; in whole numbers for uint8, as Pillow does it, within one level.
    """
    left, top, right, bottom = box
    part = torch.from_numpy(pixels[top:bottom, left:right]).permute(2, 0, 1)[None]
    out = functional.interpolate(part, (size, size), mode="bicubic", antialias=True)[0]
    return out if out.dtype == torch.uint8 else out.clamp_(0, 255)


def draw_photometry(u: Floats, view: int, settings: ViewSettings) -> Photometry:
    """Turn uniform numbers [n, columns] of one view into what is done to its pixels."""

    def factor(column: int, strength: float) -> Floats:
        value = np.maximum(0.0, 1 - strength) + (min(1.0, strength) + strength) * u[:, column]
        return np.where(u[:, _JITTER] < settings.jitter, value, 1.0)

    kind = min(view, 2)
    low, high = settings.blur_sigma
    jittered = u[:, _JITTER] < settings.jitter
    return Photometry(
        flip=u[:, _FLIP] < settings.flip,
        vertical=u[:, _VERTICAL] < settings.vertical_flip,
        quarters=(u[:, _QUARTERS] * 4 * settings.quarter_turns).astype(np.int64),
        brightness=factor(_BRIGHTNESS, settings.brightness),
        contrast=factor(_CONTRAST, settings.contrast),
        saturation=factor(_SATURATION, settings.saturation),
        hue=np.where(jittered, (2 * u[:, _HUE] - 1) * settings.hue, 0.0),
        order=(u[:, _ORDER] * 24).astype(np.int64),
        grey=u[:, _GREY] < settings.grey,
        sigma=np.where(u[:, _BLUR] < settings.blur[kind], low + (high - low) * u[:, _SIGMA], 0.0),
        solarize=(u[:, _SOLARIZE] < settings.solarize) & (view == 1),
        stain=(2 * u[:, _STAIN : _STAIN + 6] - 1) * settings.stain,
    )
