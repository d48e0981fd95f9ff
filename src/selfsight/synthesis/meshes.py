"""The models that a set of rendered scenes holds: of diameter 1, as poses mean them.

::

    models/models.json      the file of each asset, relative to the set
    models/sphere.ply       PLY, little endian: vertices with normals, triangles
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError

from selfsight.errors import DataError
from selfsight.runs import write_atomic, write_json_atomic
from selfsight.synthesis.names import free, plain

Floats: TypeAlias = npt.NDArray[np.float64]

INDEX = "models/models.json"
_VERTEX = np.dtype([("at", "<f4", 3), ("normal", "<f4", 3)])
_FACE = np.dtype([("corners", "u1"), ("vertices", "<i4", 3)])
_HEADER = """ply
format binary_little_endian 1.0
element vertex {vertices}
property float x
property float y
property float z
property float nx
property float ny
property float nz
element face {faces}
property list uchar int vertex_indices
end_header
"""


@dataclass(frozen=True)
class Mesh:
    """`points` [n, 3], `normals` [n, 3] of length 1 outwards, `triangles` [f, 3]: vertices, counter-clockwise from outside."""

    points: Floats
    normals: Floats
    triangles: npt.NDArray[np.intp]


def diameter(points: Floats) -> float:
    """The largest distance between two of the points [n, 3], to a millionth of it."""
    with suppress(QhullError):  # flat ones have no hull in space
        points = points[ConvexHull(points).vertices]
    radii = np.linalg.norm(points - (points.min(0) + points.max(0)) / 2, axis=1)
    order = np.argsort(-radii)
    points, radii, most = points[order], radii[order], 0.0
    for place, radius in enumerate(radii):
        if 2 * radius <= (1 + 1e-6) * most:
            break  # two points that are no farther from the middle than this are no farther from each other than those found
        most = max(most, float(np.linalg.norm(points[place:] - points[place], axis=1).max()))
    return most


def ply(mesh: Mesh) -> bytes:
    """The mesh as a PLY file."""
    vertices = np.empty(len(mesh.points), _VERTEX)
    vertices["at"], vertices["normal"] = mesh.points, mesh.normals
    faces = np.empty(len(mesh.triangles), _FACE)
    faces["corners"], faces["vertices"] = 3, mesh.triangles
    head = _HEADER.format(vertices=len(vertices), faces=len(faces))
    return head.encode() + vertices.tobytes() + faces.tobytes()


def read_ply(path: Path) -> Mesh:
    """What `ply` wrote; `DataError` where the file is another, or damaged."""
    content = path.read_bytes()
    told = re.match(re.escape(_HEADER).replace(r"\{vertices\}", r"(\d+)").replace(r"\{faces\}", r"(\d+)").encode(), content)
    many, faces = (int(told[1]), int(told[2])) if told else (0, 0)
    middle = (told.end() if told else 0) + many * _VERTEX.itemsize
    if not many or len(content) != middle + faces * _FACE.itemsize:
        raise DataError(f"{path}: is no model as a drawn set holds them; draw the set anew")
    vertices = np.frombuffer(content[:middle], _VERTEX, offset=middle - many * _VERTEX.itemsize)
    triangles = np.frombuffer(content, _FACE, offset=middle)["vertices"].astype(np.intp)
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < many:
        raise DataError(f"{path}: has triangles of vertices that it has not; draw the set anew")
    return Mesh(vertices["at"].astype(np.float64), vertices["normal"].astype(np.float64), triangles)


def write_models(folder: Path, meshes: Mapping[str, Mesh]) -> None:
    """Leave the meshes of assets in the set in `folder`; the list comes last, so that all that it names are there."""
    taken: set[str] = set()
    files = {name: f"models/{free(plain(PurePosixPath(name).stem), taken)}.ply" for name in meshes}
    for name, mesh in meshes.items():
        content = ply(mesh)
        write_atomic(folder / files[name], partial(_write, content), len(content))
    write_json_atomic(folder / INDEX, files)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def models_of(folder: Path) -> dict[str, Path]:
    """The file of each asset of which the set in `folder` holds the model; empty where it holds none."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_bytes())
    except ValueError:
        raise DataError(f"{path}: is no JSON; draw the set anew") from None
    return {name: folder / "models" / PurePosixPath(file).name for name, file in files.items()}
