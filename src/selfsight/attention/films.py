"""Frames on disk to a film: MP4 for players, GIF for pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from selfsight.data.sources.video_frames import import_av

_CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first of them that this build of FFmpeg has."""
_CLOCK = 60_000
"""Ticks a second of an MP4: whole ones for the usual rates, and no more than MPEG-4 can count."""
_LEAST_GIF = 20
"""Milliseconds below which browsers show a frame for longer."""


def rate_of(seconds: Sequence[float]) -> Fraction:
    """Frames a second of a film, from when its frames are shown; 1 of a single one."""
    if len(seconds) < 2:
        return Fraction(1)
    span = seconds[-1] - seconds[0]
    return Fraction((len(seconds) - 1) / span).limit_denominator(1001) if span > 0 else Fraction(25)


def write_mp4(path: Path, frames: Sequence[Path], seconds: Sequence[float]) -> None:
    """Pictures of one size with even sides, each shown at its second; the file may have any ending."""
    av = import_av()
    rate = rate_of(seconds)
    with av.open(str(path), "w", format="mp4") as container:
        codec = next((name for name in _CODECS if name in av.codecs_available), _CODECS[-1])
        stream = container.add_stream(codec, rate=rate)
        with Image.open(frames[0]) as first:
            stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        for frame, second in zip(frames, seconds, strict=True):
            with Image.open(frame) as image:
                picture = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            picture.pts = round((second - seconds[0]) * _CLOCK)
            picture.duration = round(_CLOCK / rate)
            picture.time_base = Fraction(1, _CLOCK)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_gif(path: Path, frames: Sequence[Path], seconds: Sequence[float]) -> None:
    """Pictures of one size, each shown until the next one is due; over and over. Read one at a time."""
    # A GIF counts in hundredths: what is rounded is when a frame ends, so that the film as a whole keeps its time.
    ends = [round(100 * (at - seconds[0])) for at in [*seconds, seconds[-1] + float(1 / rate_of(seconds))]]
    lasting = [max(_LEAST_GIF, 10 * (end - at)) for at, end in pairwise(ends)]
    first = _opened(frames[0])
    rest = (_opened(frame) for frame in frames[1:])
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=lasting, loop=0)
    path.write_bytes(content.getvalue())


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.quantize(128)
