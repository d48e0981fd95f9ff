"""From places to pixels: masks enlarged by pure scaling, drawn to edges, walked around."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from selfsight.attention.objects import box_of, in_pixels
from selfsight.attention.objects.outline import outline
from selfsight.attention.objects.pixels import coefficients, enlarged, guided


@pytest.mark.parametrize("size", [(28, 36), (30, 61), (224, 100), (5, 3)])
def test_a_pixel_belongs_to_the_place_in_which_its_middle_lies(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    ys, xs = (((np.arange(length) + 0.5) * places / length).astype(int) for length, places in zip(size, mask.shape, strict=True))
    big = enlarged(mask, size)
    np.testing.assert_array_equal(big, mask[ys[:, None], xs])
    if min(size) > 9:
        assert box_of(big) == in_pixels(box_of(mask), (size[0] / 7, size[1] / 9), size)


def disc(size: int, scale: float = 1.0) -> np.ndarray:
    canvas = Image.new("L", (size, size))
    ImageDraw.Draw(canvas).ellipse([0.28 * size, 0.3 * size, 0.75 * size * scale, 0.77 * size * scale], fill=255)
    return np.asarray(canvas) > 0


@pytest.mark.parametrize("size", [96, 700])
def test_a_mask_of_places_is_drawn_to_the_edge_of_the_thing(size: int) -> None:
    inside = disc(size)
    noise = np.random.default_rng(0).normal(0, 6, (size, size, 3))
    picture = (np.where(inside[..., None], (200, 90, 60), (70, 120, 90)) + noise).clip(0, 255).astype(np.uint8)
    shares = ndimage.zoom(inside.astype(float), 12 / size, order=1, grid_mode=True, mode="nearest")
    coarse = enlarged(shares > 0.5, (size, size))
    fine = guided(coarse, picture, (12, 12))

    def overlap(mask: np.ndarray) -> float:
        return float((mask & inside).sum() / (mask | inside).sum())

    assert overlap(coarse) < 0.9
    assert overlap(fine) > 0.95
    assert ndimage.label(fine)[1] == 1


@pytest.mark.parametrize("side", [1, 4, 12])
def test_where_there_are_no_edges_a_mask_stays_as_it_was(side: int) -> None:
    mask = enlarged(np.pad(np.ones((side, side), dtype=bool), (12 - side + 1) // 2)[:12, :12], (96, 96))
    np.testing.assert_array_equal(guided(mask, np.full((96, 96, 3), 90, dtype=np.uint8), (12, 12)), mask)


def test_the_guided_filter_is_a_line_fitted_around_every_pixel() -> None:
    """Against ridge regressions, one a window, as equation 14 of He et al. 2013 states it."""
    draw = np.random.default_rng(0)
    guide, target = draw.random((9, 8, 3)).astype(np.float32), draw.random((9, 8)).astype(np.float32)
    radius, eps = 1, 1e-2
    padded, wanted = np.pad(guide, ((1, 1), (1, 1), (0, 0)), mode="edge"), np.pad(target, 1, mode="edge")
    lines = np.empty((9, 8, 4))
    for y in range(9):
        for x in range(8):
            colours, values = padded[y : y + 3, x : x + 3].reshape(-1, 3), wanted[y : y + 3, x : x + 3].ravel()
            spread = np.cov(colours.T, bias=True) + eps * np.eye(3)
            slope = np.linalg.solve(spread, ((colours - colours.mean(0)) * (values - values.mean())[:, None]).mean(0))
            lines[y, x] = [*slope, values.mean() - slope @ colours.mean(0)]
    around = ndimage.uniform_filter(lines, (3, 3, 1), mode="nearest")
    slopes, offsets = coefficients(guide, target, radius, eps)
    np.testing.assert_allclose(slopes, around[..., :3], atol=1e-4)
    np.testing.assert_allclose(offsets, around[..., 3], atol=1e-4)


def test_the_outline_holds_the_part_and_its_holes_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    for _ in range(60):
        parts, _ = ndimage.label(draw.random(draw.integers(1, 9, 2)) < 0.6)
        part = parts == 1
        if not part.any():
            continue
        filled = ndimage.binary_fill_holes(np.pad(part, 1), structure=np.ones((3, 3)))[1:-1, 1:-1]
        np.testing.assert_array_equal(within(outline(part), part.shape), filled)
    assert outline(np.pad(np.ones((2, 3), dtype=bool), 1)) == [(1, 1), (4, 1), (4, 3), (1, 3)]


def within(corners: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose middles lie inside a polygon: an odd number of its upright edges is left of them."""
    inside = np.zeros(shape, dtype=bool)
    for (x, top), (other, bottom) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if x == other:
            inside[min(top, bottom) : max(top, bottom), x:] ^= True
    return inside
