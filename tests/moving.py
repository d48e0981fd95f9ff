"""A film in which two textured things go their ways over textured ground, and the masks that are true of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from films import encoded
from selfsight.data.object_ids import write_ids

HEIGHT, WIDTH = 64, 96
STEP = 3
"""Pixels that the first thing moves from frame to frame."""

Pixels = npt.NDArray[np.uint8]


class Film(NamedTuple):
    """Frames [T, HEIGHT, WIDTH, 3] and the numbers of the things in each pixel [T, HEIGHT, WIDTH]."""

    frames: Pixels
    ids: Pixels

    def file(self, path: Path) -> Path:
        return encoded(path, self.frames)

    def folder(self, path: Path) -> Path:
        path.mkdir(parents=True)
        for number, pixels in enumerate(self.frames):
            Image.fromarray(pixels).save(path / f"{number:05d}.png")
        return path

    def truth(self, path: Path) -> Path:
        for number, ids in enumerate(self.ids):
            write_ids(path / f"{number:05d}.png", ids)
        return path


def film(count: int = 12, *, shift: int = STEP) -> Film:
    """The first thing, a reddish disk, goes right by `shift`; the second, a bluish square, down by half of it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = _texture((70, 110, 70), 0)
    things = (_texture((190, 90, 60), 1), _texture((70, 80, 190), 2))
    frames, ids = [], []
    for t in range(count):
        disk = (x - 20 - t * shift) ** 2 + (y - 22) ** 2 < 13**2
        square = (abs(x - 74) < 10) & (abs(y - 30 - t * shift / 2) < 10) & ~disk
        pixels, numbers = ground.copy(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for number, (shape, way) in enumerate(((disk, (0, t * shift)), (square, (t * shift // 2, 0))), 1):
            pixels[shape] = np.roll(things[number - 1], way, (0, 1))[shape]
            numbers[shape] = number
        frames.append(pixels)
        ids.append(numbers)
    return Film(np.stack(frames), np.stack(ids))


def _texture(colour: tuple[int, int, int], seed: int) -> Pixels:
    grain = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 3)), (1.5, 1.5, 0), mode="wrap")
    return np.clip(np.array(colour) + 150 * grain, 0, 255).astype(np.uint8)
