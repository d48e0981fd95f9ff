"""Surfaces of things and of the ground: graphs of shader nodes, built once for each kind and place and then only given values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.synthesis.backends.blender.loaded import blender
from selfsight.synthesis.colours import GAMMA
from selfsight.synthesis.patterns import PATTERNS, evened

Floats: TypeAlias = npt.NDArray[np.float32]

_PERIODS = 4
"""Of a pattern in its image; each pattern but those of `_MIRRORED` repeats after so many."""
_MIRRORED = frozenset({"rings", "cells"})
_PIXELS = 512
_REACH = 2.0
"""Deviations of a pattern that its image holds to either side of the mean."""


class Surface:
    """A material of one kind: `plain`, `pattern`, `mottled` or `image`; `gradient` and `photo` are laid out over the picture, not
    over the thing."""

    def __init__(self, name: str, kind: str) -> None:
        self.kind = kind
        self.material = blender().data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.shader = self.tree.nodes["Principled BSDF"]
        self.image: Any = None
        self.ramp: Any = None
        if kind != "plain":
            self._build()

    def _build(self) -> None:
        add, link = self.tree.nodes.new, self.tree.links.new
        place, self.mapping = add("ShaderNodeTexCoord"), add("ShaderNodeMapping")
        link(place.outputs["Window" if self.kind in ("photo", "gradient") else "Object"], self.mapping.inputs["Vector"])
        if self.kind == "mottled":
            self.texture = add("ShaderNodeTexNoise")
            self.texture.noise_dimensions = "4D"
            self.texture.inputs["Detail"].default_value = 4
            stretch = add("ShaderNodeMapRange")
            stretch.inputs["From Min"].default_value, stretch.inputs["From Max"].default_value = 0.25, 0.75
            link(self.texture.outputs["Fac"], stretch.inputs["Value"])
            value = stretch.outputs["Result"]
        elif self.kind == "gradient":
            self.texture = add("ShaderNodeSeparateXYZ")
            value = self.texture.outputs["X"]
        else:
            self.texture = add("ShaderNodeTexImage")
            if self.kind != "photo":
                self.texture.projection, self.texture.projection_blend = "BOX", 0.15
            value = self.texture.outputs["Color"]
        link(self.mapping.outputs["Vector"], self.texture.inputs["Vector"])
        if self.kind not in ("image", "photo"):
            self.ramp = add("ShaderNodeValToRGB")
            self.ramp.color_ramp.elements.new(0.5)
            link(value, self.ramp.inputs["Fac"])
            value = self.ramp.outputs["Color"]
        link(value, self.shader.inputs["Base Color"])

    def finish(self, roughness: float, metallic: float, shine: float = 0.5) -> None:
        """Without `shine` it is as bright as its colour from wherever it is seen."""
        self.shader.inputs["Specular IOR Level"].default_value = shine
        self.shader.inputs["Roughness"].default_value = roughness
        self.shader.inputs["Metallic"].default_value = metallic

    def colour(self, base: Floats, contrast: float = 1.0) -> None:
        """sRGB [3]; patterns go from darker to lighter than it, as far as in a flat scene."""
        if self.ramp is None:
            self.shader.inputs["Base Color"].default_value = _linear(base)
            return
        reach = np.float32(_REACH * contrast)
        dark, light = base - base * np.float32(0.6) * reach, base + (1 - base) * np.float32(0.5) * reach
        for element, shade in zip(self.ramp.color_ramp.elements, (dark, base, light), strict=True):
            element.color = _linear(shade)

    def lay(self, period: float, shift: npt.NDArray[np.float64], turn: float = 0.0) -> None:
        """How long a period is in the units of the thing, and where the first begins, [3] in periods."""
        step = 1 / (period * (_PERIODS if self.kind == "pattern" else 1))
        self.mapping.inputs["Scale"].default_value = (step, step, step)
        self.mapping.inputs["Location"].default_value = shift.tolist()
        self.mapping.inputs["Rotation"].default_value = (0.0, 0.0, turn)
        if self.kind == "mottled":
            self.texture.inputs["W"].default_value = 100 * float(shift[0])

    def slope(self, turn: float) -> None:
        """Let a gradient rise across the picture, from corner to corner."""
        length = math.sqrt(2)
        self.mapping.inputs["Scale"].default_value = (1 / length,) * 3
        self.mapping.inputs["Rotation"].default_value = (0.0, 0.0, -turn)
        self.mapping.inputs["Location"].default_value = (0.5 - (math.cos(turn) + math.sin(turn)) / 2 / length, 0.0, 0.0)

    def show(self, image: Any, mirrored: bool = False) -> None:
        self.texture.image = image
        self.texture.extension = "MIRROR" if mirrored else "REPEAT"


def kind_of(name: str) -> str:
    """Of a texture or ground by its name."""
    if name == "own":
        return "plain"
    return name if name in ("plain", "mottled", "gradient") else "pattern" if name in PATTERNS else "image"


def give_pattern(surface: Surface, name: str) -> None:
    """Let a surface of kind `pattern` show one of `PATTERNS`."""
    surface.show(_kept(f"pattern {name}", partial(_pattern, name)), name in _MIRRORED)


def file_image(path: str) -> Any:
    """An image of the user's, as Blender reads it; None where it cannot."""
    bpy = blender()
    try:
        image = bpy.data.images.load(path, check_existing=True)
    except RuntimeError:
        return None
    return image if image.size[0] and image.size[1] else None


def drawn_image(name: str, pixels: Floats) -> Any:
    """[h, w, 3] of linear values as an image; the one of that name and size is drawn over."""
    bpy, (height, width) = blender(), pixels.shape[:2]
    image = bpy.data.images.get(name)
    if image is not None and tuple(image.size) != (width, height):
        bpy.data.images.remove(image)
        image = None
    if image is None:
        image = bpy.data.images.new(name, width, height, float_buffer=True)
        image.colorspace_settings.name = "Non-Color"
    flat = np.ones((height, width, 4), dtype=np.float32)
    flat[..., :3] = pixels[::-1]
    image.pixels.foreach_set(flat.reshape(-1))
    image.update()
    return image


def _pattern(name: str) -> Floats:
    place = (np.arange(_PIXELS) + 0.5) / _PIXELS * _PERIODS - (_PERIODS / 2 if name in _MIRRORED else 0)
    u, v = np.meshgrid(place, place)
    values = evened(name, u, v, np.random.default_rng(0)) / (2 * _REACH) + 0.5
    return np.repeat(values[..., None], 3, axis=2).astype(np.float32)


def _kept(name: str, make: Callable[[], Floats]) -> Any:
    image = blender().data.images.get(name)
    return drawn_image(name, make()) if image is None else image


def _linear(colour: Floats) -> tuple[float, float, float, float]:
    red, green, blue = (float(value) for value in np.power(np.clip(colour, 0, 1), GAMMA))
    return red, green, blue, 1.0


def shift_of(seed: int) -> npt.NDArray[np.float64]:
    """Where a pattern begins on a thing."""
    return np.random.default_rng(seed).uniform(0, 1, 3)


def random_turn(seed: int) -> float:
    return float(np.random.default_rng([seed, 2]).uniform(0, 2 * math.pi))
