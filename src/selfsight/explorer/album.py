"""The images of a set as the page shows them: small, by their number in the source."""

from __future__ import annotations

import io

from PIL import Image

from selfsight.data.decode import DecodeSettings, Pixels, UndecodableError
from selfsight.data.loader import open_sample
from selfsight.data.sheet import rgb
from selfsight.data.sources import BadImage, Source
from selfsight.explorer.recent import Recent

SIDE = 192
"""Of the square in which a small image fits."""
_KEPT = 2000
"""Small images that are kept: some 10 MB."""


class Album:
    """Reads from one thread at a time: not every source can be read from several."""

    def __init__(self, source: Source, read: DecodeSettings) -> None:
        self.source, self.read = source, read
        self._small: Recent[int, bytes] = Recent(_KEPT)

    def __len__(self) -> int:
        return len(self.source)

    def small(self, sample: int) -> bytes:
        """A JPEG within `SIDE` pixels. `UndecodableError` where the image cannot be read."""
        return self._small.get(sample) or self._small.put(sample, self._made(sample))

    def data(self, sample: int) -> bytes:
        """The encoded image. `UndecodableError` where it cannot be read."""
        try:
            return self.source.image_bytes(sample)
        except OSError as error:
            raise UndecodableError(f"cannot be read: {error.strerror or error}") from None

    def _made(self, sample: int) -> bytes:
        image = open_sample(self.source, sample, self.read)
        if isinstance(image, BadImage):
            raise UndecodableError(image.reason)
        shrink = next((by for by in (8, 4, 2) if max(image.width, image.height) >= by * SIDE), 1)
        return jpeg(image.pixels(shrink), SIDE)


def jpeg(pixels: Pixels, side: int) -> bytes:
    """Pixels [H, W, C] as a JPEG of at most `side` pixels; nothing is enlarged."""
    image = Image.fromarray(rgb(pixels))
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
