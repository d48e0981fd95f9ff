"""The frames of one video in order, from a file or from a folder of pictures, one at a time."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from selfsight.data.decode import decode
from selfsight.data.sources.contents import IMAGES
from selfsight.data.sources.video_frames import OpenVideo, every_nth, list_frames, portable_pixmap
from selfsight.data.sources.video_index import versions
from selfsight.data.undecodable import UndecodableError
from selfsight.errors import DataError

RATE = 24.0
"""Frames a second of a folder, as DAVIS shows its videos."""


class Clip(ABC):
    """Frames of one size under the names by which masks of them go.

    `names` are those of the pictures of a folder without their ending, or 00000, 00001, ... of a file; `rate` is frames a second;
    `mark` changes where the frames may have changed.
    """

    def __init__(self, location: str, names: Sequence[str], rate: float, mark: str) -> None:
        self.location, self.names, self.rate, self.mark = location, list(names), rate, mark
        self.size = self._frame(0).size

    def __len__(self) -> int:
        return len(self.names)

    def frame(self, place: int) -> Image.Image:
        """In any order, but cheapest one after the other. `DataError` for one that cannot be read or has another size."""
        picture = self._frame(place)
        if picture.size != self.size:
            found, expected = ("x".join(map(str, size)) for size in (picture.size, self.size))
            raise DataError(
                f"{self.location}: frame {self.names[place]} has {found} pixels; expected {expected} as the first has"
            )
        return picture

    def _frame(self, place: int) -> Image.Image:
        try:
            return self._picture(place)
        except (UndecodableError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise DataError(f"{self.location}: frame {self.names[place]} cannot be read ({reason})") from None

    def close(self) -> None:
        """Let go of what was opened to read frames."""
        return

    @abstractmethod
    def _picture(self, place: int) -> Image.Image:
        """`UndecodableError` or `OSError` where it cannot be had."""


class FrameFolder(Clip):
    """Pictures that lie in a folder, in the order of their names; numbers in these count as numbers."""

    def __init__(self, location: str) -> None:
        root = Path(location)
        self._files = sorted((path for path in root.iterdir() if _is_picture(path)), key=_in_order)
        if not self._files:
            raise DataError(f"{location}: holds no pictures; expected the frames of a video, such as 00000.jpg")
        names = [path.stem for path in self._files]
        twice, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(f"{location}: holds {count} frames named {twice}; expected one picture a frame")
        files = [path.name for path in self._files]
        super().__init__(location, names, RATE, _mark([*files, *versions(root, files)]))

    def _picture(self, place: int) -> Image.Image:
        return decode(self._files[place].read_bytes())


class VideoFile(Clip):
    """Every frame of a video file that PyAV reads."""

    def __init__(self, location: str) -> None:
        try:
            self._frames = list_frames(location, every_nth(1))
        except OSError as error:
            raise DataError(f"{location}: {error}; expected a video file or a folder of frames") from None
        self._video = OpenVideo(location, self._frames.counted)
        count, lasts = len(self._frames.pts), float(self._frames.second[-1])
        rate = (count - 1) / lasts if lasts > 0 else RATE
        path = Path(location)
        super().__init__(location, [f"{n:05d}" for n in range(count)], rate, _mark(versions(path.parent, [path.name])))

    def _picture(self, place: int) -> Image.Image:
        return decode(portable_pixmap(self._video.frame(self._frames, place, lambda passed, picture: None)))

    def close(self) -> None:
        self._video.close()


def open_clip(location: str | Path) -> Clip:
    """The video in a file or a folder; `DataError` where there is none."""
    path = Path(location)
    if path.is_dir():
        return FrameFolder(str(location))
    if not path.is_file():
        raise DataError(f"{location}: does not exist; expected a video file or a folder of frames")
    return VideoFile(str(location))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGES and not path.name.startswith(".") and path.is_file()


def _in_order(path: Path) -> list[tuple[int, str]]:
    """frame2 before frame10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), part) if part.isdecimal() and part.isascii() else (0, part) for part in parts]


def _mark(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
