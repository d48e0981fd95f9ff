"""What a user writes for a mixture: a list, a mapping of locations to weights, or a YAML file of the form

::

    mixture:
      - {data: photos, weight: 3}        # paths start at the folder of this file
      - {data: shards/*.tar, weight: 1}  # no weights at all: every sample once an epoch
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from selfsight.data.sources.base import Source
from selfsight.data.sources.location import is_remote
from selfsight.data.sources.mixture import MixtureSource, Part
from selfsight.errors import DataError, nearest

Data: TypeAlias = str | Path | Sequence[str | Path] | Mapping[str, float]
"""What names a source."""

Open: TypeAlias = Callable[[str], Source]


def matches(location: str) -> bool:
    return location.lower().endswith((".yaml", ".yml")) and Path(location).is_file()


def from_yaml(location: str, open_one: Open) -> Source:
    return _from_yaml(location, open_one, [])


def from_several(data: Sequence[str | Path] | Mapping[str, float], open_one: Open) -> Source:
    """`DataError` where there is no location, or a weight is no positive number."""
    entries = list(data.items()) if isinstance(data, Mapping) else [(str(one), None) for one in data]
    if not entries:
        raise DataError("no location is given; expected one or more")
    for location, weight in entries:
        if isinstance(data, Mapping) and not _is_weight(weight):
            raise DataError(f"{location}: its weight is {weight!r}; expected a number above 0")
    return _mixture(" + ".join(str(location) for location, _ in entries), entries, open_one)


def _from_yaml(location: str, open_one: Open, within: list[Path]) -> Source:
    path = Path(location).resolve()
    if path in within:
        raise DataError(f"{location}: is part of itself")

    def open_entry(text: str) -> Source:
        return _from_yaml(text, open_one, [*within, path]) if matches(text) else open_one(text)

    entries = [(_located(text, Path(location).parent), weight) for text, weight in _entries(location)]
    return _mixture(location, entries, open_entry)


def _mixture(location: str, entries: Sequence[tuple[str, float | None]], open_one: Open) -> Source:
    sources = [open_one(str(text)) for text, _ in entries]
    if len(sources) == 1:
        return sources[0]
    names = _names([str(text) for text, _ in entries])
    parts = [Part(name, source, weight) for name, source, (_, weight) in zip(names, sources, entries, strict=True)]
    return MixtureSource(location, parts)


def _entries(location: str) -> list[tuple[str, float | None]]:
    try:
        found = yaml.safe_load(Path(location).read_bytes())
    except OSError as error:
        raise DataError(f"{location}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{location}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict) or list(found) != ["mixture"] or not isinstance(found["mixture"], list):
        raise DataError(f"{location}: is no mixture; expected 'mixture:' and below it '- {{data: photos, weight: 3}}', ...")
    if not found["mixture"]:
        raise DataError(f"{location}: its mixture is empty; expected entries such as '- {{data: photos, weight: 3}}'")
    entries = [_entry(f"{location}: entry {number}", entry) for number, entry in enumerate(found["mixture"], 1)]
    bare = [number for number, (_, weight) in enumerate(entries, 1) if weight is None]
    if bare and len(bare) < len(entries):
        raise DataError(f"{location}: entry {bare[0]} has no weight, others have; expected one in all entries or in none")
    return entries


def _entry(where: str, entry: Any) -> tuple[str, float | None]:
    if isinstance(entry, str):
        entry = {"data": entry}
    if not isinstance(entry, dict):
        raise DataError(f"{where}: is {entry!r}; expected '{{data: photos, weight: 3}}' or a location")
    unknown = [key for key in entry if key not in ("data", "weight")]
    if unknown:
        raise DataError(f"{where}: has no key {unknown[0]!r}. {nearest(str(unknown[0]), ('data', 'weight'))}")
    if not isinstance(entry.get("data"), str) or not entry["data"]:
        raise DataError(f"{where}: data is {entry.get('data')!r}; expected a location")
    if "weight" in entry and not _is_weight(entry["weight"]):
        raise DataError(f"{where}: weight is {entry['weight']!r}; expected a number above 0")
    return entry["data"], entry.get("weight")


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _located(text: str, base: Path) -> str:
    return text if is_remote(text) else os.path.join(base, text)  # noqa: PTH118 (a Path would change the options)


def _names(locations: Sequence[str]) -> list[str]:
    """A short name for each: the last part of the path that is no pattern, numbered where two are equal."""
    names: list[str] = []
    for location in locations:
        pieces = [piece for piece in location.partition("?")[0].replace("\\", "/").split("/") if piece not in ("", ".", "..")]
        plain = [piece for piece in pieces if not glob.has_magic(piece) and "{" not in piece]
        short = (plain or ["data"])[-1]
        number = 1
        while (name := short if number == 1 else f"{short}-{number}") in names:
            number += 1
        names.append(name)
    return names
