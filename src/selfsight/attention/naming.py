"""Names of files from keys of images: within their folder, one for each key, and like the key as far as may be."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 120
"""Bytes of a name, which a file system ends at 255; endings are to come."""
_PLAIN = re.compile(r"[A-Za-z0-9_+=@,()-][A-Za-z0-9_+=@,(). -]*(?<![. ])")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def name_of(key: str) -> str:
    """A relative path. A key of plain letters is its own name, folders and all; another is made plain, and its digest added."""
    parts = key.split("/")
    plain = [part if _is_plain(part) else _made_plain(part) for part in parts]
    if plain == parts:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{'/'.join(plain)}~{digest}"  # no plain name has a tilde


def _is_plain(part: str) -> bool:
    return len(part) <= _LONGEST and _PLAIN.fullmatch(part) is not None and _RESERVED.fullmatch(part) is None


def _made_plain(part: str) -> str:
    """Of a long name the end is kept, which is where names differ."""
    return "_" + re.sub(r"[^A-Za-z0-9_+=@-]+", "_", part)[-_LONGEST + 1 :].strip("_")


def label_of(key: str) -> str:
    """A key as one line of letters: what would break the line or turn its direction is a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in key)
