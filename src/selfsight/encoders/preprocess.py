"""From a picture to the tensor that an encoder takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsight.data.decode import Picture, Pixels
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError

Triple: TypeAlias = tuple[float, float, float]
Channels: TypeAlias = tuple[float, ...]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
OPTIONS = ("size", "aspect", "mean", "std", "crop", "interpolation")
_ASPECTS = ("square", "keep", "squash", "whole")
_LEAST_SIDE = 8
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_LONGEST_ASPECT = 8


@dataclass(frozen=True)
class Preprocess:
    """Shorter side to `size / crop_pct` pixels, central square of `size`, then `(pixel / 255 - mean) / std`.

    The evaluation transform of timm and torchvision, to the pixel. Pillow widens its filter when it shrinks (antialias), so
    the result is the same on every machine. Picklable, for the workers that load images.

    With a `width` of its own the picture is `size` high and `width` wide. With `aspect` keep the shorter side becomes `size` and
    the longer one follows the picture, down to a whole number of `multiple` pixels; nothing more is cut away. With squash the
    whole picture is pressed into the shape; with whole it is pressed, too, but no more than it takes to make both sides whole
    numbers of `multiple` pixels, so that a place in a map is a place in the picture.
    """

    size: int = 224
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    width: int | None = None
    aspect: str = "square"
    multiple: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width; where the aspect is kept, those of a square picture."""
        return self.size, self.width or self.size

    @property
    def one_shape(self) -> bool:
        """Whether all pictures come out in the same shape."""
        return self.aspect not in ("keep", "whole")

    @property
    def text(self) -> str:
        """What becomes of a picture, for people: `224 px`, `224 x 448 px` (height, width) or `224 px, aspect kept`."""
        if self.aspect == "keep":
            return f"{self.size} px, aspect kept"
        if self.aspect == "squash":
            return f"{self.size} px, squashed"
        if self.aspect == "whole":
            return f"{self.size} px, whole pictures"
        return f"{self.size} px" if self.width is None else f"{self.size} x {self.width} px"

    def __call__(self, image: Picture) -> Tensor:
        """RGB picture, or pixels [H, W, C], -> float32 [C, height, width]."""
        cut = self._cut_of_channels(image) if isinstance(image, np.ndarray) else np.array(self._cut(image))
        pixels = torch.from_numpy(cut).permute(2, 0, 1).to(torch.float32).div(255)
        return (pixels - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)

    def _cut_of_channels(self, pixels: Pixels) -> Pixels:
        """The same cut for any number of channels, each resized as Pillow resizes a plane of floats."""
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack([np.asarray(self._cut(plane)) for plane in planes], axis=2).clip(0, 255)

    def _cut(self, image: Image.Image) -> Image.Image:
        pressed = self.aspect in ("squash", "whole")
        image = image if pressed else _without_far_ends(image)
        width, height = image.size
        wanted_height, wanted_width = self._wanted(height, width)
        crop = 1.0 if self.aspect in ("keep", "whole") else self.crop_pct
        box_height, box_width = math.floor(wanted_height / crop), math.floor(wanted_width / crop)
        if pressed:
            width, height = box_width, box_height
        elif width * box_height <= height * box_width:
            width, height = box_width, int(box_width * height / width)
        else:
            width, height = int(box_height * width / height), box_height
        # Rounding down may take from the longer side the pixel that it needs.
        width, height = max(width, wanted_width), max(height, wanted_height)
        if (width, height) != image.size:
            image = image.resize((width, height), _FILTERS[self.interpolation])
        left, top = round((width - wanted_width) / 2), round((height - wanted_height) / 2)
        return image.crop((left, top, left + wanted_width, top + wanted_height))

    def _wanted(self, height: int, width: int) -> tuple[int, int]:
        """What is left of a picture of this height and width."""
        if self.aspect == "whole":
            scale = self.size / min(height, width)
            return self._near(height * scale), self._near(width * scale)
        if self.one_shape:
            return self.shape
        longer = self.size * max(height, width) // min(height, width)
        longer = max(self.size, longer // self.multiple * self.multiple)
        return (longer, self.size) if height > width else (self.size, longer)

    def _near(self, length: float) -> int:
        """In whole multiples; of what is far longer than wide the longer side is pressed together."""
        return max(1, round(min(length, self.size * _LONGEST_ASPECT) / self.multiple)) * self.multiple


def from_timm(config: Mapping[str, Any]) -> Preprocess:
    """What a timm network was trained for, from its `pretrained_cfg`."""
    interpolation = str(config.get("interpolation", "bicubic"))
    return Preprocess(
        size=int(config["input_size"][-1]),
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        crop_pct=float(config.get("crop_pct") or 0.875),
        interpolation=interpolation if interpolation in _FILTERS else "bicubic",
        aspect="squash" if config.get("crop_mode") == "squash" else "square",
    )


def plain_crop(size: int) -> float:
    """The usual share of the picture that is kept: 224 of 256; small pictures are shown whole."""
    return 1.0 if size < 100 else 0.875


def with_options(default: Preprocess, spec: Spec) -> Preprocess:
    """`default` with the options `size`, `aspect`, `mean`, `std`, `crop` and `interpolation` of the spec laid on it."""
    height, width = _sides(spec, default)
    aspect = spec.choice("aspect", (default.aspect, *(kind for kind in _ASPECTS if kind != default.aspect)))
    if aspect not in ("square", "squash") and width is not None:
        raise WeightsError(f"{spec.text}: 'aspect={aspect}' needs the shorter side alone, such as size={height}")
    return replace(
        default,
        size=height,
        width=width,
        aspect=aspect,
        mean=_numbers(spec, "mean", default.mean),
        std=_numbers(spec, "std", default.std),
        crop_pct=_share(spec, default.crop_pct),
        interpolation=spec.choice("interpolation", (default.interpolation, *(f for f in _FILTERS if f != default.interpolation))),
    )


def _sides(spec: Spec, default: Preprocess) -> tuple[int, int | None]:
    """Height, and the width where `size` names one, as in `224x448`."""
    height, by, width = spec.options.get("size", "").partition("x")
    if not by:
        return spec.number("size", default.size, least=_LEAST_SIDE), None if "size" in spec.options else default.width
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= _LEAST_SIDE):
        raise WeightsError(
            f"{spec.text}: 'size' must be a whole number from {_LEAST_SIDE}, or height x width such as 224x448; "
            f"got '{spec.options['size']}'"
        )
    return int(height), None if width == height else int(width)


def _numbers(spec: Spec, key: str, default: Channels) -> Channels:
    text = spec.options.get(key)
    if text is None:
        return default
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(default) or not all(math.isfinite(v) for v in values) or (key == "std" and min(values) <= 0):
        above = " above 0" if key == "std" else ""
        count = "three" if len(default) == 3 else str(len(default))
        raise WeightsError(f"{spec.text}: '{key}' must be {count} numbers{above} such as {_written(default)}; got '{text}'")
    return values


def _share(spec: Spec, default: float) -> float:
    text = spec.options.get("crop")
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise WeightsError(f"{spec.text}: 'crop' must be a number above 0 and up to 1, such as 0.875; got '{text}'")
    return value


def _written(values: Channels) -> str:
    return ",".join(f"{v:g}" for v in values)


def _without_far_ends(image: Image.Image) -> Image.Image:
    """A 10 x 10000 strip would be enlarged to gigabytes before all but its middle is cut away."""
    width, height = image.size
    longest = _LONGEST_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, width - left, height - top))
