"""Frames of video files, each a sample."""

from __future__ import annotations

import glob
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from selfsight.data.draws import Indices
from selfsight.data.index import Index, Keys, open_or_build, shown
from selfsight.data.sources.base import Source, Subset
from selfsight.data.sources.contents import VIDEOS, contents
from selfsight.data.sources.fair import one_of_each
from selfsight.data.sources.indexed import IndexedSource, file_mark, rejected
from selfsight.data.sources.location import is_remote
from selfsight.data.sources.video_frames import Frames, OpenVideo, every_nth, import_av, per_second, portable_pixmap
from selfsight.data.sources.video_index import columns, frames_at, is_fresh, path_of, versions
from selfsight.errors import DataError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_MIXED = 512
_LEAST = 8
_DECODERS = 4
_INHERITED: list[object] = []


class VideoSource(IndexedSource):
    """Some frames of one video, of those in a folder at any depth, or of those that match a pattern.

    `fps` frames a second (1 if nothing is said), or `every` n-th frame. The key of a frame is `clip.mp4@12.400s`. Labels: the
    first folder of a video's path, if at least two such folders hold videos and none lies outside.

    Frames of one video are much alike: to judge an encoder, group by `video`, so that no clip is on both sides of a split.

    Decoding begins at keyframes, so frames that need the same one stand together in an epoch's order, mixed with as many others
    as make 512, or `window` stretches of such frames. Each process keeps `cache_mb` of frames that it passed on its way.
    """

    def __init__(
        self, location: str, fps: float | None = None, every: int | None = None, window: int | None = None, cache_mb: int = 256
    ) -> None:
        if fps is not None and every is not None:
            raise DataError(f"{location}: takes fps or every, not both")
        if is_remote(location):
            raise DataError(f"{location}: videos are read from local files only; download them first")
        import_av()
        root, files = _files(location)
        now = versions(root, files)
        sampling = every_nth(every) if every else per_second(fps or 1.0)
        before: list[Index] = []

        def fresh(index: Index) -> bool:
            before.append(index)
            return is_fresh(index, files, now)

        fps = None if every else fps or 1.0
        index = open_or_build(
            ["video", "1", str(Path(location).absolute()), f"fps {fps}, every {every}"],
            fresh,
            lambda: columns(root, files, now, sampling, before[-1] if before else None),
        )
        if not len(index["pts"]):
            bad = rejected(index)
            raise DataError(f"{location}: holds no video with frames; first: {bad[0].key} {bad[0].reason}")
        self._root, self._window = root, window
        self._decoders = _Decoders(cache_mb * 2**20)
        super().__init__(location, index)

    def _use(self, index: Index) -> None:
        super()._use(index)
        self.blocks = _blocks(index)
        self.window = self._window or max(1, round(_MIXED * len(self.blocks) / len(self)))

    def _keys(self) -> Sequence[str]:
        return FrameKeys(self.index, "pts", range(len(self.index["pts"])))

    def image_bytes(self, index: int) -> bytes:
        video = _video_of(self.index, index)
        frames, first = frames_at(self.index, video)
        return self._decoders.image(str(self._root / path_of(self.index, video)), frames, index - first)

    def mark(self, index: int) -> bytes:
        """Of the video in which it stands."""
        path = os.fsencode(self._root / path_of(self.index, _video_of(self.index, index)))
        return b"%d %s" % (index, file_mark(path))

    def head(self, limit: int) -> Source:
        """One frame of each video in turn."""
        counts = np.diff(self.index.numbers("first"), append=len(self))
        return Subset(self, one_of_each(np.repeat(np.arange(len(counts)), counts), limit))

    def columns(self) -> tuple[str, ...]:
        return ("video", "second", "folder")

    def column(self, name: str) -> npt.NDArray[np.str_]:
        if name == "second":
            return np.array([f"{second:.3f}" for second in self.index["second"].to_pylist()])
        videos = [shown(path) for path in self.index["video"].to_pylist()]
        values = videos if name == "video" else [path.rpartition("/")[0] for path in videos]
        return np.repeat(np.array(values), np.diff(self.index.numbers("first"), append=len(self)))


