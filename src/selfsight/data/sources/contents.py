"""What a folder holds, by the names of its files, so that the right source opens it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

IMAGES = frozenset(
    f".{name}"
    for name in ("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pnm", "avif", "jp2")
)
VIDEOS = frozenset(f".{name}" for name in ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "3gp", "ogv"))

Contents: TypeAlias = Literal["images", "parquet", "tar", "video", "nothing"]

_ENOUGH = 100_000


def contents(location: str) -> Contents:
    """`images` as soon as there is a file with an image's extension at any depth, else the most frequent of the other kinds.

    `nothing` for what is no folder, or a folder in which no extension is known. Looks at 100,000 files at most once it has
    seen one of the other kinds.
    """
    seen: Counter[Contents] = Counter()
    for number, name in enumerate(_names(location)):
        extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path for every file would cost more than its listing)
        if extension in IMAGES:
            return "images"
        if extension in (".parquet", ".tar"):
            seen["parquet" if extension == ".parquet" else "tar"] += 1
        elif extension in VIDEOS:
            seen["video"] += 1
        if seen and number > _ENOUGH:
            break
    return max(seen, key=lambda kind: (seen[kind], kind)) if seen else "nothing"


def _names(root: str) -> Iterator[str]:
    """Names of the files below a folder, hidden ones left out; each real folder once, those that cannot be listed left out."""
    waiting = [root]
    seen: set[tuple[int, int]] = set()
    while waiting:
        folder = waiting.pop()
        try:
            here = Path(folder).stat()
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if is_safely(entry.is_dir):
                        waiting.append(entry.path)
                    else:
                        yield entry.name
        except OSError:
            continue


def is_safely(test: Callable[[], bool]) -> bool:
    """`entry.is_dir` or `entry.is_file`, which raise for a link to itself."""
    try:
        return test()
    except OSError:
        return False
