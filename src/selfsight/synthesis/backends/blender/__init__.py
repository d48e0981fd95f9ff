"""Scenes in three dimensions, rendered by Blender's Cycles: one render gives the picture and all of its labels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from selfsight.synthesis.backends.base import Backend
from selfsight.synthesis.backends.blender.arranging import arranged, check_places
from selfsight.synthesis.backends.blender.labels import corrected, solid, whole
from selfsight.synthesis.backends.blender.loaded import blender
from selfsight.synthesis.backends.blender.models import SOLIDS, Models
from selfsight.synthesis.backends.blender.passes import rendered
from selfsight.synthesis.backends.blender.reading import SUFFIXES
from selfsight.synthesis.backends.blender.scenery import BUILT_IN, opened_scenery, scenery_of
from selfsight.synthesis.backends.blender.sky import opened_image
from selfsight.synthesis.backends.blender.stage import stage
from selfsight.synthesis.backends.pictures import Pictures
from selfsight.synthesis.colours import GAMMA
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.frame import Camera, Frame
from selfsight.synthesis.meshes import Mesh
from selfsight.synthesis.patterns import PATTERNS
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.sensor import exposed
from selfsight.synthesis.spec import SynthSpec

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Blender(Backend):
    """Models on a ground, under lamps and a sky, before a camera."""

    name = "blender"
    says = "models in three dimensions, with depth, normals, keypoints and camera; needs the extra synth"
    labels = frozenset({"instances", "semantic", "boxes", "full_boxes", "visible", "depth", "normals", "keypoints", "camera"})
    factors = frozenset(FACTORS)
    built_in: ClassVar[dict[str, tuple[str, ...]]] = {
        "asset": tuple(SOLIDS),
        "texture": ("own", "plain", "mottled", *PATTERNS),
        "background": ("plain", "gradient", "mottled", *PATTERNS),
        "hdri": ("none",),
        "scenery": ("none", *BUILT_IN),
    }
    suffixes: ClassVar[dict[str, tuple[str, ...]]] = {
        "asset": SUFFIXES,
        "texture": _IMAGES,
        "background": _IMAGES,
        "hdri": (".hdr", ".exr"),
        "scenery": SUFFIXES,
    }
    distractors = ("model/pyramid", "model/capsule")
    renders = True
    lifetime = 500

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.pictures = Pictures(base)

    def check(self, spec: SynthSpec) -> None:
        check_places(spec)
        blender()
        stage().configure(spec.render, self.threads)
        models = Models(self.base)
        for name in sorted({*spec.all_assets()}):
            models.model(name)
        for name in sorted({*spec.names("background")} - {*self.built_in["background"]}):
            self.pictures.image(name)
        for factor in ("texture", "hdri"):
            for name in sorted({*spec.names(factor)} - {*self.built_in[factor]}):
                opened_image(name, self.base)
        for name in sorted({*spec.names("scenery")} - {"none"}):
            opened_scenery(name, self.base)

    def meshes(self, spec: SynthSpec) -> dict[str, Mesh]:
        models = Models(self.base)
        return {name: models.model(name).bare() for name in sorted({*spec.labelled_assets()})}

    def draw(self, scene: Scene) -> Frame:
        place = stage()
        place.configure(self.settings, self.threads)
        scenery = scenery_of(scene, self.base)
        eye, placed = arranged(scene, self.base, self.settings.sizes, scenery)
        place.set(scene, eye, placed, scenery, self.base, self.pictures)
        passes = rendered(place.scene.name)
        objects = [one for one in placed if one.thing.name is not None]
        numbers, depth, normals = corrected(place, eye, passes, len(objects))
        linear = np.maximum(passes["Combined"][..., :3], 0)
        return Frame(
            exposed(np.power(linear, np.float32(1 / GAMMA)), scene),
            numbers,
            [whole(eye, one, numbers == one.number) for one in objects],
            depth=depth,
            normals=normals,
            camera=Camera(eye.intrinsics, eye.pose),
            solids=[solid(place, eye, one) for one in objects],
        )
