"""A folder of images: one sub-folder a class, or images in no particular order at any depth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfsight.data.sources.base import BadImage, Source
from selfsight.data.sources.contents import IMAGES, contents
from selfsight.errors import DataError

# First bytes of the formats above, for files whose name does not say what they are.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P5", b"P6")


class FolderSource(Source):
    """Every image below a folder, sorted by path within a class and one of each class in turn; hidden files are left out.

    Labels: the first folder of the relative path, if at least two such folders hold images and no image lies outside them;
    else the source is unlabelled. Symbolic links are followed, each real folder once.
    """

    def __init__(self, location: str) -> None:
        path = self.root = Path(location)
        self.location = location
        files, self.rejected = _walk(path)
        if not files:
            raise DataError(f"{path}: holds no image; expected files such as .jpg or .png, at any depth{_why(self.rejected)}")
        tops = [key.split("/", 1)[0] if "/" in key else "" for key in files]
        classes = sorted(set(tops))
        if len(classes) > 1 and "" not in classes:
            place: dict[str, int] = dict.fromkeys(classes, 0)
            turns = []
            for top in tops:
                turns.append(place[top])
                place[top] += 1
            # One of each class in turn, so that the first N samples hold all classes.
            order = sorted(range(len(files)), key=lambda i: (turns[i], tops[i]))
            self.keys = [files[i] for i in order]
            self.classes = tuple(classes)
            number = {name: index for index, name in enumerate(classes)}
            self.labels = np.array([number[tops[i]] for i in order], dtype=np.int64)
        else:
            self.keys, self.classes, self.labels = files, (), None

    def image_bytes(self, index: int) -> bytes:
        return (self.root / self.keys[index]).read_bytes()

    def columns(self) -> tuple[str, ...]:
        return ("folder",)

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return np.array([key.rpartition("/")[0] for key in self.keys])


def matches(location: str) -> bool:
    return Path(location).is_dir() and contents(location) in ("images", "nothing")


def _walk(root: Path) -> tuple[list[str], list[BadImage]]:
    files: list[str] = []
    rejected: list[BadImage] = []
    seen: set[tuple[int, int]] = set()
    for folder, names, entries in os.walk(root, followlinks=True, onerror=lambda e: rejected.append(_unreadable(root, e))):
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            names.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        names[:] = sorted(n for n in names if not n.startswith("."))
        for entry in sorted(entries):
            if not entry.startswith("."):
                path = Path(folder) / entry
                key = path.relative_to(root).as_posix()
                reason = _no_image(path)
                files.append(key) if reason is None else rejected.append(BadImage(key, reason))
    return sorted(files), rejected


def _no_image(path: Path) -> str | None:
    if path.exists() and not path.is_file():
        return "no regular file"  # opening a pipe would wait for its other end
    if path.suffix.lower() in IMAGES:
        return None
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return None
    return "no image, by its name and first bytes"


def _unreadable(root: Path, error: OSError) -> BadImage:
    return BadImage(os.path.relpath(error.filename, root), f"folder cannot be read ({error.strerror})")


def _why(rejected: list[BadImage]) -> str:
    return f" ({len(rejected)} other files, first: {rejected[0].key}: {rejected[0].reason})" if rejected else ""
