"""Frames of one video file: which there are and when they are shown, and pictures of them in any order.

What frames there are is read from the packets, without decoding. Decoding can begin at a keyframe only, so that of a frame
begins at the last keyframe shown before it, or goes on from where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.data.draws import Floats, Indices
from selfsight.errors import DataError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Sampling = Callable[[Floats], npt.NDArray[np.intp]]
"""Places of the frames to take, from the seconds at which all are shown."""


class Frames(NamedTuple):
    """Some frames of a video in the order in which they are shown.

    `pts` is the time stamp of each, `keyframe` that of the keyframe where its decoding begins, and `seek` what is to be asked
    of the file to get there. Where a file has no time stamps, all three count frames, and decoding begins with the first.
    `second` is the time since the first frame.
    """

    pts: Indices
    keyframe: Indices
    seek: Indices
    second: Floats
    counted: bool


def every_nth(step: int) -> Sampling:
    """Every `step`-th frame."""
    return lambda seconds: np.arange(0, len(seconds), step)


def per_second(rate: float) -> Sampling:
    """The first frame of each 1 / `rate` seconds; all frames where there are fewer."""
    return lambda seconds: np.unique(np.floor(seconds * rate + 1e-6), return_index=True)[1]


def list_frames(path: str, sampling: Sampling) -> Frames:
    """The frames that `sampling` takes. `OSError` where the file is no video, or one without frames."""
    av = import_av()
    try:
        with open_video(path) as container:
            frames = _from_packets(container, sampling)
        if frames is None:
            with open_video(path) as container:
                frames = _from_pictures(container, sampling)
    except (av.FFmpegError, ValueError) as error:
        raise OSError(_said(error)) from None
    if len(frames.pts) == 0:
        raise OSError("holds no frame")
    return frames


class OpenVideo:
    """A decoder at some place of a video. `decoded` counts what it has decoded."""

    def __init__(self, path: str, counted: bool) -> None:
        self._path, self._counted = path, counted
        self._container: InputContainer | None = None
        self._pictures: Iterator[VideoFrame] = iter(())
        self._at: int | None = None
        self.decoded = 0

    def close(self) -> None:
        self._pictures = iter(())
        if self._container is not None:
            self._container.close()
        self._container = self._at = None

    def frame(self, frames: Frames, place: int, keep: Callable[[int, VideoFrame], None]) -> VideoFrame:
        """The frame at `place` of `frames`; `keep` gets the place and picture of those passed on the way.

        `OSError` where it cannot be decoded.
        """
        av = import_av()
        try:
            for begin in self._beginnings(frames, place):
                found = self._forward(frames, place, begin, keep)
                if found is not None:
                    return found
        except (av.FFmpegError, ValueError) as error:
            self.close()
            raise OSError(_said(error)) from None
        raise OSError("its frame cannot be decoded")

    def _beginnings(self, frames: Frames, place: int) -> Iterator[int | None]:
        """Time stamps from which frames can be trusted, each after a seek: here, the keyframe, the one before, and the start."""
        keyframe, target = int(frames.keyframe[place]), int(frames.pts[place])
        if self._at is not None and keyframe <= self._at < target:
            yield self._at
        if not frames.counted:
            keyframes, first = np.unique(frames.keyframe[: place + 1], return_index=True)
            for number in range(len(keyframes) - 1, max(-1, len(keyframes) - 3), -1):
                self._seek(int(frames.seek[first[number]]))
                yield int(keyframes[number])
        self._seek(None)
        yield None

    def _seek(self, stamp: int | None) -> None:
        """To a time stamp, or with a new decoder to the start."""
        if self._container is None or stamp is None:
            self.close()
            self._container = open_video(self._path)
        stream = video_stream(self._container)
        if stamp is not None:
            self._container.seek(stamp, stream=stream)
        self._at = None
        self._pictures = _pictures(self._container, stream, self._counted)

    def _forward(
        self, frames: Frames, place: int, begin: int | None, keep: Callable[[int, VideoFrame], None]
    ) -> VideoFrame | None:
        """Decode up to a frame; None where it does not come, as there was nothing decodable so near to it.

        From the start of the file the frame shown before stands for one that never comes: some packets show nothing.
        """
        target = int(frames.pts[place])
        before = None
        for picture in self._pictures:
            self.decoded += 1
            self._at = stamp = _stamp(picture)
            if stamp == target:
                return None if picture.is_corrupt else picture
            if stamp > target:
                return before if begin is None else None
            if begin is None or stamp >= begin:
                before = picture
                passed = int(np.searchsorted(frames.pts, stamp))
                if frames.pts[passed] == stamp and not picture.is_corrupt:
                    keep(passed, picture)
        self._at = None
        return None


def portable_pixmap(picture: VideoFrame) -> bytes:
    """A frame as it is shown, upright, in the format PPM: no loss, and hardly any work."""
    try:
        # Threads of the conversion would be awaited in vain where a fork frees what it inherited.
        pixels = picture.to_ndarray(format="rgb24", threads=1)
    except TypeError:  # an older PyAV, which knows but one
        pixels = picture.to_ndarray(format="rgb24")
    turned = np.rot90(pixels, round(picture.rotation / 90))
    return b"P6 %d %d 255\n" % (turned.shape[1], turned.shape[0]) + turned.tobytes()


def import_av() -> Any:
    try:
        import av
    except ImportError:
        raise DataError("videos need av: pip install 'selfsight[video]'") from None
    return av


def open_video(path: str) -> InputContainer:
    # A playlist under the name of a video may not make us open addresses, and a colon in a name names no protocol.
    location, settings = f"file:{Path(path).absolute()}", {"protocol_whitelist": "file"}
    container: InputContainer = import_av().open(location, container_options=settings, metadata_errors="replace")
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1  # there are other processes for the other cores
    return container


def video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is more than a cover."""
    for stream in container.streams.video:
        if stream.codec_context is not None and "attached_pic" not in str(stream.disposition):
            return stream
    raise ValueError("holds no video")


