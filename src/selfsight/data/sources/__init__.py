"""Where images come from.

To add a source: a file here with a `Source` and a `matches(path)`, and a line in `SOURCES`; `tests/test_sources.py` runs its
contract over every entry.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from selfsight.data.sources import folder, parquet
from selfsight.data.sources.base import BadImage, Source, Subset, first
from selfsight.errors import DataError


class Kind(NamedTuple):
    matches: Callable[[Path], bool]
    open: Callable[[Path], Source]
    expects: str


SOURCES: dict[str, Kind] = {
    "folder": Kind(folder.matches, folder.FolderSource, "a folder of images"),
    "parquet": Kind(parquet.matches, parquet.ParquetSource, "a .parquet file with image.bytes"),
}


def open_source(location: str | Path) -> Source:
    """The source at a path; a `DataError` says what would have been one."""
    path = Path(location)
    expected = " or ".join(kind.expects for kind in SOURCES.values())
    if not path.exists():
        raise DataError(f"{location}: does not exist; expected {expected}")
    for kind in SOURCES.values():
        if kind.matches(path):
            return kind.open(path)
    raise DataError(f"{location}: is no source of images; expected {expected}")


__all__ = ["SOURCES", "BadImage", "Source", "Subset", "first", "open_source"]
