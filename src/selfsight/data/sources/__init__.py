"""Where images come from.

To add a source: a file here with a `Source`, a `matches(location)` and an `open(location, **options)`, and a line in `SOURCES`;
`tests/test_sources.py` runs its contract over every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selfsight.data.sources import folder, mixture_spec, parquet, shards, table, video
from selfsight.data.sources.base import BadImage, Draws, Source, Subset, first
from selfsight.data.sources.location import absolute, is_remote, overlap, split_options, whole
from selfsight.data.sources.mixture_spec import Data
from selfsight.data.sources.shard_cache import positive
from selfsight.errors import DataError

Option = Callable[[str], Any]
"""Turns the text of an option into its value; `ValueError` with what was expected."""


class Kind(NamedTuple):
    """`matches` gets the location without its options; `open` gets it and the options as keyword arguments."""

    matches: Callable[[str], bool]
    open: Callable[..., Source]
    expects: str
    options: Mapping[str, Option] = {}


SOURCES: dict[str, Kind] = {
    "table": Kind(table.matches, table.TableSource, "a .csv or .parquet table of paths", {"split": str}),
    "folder": Kind(folder.matches, folder.FolderSource, "a folder of images"),
    "parquet": Kind(parquet.matches, parquet.ParquetSource, "a .parquet file with image.bytes", {"cache_mb": whole(1)}),
    "shards": Kind(
        shards.matches,
        shards.ShardSource,
        "tar shards",
        {"image": shards.extension, "window": whole(1), "cache_gb": positive},
    ),
    "video": Kind(
        video.matches,
        video.VideoSource,
        "video files",
        {"fps": video.rate, "every": whole(1), "window": whole(1), "cache_mb": whole(1)},
    ),
    "mixture": Kind(
        mixture_spec.matches, lambda location: mixture_spec.from_yaml(location, open_source), "a .yaml mixture of these"
    ),
}
"""In the order in which they are asked."""


def open_source(data: Data) -> Source:
    """The source at a path or address, with options behind a question mark (`clips?fps=2`).

    Several of them are one source: those of a list give every sample once an epoch, those of a mapping each its share by
    weight. A `DataError` says what would have been a source.
    """
    if not isinstance(data, str | Path):
        return mixture_spec.from_several(data, open_source)
    text = str(data)
    known = {name for kind in SOURCES.values() for name in kind.options}
    location, options = split_options(text, known)
    for kind in SOURCES.values():
        if kind.matches(location):
            return kind.open(location, **_values(text, kind, options))
    *others, last = sorted((kind.expects for kind in SOURCES.values()), key="a folder of images".__ne__)
    expected = f"{', '.join(others)} or {last}"
    if not is_remote(location) and not Path(location).exists():
        raise DataError(f"{text}: does not exist; expected {expected}")
    raise DataError(f"{text}: is no source of images; expected {expected}")


def _values(text: str, kind: Kind, options: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name, given in options.items():
        if name not in kind.options:
            takes = ", ".join(kind.options) or "none"
            raise DataError(f"{text}: {kind.expects} has no option '{name}'; its options: {takes}")
        try:
            values[name] = kind.options[name](given)
        except ValueError as error:
            raise DataError(f"{text}: option '{name}': {error}") from None
    return values


__all__ = ["SOURCES", "BadImage", "Data", "Draws", "Kind", "Source", "Subset", "absolute", "first", "open_source", "overlap"]
