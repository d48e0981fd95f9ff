"""Things that fall until they lie: Blender's rigid bodies, in a scene of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from selfsight.synthesis.backends.blender.loaded import blender, quiet
from selfsight.synthesis.backends.blender.models import Model
from selfsight.synthesis.backends.blender.placing import Pose
from selfsight.synthesis.backends.blender.scenery import Scenery

_FRAMES = 24
"""A second."""
_LONGEST = 8.0
_UP = np.array([0.0, 0.0, 1.0])
_GRAVITY = 9.81
_STILL = 1e-4
"""Metres a frame below which nothing moves."""


def dropped(things: Sequence[tuple[Model, Pose]], height: float, scenery: Scenery | None = None) -> list[Pose]:
    """Poses once all things have come to rest, at most eight seconds later.

    Each falls from its place, `height` metres higher. One that would begin within another begins above it instead. Scenery
    holds them by its faces, as they are; below it lies the ground.
    """
    bpy = blender()
    world = bpy.data.scenes.new("drop")
    try:
        with quiet(), bpy.context.temp_override(scene=world, view_layer=world.view_layers[0]):
            _stand(bpy, world, scenery)
            world.rigidbody_world.substeps_per_frame = 10 if scenery is None else _steps(things, height)
            bodies = _bodies(bpy, world, things, height)
            _fall(bpy, world, bodies)
            depsgraph = world.view_layers[0].depsgraph
            found = [np.array(body.evaluated_get(depsgraph).matrix_world) for body in bodies]
    finally:
        for each in list(world.collection.all_objects):
            mesh = each.data
            bpy.data.objects.remove(each)
            if not mesh.users:
                bpy.data.meshes.remove(mesh)
        bpy.data.collections.remove(world.rigidbody_world.collection)
        bpy.data.scenes.remove(world)
    return [Pose(matrix[:3, :3] / pose.scale, pose.scale, matrix[:3, 3]) for matrix, (_, pose) in zip(found, things, strict=True)]


def _stand(bpy: Any, world: Any, scenery: Scenery | None) -> None:
    """What does not move: the ground, and scenery on it."""
    bpy.ops.rigidbody.world_add()
    world.rigidbody_world.collection = bpy.data.collections.new("bodies")
    world.rigidbody_world.solver_iterations = 20
    world.render.fps = _FRAMES
    ground = 0.0 if scenery is None else scenery.ground
    floor = _add(bpy, world, _slab(bpy), Pose(np.eye(3), 1.0, np.array([0.0, 0.0, ground - 0.5])).matrix())
    floor.rigid_body.type = "PASSIVE"
    floor.rigid_body.collision_shape = "BOX"
    floor.rigid_body.friction = 0.6
    if scenery is not None:
        walls = _add(bpy, world, scenery.mesh, np.eye(4))
        walls.rigid_body.type = "PASSIVE"
        walls.rigid_body.collision_shape, walls.rigid_body.mesh_source = "MESH", "BASE"
        walls.rigid_body.friction = 0.6
        walls.rigid_body.use_margin, walls.rigid_body.collision_margin = True, 0.0


def _bodies(bpy: Any, world: Any, things: Sequence[tuple[Model, Pose]], height: float) -> list[Any]:
    bodies: list[Any] = []
    taken: list[tuple[npt.NDArray[np.float64], float]] = []
    for model, pose in things:
        middle = pose.middle + height * _UP
        while any(np.linalg.norm(middle - other) < (pose.scale + size) / 2 for other, size in taken):
            middle = middle + pose.scale / 10 * _UP
        taken.append((middle, pose.scale))
        shape = bpy.data.meshes.new("hull")
        shape.from_pydata(model.hull.tolist(), [], [])
        body = _add(bpy, world, shape, Pose(pose.turn, pose.scale, middle).matrix())
        body.rigid_body.collision_shape = "CONVEX_HULL"
        body.rigid_body.friction, body.rigid_body.restitution = 0.6, 0.1
        body.rigid_body.use_margin, body.rigid_body.collision_margin = True, 0.0
        body.rigid_body.mass = max(1e-3, pose.scale**3)
        bodies.append(body)
    return bodies


def _steps(things: Sequence[tuple[Model, Pose]], height: float) -> int:
    """A frame: so many that in one of them nothing falls farther than half its thickness, and thin walls hold it."""
    thickness = min(float(np.ptp(model.points, 0).min()) * pose.scale for model, pose in things)
    fast = math.sqrt(2 * _GRAVITY * (height + max(float(pose.middle[2]) for _, pose in things)))
    return min(100, max(10, math.ceil(2 * fast / (_FRAMES * max(thickness, 1e-6)))))


def _fall(bpy: Any, world: Any, bodies: list[Any]) -> None:
    last = int(_LONGEST * _FRAMES)
    world.frame_start, world.frame_end = 1, last
    cache = world.rigidbody_world.point_cache
    cache.frame_start, cache.frame_end = 1, last
    depsgraph, before, still = world.view_layers[0].depsgraph, None, 0
    for frame in range(1, last + 1):
        world.frame_set(frame)
        here = np.array([body.evaluated_get(depsgraph).matrix_world for body in bodies])
        moved = np.inf if before is None else float(np.abs(here - before).max())
        still = still + 1 if moved < _STILL and frame > _FRAMES // 4 else 0
        if still >= 3:
            return
        before = here


def _add(bpy: Any, world: Any, mesh: Any, matrix: Any) -> Any:
    from mathutils import Matrix  # it comes with bpy

    body = bpy.data.objects.new("body", mesh)
    world.collection.objects.link(body)
    body.matrix_world = Matrix(matrix.tolist())
    with bpy.context.temp_override(active_object=body, object=body, selected_objects=[body]):
        bpy.ops.rigidbody.object_add()
    return body


def _slab(bpy: Any) -> Any:
    """A metre thick, so that nothing falls through it between two steps."""
    mesh = bpy.data.meshes.new("floor")
    corners = [(x, y, z) for x in (-1000.0, 1000.0) for y in (-1000.0, 1000.0) for z in (-0.5, 0.5)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    mesh.from_pydata(corners, [], faces)
    return mesh
