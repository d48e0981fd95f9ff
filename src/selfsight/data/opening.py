"""Encoded bytes to an image that knows its size first and decodes later, maybe at a fraction of the size."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from selfsight.data.decode import DecodeSettings, Pixels, decode
from selfsight.data.jpeg import open_fast
from selfsight.data.multichannel import decode_channels


class OpenedImage(Protocol):
    """An image of which the size is known, upright, and the pixels are not decoded yet."""

    width: int
    height: int

    def pixels(self, shrink: int = 1) -> Pixels:
        """[height, width, channels]; each side divided by `shrink` (1, 2, 4 or 8) and rounded up where the format offers it.

        Raises `UndecodableError`.
        """


def open_image(data: bytes, settings: DecodeSettings | None = None) -> OpenedImage:
    """The image in some bytes; raises `UndecodableError`."""
    settings = settings or DecodeSettings()
    if settings.rgb:
        return open_fast(data, settings.max_pixels) or _Whole(np.array(decode(data, settings.max_pixels)))
    return _Whole(decode_channels(data, settings))


class _Whole:
    """Pixels that had to be decoded to know anything of them."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def pixels(self, shrink: int = 1) -> Pixels:
        return self._pixels
