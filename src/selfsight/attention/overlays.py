"""Objects laid over the frames of a video, as a film."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from selfsight.data.object_ids import Ids, palette
from selfsight.data.sources.video_frames import import_av

if TYPE_CHECKING:
    from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]

_STRENGTH = 0.35
"""Share of an object's colour in its pixels."""
_LINE = 300
"""The outline is a pixel wide, and one more for as many pixels of the shorter side."""
_QUALITY = "20"
"""Of x264: smaller is better and larger."""


def overlaid(picture: Image.Image, ids: Ids) -> Pixels:
    """[h, w, 3]: the picture with each object [h, w] tinted and outlined in its colour, at full brightness."""
    pixels = np.asarray(picture).astype(np.float32)
    colours = _bright()[ids]
    shown = ids > 0
    pixels[shown] += _STRENGTH * (colours[shown] - pixels[shown])
    outline = _outline(ids, 1 + min(ids.shape) // _LINE)
    pixels[outline] = colours[outline]
    return np.rint(pixels).astype(np.uint8)


def write_film(path: Path, frames: Iterable[Pixels], rate: float) -> None:
    """Frames [h, w, 3] of one size as an MP4 that browsers play (H.264 where PyAV has it). One frame is held at a time."""
    av = import_av()
    with av.open(str(path), "w", format="mp4") as film:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: VideoStream = film.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": _QUALITY}
        for number, pixels in enumerate(frames):
            # Colour has half the resolution, so that sides must be even.
            even = np.pad(pixels, ((0, len(pixels) % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
            if not number:
                stream.height, stream.width = even.shape[:2]
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        film.mux(stream.encode(None))


def _bright() -> npt.NDArray[np.float32]:
    """[256, 3]: the hues of the palette, the strongest channel at 255."""
    colours = palette().astype(np.float32)
    return colours * (255 / np.maximum(colours.max(axis=1, keepdims=True), 1))


def _outline(ids: Ids, width: int) -> npt.NDArray[np.bool_]:
    """The pixels of objects that are within `width` of something else; the edge of the picture is nothing else."""
    size = 2 * width + 1
    same = ndimage.minimum_filter(ids, size, mode="nearest") == ndimage.maximum_filter(ids, size, mode="nearest")
    return ~same & (ids > 0)
