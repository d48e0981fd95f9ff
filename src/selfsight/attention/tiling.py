"""Pictures larger than a network bears at once: seen in overlapping tiles, whose edges are blended.

The features of a place are the mean of what the tiles say that hold it, each weighing less towards its edge. Attention needs
more care: the CLS of a tile shares its attention out among the places of that tile alone, so a tile of bare wall would get as
much as one that holds a face. How much a tile gets is therefore taken from the whole picture, seen once in the size of a tile,
and where within the tile it falls from the tile: p(place) = sum over tiles of p(tile) p(place | tile).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from selfsight.attention.looking import Gaze, Look, Point
from selfsight.attention.seeing import Eyes
from selfsight.data.decode import Picture
from selfsight.errors import InputError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_OVERLAP = 0.25
"""The share of a tile that it has in common with the next one, at least."""
_SHARED = ("attention", "rollout", "registers")


class Tile(NamedTuple):
    """A rectangle of places, and its weight [h, w] in each of them: those of all tiles add up to 1."""

    rows: slice
    columns: slice
    weight: Doubles


class TiledGaze:
    """A gaze that looks at tiles of `side` pixels. `InputError` for a side of less than two patches."""

    def __init__(self, eyes: Eyes, rows: frozenset[str], side: int) -> None:
        if side < 2 * eyes.patch:
            raise InputError(
                f"--tile {side}: is less than two patches of {eyes.encoder.spec}; expected a number from {2 * eyes.patch}"
            )
        if "point" in rows:
            raise InputError(
                "--tile: a point attends to its own tile alone; leave --tile out, or take similarity in place of point"
            )
        self.eyes, self.gaze, self.side = eyes, Gaze(eyes, rows), side // eyes.patch

    def __call__(self, picture: Picture, at: Point | None = None) -> Look:
        device = next(self.eyes.backbone.parameters()).device
        return self.look(self.eyes.prepare(picture)[None].to(device), at)

    def look(self, image: Tensor, at: Point | None = None) -> Look:
        """A prepared picture [1, C, H, W]."""
        patch = self.eyes.patch
        grid = image.shape[2] // patch, image.shape[3] // patch
        if max(grid) <= self.side:
            return self.gaze.look(image, at)
        tiles = cut(grid, self.side)
        looks = [self.gaze.look(image[:, :, _pixels(tile.rows, patch), _pixels(tile.columns, patch)]) for tile in tiles]
        for tile, look in zip(tiles, looks, strict=True):
            if look.grid != tile.weight.shape:
                raise InputError(f"--tile: the map of {self.eyes.encoder.spec} has places of other sizes; leave --tile out")
        return _blended(grid, tiles, looks, self.gaze.look(self._small(image, grid)))

    def _small(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        """The whole picture in the size of a tile."""
        height, width = (max(1, round(side * self.side / max(grid))) * self.eyes.patch for side in grid)
        return F.interpolate(image, (height, width), mode="bilinear", antialias=True)


def cut(grid: tuple[int, int], side: int) -> list[Tile]:
    """Tiles of at most `side` places a side that cover a grid, evenly apart."""
    spans = [_spans(length, min(side, length)) for length in grid]
    weights = [[_ramp(length, span) for span in found] for length, found in zip(grid, spans, strict=True)]
    totals = [np.sum(each, axis=0) for each in weights]
    found = []
    for rows, down in zip(spans[0], weights[0], strict=True):
        for columns, across in zip(spans[1], weights[1], strict=True):
            found.append(Tile(rows, columns, np.outer((down / totals[0])[rows], (across / totals[1])[columns])))
    return found


def _spans(length: int, side: int) -> list[slice]:
    if side == length:
        return [slice(0, length)]
    step = max(1, int(side * (1 - _OVERLAP)))
    starts = np.rint(np.linspace(0, length - side, 1 - (side - length) // step)).astype(int).tolist()
    return [slice(start, start + side) for start in starts]


def _ramp(length: int, span: slice) -> Doubles:
    """[length]: highest in the middle of the span, falling to its edges, 0 outside."""
    at = np.arange(length) - span.start
    side = span.stop - span.start
    ramp: Doubles = np.minimum(at + 1.0, side - at).clip(0)
    return ramp


def _pixels(places: slice, patch: int) -> slice:
    return slice(places.start * patch, places.stop * patch)


def _blended(grid: tuple[int, int], tiles: Sequence[Tile], looks: Sequence[Look], whole: Look) -> Look:
    patches = _mean(grid, tiles, [look.patches.T for look in looks]).T
    norms = _mean(grid, tiles, [look.norms for look in looks])
    rows = {
        name: _mixed(grid, tiles, [getattr(look, name) for look in looks], _spread(coarse, whole.grid, grid))
        for name in _SHARED
        if (coarse := getattr(whole, name)) is not None
    }
    return Look(grid, np.ascontiguousarray(patches), norms, **rows)


def _mean(grid: tuple[int, int], tiles: Sequence[Tile], values: Sequence[Floats]) -> Floats:
    """Of each tile [..., n] -> [..., N], by weight."""
    total = np.zeros((*values[0].shape[:-1], *grid))
    for tile, each in zip(tiles, values, strict=True):
        total[..., tile.rows, tile.columns] += each.reshape(*each.shape[:-1], *tile.weight.shape) * tile.weight
    return total.reshape(*values[0].shape[:-1], -1).astype(np.float32)


def _mixed(grid: tuple[int, int], tiles: Sequence[Tile], values: Sequence[Floats], coarse: Doubles) -> Floats:
    """Shares within each tile [k, n] and in the whole picture [k, h, w] -> shares [k, N] that add up to as much as the latter."""
    scaled = []
    for tile, each in zip(tiles, values, strict=True):
        within = each.reshape(*each.shape[:-1], *tile.weight.shape) * tile.weight
        share = (coarse[..., tile.rows, tile.columns] * tile.weight).sum((-2, -1), keepdims=True)
        scaled.append((share / within.sum((-2, -1), keepdims=True) * each.reshape(within.shape)).reshape(each.shape))
    return _mean(grid, tiles, scaled)


def _spread(coarse: Floats, small: tuple[int, int], grid: tuple[int, int]) -> Doubles:
    """[..., n] over a small grid -> [..., h, w] over a larger one, adding up to the same."""
    flat = coarse.reshape(-1, *small)
    large = np.stack([np.asarray(Image.fromarray(each).resize(grid[::-1], Image.Resampling.BILINEAR)) for each in flat])
    scaled = large.astype(np.float64) * (flat.sum((1, 2)) / large.sum((1, 2)))[:, None, None]
    return scaled.reshape(*coarse.shape[:-1], *grid)
