"""Small videos for tests, whose frames say by bars of black and white which they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

BITS, BAR, HEIGHT = 10, 8, 32


def numbered(number: int, grain: bool = False) -> npt.NDArray[np.uint8]:
    """[HEIGHT, BITS * BAR, 3]; with `grain` the lower part is noise, which takes many bytes."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(BITS)], dtype=np.uint8)
    picture = np.broadcast_to(np.repeat(bits, BAR)[None, :, None], (HEIGHT, BITS * BAR, 3)).copy()
    if grain:
        picture[HEIGHT - 8 :] = np.random.default_rng(number).integers(256, size=(8, BITS * BAR, 3))
    return picture


def number_in(pixels: npt.NDArray[np.uint8]) -> int:
    bars = pixels[HEIGHT // 2, BAR // 2 :: BAR, 0]
    return sum(1 << bit for bit, bar in enumerate(bars) if bar > 127)


def film(
    path: Path,
    count: int,
    codec: str = "libx264",
    rate: int = 10,
    *,
    gop: int = 12,
    bframes: int = 0,
    stamps: Sequence[int] | None = None,
    pixels: str = "yuv420p",
    rotation: int = 0,
    first: int = 0,
    grain: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """`count` frames numbered from `first`; `stamps` are their times in 1 / `rate` s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = BITS * BAR, HEIGHT, pixels
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.gop_size = gop
        if codec not in ("ffv1", "mjpeg", "libvpx-vp9", "libvpx", "rawvideo"):
            stream.codec_context.max_b_frames = bframes
        if codec == "libx264":
            stream.options = {"sc_threshold": "0", "b-adapt": "0", "bf": str(bframes), "preset": "ultrafast"}
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(first + number, grain), format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def still(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    """A video of one frame, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def encoded(path: Path, frames: npt.NDArray[np.uint8], rate: int = 10) -> Path:
    """Frames [T, height, width, 3] as H.264, which loses a little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Every frame, by decoding all from the start to the end or to the first damage."""
    pictures = []
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
    return pictures
