"""Images of one, two, four or more channels: grey, and the bands of a multispectral TIFF; three with a range of values given."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from selfsight.data import tiff
from selfsight.data.decode import DecodeSettings, Pixels, decode, open_pillow, to_levels
from selfsight.data.orientation import ORIENTATION, upright, valid
from selfsight.data.undecodable import UndecodableError, check_channels, reasons

_PNG_DEPTH = 24
"""Where the head of a PNG says how many bits a channel has."""


def decode_channels(data: bytes, settings: DecodeSettings) -> Pixels:
    """[height, width, channels] with just so many channels as the settings say; raises `UndecodableError`."""
    if not data:
        raise UndecodableError("empty file")
    with reasons():
        bands = _tiff(data, settings) if tiff.is_tiff(data) else _pillow(data, settings)
        if bands is None:
            picture = np.array(decode(data, settings.max_pixels).convert("L" if settings.channels == 1 else "RGB"))
            return picture.reshape(*picture.shape[:2], settings.channels)
        values = bands.values
        if settings.channels == 3 and values.shape[2] == 1:
            values = np.repeat(values, 3, axis=2)
        check_channels(values.shape[2], settings.channels)
        return to_levels(values, settings, bands.white)


def _tiff(data: bytes, settings: DecodeSettings) -> tiff.Bands | None:
    """None for what is a picture of 8 bits, of which grey or colours are wanted."""
    page = tiff.first_page(data)
    if (settings.channels == 1 and page.picture) or (settings.channels == 3 and page.bytes_a_sample == 1):
        return None
    return tiff.read_bands(data, 1 if settings.channels == 3 and page.grey else settings.channels, settings.max_pixels)


def _pillow(data: bytes, settings: DecodeSettings) -> tiff.Bands | None:
    """None as above."""
    image = open_pillow(data, settings.max_pixels)
    if settings.channels != 1 and image.format == "PNG" and data[_PNG_DEPTH] == 16:
        return tiff.Bands(_deep_png(data, image), None)
    if settings.channels in (1, 3) and not (image.mode.startswith("I") or image.mode == "F"):
        return None
    values = np.array(ImageOps.exif_transpose(image))
    return tiff.Bands(values if values.ndim == 3 else values[:, :, None], 65535 if image.mode == "I" else None)


def _deep_png(data: bytes, image: Image.Image) -> npt.NDArray[Any]:
    """Of the 16 bits of colours Pillow keeps eight."""
    values = imagecodecs.png_decode(data)
    return upright(values if values.ndim == 3 else values[:, :, None], valid(image.getexif().get(ORIENTATION)))
