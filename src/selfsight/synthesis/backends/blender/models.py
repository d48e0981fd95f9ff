"""Models: built-in solids and files, each as one mesh of diameter 1 about the origin, which looks along -y with z upwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.reading import imported, key_of, read
from selfsight.synthesis.meshes import Mesh
from selfsight.synthesis.silhouettes import Edges, edges

Floats: TypeAlias = npt.NDArray[np.float64]

_STEPS = 300
_DIRECTIONS = 256


@dataclass(frozen=True)
class Model:
    """`mesh` is Blender's. `points` [n, 3], `triangles` [f, 3]; `own` says whether it has materials of its own."""

    mesh: Any
    points: Floats
    triangles: npt.NDArray[np.intp]
    edges: Edges
    own: bool
    keypoints: Mapping[str, Floats] = field(default_factory=dict)

    def bare(self) -> Mesh:
        """Its shape alone, for those without Blender."""
        normals = np.empty(self.points.size, dtype=np.float32)
        self.mesh.vertices.foreach_get("normal", normals)
        return Mesh(self.points, normals.reshape(-1, 3).astype(np.float64), self.triangles)

    @cached_property
    def hull(self) -> Floats:
        """[n, 3]: its points that lie farthest out in one of many directions. Their convex hull is that of all points to within
        a few thousandths of the diameter, and a small part of them suffices for that."""
        if len(self.points) <= _DIRECTIONS:
            return self.points
        # Evenly over the sphere: each step around it is the golden angle.
        height = 1 - 2 * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
        around = np.arange(_DIRECTIONS) * math.pi * (3 - math.sqrt(5))
        level = np.sqrt(1 - height**2)
        directions = np.stack([level * np.cos(around), level * np.sin(around), height])
        return self.points[np.unique((self.points @ directions).argmax(0))]


def _sphere(bpy: Any) -> None:
    # So many faces that its outline is within a ten-thousandth of the circle.
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=7, radius=0.5)
    _made(bpy).data.shade_smooth()


def _cube(bpy: Any) -> None:
    bpy.ops.mesh.primitive_cube_add(size=1)


def _cone(bpy: Any) -> None:
    bpy.ops.mesh.primitive_cone_add(vertices=96, radius1=0.5, depth=1)
    _round(bpy)


def _cylinder(bpy: Any) -> None:
    bpy.ops.mesh.primitive_cylinder_add(vertices=96, radius=0.35, depth=1)
    _round(bpy)


def _torus(bpy: Any) -> None:
    bpy.ops.mesh.primitive_torus_add(major_segments=96, minor_segments=32, major_radius=0.35, minor_radius=0.14)
    _made(bpy).data.shade_smooth()


def _pyramid(bpy: Any) -> None:
    bpy.ops.mesh.primitive_cone_add(vertices=4, radius1=0.6, depth=0.9)


def _capsule(bpy: Any) -> None:
    bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32, radius=0.3)
    mesh = _made(bpy).data
    for vertex in mesh.vertices:
        vertex.co.z += 0.35 if vertex.co.z > 0 else -0.35
    mesh.shade_smooth()


def _suzanne(bpy: Any) -> None:
    bpy.ops.mesh.primitive_monkey_add(size=1)
    monkey = _made(bpy)
    smooth = monkey.modifiers.new("smooth", "SUBSURF")
    smooth.levels = smooth.render_levels = 2
    monkey.data.shade_smooth()


def _round(bpy: Any) -> None:
    """Smooth around, sharp at the rims."""
    mesh = _made(bpy).data
    mesh.shade_smooth()
    mesh.set_sharp_from_angle(angle=math.radians(30))


def _made(bpy: Any) -> Any:
    return bpy.context.view_layer.objects.active


SOLIDS: dict[str, Callable[[Any], None]] = {
    "model/sphere": _sphere,
    "model/cube": _cube,
    "model/cone": _cone,
    "model/cylinder": _cylinder,
    "model/torus": _torus,
    "model/pyramid": _pyramid,
    "model/capsule": _capsule,
    "model/suzanne": _suzanne,
}
_SUZANNE = {
    "eye.left": (0.43, -0.77, 0.22),
    "eye.right": (-0.43, -0.77, 0.22),
    "nose": (0.0, -0.84, -0.1),
    "chin": (0.0, -0.69, -0.93),
    "ear.left": (1.31, 0.1, 0.23),
    "ear.right": (-1.31, 0.1, 0.23),
}
"""About where they are when she is of diameter 1; the nearest vertex is taken."""


class Models:
    """Models by name, files relative to `base`; each is read once in a process."""

    _read: ClassVar[dict[str, Model]] = {}
    """Of the process, as Blender is."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def model(self, name: str) -> Model:
        """`DataError` where it is no model that Blender can read, or holds no surface."""
        path = None if name in SOLIDS else (self.base / name).absolute()
        key = key_of(name, path)
        if key not in self._read:
            self._read[key] = _model(name, path)
        return self._read[key]


def _model(name: str, path: Path | None) -> Model:
    mesh, keypoints = read(SOLIDS[name] if path is None else partial(imported, path=path), path or name)
    return _of_unit_size(mesh, keypoints, name)


def _of_unit_size(mesh: Any, keypoints: Mapping[str, Floats], name: str) -> Model:
    from mathutils import Matrix  # it comes with bpy

    points = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    middle, radius = _sphere_about(points.reshape(-1, 3).astype(np.float64))
    if not np.isfinite(radius) or radius <= 0:
        raise DataError(f"{name}: has no extent; expected a model with faces")
    scale = 0.5 / radius
    mesh.transform(Matrix.Diagonal((scale, scale, scale, 1.0)) @ Matrix.Translation((-middle).tolist()))
    own = any(material is not None for material in mesh.materials)
    if not len(mesh.materials):
        mesh.materials.append(None)
    mesh.vertices.foreach_get("co", points)
    mesh.calc_loop_triangles()
    triangles = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    corners = triangles.reshape(-1, 3).astype(np.intp)
    mesh.use_fake_user = True
    there = points.reshape(-1, 3).astype(np.float64)
    moved = {name: (place - middle) * scale for name, place in keypoints.items()}
    if name == "model/suzanne":
        moved = {name: there[np.linalg.norm(there - place, axis=1).argmin()] for name, place in _SUZANNE.items()}
    return Model(mesh, there, corners, edges(corners), own, moved)


def _sphere_about(points: Floats) -> tuple[Floats, float]:
    """(middle, radius) of a sphere that holds all points: about the middle of their box, or a smaller one.

    The middle moves to the farthest point by less and less, which comes near that of the smallest sphere (Badoiu and
    Clarkson, 2003).
    """
    middle = (points.min(0) + points.max(0)) / 2
    best = middle, float(np.linalg.norm(points - middle, axis=1).max())
    for step in range(1, _STEPS):
        distance = np.linalg.norm(points - middle, axis=1)
        if distance.max() < best[1]:
            best = middle, float(distance.max())
        middle = middle + (points[distance.argmax()] - middle) / (step + 1)
    return best
