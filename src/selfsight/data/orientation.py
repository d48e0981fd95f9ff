"""How the camera was held (EXIF 2.3, tag 274; the same numbers in TIFF)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

ORIENTATION = 274
Element = TypeVar("Element", bound=np.generic)


def valid(turn: object) -> int:
    """`turn` where it is one of 1 to 8, else 1: as it is."""
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def upright(pixels: npt.NDArray[Element], turn: int) -> npt.NDArray[Element]:
    """Stored pixels [height, width, ...] turned by 1 to 8; 5 and more exchange the sides."""
    if turn == 1:
        return pixels
    if turn in (2, 5, 7):
        pixels = pixels[:, ::-1]
    if turn == 4:
        pixels = pixels[::-1]
    quarters = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(turn, 0)
    return np.ascontiguousarray(np.rot90(pixels, quarters))
