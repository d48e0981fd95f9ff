"""Encoded bytes to an upright picture, or one line that says why not.

For those who resize a whole picture as timm does; `opening.open_image` gives the same pixels to those who cut views from them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from selfsight.config import Settings

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decompressed."""

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""[height, width, channels]; uint8, or float32 of 0 to 255 where 8 bits would lose what the file holds."""


Picture: TypeAlias = Image.Image | Pixels
"""RGB, or pixels where the number of channels is another."""


class UndecodableError(Exception):
    """The bytes are no image that can be read; the text is the reason."""


class DecodeSettings(Settings):
    """How images are read.

    `channels` is 3 for colour; 1 reads grey, any other number reads images that have just so many. `values` says what is black
    and what is white in files of more than 8 bits a channel (the full range of their type by default).
    """

    channels: int = Field(default=3, ge=1, le=512)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    values: tuple[float, float] | None = None


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """First frame, turned as its EXIF says, as 8-bit RGB. 16-bit grey is scaled to 8; alpha is laid on white."""
    with reasons():
        image = open_pillow(data, max_pixels)
        image.load()
        return _rgb(ImageOps.exif_transpose(image))


def open_pillow(data: bytes, max_pixels: int) -> Image.Image:
    """Pillow's image, not decompressed yet."""
    if not data:
        raise UndecodableError("empty file")
    image = Image.open(io.BytesIO(data))
    check_size(image.width, image.height, max_pixels)
    return image


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableError(f"{width}x{height} pixels, more than the limit of {max_pixels}")


@contextmanager
def reasons() -> Iterator[None]:
    """Whatever a decoder raises on damaged data, as an `UndecodableError` of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only what cannot be read counts here
            yield
    except UnidentifiedImageError:
        raise UndecodableError("no known image format") from None
    except Image.DecompressionBombError as error:
        raise UndecodableError(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        # Pillow's decoders let these through on damaged data.
        raise UndecodableError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        scale = 65535.0 if image.mode != "I" or values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(values * (255 / scale), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
