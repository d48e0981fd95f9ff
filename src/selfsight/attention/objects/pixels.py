"""From places to pixels: masks over the grid enlarged to the picture, and drawn to its edges if asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from selfsight.attention.objects.base import Bools

Planes: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
_ACROSS = 12
"""Pixels of a place, to which larger ones are shrunk while edges are looked for."""
_REACH = 2
"""Places within which an edge is looked for: masks over the grid are wrong by about one."""
_EPS = 1e-4
"""Variance of colours, each from 0 to 1, below which a neighbourhood counts as flat."""


def enlarged(mask: Bools, size: tuple[int, int]) -> Bools:
    """[h, w] over the grid -> [H, W] over the picture: a pixel belongs to the place in which its middle lies."""
    for axis in (0, 1):
        places, pixels = mask.shape[axis], size[axis]
        ends = np.ceil(np.arange(places + 1) * pixels / places - 0.5).astype(np.int64)
        mask = np.repeat(mask, np.diff(ends), axis=axis)
    return mask


def guided(mask: Bools, picture: Bytes, grid: tuple[int, int]) -> Bools:
    """A mask [H, W] drawn to the edges of its picture [H, W, 3]: guided filter over places and their neighbours (He et al. 2010).

    The largest connected part of what comes out. The mask itself where the two have less than half in common: a small thing in a
    flat neighbourhood has no edges to be drawn to, and would be smoothed away. Coefficients are found in a smaller picture where
    places are large, as in the fast form of the filter (He and Sun 2015).
    """
    height, width = mask.shape
    place = max(height / grid[0], width / grid[1])
    shrink = max(1, int(place / _ACROSS))
    small = Image.fromarray(picture).reduce(shrink)
    inside = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).reduce(shrink)
    slopes, offset = coefficients(_shares(small), _shares(inside), round(_REACH * place / shrink))
    soft = _resized(offset, (width, height))
    for channel in range(3):
        soft += _resized(slopes[..., channel], (width, height)) * (picture[..., channel].astype(np.float32) / 255)
    found = _largest_part(soft > 0.5)
    return found if 2 * (found & mask).sum() >= (found | mask).sum() else mask


def coefficients(guide: Planes, target: Planes, radius: int, eps: float = _EPS) -> tuple[Planes, Planes]:
    """Guide [h, w, 3] and target [h, w], from 0 to 1 -> slopes [h, w, 3] and offsets [h, w] of the line that gives the target
    from the guide around each pixel (equations 19 to 21 of He et al. 2013: guides of colour)."""
    mean = _mean_around(radius)
    colour, level = np.stack([mean(guide[..., c]) for c in range(3)], axis=-1), mean(target)
    with_target = np.stack([mean(guide[..., c] * target) for c in range(3)], axis=-1) - colour * level[..., None]
    spread = np.empty((*target.shape, 3, 3), dtype=np.float32)
    for one, other in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        spread[..., one, other] = mean(guide[..., one] * guide[..., other]) - colour[..., one] * colour[..., other]
        spread[..., other, one] = spread[..., one, other]
    slopes = np.linalg.solve(spread + eps * np.eye(3, dtype=np.float32), with_target[..., None])[..., 0]
    offset = level - (slopes * colour).sum(-1)
    return np.stack([mean(slopes[..., c]) for c in range(3)], axis=-1), mean(offset)


def _shares(image: Image.Image) -> Planes:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _mean_around(radius: int) -> Callable[[Planes], Planes]:
    def mean(plane: Planes) -> Planes:
        out: Planes = ndimage.uniform_filter(plane, 2 * radius + 1, mode="nearest")
        return out

    return mean


def _resized(plane: Planes, size: tuple[int, int]) -> Planes:
    return np.array(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BILINEAR))


def _largest_part(mask: Bools) -> Bools:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    found: Bools = mask & (parts == sizes.argmax())
    return found
