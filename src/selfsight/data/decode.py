"""Encoded bytes to an upright picture, or one line that says why not.

For those who resize a whole picture as timm does; `opening.open_image` gives the same pixels to those who cut views from them.
"""

from __future__ import annotations

import functools
import io
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import Field, field_validator

from selfsight.config import Settings
from selfsight.data import tiff
from selfsight.data.undecodable import MAX_PIXELS, UndecodableError, check_channels, check_size, reasons

__all__ = ["MAX_PIXELS", "DecodeSettings", "Picture", "Pixels", "UndecodableError", "decode", "open_pillow", "to_levels"]

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""[height, width, channels]; uint8, or float32 of 0 to 255 where 8 bits would lose what the file holds."""

Picture: TypeAlias = Image.Image | Pixels
"""RGB, or pixels where the number of channels is another."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow knows others. Some of them start programs (EPS), and each is one more parser of bytes from anywhere."""


class DecodeSettings(Settings):
    """How images are read.

    `channels` is 3 for colour; 1 reads grey, any other number reads images that have just so many. `values` says what is black
    and what is white in files of more than 8 bits a channel (the full range of their type by default, 0 to 1 of floats).
    """

    channels: int = Field(default=3, ge=1, le=512)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    values: tuple[float, float] | None = None

    @field_validator("values")
    @classmethod
    def _two_different(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and values[0] == values[1]:
            raise ValueError(f"black and white must differ, got {values[0]:g} for both")
        return values

    @property
    def rgb(self) -> bool:
        """Read as every other program would: `decode` gives the picture."""
        return self.channels == 3 and self.values is None


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """First frame, turned as its EXIF says, as 8-bit RGB. More than 8 bits are scaled to 8; alpha is laid on white."""
    with reasons():
        wide = _wide(data, max_pixels) if tiff.is_tiff(data) else None
        if wide is not None:
            return _rgb(wide)
        image = open_pillow(data, max_pixels)
        image.load()
        return _rgb(ImageOps.exif_transpose(image))


def open_pillow(data: bytes, max_pixels: int) -> Image.Image:
    """Pillow's image, not decompressed yet."""
    if not data:
        raise UndecodableError("empty file")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow refuses more than twice its own limit, which is one for the whole process and ends below ours.
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    if tiff.is_tiff(data):
        tiff.quieten_libtiff()
    image = Image.open(io.BytesIO(data), formats=_formats())
    check_size(image.width, image.height, max_pixels)
    return image


def to_levels(values: npt.NDArray[Any], settings: DecodeSettings, white: float | None = None) -> Pixels:
    """Values of any type to 0 to 255: uint8 as it is, float32 of whatever has more bits.

    `white` is the largest value where it is not that of the type, as in 12 bits.
    """
    values = np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8 and white in (None, 255):
        return values
    if settings.values is not None:
        low, high = settings.values
    elif np.issubdtype(values.dtype, np.integer):
        low, high = 0.0, white or float(np.iinfo(values.dtype).max)
    else:
        low, high = 0.0, 1.0
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.nan_to_num(scaled), 0, 255)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _wide(data: bytes, max_pixels: int) -> Image.Image | None:
    """A TIFF of more than 8 bits, of which Pillow reads some planar ones wrongly and others not at all; None if it has 8."""
    page = tiff.first_page(data)
    if page.samples > 4:
        check_channels(page.samples, 3)
    if page.bytes_a_sample == 1 or page.samples == 2 or page.photometric > tiff.RGB:
        return None
    bands = tiff.read_bands(data, page.samples, max_pixels)
    levels = _eight_bits(to_levels(bands.values, DecodeSettings(), bands.white))
    if page.samples == 1:
        return Image.fromarray(levels[:, :, 0])
    if page.samples == 3 or not page.alpha:
        return Image.fromarray(levels[:, :, :3])
    mode = "RGBa" if page.alpha == tiff.PREMULTIPLIED else "RGBA"
    return Image.frombytes(mode, levels.shape[1::-1], levels.tobytes()).convert("RGBA")


def _eight_bits(levels: Pixels) -> npt.NDArray[np.uint8]:
    return np.rint(levels).astype(np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        # Pillow holds 16 bits in 32 for some formats.
        levels = to_levels(values, DecodeSettings(), 65535 if image.mode == "I" else None)
        return Image.fromarray(_eight_bits(levels)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
