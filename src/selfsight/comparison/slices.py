"""Pictures by the value of a factor: thirds of its numbers, or each of its names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEAST = 10
"""Pictures of a slice, at least: of fewer an accuracy says next to nothing, and the worst of many such is chance."""
FEW = 5
"""Numbers that differ: as many or fewer are a slice each."""
_THIRDS = (0, 1 / 3, 2 / 3, 1)


class Slice(NamedTuple):
    """The pictures at the places `rows` whose factor lies within `span`: [low, high], or one value."""

    factor: str
    span: tuple[Any, ...]
    rows: npt.NDArray[np.int64]


def slices(factor: str, values: Sequence[Any]) -> list[Slice]:
    """Of the pictures with these values [n] all slices, small ones too; a picture without a value (None) is in none."""
    known = np.array([place for place, value in enumerate(values) if value is not None], dtype=np.int64)
    there = [values[place] for place in known]
    if not is_numbers(there):
        return [Slice(factor, (name,), known[[str(v) == name for v in there]]) for name in sorted(set(map(str, there)))]
    numbers = np.array(there, dtype=np.float64)
    distinct = np.unique(numbers)
    if len(distinct) <= FEW:
        return [Slice(factor, (_plain(number),), known[numbers == number]) for number in distinct]
    edges = np.quantile(numbers, _THIRDS)
    third = np.searchsorted(edges[1:-1], numbers)  # a value on an edge belongs below it
    return [Slice(factor, tuple(map(_plain, edges[k : k + 2])), known[third == k]) for k in range(3)]


def is_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def outside(values: Sequence[Any], training: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """Which values [n] training does not show; `training` are its ends where it is numbers, else all of its values."""
    if is_numbers([*training, *values]):
        numbers = np.array(values, dtype=np.float64)
        return (numbers < min(training)) | (numbers > max(training))
    return np.array([value not in training for value in values], dtype=np.bool_)


def _plain(number: float) -> int | float:
    """As JSON writes it, whole numbers without a point."""
    return int(number) if float(number).is_integer() else float(number)
