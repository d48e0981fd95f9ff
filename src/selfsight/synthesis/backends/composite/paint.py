"""Colours of things and of the ground: plain, patterned, mottled, or out of an image. All are sRGB, [h, w, 3] from 0 to 1."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.synthesis.backends.pictures import cropped, scaled
from selfsight.synthesis.colours import ground_colour, thing_colour
from selfsight.synthesis.patterns import PATTERNS, evened
from selfsight.synthesis.scene import Scene, Thing

Floats: TypeAlias = npt.NDArray[np.float32]

TEXTURES = ("own", "plain", "mottled", *PATTERNS)
GROUNDS = ("plain", "gradient", "mottled", *PATTERNS)
_WAVES = 7
_TAMED = 0.63
"""Deviation of the hyperbolic tangent of a normal variable of deviation 1."""
_GROUND_PERIOD = 0.16
"""Of a pattern on the ground, in shorter sides."""
_FAINT = 0.26
"""Contrast of a pattern on the ground."""
_CELLS = (3, 7, 15, 31)


def modulated(base: Floats, pattern: Floats) -> Floats:
    """A colour, darker where the pattern [h, w] is below 0 and nearer to white above; at 1 half-way, or nearly."""
    light, dark = np.maximum(pattern, 0)[..., None], np.maximum(-pattern, 0)[..., None]
    return np.clip(base + (1 - base) * np.float32(0.5) * light - base * np.float32(0.6) * dark, 0, 1)


def surface(thing: Thing, x: Floats, y: Floats, diameter: float, image: Image.Image | None) -> Floats:
    """Colours of a thing at places x, y [h, w], in pixels from its middle in its own frame; `image` is that of its texture."""
    period = thing.number("texture_scale") * diameter
    rng = np.random.default_rng(thing.seed)
    shift = rng.uniform(0, 1, 2).astype(np.float32)
    u, v = x / np.float32(period) + shift[0], y / np.float32(period) + shift[1]
    if image is not None:
        return tiled(image, u, v, period)
    name, base = thing.word("texture"), thing_colour(thing)
    if name in ("own", "plain"):
        return np.broadcast_to(base, (*x.shape, 3))
    pattern = waves(u, v, rng) if name == "mottled" else evened(name, u.astype(np.float64), v.astype(np.float64), rng)
    return modulated(base, np.float32(thing.number("texture_contrast")) * pattern.astype(np.float32))


def waves(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Smooth spots about a period wide: plane waves of random directions, lengths and phases. Mean 0, deviation 1."""
    total = np.zeros_like(u)
    for direction, length, phase in rng.uniform(0, 1, (_WAVES, 3)):
        angle, pace = 2 * math.pi * direction, 2 * math.pi * (0.5 + length)
        across, along = np.float32(pace * math.cos(angle)), np.float32(pace * math.sin(angle))
        total += np.sin(across * u + along * v + np.float32(2 * math.pi * phase))
    return np.tanh(total / np.float32(math.sqrt(_WAVES / 2))) / np.float32(_TAMED)


def tiled(image: Image.Image, u: Floats, v: Floats, period: float) -> Floats:
    """The middle square of an image, repeated every period of so many pixels."""
    side, count = min(image.size), max(2, min(round(period), 1024))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = np.asarray(image.resize((count, count), Image.Resampling.BOX, (left, top, left + side, top + side), reducing_gap=2.0))
    row, column = ((values - np.floor(values)) * count for values in (v, u))
    pixels = small[np.minimum(row.astype(np.intp), count - 1), np.minimum(column.astype(np.intp), count - 1)]
    return scaled(pixels)


def ground(scene: Scene, photograph: Image.Image | None) -> Floats:
    """What lies behind everything."""
    rng = np.random.default_rng([scene.seed, 0])
    if photograph is not None:
        return cropped(photograph, scene.size, rng)
    (width, height), name, base = scene.size, scene.word("background"), ground_colour(scene)
    if name == "plain":
        return np.broadcast_to(base, (height, width, 3))
    if name == "mottled":
        return modulated(base, np.float32(0.6) * clouds(scene.size, rng))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    angle, short = rng.uniform(0, 2 * math.pi), min(scene.size)
    u = (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))) / short
    v = (y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))) / short
    if name == "gradient":
        return modulated(base, np.float32(0.7) * (u - u.mean()) * np.float32(1.4))
    pattern = evened(name, (u / _GROUND_PERIOD).astype(np.float64), (v / _GROUND_PERIOD).astype(np.float64), rng)
    return modulated(base, np.float32(_FAINT) * pattern.astype(np.float32))


def clouds(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """[h, w], about -1 to 1: noise on finer and finer grids, each of half the weight of the one before."""
    total = np.zeros((size[1], size[0]), dtype=np.float32)
    for octave, cells in enumerate(_CELLS):
        grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize(size, Image.Resampling.BICUBIC)) * np.float32(0.5**octave)
    return total
