"""Images of one, two, four or more channels: grey, and the bands of a multispectral TIFF."""

from __future__ import annotations

import io
import math

import numpy as np
import tifffile
from PIL import ImageOps

from selfsight.data.decode import DecodeSettings, Pixels, UndecodableError, check_size, decode, open_pillow, reasons

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode_channels(data: bytes, settings: DecodeSettings) -> Pixels:
    """[height, width, channels] with just so many channels as the settings say; raises `UndecodableError`."""
    if not data:
        raise UndecodableError("empty file")
    with reasons():
        if data.startswith(_TIFF):
            return _from_tiff(data, settings)
        image = open_pillow(data, settings.max_pixels)
        if settings.channels == 1 and not image.mode.startswith("I"):
            return np.array(decode(data, settings.max_pixels).convert("L"))[:, :, None]
        values = np.array(ImageOps.exif_transpose(image))
        return _checked(values if values.ndim == 3 else values[:, :, None], settings)


def _from_tiff(data: bytes, settings: DecodeSettings) -> Pixels:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            axes = series.axes
            shape = dict(zip(axes, series.shape, strict=True))
            check_size(shape.get("X", 0), shape.get("Y", 0), settings.max_pixels)
            if math.prod(series.shape) > settings.max_pixels * settings.channels:
                raise UndecodableError(f"{math.prod(series.shape)} values, more than the limit allows")
            values = series.asarray()
    except tifffile.TiffFileError as error:
        raise UndecodableError(str(error)) from None
    if values.ndim == 3 and values.shape[2] == settings.channels != values.shape[0]:
        return _checked(values, settings)  # also an array [H, W, C] that was stored as H pages
    # Bands are samples (S), channels (C) or pages of an unnamed axis (I, Q); whichever holds them goes last.
    bands = [axis for axis in axes if axis not in "YX" and shape[axis] > 1]
    if len(bands) > 1:
        raise UndecodableError(f"axes {axes} of {series.shape}; expected height, width and one axis of bands")
    order = [axes.index(axis) for axis in ("Y", "X", *bands)]
    rest = [place for place in range(len(axes)) if place not in order]
    values = values.transpose(*rest, *order).reshape([values.shape[place] for place in order])
    return _checked(values if values.ndim == 3 else values[:, :, None], settings)


def _checked(values: np.ndarray, settings: DecodeSettings) -> Pixels:
    """The right number of channels, scaled to 0 to 255."""
    if values.shape[2] != settings.channels:
        raise UndecodableError(f"{values.shape[2]} channels, not {settings.channels}")
    if values.dtype == np.uint8 and settings.values is None:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return np.ascontiguousarray(values).astype(np.uint8) * np.uint8(255)
    if settings.values is not None:
        low, high = settings.values
    elif np.issubdtype(values.dtype, np.integer):
        low, high = 0.0, float(np.iinfo(values.dtype).max)
    else:
        low, high = 0.0, 1.0
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.nan_to_num(scaled), 0, 255)
