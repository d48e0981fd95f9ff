"""Grey surfaces with patterned objects on them, as an inspection camera or a microscope sees them.

The class of a picture is the pattern of its object; shape, size, place, turn, light and grain are drawn at random and say
nothing about the class. A sampler turns (seed, index) into a pure `Surface`, and `draw` turns that into pixels and a mask.
There is no colour on purpose, and exposure is automatic (every picture and every pattern has the same mean): on pictures that
differ in colour or brightness a short self-supervised training learns these and nothing else. An object covers a third
of its picture: of one that fills it every crop is alike, and no network need look anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from selfsight.synthesis.patterns import PATTERNS, Floats, Rng

CLASSES = tuple(PATTERNS)
SHAPES = ("disc", "square", "triangle", "hexagon", "star", "plate")
_OVERSAMPLE = 4
_SPREAD = 0.8


@dataclass(frozen=True)
class Surface:
    """One picture; lengths in pixels, angles in radians, grey levels and contrasts in shares of full scale."""

    size: int
    pattern: str
    shape: str
    x: float
    y: float
    radius: float
    turn: float
    period: float
    pattern_turn: float
    object_grey: float
    object_contrast: float
    ground_grey: float
    slope: float
    slope_turn: float
    grain: float
    scratches: int
    seed: int


def sample(seed: int, index: int, size: int = 48) -> Surface:
    """The picture number `index` of a set; its class cycles through `PATTERNS`, so every set is balanced."""
    rng = np.random.default_rng([seed, index])
    radius = size * rng.uniform(0.34, 0.44)
    reach = 0.10 * size
    return Surface(
        size=size,
        pattern=CLASSES[index % len(CLASSES)],
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        x=size / 2 + rng.uniform(-reach, reach),
        y=size / 2 + rng.uniform(-reach, reach),
        radius=radius,
        turn=rng.uniform(0, 2 * math.pi),
        period=size * rng.uniform(0.10, 0.13),
        pattern_turn=math.radians(rng.uniform(-30, 30)),
        object_grey=rng.uniform(0.48, 0.52),
        object_contrast=rng.uniform(0.26, 0.32),
        ground_grey=rng.uniform(0.48, 0.52),
        slope=rng.uniform(0, 0.05),
        slope_turn=rng.uniform(0, 2 * math.pi),
        grain=rng.uniform(0.01, 0.03),
        scratches=int(rng.integers(0, 3)),
        seed=int(rng.integers(2**31)),
    )


def draw(surface: Surface) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """(grey picture as RGB, mask of the object [size, size])."""
    s, rng = surface, np.random.default_rng(surface.seed)
    y, x = np.mgrid[0 : s.size, 0 : s.size] + 0.5
    across = ((x - s.size / 2) * math.cos(s.slope_turn) + (y - s.size / 2) * math.sin(s.slope_turn)) / s.size
    pixels = s.ground_grey + s.slope * across
    for _ in range(s.scratches):
        pixels = _scratch(pixels, x, y, rng)
    cover = _cover(s)
    u = (x - s.x) * math.cos(s.pattern_turn) + (y - s.y) * math.sin(s.pattern_turn)
    v = (y - s.y) * math.cos(s.pattern_turn) - (x - s.x) * math.sin(s.pattern_turn)
    shift = rng.uniform(-1, 1, 2)
    pattern = _evened(PATTERNS[s.pattern](u / s.period + shift[0], v / s.period + shift[1], rng), cover)
    body = s.object_grey + s.slope * across + s.object_contrast * pattern
    pixels = pixels * (1 - cover) + body * cover + rng.normal(0, s.grain, pixels.shape)
    pixels += 0.5 - pixels.mean()
    grey = np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB"), cover > 0.5


def _evened(pattern: Floats, cover: Floats) -> Floats:
    """The pattern with mean 0 and spread `_SPREAD` over the object, so that neither tells one class from another."""
    weight = cover / cover.sum()
    pattern = pattern - (pattern * weight).sum()
    evened: Floats = pattern * (_SPREAD / np.sqrt((pattern**2 * weight).sum()))
    return evened


def _cover(s: Surface) -> Floats:
    """Share of each pixel that the object covers."""
    big = Image.new("L", (s.size * _OVERSAMPLE,) * 2)
    points = [((s.x + px * s.radius) * _OVERSAMPLE, (s.y + py * s.radius) * _OVERSAMPLE) for px, py in _outline(s.shape, s.turn)]
    ImageDraw.Draw(big).polygon(points, fill=255)
    small = big.resize((s.size, s.size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


def _outline(shape: str, turn: float) -> list[tuple[float, float]]:
    """Corners on or within the unit circle."""
    if shape == "plate":
        corners = [(-1.0, -0.62), (1.0, -0.62), (1.0, 0.62), (-1.0, 0.62)]
        return [(a * math.cos(turn) - b * math.sin(turn), a * math.sin(turn) + b * math.cos(turn)) for a, b in corners]
    count = {"disc": 40, "square": 4, "triangle": 3, "hexagon": 6, "star": 10}[shape]
    radii = [0.6 if shape == "star" and k % 2 else 1.0 for k in range(count)]
    angles = [turn + 2 * math.pi * k / count for k in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _scratch(pixels: Floats, x: Floats, y: Floats, rng: Rng) -> Floats:
    size = len(pixels)
    angle, offset = rng.uniform(0, math.pi), rng.uniform(0, size)
    distance = np.abs(x * math.cos(angle) + y * math.sin(angle) - offset)
    return pixels + rng.choice([-0.15, 0.15]) * np.exp(-(distance**2))
