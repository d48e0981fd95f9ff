"""Whether the parts of a mixture mean the same by their classes."""

from __future__ import annotations

import re
from itertools import combinations

from selfsight.data.sources import Source
from selfsight.data.sources.mixture import MixtureSource, Part
from selfsight.errors import DataError


def check_agreement(source: Source) -> list[str]:
    """What the user should know of the classes of a mixture; nothing of another source.

    `DataError` where some parts have labels and others have none, where two call one class by names that differ in case or
    punctuation, and where one part has no class in common with any other: each class would then be told by the look of its part.
    """
    if not isinstance(source, MixtureSource) or len(source.parts) < 2:
        return []
    without = [part for part in source.parts if part.source.labels is None and part.source.label_sets is None]
    if without and len(without) < len(source.parts):
        raise DataError(f"{source.location}: its part '{without[0].name}' has no labels, others have; expected labels in all")
    if without:
        return []
    for one, other in combinations(source.parts, 2):
        _check_spelling(source.location, one, other)
    for part in source.parts:
        others = {name for each in source.parts if each is not part for name in each.source.classes}
        if not others & set(part.source.classes):
            ours, theirs = ", ".join(part.source.classes[:5]), ", ".join(sorted(others)[:5])
            what = f"its part '{part.name}' has the classes {ours}, the others {theirs}"
            raise DataError(f"{source.location}: {what}; expected a class in common, called the same in all")
    return _notes(source)


def _check_spelling(where: str, one: Part, other: Part) -> None:
    ours, theirs = set(one.source.classes), set(other.source.classes)
    known = {_plain(name): name for name in ours - theirs}
    for name in sorted(theirs - ours):
        if (same := known.get(_plain(name))) is not None:
            what = f"'{same}' in its part '{one.name}' and '{name}' in '{other.name}' differ in spelling alone"
            raise DataError(f"{where}: {what}; expected one name for a class")


def _plain(name: str) -> str:
    """`Hex nut`, `hex_nut` and `hex-nut` are one, and so are 07 and 7."""
    words = re.sub(r"[\W_]+", "", name.casefold())
    return str(int(words)) if words.isdecimal() else words


def _notes(source: MixtureSource) -> list[str]:
    notes = []
    for part in source.parts:
        missing = [name for name in source.classes if name not in part.source.classes]
        if missing:
            notes.append(f"note: part '{part.name}' has no images of {len(missing)} classes ({', '.join(missing[:5])})")
    return notes
