"""Files that scenes are made of: cut-outs with alpha, and images for textures and grounds. Decoded once, kept within a limit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from selfsight.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float32]

_MOST_PIXELS = 100_000_000
_KEPT = 256 * 2**20


class Cutout(NamedTuple):
    """`levels` are RGBA images, each of half the sides of the one before, cut to the box of what is not transparent; `radius` is
    that of the bounding circle about the middle of the first, in its pixels."""

    levels: tuple[Image.Image, ...]
    radius: float


class Pictures:
    """Images below `base`, by their relative paths."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._kept: OrderedDict[str, tuple[int, Cutout | Image.Image]] = OrderedDict()
        self._size = 0

    def cutout(self, name: str) -> Cutout:
        """`DataError` where it is no image with something opaque and something transparent."""
        found = self._known(f"cutout {name}")
        if not isinstance(found, Cutout):
            found = _cutout(_opened(self.base / name), self.base / name)
            self._keep(f"cutout {name}", found, 6 * found.levels[0].width * found.levels[0].height)
        return found

    def image(self, name: str) -> Image.Image:
        """RGB; `DataError` where it is no image."""
        found = self._known(f"image {name}")
        if not isinstance(found, Image.Image):
            found = _opened(self.base / name).convert("RGB")
            self._keep(f"image {name}", found, 3 * found.width * found.height)
        return found

    def _known(self, key: str) -> Cutout | Image.Image | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def _keep(self, key: str, found: Cutout | Image.Image, size: int) -> None:
        self._kept[key] = size, found
        self._size += size
        while self._size > _KEPT and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1][0]


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{path}: has {image.width} x {image.height} pixels; expected at most {_MOST_PIXELS:,} of them")
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({str(error) or type(error).__name__})") from None


def _cutout(image: Image.Image, path: Path) -> Cutout:
    if "A" not in image.getbands() and "transparency" not in image.info:
        raise DataError(f"{path}: has no alpha channel; expected a cut-out, an object on transparent ground")
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"))
    if not (alpha >= 128).any():
        raise DataError(f"{path}: has no opaque pixel; expected a cut-out, an object on transparent ground")
    if (alpha >= 128).all():
        raise DataError(f"{path}: has no transparent pixel; expected a cut-out, an object on transparent ground")
    box = image.getchannel("A").point(lambda value: 255 if value >= 128 else 0).getbbox()
    left, top, right, bottom = box or (0, 0, image.width, image.height)
    y, x = np.nonzero(alpha[top:bottom, left:right] >= 128)
    radius = float(np.hypot(x + 0.5 - (right - left) / 2, y + 0.5 - (bottom - top) / 2).max()) + 0.5
    levels = [image.crop((left, top, right, bottom))]
    while min(levels[-1].size) > 8:
        last = levels[-1]
        levels.append(last.resize(((last.width + 1) // 2, (last.height + 1) // 2), Image.Resampling.BOX))
    return Cutout(tuple(levels), radius)


def cropped(photograph: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A part of the photograph of the picture's shape, from half of what fits to all, and not enlarged where it need not be."""
    fits = min(photograph.width / size[0], photograph.height / size[1])
    share, across, down = rng.uniform(0.5, 1), rng.uniform(), rng.uniform()
    scale = min(fits, max(fits * share, 1.0))
    width, height = size[0] * scale, size[1] * scale
    left, top = across * (photograph.width - width), down * (photograph.height - height)
    part = photograph.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height), reducing_gap=2.0)
    return scaled(np.asarray(part))


def scaled(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Bytes as values from 0 to 1."""
    return pixels.astype(np.float32) / np.float32(255)
