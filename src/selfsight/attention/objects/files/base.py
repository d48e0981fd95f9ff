"""The contract of what objects are written as."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from selfsight.attention.objects.looking import Row
from selfsight.data.sources import Source
from selfsight.data.sources.contents import IMAGES
from selfsight.errors import DataError

CATEGORY = "object"
"""The one kind of thing that is found without labels."""

Rows = Callable[[], Iterator[Row]]
"""The rows of all images that could be read, one at a time and as often as asked for."""


class Form(ABC):
    """A file, or a `folder` with a file for each image."""

    folder: ClassVar[bool]

    @abstractmethod
    def write(self, rows: Rows, source: Source, about: Mapping[str, Any], path: Path) -> None:
        """Write the file or the folder `path`. `about` says how the objects were found."""

    def about(self, path: Path) -> dict[str, Any] | None:
        """What `path` says of how its objects were found; None where nothing is there, or what something else has made."""
        try:
            found = self._told(path)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "method" in found else None

    @abstractmethod
    def _told(self, path: Path) -> Any:
        """What `write` was told; `OSError` or `ValueError` where that is not to be read."""


def place_of(key: str, ending: str | None = None) -> PurePosixPath:
    """Where the file for an image stands within a folder: its key with another `ending`, and without what would lead outside."""
    parts = [re.sub(r'[<>:"\\|?*]', "_", part) for part in key.split("/") if part not in ("", ".")]
    place = PurePosixPath(*("_" if part == ".." else part for part in parts))
    if ending is None:
        return place
    stem = place.stem if place.suffix.lower() in IMAGES else place.name
    return place.with_name(stem + ending)


def check_names(source: Source) -> None:
    """`DataError` where files of two images would have one name."""
    seen: dict[PurePosixPath, str] = {}
    for key in source.keys:
        if (other := seen.setdefault(place_of(key, ""), key)) != key:
            raise DataError(f"{source.location}: files for {other} and {key} would have the same name; take --format coco")
