"""Small pictures of what an encoder looks at, and of what is there, for the report."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from selfsight.attention.colouring import heat
from selfsight.attention.seeing import Seen
from selfsight.data.decode import Picture
from selfsight.evaluate.segmentation import MASSES, Things, kept, maps_of
from selfsight.masks import Bools, boundary

SIDE = 208
"""Pixels of the longer side."""
_METRIC = "jaccard_60"
_DIMMED, _COVER = 0.35, 0.72

Doubles = npt.NDArray[np.float64]


class Drawn(NamedTuple):
    """A row of `looks.parquet`; of the truth `encoder` and `method` are empty and `value` is 1."""

    key: str
    encoder: str
    method: str
    value: float
    jpeg: bytes


def drawn_truth(key: str, picture: Picture, things: Things) -> Drawn:
    """The picture, dark where no thing is, each thing in an outline of its own."""
    pixels = _pixels(picture)
    masks = [_as_large(mask, pixels.shape[:2]) for mask in things.masks]
    light = np.where(np.any(masks, axis=0), 1.0, _DIMMED)[..., None]
    return Drawn(key, "", "", 1.0, _jpeg(_outlined(pixels * light, masks)))


def drawn_look(key: str, encoder: str, method: str, picture: Picture, seen: Seen, things: Things) -> Drawn:
    """A map laid over the grey picture, and the outline of the places that hold 60 % of it."""
    places = maps_of(seen)[method]
    mask = kept(places, MASSES[_METRIC]).reshape(seen.grid)
    pixels = _pixels(picture)
    grey = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    shades = heat(_smooth(_scaled(places).reshape(seen.grid), pixels.shape[:2]))
    value = float(things.jaccard(mask[None]).mean())
    return Drawn(
        key, encoder, method, value, _jpeg(_outlined((1 - _COVER) * grey + _COVER * shades, [_as_large(mask, grey.shape)]))
    )


def _pixels(picture: Picture) -> Doubles:
    """[h, w, 3] of 0 to 255, of which the longer side is `SIDE`; other numbers of channels are shown in grey."""
    if isinstance(picture, np.ndarray):
        grey = picture.mean(2, dtype=np.float32)
        picture = Image.fromarray(np.clip(grey, 0, 255, out=grey).astype(np.uint8)).convert("RGB")
    scale = SIDE / max(picture.size)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC
    )
    return np.asarray(small, dtype=np.float64)


def _as_large(mask: Bools, shape: tuple[int, ...]) -> Bools:
    return np.asarray(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def _smooth(places: Doubles, shape: tuple[int, ...]) -> Doubles:
    large = Image.fromarray(places.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(large, dtype=np.float64), 0, 1)


def _scaled(places: Doubles) -> Doubles:
    """From the least place at 0 to the highest but one in a hundred at 1."""
    low, high = places.min(), np.percentile(places, 99)
    return np.clip((places - low) / max(high - low, 1e-12), 0, 1)


def _outlined(pixels: Doubles, masks: list[Bools]) -> Doubles:
    """White outlines that are dark at their sides, so that they are seen on any ground."""
    lines = np.zeros(pixels.shape[:2], dtype=np.bool_)
    for mask in masks:
        lines |= boundary(mask)
    around = ndimage.binary_dilation(lines, iterations=1)
    out = np.where(around[..., None], pixels * 0.4, pixels)
    return np.where(lines[..., None], 255.0, out)


def _jpeg(pixels: Doubles) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(data, "JPEG", quality=88)
    return data.getvalue()
