"""Pairs of images whose features are too alike, found block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from selfsight.errors import ConfigError, DataError

_BLOCK = 2048
MAX_PAIRS = 5_000_000
"""More pairs than this are no list of duplicates."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Progress: TypeAlias = Callable[[int, int], None]


class Pairs(NamedTuple):
    """`first` [p] and `second` [p], places in the two sets, by falling cosine; equal ones by rising places.

    `highest` is the cosine of the most alike pair of all, also where none is alike enough; None where there is no pair at all.
    """

    first: Ints
    second: Ints
    similarities: Floats
    highest: float | None = None


def check_level(above: float) -> None:
    if not -1 < above <= 1:
        raise ConfigError(f"--above: expected a cosine above -1, at most 1, got {above:g}")


def pairs(
    first: Floats,
    second: Floats | None,
    above: float,
    *,
    block: int = _BLOCK,
    most: int = MAX_PAIRS,
    progress: Progress | None = None,
) -> Pairs:
    """Pairs with a cosine of at least `above` across two sets of L2-normalised rows, or each pair once within the first.

    Memory is bounded by `block` squared similarities and the pairs found. A `DataError` where these are more than `most`.
    `progress` hears of rows done.
    """
    check_level(above)
    other = first if second is None else second
    found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))]
    count, highest = 0, -2.0
    # Rounding leaves the cosine of equal vectors a little below 1.
    level = np.float32(above - 1e-6)
    for top in range(0, len(first), block):
        for left in range(top if second is None else 0, len(other), block):
            similarity = first[top : top + block] @ other[left : left + block].T
            if second is None and left == top:
                similarity[np.tril_indices(len(similarity))] = -2  # itself, and what was seen the other way round
            best = float(similarity.max())
            highest = max(highest, best)
            if best < level:
                continue
            at = np.flatnonzero(similarity >= level)
            rows, columns = np.divmod(at, similarity.shape[1])
            count += len(at)
            if count > most:
                raise DataError(f"--above {above:g}: more than {most} pairs are as alike; give a higher similarity")
            found.append((rows + top, columns + left, similarity.ravel()[at]))
        if progress:
            progress(min(top + block, len(first)), len(first))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((columns, rows, -values))
    one = np.float32(1)
    return Pairs(rows[order], columns[order], np.minimum(values[order], one), min(highest, 1.0) if highest > -2 else None)


def groups(found: Pairs, count: int, other: int | None = None) -> Ints:
    """The group [p] of each pair, numbered from 0 by falling size: images that pairs connect are one group.

    `count` and `other` are the sizes of the sets; equal sizes keep the order in which the pairs come.
    """
    if not len(found.first):
        return np.zeros(0, dtype=np.int64)
    total = count + (other or 0)
    ends = found.second + (0 if other is None else count)
    edges = coo_array((np.ones(len(ends), dtype=np.int8), (found.first, ends)), shape=(total, total))
    _, member = connected_components(edges, directed=False)
    named = member[found.first]
    sizes = np.bincount(member)
    seen, at = np.unique(named, return_index=True)
    order = seen[np.lexsort((at, -sizes[seen]))]
    number = np.empty(member.max() + 1, dtype=np.int64)
    number[order] = np.arange(len(order))
    return number[named]


def most_alike(number: Ints, most: int) -> Ints:
    """Pairs for a sheet, at most so many: the most alike one of each group (`number` [p], as `groups` gives it), then others."""
    _, best = np.unique(number, return_index=True)
    rest = np.setdiff1d(np.arange(len(number)), best)
    return np.concatenate([np.sort(best), rest])[:most]
