"""Names of many shards in one: `train-{000..099}.tar` and `{a,b}.tar`, as shells write them."""

from __future__ import annotations

import itertools
import math
import re

from selfsight.errors import DataError

_GROUP = re.compile(r"(\{[^{}]*\})")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 1_000_000


def expand(pattern: str) -> list[str]:
    """Every name that a pattern stands for, in its order; a pattern without braces stands for itself.

    The numbers of a range have as many digits as its longer end if an end begins with 0. Braces around neither a range nor a
    list are part of the name. Raises `DataError` for more than a million names.
    """
    groups = _GROUP.split(pattern)
    count = math.prod(map(_count, groups))
    if count > _MOST:
        raise DataError(f"{pattern}: the braces stand for {count} names; expected at most {_MOST}")
    return ["".join(parts) for parts in itertools.product(*map(_choices, groups))]


def _count(part: str) -> int:
    match = _RANGE.fullmatch(part)
    return abs(int(match[2]) - int(match[1])) + 1 if match else 1 + part.startswith("{") * part.count(",")


def _choices(part: str) -> list[str]:
    if match := _RANGE.fullmatch(part):
        first, last = int(match[1]), int(match[2])
        padded = any(end.startswith("0") and len(end) > 1 for end in match.groups())
        width = max(map(len, match.groups())) if padded else 0
        step = 1 if last >= first else -1
        return [f"{number:0{width}d}" for number in range(first, last + step, step)]
    return part[1:-1].split(",") if part.startswith("{") and "," in part else [part]
