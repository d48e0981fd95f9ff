"""One thing of a scene on the pixels of the picture: what it covers, and where it is cut by the edge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.synthesis.backends.composite.paint import TEXTURES, surface
from selfsight.synthesis.backends.composite.shapes import SHAPES, coverage
from selfsight.synthesis.backends.pictures import Pictures
from selfsight.synthesis.frame import Full, box_of
from selfsight.synthesis.scene import Scene, Thing

Floats: TypeAlias = npt.NDArray[np.float32]
COVERED = 128
"""Coverage of 255 from which a pixel is of the thing."""


@dataclass(frozen=True)
class Layer:
    """A thing on a tile of its own, which may reach beyond the picture: `left`, `top` are the tile's place in it.

    `alpha` [h, w] bytes, `colours` [h, w, 3] sRGB, `x`, `y` [h, w] places from the middle in radii.
    """

    left: int
    top: int
    alpha: npt.NDArray[np.uint8]
    colours: Floats
    x: Floats
    y: Floats

    def full(self) -> Full:
        covered = self.alpha >= COVERED
        x, y, w, h = box_of(covered)
        return Full((self.left + x, self.top + y, w, h), int(covered.sum()))


def layer(scene: Scene, thing: Thing, pictures: Pictures) -> Layer:
    """The thing where and as large as its factors say."""
    width, height = scene.size
    radius = thing.number("size") * min(scene.size) / 2
    centre = thing.number("x") * width, thing.number("y") * height
    left, top = (math.floor(at - radius) - 1 for at in centre)
    side = math.ceil(2 * radius) + 3
    turn, middle = math.radians(thing.number("rotation")), (centre[0] - left, centre[1] - top)
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + np.float32(0.5)) - np.array(middle, dtype=np.float32)[::-1, None, None]
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    across, down = x * cos - y * sin, x * sin + y * cos
    texture = _texture(thing, pictures)
    if thing.asset in SHAPES:
        alpha = coverage(thing.asset, middle, radius, turn, (side, side))
        colours = surface(thing, across, down, 2 * radius, texture)
    else:
        pasted = _pasted(thing, pictures, middle, radius, turn, side)
        alpha, own = pasted[..., 3], pasted[..., :3].astype(np.float32) / np.float32(255)
        colours = own if thing.word("texture") == "own" else surface(thing, across, down, 2 * radius, texture)
    return Layer(left, top, alpha, colours, x / np.float32(radius), y / np.float32(radius))


def _texture(thing: Thing, pictures: Pictures) -> Image.Image | None:
    name = thing.word("texture")
    return None if name in TEXTURES else pictures.image(name)


def _pasted(
    thing: Thing, pictures: Pictures, middle: tuple[float, float], radius: float, turn: float, side: int
) -> npt.NDArray[np.uint8]:
    """A cut-out, turned and scaled, [side, side, 4]. Pillow weighs colours by alpha, so that nothing shines through at edges."""
    cutout = pictures.cutout(thing.asset)
    scale = radius / cutout.radius
    depth = min(max(0, math.floor(-math.log2(scale))), len(cutout.levels) - 1)
    image, whole = cutout.levels[depth], cutout.levels[0]
    shrunk = image.width / whole.width, image.height / whole.height
    a, b = math.cos(turn) / scale, math.sin(turn) / scale
    x, y = whole.width / 2 - a * middle[0] + b * middle[1], whole.height / 2 - b * middle[0] - a * middle[1]
    rows = (a, -b, x), (b, a, y)
    matrix = [value * shrunk[axis] for axis, row in enumerate(rows) for value in row]
    return np.asarray(image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
