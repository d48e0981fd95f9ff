"""The one scene of a process, which is changed from picture to picture and never built anew.

Objects wait out of sight until a scene needs them; so the parts of Blender's scene stay the same, and what it keeps between
renders stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.loaded import blender
from selfsight.synthesis.backends.blender.materials import (
    Surface,
    drawn_image,
    give_pattern,
    kind_of,
    random_turn,
    shift_of,
)
from selfsight.synthesis.backends.blender.models import Model
from selfsight.synthesis.backends.blender.placing import SENSOR, Eye, Pose, lamp_direction
from selfsight.synthesis.backends.blender.scenery import Scenery
from selfsight.synthesis.backends.blender.sky import Sky, opened_image
from selfsight.synthesis.backends.pictures import Pictures, cropped
from selfsight.synthesis.colours import GAMMA, ground_colour, lamp_colour, thing_colour
from selfsight.synthesis.scene import Scene, Thing
from selfsight.synthesis.spec import RenderSettings

_LAMPS = 4
_SOFT = math.radians(6)
"""Of the lamps, as seen from the scene: the edge of a shadow is as wide as a tenth of the height that throws it."""
_GROUND = 2000.0
_GROUND_PERIOD = 0.16
_FAINT = 0.26
"""Contrast of what is on the ground."""
_AWAY = -1000.0


class Placed(NamedTuple):
    """A thing with its model and pose. `number` is that of its mask, 0 of what has none."""

    thing: Thing
    model: Model
    pose: Pose
    number: int


@cache
def stage() -> Stage:
    """Blender is one a process, and so is its scene."""
    return Stage()


class Stage:
    """Camera, ground, scenery, lamps, surroundings, and as many bodies as a scene had so far."""

    def __init__(self) -> None:
        bpy = blender()
        self.scene = bpy.context.scene
        self.layer = self.scene.view_layers[0]
        self._set_up()
        self.camera = self._add("camera", bpy.data.cameras.new("camera"))
        self.camera.data.sensor_width = self.camera.data.sensor_height = SENSOR
        self.camera.data.clip_start, self.camera.data.clip_end = 1e-3, 1e5
        self.scene.camera = self.camera
        self.ground = self._add("ground", _plane(bpy))
        self.nothing = bpy.data.meshes.new("nothing")
        self.scenery = self._add("scenery", self.nothing)
        self.grounds: dict[str, Surface] = {}
        self.lamps = [self._add(f"lamp {k}", bpy.data.lights.new(f"lamp {k}", "SUN")) for k in range(_LAMPS)]
        self.sky = Sky(bpy)
        self.scene.world = self.sky.world
        self.bodies: list[_Body] = []

    def _set_up(self) -> None:
        scene, cycles = self.scene, self.scene.cycles
        scene.render.engine = "CYCLES"
        scene.render.resolution_percentage = 100
        scene.render.use_persistent_data = True
        scene.render.use_compositing = scene.render.use_sequencer = False
        # A pixel is the mean over itself and nothing else, so that its labels are of what it shows.
        cycles.pixel_filter_type, cycles.filter_width = "BOX", 1.0
        cycles.use_adaptive_sampling = False
        # The usual pattern depends on the number of samples, and one of before stays when that number changes.
        cycles.sampling_pattern = "TABULATED_SOBOL"
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 4, 2, 2
        self.layer.use_pass_z = self.layer.use_pass_normal = self.layer.use_pass_object_index = True

    def configure(self, settings: RenderSettings, threads: int) -> None:
        """`threads` 0 takes all cores."""
        render, cycles = self.scene.render, self.scene.cycles
        render.threads_mode = "FIXED" if threads else "AUTO"
        if threads:
            render.threads = threads
        cycles.samples = settings.samples
        cycles.use_denoising = settings.denoise
        # What guides the denoiser is free of noise after few rays; to denoise that as carefully as the picture would take longer
        # than the render.
        cycles.denoiser, cycles.denoising_prefilter = "OPENIMAGEDENOISE", "FAST"
        cycles.device = "GPU" if settings.device != "cpu" and _gpus(settings.device) else "CPU"

    def set(
        self, scene: Scene, eye: Eye, placed: Sequence[Placed], scenery: Scenery | None, base: Path, pictures: Pictures
    ) -> None:
        """Make Blender's scene the given one."""
        self.scene.render.resolution_x, self.scene.render.resolution_y = scene.size
        self._look(scene, eye)
        self._light(scene)
        self._lay_ground(scene, pictures)
        self._build(scenery)
        self.sky.set(scene, base, self.ground_image)
        while len(self.bodies) < len(placed):
            self.bodies.append(_Body(self, len(self.bodies)))
        for body, one in zip(self.bodies, placed, strict=False):
            body.be(one, base)
        for body in self.bodies[len(placed) :]:
            body.wait()
        self.scene.cycles.seed = (scene.seed + scene.frame) % 2**31
        self.scene.update_tag()  # without it a new seed alone is not seen
        self.layer.update()

    def _add(self, name: str, data: Any) -> Any:
        # Names are Blender's keys: a keypoint of the user's may well be called "camera".
        made = blender().data.objects.new(f"stage: {name}", data)
        self.scene.collection.objects.link(made)
        return made

    def _look(self, scene: Scene, eye: Eye) -> None:
        lens = self.camera.data
        lens.lens = scene.number("focal_length")
        lens.sensor_fit = "HORIZONTAL" if scene.size[0] <= scene.size[1] else "VERTICAL"
        pose = eye.pose.copy()
        pose[:3, 1:3] *= -1  # Blender's cameras have y up and look back along z
        self.camera.matrix_world = _matrix(pose)

    def _light(self, scene: Scene) -> None:
        from mathutils import Vector

        count, share = int(scene.number("lights")), 1 - scene.number("ambient")
        for number, lamp in enumerate(self.lamps):
            direction = lamp_direction(number, scene)
            lamp.rotation_mode = "QUATERNION"
            lamp.rotation_quaternion = Vector(direction.tolist()).to_track_quat("Z", "Y")
            on = math.pi * share * scene.number("light") / (count * float(direction[2])) if number < count else 0.0
            lamp.data.energy, lamp.data.angle = on, _SOFT
            lamp.data.color = lamp_colour(scene.number("light_temperature")).tolist()

    def _lay_ground(self, scene: Scene, pictures: Pictures) -> None:
        """As bright as it is in a flat scene wherever no shadow falls."""
        name, seed = scene.word("background"), scene.seed
        kind = kind_of(name) if kind_of(name) != "image" else "photo"
        surface = self.grounds.get(kind) or self.grounds.setdefault(kind, Surface(f"ground {kind}", kind))
        self.ground_image = None
        shift, base = shift_of(seed), ground_colour(scene)
        if kind == "photo":
            part = cropped(pictures.image(name), scene.size, np.random.default_rng([seed, 0]))
            self.ground_image = drawn_image("photograph", np.power(part, np.float32(GAMMA)))
            surface.show(self.ground_image)
        elif kind == "gradient":
            surface.colour(base, 0.35)
            surface.slope(random_turn(seed))
        else:
            surface.colour(base, _FAINT)
            if kind != "plain":
                surface.lay(_GROUND_PERIOD if kind == "pattern" else 0.4, shift, random_turn(seed))
        if kind == "pattern":
            give_pattern(surface, name)
        surface.finish(roughness=1.0, metallic=0.0, shine=0.0)
        self.ground.material_slots[0].material = surface.material

    def _build(self, scenery: Scenery | None) -> None:
        self.scenery.data = scenery.mesh if scenery else self.nothing
        self.ground.location.z = scenery.ground if scenery else 0.0


