"""What is looked at: one image, images, or the frames of videos."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.data.sources import Source, Subset, first, open_source
from selfsight.data.sources.contents import IMAGES
from selfsight.data.sources.location import split_options
from selfsight.data.sources.video import VideoSource, matches


class Clip(NamedTuple):
    """A video: its samples in the order of the source, and the second at which each is shown."""

    name: str
    samples: Sequence[int]
    seconds: Sequence[float]


class Input(NamedTuple):
    """`kind` says what the `source` holds; `clips` its videos."""

    source: Source
    kind: Literal["image", "images", "video"]

    @property
    def clips(self) -> list[Clip]:
        if self.kind != "video":
            return []
        chosen = self.source.indices if isinstance(self.source, Subset) else np.arange(len(self.source))
        whole = self.source.source if isinstance(self.source, Subset) else self.source
        assert isinstance(whole, VideoSource)
        seconds = whole.index["second"].to_numpy()[chosen]
        names = self.source.column("video")
        starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        return [Clip(str(names[start]), range(start, stop), seconds[start:stop].tolist()) for start, stop in pairwise(starts)]


def opened(location: str, limit: int | None) -> Input:
    """An image file, or any source; of a video every frame, where nothing else is said. At most `limit` images or frames.

    Raises `DataError`.
    """
    path = Path(location)
    if path.suffix.lower() in IMAGES and path.is_file():
        return Input(OneImage(path), "image")
    bare, options = split_options(location, {"fps", "every", "window", "cache_mb"})
    if not matches(bare):
        return Input(first(open_source(location), limit), "images")
    if not {"fps", "every"} & set(options):
        location += ("&" if options else "?") + "every=1"
    return Input(first(open_source(location), limit), "video")


class OneImage(Source):
    """A file. Its key is its name."""

    classes = ()
    labels = None

    def __init__(self, path: Path) -> None:
        self.location, self.path = str(path), path
        self.keys = (path.name,)

    def image_bytes(self, index: int) -> bytes:
        return self.path.read_bytes()

    def columns(self) -> tuple[str, ...]:
        return ()

    def column(self, name: str) -> npt.NDArray[np.str_]:
        raise KeyError(name)