def _from_packets(container: InputContainer, sampling: Sampling) -> Frames | None:
    """None where packets do not say when they are shown."""
    stream = video_stream(container)
    stamps, shown, keys, seeks = [], [], [], []
    by_decoding_time = "mp4" in container.format.name
    for packet in _packets(container, stream):
        if packet.size == 0:
            continue
        if packet.pts is None:
            return None
        stamps.append(packet.pts)
        shown.append(not packet.is_discard)
        if packet.is_keyframe:
            keys.append(packet.pts)
            seeks.append(packet.dts if by_decoding_time and packet.dts is not None else packet.pts)
    pts = np.unique(np.array(stamps, dtype=np.int64)[np.array(shown, dtype=bool)])
    if stream.time_base is None or not len(pts):
        return None
    second = (pts - pts[0]) * float(stream.time_base)
    chosen = sampling(second)
    keyframe, first = np.unique(np.array(keys or stamps[:1], dtype=np.int64), return_index=True)
    seek = np.array(seeks or stamps[:1], dtype=np.int64)[first]
    nearest = np.maximum(0, np.searchsorted(keyframe, pts[chosen], side="right") - 1)
    return Frames(pts[chosen], keyframe[nearest], seek[nearest], second[chosen], counted=False)


def _from_pictures(container: InputContainer, sampling: Sampling) -> Frames:
    stream = video_stream(container)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    count = sum(1 for _ in _pictures(container, stream, counted=True))
    second = np.arange(count) / rate
    chosen = sampling(second).astype(np.int64)
    start = np.zeros(len(chosen), dtype=np.int64)
    return Frames(chosen, start, start, second[chosen], counted=True)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Packets up to the place where a file is cut off or damaged."""
    av = import_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None or packet.is_corrupt:
            return
        yield packet


def _pictures(container: InputContainer, stream: VideoStream, counted: bool) -> Iterator[VideoFrame]:
    """Decoded frames in the order in which they are shown, without those that cannot be decoded."""
    av = import_av()
    number = 0
    for packet in _packets(container, stream):
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            continue
        for picture in pictures:
            if counted:
                picture.pts = number
                number += 1
            if picture.pts is not None:
                yield picture


def _stamp(picture: VideoFrame) -> int:
    assert picture.pts is not None
    return picture.pts


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