class _Body:
    """An object that is one thing after another."""

    def __init__(self, stage: Stage, number: int) -> None:
        bpy = blender()
        self.name = f"thing {number}"
        self.object = stage._add(self.name, bpy.data.meshes.new(self.name))
        self.surfaces: dict[str, Surface] = {}
        self.wait()

    def be(self, placed: Placed, base: Path) -> None:
        thing, model = placed.thing, placed.model
        self.object.data = model.mesh
        self.object.matrix_world = _matrix(placed.pose.matrix())
        self.object.pass_index = placed.number
        own = thing.word("texture") == "own" and model.own
        for slot in self.object.material_slots:
            slot.link = "DATA" if own else "OBJECT"
            if not own:
                slot.material = self._surface(thing, base).material

    def wait(self) -> None:
        far = np.diag([1e-3, 1e-3, 1e-3, 1.0])
        far[2, 3] = _AWAY
        self.object.matrix_world = _matrix(far)
        self.object.pass_index = 0

    def _surface(self, thing: Thing, base: Path) -> Surface:
        name = thing.word("texture")
        kind = kind_of(name)
        surface = self.surfaces.get(kind) or self.surfaces.setdefault(kind, Surface(f"{self.name} {kind}", kind))
        surface.finish(thing.number("roughness"), thing.number("metallic"))
        if kind != "image":
            surface.colour(thing_colour(thing), thing.number("texture_contrast"))
        if kind != "plain":
            surface.lay(thing.number("texture_scale"), shift_of(thing.seed))
        if kind == "pattern":
            give_pattern(surface, name)
        elif kind == "image":
            surface.show(opened_image(name, base))
        return surface


def _plane(bpy: Any) -> Any:
    mesh, half = bpy.data.meshes.new("ground"), _GROUND / 2
    mesh.from_pydata([(-half, -half, 0), (half, -half, 0), (half, half, 0), (-half, half, 0)], [], [(0, 1, 2, 3)])
    mesh.materials.append(None)
    return mesh


def _matrix(values: Any) -> Any:
    from mathutils import Matrix  # it comes with bpy

    return Matrix(values.tolist())


@cache
def _gpus(asked: str) -> bool:
    """Whether Cycles can use one; all that there are are switched on. `DataError` where one was asked for and there is none."""
    preferences = blender().context.preferences.addons["cycles"].preferences
    for kind in ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL"):
        try:
            preferences.compute_device_type = kind
        except TypeError:
            continue  # this build of Blender does not know the kind
        preferences.refresh_devices()
        found = [device for device in preferences.devices if device.type == kind]
        for device in found:
            device.use = True
        if found:
            return True
    if asked == "gpu":
        raise DataError("render.device: gpu: Cycles finds no GPU here; expected cpu or auto")
    return False
