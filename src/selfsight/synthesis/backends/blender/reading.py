"""What a file, or a maker of Blender's, holds: one mesh of all that is rendered, and its keypoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.loaded import blender, quiet

Floats: TypeAlias = npt.NDArray[np.float64]

_MESHES = ("MESH", "CURVE", "SURFACE", "FONT", "META")
_KEYPOINT = "keypoint."
"""How the names of vertex groups begin that are keypoints, at the middle of their vertices."""


def _blend(bpy: Any, path: Path) -> None:
    with bpy.data.libraries.load(str(path), link=False) as (there, here):
        here.objects = list(there.objects)
    for each in here.objects:
        bpy.context.scene.collection.objects.link(each)


_READERS: dict[str, Callable[[Any, Path], Any]] = {
    ".blend": _blend,
    ".glb": lambda bpy, path: bpy.ops.import_scene.gltf(filepath=str(path)),
    ".gltf": lambda bpy, path: bpy.ops.import_scene.gltf(filepath=str(path)),
    ".obj": lambda bpy, path: bpy.ops.wm.obj_import(filepath=str(path)),
    ".ply": lambda bpy, path: bpy.ops.wm.ply_import(filepath=str(path)),
    ".stl": lambda bpy, path: bpy.ops.wm.stl_import(filepath=str(path)),
    ".usd": lambda bpy, path: bpy.ops.wm.usd_import(filepath=str(path)),
    ".usda": lambda bpy, path: bpy.ops.wm.usd_import(filepath=str(path)),
    ".usdc": lambda bpy, path: bpy.ops.wm.usd_import(filepath=str(path)),
    ".usdz": lambda bpy, path: bpy.ops.wm.usd_import(filepath=str(path)),
}
SUFFIXES = tuple(_READERS)


def read(make: Callable[[Any], Any], said: object) -> tuple[Any, dict[str, Floats]]:
    """(mesh, keypoints) of what `make` adds to an empty scene, in its units; `DataError`, with `said` in front, where that holds
    no surface."""
    bpy = blender()
    workshop = bpy.data.scenes.new("workshop")
    try:
        with quiet(), bpy.context.temp_override(scene=workshop, view_layer=workshop.view_layers[0]):
            make(bpy)
            there = list(workshop.collection.all_objects)
            mesh = _joined(bpy, workshop, there)
            if mesh is None or not len(mesh.polygons):
                raise DataError(f"{said}: holds no surface; expected a model with faces")
            return mesh, _named(there)
    finally:
        for each in list(workshop.collection.all_objects):
            bpy.data.objects.remove(each)
        bpy.data.scenes.remove(workshop)


def key_of(name: str, path: Path | None) -> str:
    """Of what is read once in a process: a file's is another once it was written anew. `DataError` where it is gone."""
    try:
        return name if path is None else f"{path}:{path.stat().st_mtime_ns}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a model ({error.strerror})") from None


def imported(bpy: Any, path: Path) -> None:
    """Add all that a file holds; `DataError` where it cannot be read."""
    try:
        _READERS[path.suffix.lower()](bpy, path)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        # Importers are add-ons, which raise whatever a damaged file leads them to.
        why = str(error).strip().splitlines()
        raise DataError(f"{path}: cannot be read as a model ({why[-1] if why else type(error).__name__})") from None


def _joined(bpy: Any, workshop: Any, there: list[Any]) -> Any | None:
    """One mesh of all that is rendered, modifiers applied as for the final picture; None where there is nothing."""
    shown = [each for each in there if each.type in _MESHES and not each.hide_render]
    for modifier in (modifier for each in shown for modifier in each.modifiers):
        modifier.show_viewport = modifier.show_render
        if modifier.type in ("SUBSURF", "MULTIRES"):
            modifier.levels = modifier.render_levels
    for each in shown:
        each.hide_viewport = False
    workshop.view_layers[0].update()
    depsgraph = workshop.view_layers[0].depsgraph
    parts = []
    for each in shown:
        mesh = bpy.data.meshes.new_from_object(each.evaluated_get(depsgraph), depsgraph=depsgraph)
        mesh.transform(each.matrix_world)
        if each.matrix_world.determinant() < 0:
            mesh.flip_normals()
        parts.append(bpy.data.objects.new("part", mesh))
    for part in parts:
        workshop.collection.objects.link(part)
    if len(parts) > 1:
        with bpy.context.temp_override(active_object=parts[0], selected_editable_objects=parts, selected_objects=parts):
            bpy.ops.object.join()
    return parts[0].data if parts else None


def _named(there: list[Any]) -> dict[str, Floats]:
    """Keypoints: empties by their names, and vertex groups whose names begin with `keypoint.`."""
    empties = (each for each in there if each.type == "EMPTY" and not each.children and not each.name.startswith("_"))
    found = {each.name: np.array(each.matrix_world.translation) for each in empties}
    for each in there:
        if each.type != "MESH":
            continue
        for group in each.vertex_groups:
            if group.name.startswith(_KEYPOINT):
                of = [v.co for v in each.data.vertices if any(g.group == group.index for g in v.groups)]
                if of:
                    middle = np.array(of).mean(0)
                    found[group.name.removeprefix(_KEYPOINT)] = np.array(each.matrix_world)[:3] @ [*middle, 1.0]
    return found
