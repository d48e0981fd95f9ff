"""The sky of rendered scenes: a plain white one, a panorama, or a photograph behind everything."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.materials import file_image
from selfsight.synthesis.colours import GAMMA, ground_colour
from selfsight.synthesis.scene import Scene


class Sky:
    """What the camera sees above the ground, and where the light comes from that casts no shadow."""

    def __init__(self, bpy: Any) -> None:
        self.world = bpy.data.worlds.new("sky")
        self.world.use_nodes = True
        tree = self.world.node_tree
        add, link = tree.nodes.new, tree.links.new
        self.light, self.seen, mix = tree.nodes["Background"], add("ShaderNodeBackground"), add("ShaderNodeMixShader")
        self.panorama, self.photograph = add("ShaderNodeTexEnvironment"), add("ShaderNodeTexImage")
        place = add("ShaderNodeTexCoord")
        link(place.outputs["Window"], self.photograph.inputs["Vector"])
        link(add("ShaderNodeLightPath").outputs["Is Camera Ray"], mix.inputs["Fac"])
        link(self.light.outputs[0], mix.inputs[1])
        link(self.seen.outputs[0], mix.inputs[2])
        link(mix.outputs[0], tree.nodes["World Output"].inputs["Surface"])
        self.tree = tree

    def set(self, scene: Scene, base: Path, photograph: Any | None) -> None:
        name, strength = scene.word("hdri"), scene.number("ambient") * scene.number("light")
        panorama = None if name == "none" else opened_image(name, base)
        self.panorama.image, self.photograph.image = panorama, photograph
        self._feed(self.light, self.panorama if panorama else None, (1.0, 1.0, 1.0, 1.0))
        flat = np.power(ground_colour(scene), GAMMA).tolist()
        self._feed(self.seen, self.photograph if photograph else self.panorama if panorama else None, (*flat, 1.0))
        if panorama:
            strength /= _mean(panorama.filepath)
        self.light.inputs["Strength"].default_value = strength
        self.seen.inputs["Strength"].default_value = strength if panorama and not photograph else scene.number("light")

    def _feed(self, of: Any, image: Any | None, colour: Any) -> None:
        socket = of.inputs["Color"]
        for link in list(socket.links):
            self.tree.links.remove(link)
        if image is not None:
            self.tree.links.new(image.outputs["Color"], socket)
        else:
            socket.default_value = colour


def opened_image(name: str, base: Path) -> Any:
    """`DataError` where Blender cannot read it."""
    image = file_image(str((base / name).absolute()))
    if image is None:
        raise DataError(f"{base / name}: cannot be read as an image")
    return image


@cache
def _mean(path: str) -> float:
    """Of a panorama, each row with the share of the sphere that it covers."""
    image = file_image(path)
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    rows = pixels.reshape(height, width, 4)[..., :3].mean((1, 2), dtype=np.float64)
    weight = np.sin(math.pi * (np.arange(height) + 0.5) / height)
    return max(1e-6, float((rows * weight).sum() / weight.sum()))
