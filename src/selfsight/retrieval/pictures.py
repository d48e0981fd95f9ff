"""The images behind keys, for contact sheets and to tell copies from lookalikes."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from PIL import Image

from selfsight.data.decode import DecodeSettings, Picture, decode
from selfsight.data.loader import read_picture
from selfsight.data.multichannel import decode_channels
from selfsight.data.sheet import rgb
from selfsight.data.sources import BadImage, Source
from selfsight.retrieval.index import by_key
from selfsight.sheets import fitted


class Pictures:
    """Images of a source by key, or of none where features came from a file; read when asked for."""

    def __init__(self, source: Source | None, read: DecodeSettings) -> None:
        self.source, self.read = source, read

    def small(self, key: str, side: int) -> Image.Image | None:
        """Within a square, or None: without a source, where it has no such key, and where the image cannot be read."""
        place = self._places.get(key)
        if self.source is None or place is None:
            return None
        picture = read_picture(self.source, place, self.read)
        return None if isinstance(picture, BadImage) else small(picture, side)

    def data(self, key: str) -> bytes | None:
        """The encoded image, or None as above."""
        place = self._places.get(key)
        if self.source is None or place is None:
            return None
        try:
            return self.source.image_bytes(place)
        except OSError:
            return None

    def digest(self, key: str) -> bytes | None:
        """Of the encoded image: equal for copies of a file."""
        data = self.data(key)
        return None if data is None else hashlib.blake2b(data, digest_size=20).digest()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {} if self.source is None else by_key(self.source.keys)


def opened(data: bytes, read: DecodeSettings) -> Picture:
    """One encoded image as an encoder reads it. Raises `UndecodableError`."""
    return decode(data, read.max_pixels) if read.rgb else decode_channels(data, read)


def small(picture: Picture, side: int) -> Image.Image:
    """A picture for the eye, within a square."""
    return fitted(rgb(np.asarray(picture)), side, 1.0)
