"""Names of files that lists and other systems bear, no two alike."""

from __future__ import annotations

import re
import unicodedata


def plain(name: str) -> str:
    """A name for a file that lists and other systems bear: letters, digits, `_`, `-`, `.`, and no dot at its start."""
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).lstrip(".") or "_"


def free(name: str, taken: set[str]) -> str:
    """The name, with a number where one of the `taken` is the same but for the case of letters; it is then taken, too."""
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found.casefold())
    return found
