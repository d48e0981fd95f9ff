"""What a user may write for a source: a path or an address, and options behind a question mark."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from selfsight.errors import DataError, nearest


def is_remote(location: str) -> bool:
    """Whether this is an address such as s3://bucket/key and no path."""
    scheme, sign, _ = location.partition("://")
    return bool(sign) and scheme.isalnum()


def absolute(location: str) -> str:
    """The same place seen from any folder; addresses are so already."""
    return location if is_remote(location) else os.path.abspath(location)  # noqa: PTH100 (braces and stars are no path yet)


def overlap(one: str, other: str) -> bool:
    """Whether one of two absolute places is the other or within it, as far as names tell: options that differ (`?split=train` and
    `?split=test`) are other images of the same place, patterns stand for the folder that they are in."""
    (first, told), (second, also) = _place(one), _place(other)
    if told and also and told != also:
        return False
    return first.is_relative_to(second) or second.is_relative_to(first)


def _place(text: str) -> tuple[Path, str]:
    """Where it is, links followed, and its options."""
    head, _, options = (text, "", "") if Path(text).exists() else text.partition("?")
    fixed = re.split(r"[*{\[]", head)[0]
    folder = head if fixed == head else fixed.rpartition("/")[0]
    return Path(folder if is_remote(folder) else os.path.realpath(folder)), options


def split_options(text: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """(location, options). A file whose name has a question mark, or an address with a query of its own, keeps it."""
    head, mark, tail = text.rpartition("?")
    if not mark or (not is_remote(text) and Path(text).exists()):
        return text, {}
    options = {}
    for part in tail.split("&"):
        name, sign, value = part.partition("=")
        if not sign or name not in known:
            if is_remote(text):
                return text, {}
            raise DataError(f"{text}: no option '{name}'. {nearest(name, known)}")
        options[name] = value
    return head, options


def whole(least: int) -> Callable[[str], int]:
    """An option that is a whole number."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ValueError(f"expected a whole number from {least}, got '{text}'")
        return value

    return parse
