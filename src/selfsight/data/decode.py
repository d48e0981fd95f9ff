"""Encoded bytes to an upright RGB picture, or one line that says why not."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decompressed."""


class UndecodableError(Exception):
    """The bytes are no image that can be read; the text is the reason."""


def decode(data: bytes) -> Image.Image:
    """First frame, turned as its EXIF says, as 8-bit RGB. 16-bit grey is scaled to 8; alpha is laid on white."""
    if not data:
        raise UndecodableError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only what cannot be read counts here
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise UndecodableError(f"{image.width}x{image.height} pixels, more than the limit of {MAX_PIXELS}")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise UndecodableError("no known image format") from None
    except Image.DecompressionBombError as error:
        raise UndecodableError(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        # Pillow's decoders let these through on damaged data.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UndecodableError(reason) from None


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
