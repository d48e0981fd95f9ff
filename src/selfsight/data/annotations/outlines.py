"""Outlines as COCO has them, to masks: polygons, run lengths, and run lengths packed into text.

Nothing is handed to pycocotools unseen: of a coordinate that is no number it takes all memory, of four numbers it makes a box,
and of runs that do not fit the picture a mask that nobody drew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle

from selfsight.data.annotations.base import Bools
from selfsight.manifest import unpacked

_LONGEST = 35
"""Bits of one packed number: more than any picture has pixels."""


def mask_of(outline: Any, shape: tuple[int, int]) -> Bools:
    """What an outline encloses of a picture of this shape (height, width), [H, W]; `ValueError` says what is wrong with it."""
    if isinstance(outline, list):
        return _of_polygons(outline, shape)
    if not isinstance(outline, dict) or not {"size", "counts"} <= outline.keys():
        raise ValueError("neither polygons nor run lengths ('size' and 'counts')")
    if outline["size"] != list(shape):
        raise ValueError(f"its mask is of a picture of another size, {outline['size']}, not {list(shape)}")
    counts = outline["counts"]
    return _of_runs(_numbers(counts) if isinstance(counts, str) else counts, shape)


def _of_polygons(polygons: list[Any], shape: tuple[int, int]) -> Bools:
    height, width = shape
    for polygon in polygons:
        if not isinstance(polygon, list) or any(type(number) not in (int, float) for number in polygon):
            raise ValueError("a polygon is no list of numbers x, y, x, y, ...")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers; expected x and y of three points or more")
        for x, y in zip(polygon[::2], polygon[1::2], strict=True):
            if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
                raise ValueError(f"a point at ({x!s:.9}, {y!s:.9}) is nowhere near {width}x{height} pixels")
    return unpacked(rle.merge(rle.frPyObjects(polygons, height, width)))


def _of_runs(counts: Any, shape: tuple[int, int]) -> Bools:
    """Of how many pixels are out, in, out, ..., column by column."""
    if not isinstance(counts, list) or any(type(number) is not int or number < 0 for number in counts):
        raise ValueError("its run lengths are no whole numbers from 0")
    height, width = shape
    if sum(counts) != height * width:
        raise ValueError(f"its run lengths add up to {sum(counts)} pixels, and the picture has {height * width}")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def _numbers(text: str) -> list[int]:
    """Packed run lengths as numbers.

    A character is six bits from "0" on: five of the number, lowest first, and whether more follow. The highest bit of the last
    one is the sign; from the fourth on a number is the difference to that before the last (`rleFrString` of pycocotools).
    """
    counts, value, bits = list[int](), 0, 0
    for character in text:
        six = ord(character) - ord("0")
        if not 0 <= six < 64 or bits > _LONGEST:
            raise ValueError("its counts are no packed run lengths")
        value |= (six & 31) << bits
        bits += 5
        if six & 32:
            continue
        if six & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, bits = 0, 0
    if bits:
        raise ValueError("its packed run lengths break off")
    return counts
