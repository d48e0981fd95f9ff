"""Indexed PNGs whose numbers say which object a pixel belongs to, 0 for none: how DAVIS keeps its masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.data.decode import MAX_PIXELS, open_pillow
from selfsight.data.undecodable import UndecodableError, reasons
from selfsight.errors import DataError
from selfsight.runs import write_atomic

Ids = npt.NDArray[np.uint8]

VOID = 255
"""Beside other objects: nobody says whose the pixel is (DAVIS, Pascal VOC)."""
_MOST = 32
_EXPECTED = "expected an indexed PNG, whose numbers say which object a pixel belongs to, 0 for none"


def palette() -> npt.NDArray[np.uint8]:
    """[256, 3]: the colours of Pascal VOC, which spread the bits of a number over red, green and blue; DAVIS has them, too."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def read_ids(path: Path) -> Ids:
    """[h, w]; `DataError` for what is no picture of numbers."""
    image = _opened(path)
    try:
        with reasons():
            return np.array(image, dtype=np.uint8)
    except UndecodableError as error:
        raise DataError(f"{path}: cannot be read ({error}); {_EXPECTED}") from None


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, without decompressing; `DataError` as `read_ids`, but for damage within."""
    return _opened(path).size


def _opened(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: does not exist; {_EXPECTED}")
    try:
        with reasons():
            image = open_pillow(path.read_bytes(), MAX_PIXELS)
    except UndecodableError as error:
        raise DataError(f"{path}: cannot be read ({error}); {_EXPECTED}") from None
    if image.mode not in ("P", "L", "1"):
        raise DataError(f"{path}: holds colours or wide numbers (mode {image.mode}); {_EXPECTED}")
    return image


def objects_in(ids: Ids) -> list[int]:
    """The numbers of the objects, rising, without 0; 255 is one only where it is alone, as in masks of black and white."""
    found = [number for number in np.unique(ids).tolist() if number]
    return found if found == [VOID] else [number for number in found if number != VOID]


def read_first_ids(path: Path) -> tuple[Ids, list[int]]:
    """The mask from which a video starts, and its objects; `DataError` where it has none, or the many of a blurred edge."""
    ids = read_ids(path)
    objects = objects_in(ids)
    if not objects:
        raise DataError(f"{path}: shows no object, all is background; {_EXPECTED}")
    if len(objects) > _MOST:
        raise DataError(f"{path}: holds {len(objects)} different numbers; expected at most {_MOST} objects and no blurred edges")
    return np.where(np.isin(ids, objects), ids, 0).astype(np.uint8), objects


def write_ids(path: Path, ids: Ids) -> None:
    """Atomically, as an indexed PNG in the colours of DAVIS."""
    image = Image.fromarray(ids)
    image.putpalette(palette().tobytes())
    write_atomic(path, lambda temporary: image.save(temporary, "PNG"))
