"""Cut-outs and built-in shapes put together in flat scenes: no renderer, thousands of pictures a minute."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from selfsight.synthesis.backends.base import Backend
from selfsight.synthesis.backends.composite.layers import COVERED, Layer, layer
from selfsight.synthesis.backends.composite.light import Lamp, lamps, lit, shading
from selfsight.synthesis.backends.composite.paint import GROUNDS, TEXTURES, ground
from selfsight.synthesis.backends.composite.shapes import SHAPES
from selfsight.synthesis.backends.pictures import Pictures
from selfsight.synthesis.colours import GAMMA
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.frame import Frame
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.sensor import exposed
from selfsight.synthesis.spec import SynthSpec

Floats: TypeAlias = npt.NDArray[np.float32]

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_OF_SPACE = frozenset({"pitch", "roll", "roughness", "metallic", "drop", "scenery", "hdri"}) | frozenset(
    {"distance", "focal_length", "camera_azimuth", "camera_elevation"}
)
"""Factors that need a third dimension."""
_PENUMBRA = 0.25
"""Deviation of the blur of a shadow's edge, in the length of the shadow."""


class Composite(Backend):
    """Things one over the other on a ground, lit by lamps that throw soft shadows."""

    name = "composite"
    says = "cut-outs with alpha and built-in shapes on photographs or drawn grounds; needs nothing but selfsight"
    labels = frozenset({"instances", "semantic", "boxes", "full_boxes", "visible"})
    factors = frozenset(FACTORS) - _OF_SPACE
    built_in: ClassVar[dict[str, tuple[str, ...]]] = {"asset": SHAPES, "texture": TEXTURES, "background": GROUNDS}
    suffixes: ClassVar[dict[str, tuple[str, ...]]] = {
        "asset": (".png", ".webp", ".tif", ".tiff"),
        "texture": _IMAGES,
        "background": _IMAGES,
    }
    distractors = ("shape/cross", "shape/gear")

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.pictures = Pictures(base)

    def check(self, spec: SynthSpec) -> None:
        for name in sorted({*spec.all_assets()} - {*SHAPES}):
            self.pictures.cutout(name)
        for name in sorted({*spec.names("texture")} - {*TEXTURES} | {*spec.names("background")} - {*GROUNDS}):
            self.pictures.image(name)

    def draw(self, scene: Scene) -> Frame:
        """Things are laid on from the farthest to the nearest. Each darkens by its shadow what is there, and then covers it."""
        background = scene.word("background")
        photograph = None if background in GROUNDS else self.pictures.image(background)
        albedo: Floats = np.power(ground(scene, photograph), np.float32(GAMMA))
        shining = lamps(scene)
        lamplight = np.ones((len(shining), *albedo.shape[:2]), dtype=np.float32)
        height, width = albedo.shape[:2]
        instances = np.zeros((height, width), dtype=np.uint16)
        numbers = {id(thing): number for number, thing in enumerate(scene.objects, 1)}
        full = {}
        for thing in reversed(scene.things):
            one, number = layer(scene, thing, self.pictures), numbers.get(id(thing), 0)
            for lamp, light in zip(shining, lamplight, strict=True):
                _throw(one, lamp, light)
            _cover(one, shining, albedo, lamplight)
            here, there = _meeting(one, height, width)
            instances[here][one.alpha[there] >= COVERED] = number
            full[number] = one.full()
        return Frame(exposed(lit(albedo, lamplight, scene), scene), instances, [full[k] for k in sorted(full) if k])


def _meeting(one: Layer, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a tile lies in the picture, and which part of the tile that is."""
    (h, w), left, top = one.alpha.shape, one.left, one.top
    rows, columns = (max(0, top), max(0, min(height, top + h))), (max(0, left), max(0, min(width, left + w)))
    here = slice(*rows), slice(*columns)
    return here, (slice(rows[0] - top, max(0, rows[1] - top)), slice(columns[0] - left, max(0, columns[1] - left)))


def _throw(one: Layer, lamp: Lamp, light: Floats) -> None:
    """Take from `light` [h, w] of a lamp what the thing keeps off."""
    size = len(one.alpha)
    x, y = lamp.shadow(size)
    soft = max(0.5, _PENUMBRA * float(np.hypot(x, y)))
    margin = int(np.ceil(2.5 * soft))
    padded = Image.fromarray(np.pad(one.alpha, margin))
    shadow = np.asarray(padded.filter(ImageFilter.GaussianBlur(soft)))
    moved = Layer(round(one.left - margin + x), round(one.top - margin + y), shadow, one.colours, one.x, one.y)
    here, there = _meeting(moved, light.shape[0], light.shape[1])
    light[here] *= 1 - shadow[there] / np.float32(255)


def _cover(one: Layer, shining: list[Lamp], albedo: Floats, lamplight: Floats) -> None:
    here, there = _meeting(one, albedo.shape[0], albedo.shape[1])
    alpha = one.alpha[there] / np.float32(255)
    albedo[here] += alpha[..., None] * (np.power(one.colours[there], np.float32(GAMMA)) - albedo[here])
    for lamp, light in zip(shining, lamplight, strict=True):
        light[here] += alpha * (shading(lamp, one.x[there], one.y[there]) - light[here])
