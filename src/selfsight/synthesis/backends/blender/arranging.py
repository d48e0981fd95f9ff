"""Which model stands where: a scene's things with their poses."""

from __future__ import annotations

from pathlib import Path

from selfsight.errors import ConfigError
from selfsight.synthesis.backends.blender.drop import dropped
from selfsight.synthesis.backends.blender.models import Models
from selfsight.synthesis.backends.blender.placing import Eye, Pose, before, beside, eye, standing, usual_eye
from selfsight.synthesis.backends.blender.scenery import Scenery
from selfsight.synthesis.backends.blender.stage import Placed
from selfsight.synthesis.scene import Scene, Thing
from selfsight.synthesis.spec import Sizes, SynthSpec


def arranged(scene: Scene, base: Path, sizes: Sizes, scenery: Scenery | None) -> tuple[Eye, list[Placed]]:
    """The camera, and all things in their scenery. Objects are numbered from 1 in their order; what hides one comes first, as in
    the scene."""
    usual, models = usual_eye(scene.size), Models(base)
    objects = list(scene.objects)
    first = scene.things.index(objects[0]) if objects else 0
    occluders, others = scene.things[:first], [t for t in scene.things[first:] if t.name is None]
    poses = [standing(thing, models.model(thing.asset).points, usual, sizes) for thing in objects]
    if scene.number("drop") and objects:
        poses = _fallen(scene, models, objects, poses, scenery)
    placed = [Placed(t, models.model(t.asset), pose, n) for n, (t, pose) in enumerate(zip(objects, poses, strict=True), 1)]
    camera = eye(scene)
    hidden = [Placed(thing, models.model(thing.asset), before(thing, objects[0], poses[0], camera), 0) for thing in occluders]
    # Scenery may end behind and before the objects, as a shelf does.
    aside = [beside(thing, objects, usual, sizes, sideways=scenery is not None) for thing in others]
    stand = [Placed(t, models.model(t.asset), standing(t, models.model(t.asset).points, usual, sizes), 0) for t in aside]
    unnumbered = [one._replace(number=len(objects) + k) for k, one in enumerate([*hidden, *stand], 1)]
    return camera, [*unnumbered, *placed]


def check_places(spec: SynthSpec) -> None:
    """`ConfigError` where a thing of so many metres cannot stand on the ground and be seen at its place by the usual camera."""
    if spec.render.sizes == "picture":
        return
    usual = usual_eye(spec.size)
    most, highest = max(map(float, spec.values("size"))), 2 * usual.place[2]
    if most >= highest:
        why = f"its middle is as high as the usual camera, which stands {usual.place[2]:.2f} metres above the ground"
        raise ConfigError(f"size: {most:g} metres with 'render: {{sizes: world}}': {why}; expected sizes below {highest:.2f}")
    top = min(map(float, spec.values("y")))
    if usual.ray(0.5, top)[2] >= 0:
        raise ConfigError(f"y: {top:g} is above the horizon of the usual camera, where nothing of a size in metres can stand")


def _fallen(scene: Scene, models: Models, objects: list[Thing], poses: list[Pose], scenery: Scenery | None) -> list[Pose]:
    things = [(models.model(thing.asset), pose) for thing, pose in zip(objects, poses, strict=True)]
    return dropped(things, scene.number("drop"), scenery)