class FrameKeys(Keys):
    """Keys put together from the name of a video and the time of a frame."""

    def _one(self, row: int) -> str:
        return self._many(pa.array([row]))[0]

    def _many(self, rows: pa.Array) -> list[str]:
        places = rows.to_numpy()
        owners = np.searchsorted(self._index.numbers("first"), places, side="right") - 1
        names = self._index["video"].take(pa.array(owners)).to_pylist()
        seconds = self._index["second"].take(rows).to_pylist()
        digits = self._index["digits"].take(pa.array(owners)).to_pylist()
        return [f"{shown(name)}@{second:.{n}f}s" for name, second, n in zip(names, seconds, digits, strict=True)]


class _Decoders:
    """Open decoders and the frames that they passed, of one process: neither outlives a fork or is pickled."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._begin()

    def __reduce__(self) -> tuple[type[_Decoders], tuple[int]]:
        return _Decoders, (self.limit,)

    def _begin(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.open: OrderedDict[str, OpenVideo] = OrderedDict()
        weakref.finalize(self, _close, self.open, self.process)
        self.images: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.size = 0

    def image(self, path: str, frames: Frames, place: int) -> bytes:
        if self.process != os.getpid():
            # The decoders of the parent read from the same open files, and may wait for threads that are not here to close.
            _INHERITED.append(self.open)
            self._begin()
        with self.lock:
            key = (path, int(frames.pts[place]))
            if key in self.images:
                self.images.move_to_end(key)
                return self.images[key]

            def keep(passed: int, picture: VideoFrame) -> None:
                self._keep((path, int(frames.pts[passed])), picture)

            return self._keep(key, self._decoder(path, frames.counted).frame(frames, place, keep))

    def _decoder(self, path: str, counted: bool) -> OpenVideo:
        if path not in self.open:
            self.open[path] = OpenVideo(path, counted)
        self.open.move_to_end(path)
        while len(self.open) > _DECODERS:
            self.open.popitem(last=False)[1].close()
        return self.open[path]

    def _keep(self, key: tuple[str, int], picture: VideoFrame) -> bytes:
        if key not in self.images:
            self.images[key] = portable_pixmap(picture)
            self.size += len(self.images[key])
        image = self.images[key]
        while self.size > self.limit and self.images:
            self.size -= len(self.images.popitem(last=False)[1])
        return image


def _close(decoders: OrderedDict[str, OpenVideo], process: int) -> None:
    if process == os.getpid():
        for decoder in decoders.values():
            decoder.close()


def matches(location: str) -> bool:
    if Path(location).is_dir():
        return contents(location) == "video"
    return Path(location).suffix.lower() in VIDEOS and (is_remote(location) or bool(_matching(location)))


def rate(text: str) -> float:
    """The option `fps`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise ValueError(f"expected frames a second, above 0 and up to 1000, got '{text}'")
    return value


def _files(location: str) -> tuple[Path, list[str]]:
    """(folder, paths of the videos relative to it), sorted."""
    if Path(location).is_dir():
        root = Path(location)
        found = _below(root)
    else:
        found = [Path(path) for path in _matching(location)]
        root = Path(os.path.commonpath([path.parent for path in found]))
    names = [path.relative_to(root) for path in found if path.suffix.lower() in VIDEOS]
    return root, sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _below(root: Path) -> list[Path]:
    """Every file at any depth; links are followed, each real folder once."""
    found, seen = [], set()
    for folder, names, files in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names.sort()
        found += [Path(folder) / file for file in files]
    return found


def _matching(location: str) -> list[str]:
    return [location] if Path(location).is_file() else glob.glob(location, recursive=True)  # noqa: PTH207 (may be absolute)


def _video_of(index: Index, row: int) -> int:
    return int(np.searchsorted(index.numbers("first"), row, side="right")) - 1


def _blocks(index: Index) -> Indices:
    """Stretches of frames that need the same keyframe, or several such if they are short."""
    keyframes = index.numbers("keyframe")
    borders = np.concatenate([np.flatnonzero(np.diff(keyframes)) + 1, index.numbers("first")])
    starts = [0]
    for border in np.unique(borders).tolist():
        if border - starts[-1] >= _LEAST and border < len(keyframes):
            starts.append(border)
    return np.array(starts, dtype=np.int64)
