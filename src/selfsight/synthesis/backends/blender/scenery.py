"""Scenery: where things stand or lie. It has no label, and is where its model has it, in metres, with its floor at height 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.materials import Surface
from selfsight.synthesis.backends.blender.reading import imported, key_of, read
from selfsight.synthesis.scene import Scene

Corner: TypeAlias = tuple[float, float, float]

_GAP = 1e-4
"""Metres of the ground below the lowest point, so that a sheet that lies on it is seen and not the ground."""
_PLAIN = (0.7, 0.7, 0.7)
"""sRGB of what has no material of its own."""


@dataclass(frozen=True)
class Scenery:
    """`mesh` is Blender's, in metres of the world; the ground lies at the height `ground`, below all of it."""

    mesh: Any
    ground: float


class _Slab(NamedTuple):
    """A box between two corners, and the number of its material."""

    low: Corner
    high: Corner
    material: int = 0


_CARDBOARD, _WHITE, _GREY, _BLUE = (0.72, 0.59, 0.43), (0.87, 0.86, 0.83), (0.70, 0.71, 0.72), (0.23, 0.38, 0.55)

_HALF, _WALL, _BOARD = 0.4, 0.1, 0.008
"""Of the tray: half its inner side, and the height and thickness of its walls."""


def _tray(bpy: Any) -> None:
    """Seen whole by the usual camera, but for the corners of its near wall."""
    inner, outer = _HALF, _HALF + _BOARD
    slabs = [
        _Slab((-outer, -outer, -_BOARD), (outer, outer, 0)),
        _Slab((-outer, -outer, 0), (-inner, outer, _WALL)),
        _Slab((inner, -outer, 0), (outer, outer, _WALL)),
        _Slab((-inner, -outer, 0), (inner, -inner, _WALL)),
        _Slab((-inner, inner, 0), (inner, outer, _WALL)),
    ]
    _build(bpy, "tray", slabs, [_CARDBOARD], roughness=0.95)


def _shelf(bpy: Any) -> None:
    """Wider than the picture. The board above is so much less deep that the usual camera looks over it, and a low one below."""
    wide, back, front = 0.9, 0.4, -0.34
    slabs = [
        _Slab((-wide, back, -0.5), (wide, back + 0.02, 0.8), 1),
        _Slab((-wide, front, -0.025), (wide, back, 0)),
        _Slab((-wide, front - 0.01, -0.055), (wide, front, 0), 2),
        _Slab((-wide, front - 0.04, -0.365), (wide, back, -0.34)),
        _Slab((-wide, front - 0.05, -0.395), (wide, front - 0.04, -0.34), 2),
        _Slab((-wide, front, -0.5), (wide, front + 0.02, -0.365), 1),
        _Slab((-wide, 0.08, 0.44), (wide, back, 0.465)),
        _Slab((-wide, 0.07, 0.415), (wide, 0.08, 0.465), 2),
        _Slab((-wide - 0.02, front - 0.05, -0.5), (-wide, back + 0.02, 0), 1),
        _Slab((wide, front - 0.05, -0.5), (wide + 0.02, back + 0.02, 0), 1),
        _Slab((-wide - 0.02, 0.07, 0), (-wide, back + 0.02, 0.8), 1),
        _Slab((wide, 0.07, 0), (wide + 0.02, back + 0.02, 0.8), 1),
    ]
    _build(bpy, "shelf", slabs, [_WHITE, _GREY, _BLUE], roughness=0.6)


def _build(bpy: Any, name: str, slabs: Sequence[_Slab], colours: Sequence[Corner], roughness: float) -> None:
    corners: list[Corner] = []
    faces: list[tuple[int, ...]] = []
    for low, high, _ in slabs:
        first = len(corners)
        corners += [(x, y, z) for z in (low[2], high[2]) for x, y in _around(low, high)]
        sides = [(0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7), (3, 2, 1, 0), (4, 5, 6, 7)]
        faces += [tuple(first + corner for corner in side) for side in sides]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners, [], faces)
    for number, colour in enumerate(colours):
        mesh.materials.append(_material(f"{name} {number}", colour, roughness))
    mesh.polygons.foreach_set("material_index", np.repeat([slab.material for slab in slabs], 6))
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, mesh))


def _around(low: Corner, high: Corner) -> list[tuple[float, float]]:
    return [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]


def _material(name: str, colour: Corner, roughness: float) -> Any:
    surface = Surface(f"scenery {name}", "plain")
    surface.colour(np.array(colour, dtype=np.float32))
    surface.finish(roughness, metallic=0.0, shine=0.2)
    return surface.material


BUILT_IN: Mapping[str, Callable[[Any], None]] = {"scenery/tray": _tray, "scenery/shelf": _shelf}

_read: dict[str, Scenery] = {}
"""Of the process, as Blender is."""


def scenery_of(scene: Scene, base: Path) -> Scenery | None:
    """What a scene stands in; None where there is the ground alone."""
    name = scene.word("scenery")
    return None if name == "none" else opened_scenery(name, base)


def opened_scenery(name: str, base: Path) -> Scenery:
    """By its name, a file's relative to `base`; read once in a process. `DataError` where Blender cannot read it, or it holds no
    surface."""
    path = None if name in BUILT_IN else (base / name).absolute()
    key = key_of(name, path)
    if key not in _read:
        mesh, _ = read(BUILT_IN[name] if path is None else partial(imported, path=path), path or name)
        _read[key] = Scenery(_finished(mesh), _below(mesh, path or name))
    return _read[key]


def _finished(mesh: Any) -> Any:
    mesh.use_fake_user = True
    if not len(mesh.materials):
        mesh.materials.append(None)
    for number, material in enumerate(mesh.materials):
        mesh.materials[number] = material or _material(f"plain {number}", _PLAIN, roughness=0.8)
    return mesh


def _below(mesh: Any, said: object) -> float:
    """Height of the ground under a mesh: at its lowest point, and never above 0."""
    points = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    if not np.isfinite(points).all():
        raise DataError(f"{said}: has corners that are nowhere; expected a model in metres")
    return min(0.0, float(points[2::3].min())) - _GAP
