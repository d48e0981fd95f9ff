"""Pairs of images whose features are too alike, found block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from selfsight.errors import DataError

_BLOCK = 2048
MAX_PAIRS = 5_000_000
"""More pairs than this are no list of duplicates."""

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """`first` [p] and `second` [p], places in the two sets, by falling cosine; equal ones by rising places."""

    first: Ints
    second: Ints
    similarities: npt.NDArray[np.float32]


def pairs(
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32] | None,
    above: float,
    *,
    block: int = _BLOCK,
    most: int = MAX_PAIRS,
) -> Pairs:
    """Pairs with a cosine of at least `above` across two sets of L2-normalised rows, or each pair once within the first.

    Memory is bounded by `block` squared similarities and the pairs found. A `DataError` where these are more than `most`.
    """
    if not -1 < above <= 1:
        raise DataError(f"--above: expected a cosine above -1, at most 1, got {above:g}")
    other = first if second is None else second
    found: list[tuple[Ints, Ints, npt.NDArray[np.float32]]] = []
    count = 0
    # Rounding leaves the cosine of equal vectors a little below 1.
    level = np.float32(above - 1e-6)
    for top in range(0, len(first), block):
        for left in range(top if second is None else 0, len(other), block):
            similarity = first[top : top + block] @ other[left : left + block].T
            rows, columns = np.nonzero(similarity >= level)
            values = similarity[rows, columns]
            rows, columns = rows + top, columns + left
            if second is None:
                once = rows < columns
                rows, columns, values = rows[once], columns[once], values[once]
            count += len(rows)
            if count > most:
                raise DataError(f"--above {above:g}: more than {most} pairs are as alike; give a higher similarity")
            found.append((rows, columns, values))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((columns, rows, -values))
    return Pairs(rows[order], columns[order], np.minimum(values[order], np.float32(1)))


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
