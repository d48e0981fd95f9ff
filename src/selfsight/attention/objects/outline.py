"""The outline of a mask as a polygon."""

from __future__ import annotations

import numpy as np

from selfsight.attention.objects.base import Bools

Corner = tuple[int, int]
_AHEAD = {(1, 0): ((0, 0), (0, -1)), (0, 1): ((-1, 0), (0, 0)), (-1, 0): ((-1, -1), (-1, 0)), (0, -1): ((0, -1), (-1, -1))}
"""Of each direction of walking (across, down): the pixels right and left ahead, from the corner where one stands."""


def outline(mask: Bools) -> list[Corner]:
    """Corners (across, down) between pixels, clockwise, around that part of a mask [H, W] which holds its first pixel.

    Pixels that touch at a corner alone are not connected; holes are left out. A walk along the edges of pixels with the mask on
    the right hand, on which only turns are noted.
    """
    inside = np.pad(mask, 1)
    top = int(np.flatnonzero(mask.any(axis=1))[0])
    start = at = (int(np.flatnonzero(mask[top])[0]), top)
    across, down = 1, 0
    corners = [start]
    while True:
        at = (at[0] + across, at[1] + down)
        right, left = (inside[at[1] + 1 + y, at[0] + 1 + x] for x, y in _AHEAD[across, down])
        if right and not left:
            continue
        across, down = (-down, across) if not right else (down, -across)
        if at == start and (across, down) == (1, 0):
            return corners
        corners.append(at)
