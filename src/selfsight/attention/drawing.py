"""Maps laid on their pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from selfsight.attention.colouring import heat
from selfsight.attention.kinds import MAPS
from selfsight.data.decode import Picture
from selfsight.data.sheet import rgb
from selfsight.sheets import GROUND

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height."""

_LEAST, _MOST = 320, 2048
"""Sides in pixels between which a picture is drawn: small ones are enlarged by a whole number, so that a map can be seen."""
_GROUND = 0.35
"""How much of a heat map is the picture under it, in grey where the map is 0 and less where it is 1."""
_DARK = 0.3
"""How bright the picture is outside a mask."""
_EDGE = (255, 221, 87)
_GAP = 4


def for_the_eye(picture: Picture) -> Image.Image:
    """RGB in the size at which maps of it are drawn."""
    image = Image.fromarray(rgb(np.asarray(picture)))
    longer = max(image.size)
    if longer > _MOST:
        return image.resize(_scaled(image.size, _MOST / longer), Image.Resampling.LANCZOS)
    times = max(1, -(-_LEAST // longer))
    return image if times == 1 else image.resize(_scaled(image.size, times), Image.Resampling.NEAREST)


def overlay(name: str, values: Array, image: Image.Image) -> Image.Image:
    """The map `name` as `kinds.made` gives it, on its picture; of several heads a mosaic on one scale."""
    draws = MAPS[name].draws
    if draws == "mask":
        return _masked(values, image)
    if draws == "colours":
        return _coloured(values, image)
    scaled = between(values)
    if values.ndim == 2:
        return _heated(scaled, image)
    return _mosaic([_heated(each, image) for each in scaled])


def between(values: Array) -> npt.NDArray[np.float32]:
    """To 0 to 1, from the least to the greatest; what is the same everywhere to 0."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low if high > low else 1.0)).astype(np.float32)


def _heated(values: Array, image: Image.Image) -> Image.Image:
    """[h, w] of 0 to 1: its colours over the picture in grey."""
    shares = _enlarged(values, image.size)
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    ground = _GROUND * (1 - 0.5 * shares[..., None])
    return Image.fromarray(np.rint((1 - ground) * heat(shares) + ground * grey).astype(np.uint8))


def _coloured(values: Array, image: Image.Image) -> Image.Image:
    """[h, w, 3] of 0 to 1, as they are: a place is a square, as what lies between colours means nothing. Where there is no
    colour, the picture in dark grey."""
    colours = np.asarray(Image.fromarray(np.rint(255 * values).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST))
    grey = _DARK * np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray(np.where(colours.any(axis=2, keepdims=True), colours, grey).astype(np.uint8))


def _masked(values: Array, image: Image.Image) -> Image.Image:
    """The picture where the mask [h, w] is, dark and grey elsewhere, with an edge between."""
    kept = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.NEAREST))
    grey = _DARK * np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    pixels = np.where(kept[..., None], np.asarray(image), grey).astype(np.uint8)
    width = max(1, round(max(image.size) / 200))
    pixels[_edge(kept, width)] = _EDGE
    return Image.fromarray(pixels)


def _edge(kept: Array, width: int) -> npt.NDArray[np.bool_]:
    from scipy import ndimage

    inside = ndimage.binary_erosion(kept, iterations=width, border_value=1)
    found: npt.NDArray[np.bool_] = kept & ~inside
    return found


def _enlarged(values: Array, size: Size) -> npt.NDArray[np.float32]:
    """[h, w] -> [height, width], smoothly between the centres of places."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _mosaic(images: list[Image.Image]) -> Image.Image:
    """As near to the shape of one as can be, and about as large."""
    across = math.ceil(math.sqrt(len(images)))
    down = -(-len(images) // across)
    side = max(1, images[0].width // across), max(1, images[0].height // across)
    whole = Image.new("RGB", (across * side[0] + (across - 1) * _GAP, down * side[1] + (down - 1) * _GAP), GROUND)
    for number, image in enumerate(images):
        row, column = divmod(number, across)
        whole.paste(image.resize(side, Image.Resampling.LANCZOS), (column * (side[0] + _GAP), row * (side[1] + _GAP)))
    return whole


def marked(image: Image.Image, at: tuple[float, float]) -> Image.Image:
    """With a ring around a point, given as shares of width and height."""
    image = image.copy()
    x, y = at[0] * image.width, at[1] * image.height
    pen = ImageDraw.Draw(image)
    for radius, colour in ((0.03, (0, 0, 0)), (0.024, (255, 255, 255))):
        r = radius * max(image.size)
        pen.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=max(2, round(r / 3)))
    return image


def _scaled(size: Size, by: float) -> Size:
    return max(1, round(size[0] * by)), max(1, round(size[1] * by))
