"""BOP, the benchmark of object pose: colours, depth, masks and poses scene by scene, and the models that poses are of."""

from __future__ import annotations

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.errors import DataError
from selfsight.manifest import decode_mask
from selfsight.synthesis.distributions import Spread
from selfsight.synthesis.exports.base import Format
from selfsight.synthesis.exports.drawn import Box, DrawnSet, Picture, Row, box_of, full_box_of
from selfsight.synthesis.meshes import INDEX, Mesh, diameter, models_of, ply, read_ply
from selfsight.synthesis.silhouettes import Edges, covered, edges
from selfsight.synthesis.spec import SynthSpec

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_MM = 1000.0
"""Millimetres a metre."""
_PICTURES = 1000
"""Of a scene, as other drawn sets of the benchmark have them."""
_STEPS = (0.1, 1.0)
"""Millimetres of a step of depth: the finest with which all that is seen fits into 16 bits, else the last."""
_MOST = 2**16 - 1
_SAME = 1e-3
"""By which share sizes may differ and be one: things fall in single precision."""
_TARGET = 0.1
"""Share of an object that must be seen for it to be looked for in a test."""
_NEAR = 1e-3
_ONE_SIZE = "BOP's models have one size: give 'size' one value and 'render: {sizes: world}'"


class _Object(NamedTuple):
    """`number` is BOP's `obj_id`. `mesh` is of `size` metres, in millimetres; `edges` are those of its triangles."""

    number: int
    size: float
    mesh: Mesh
    edges: Edges


class Bop(Format):
    """`SPLIT/000000/` and on, a thousand pictures each: `rgb/`, `depth/`, `mask/` (whole objects, as if nothing hid them) and
    `mask_visib/` (what is seen), `scene_camera.json`, `scene_gt.json` and `scene_gt_info.json`; `models/obj_000001.ply` and on
    with `models_info.json`; `camera.json`, that of the first picture; `test_targets_bop19.json` where there is a split `test`.

    Lengths are millimetres. An object of BOP is an asset of a class; `models/names.json` says which. As BOP's own tools have it
    the middle of the first pixel is 0, 0, and boxes reach from the first pixel to the last, so that they are one less wide than
    the pixels that they hold. Depth that 16 bits do not reach at 1 mm a step (65 metres) is 0, as the sky is. Symmetries of
    models are not told.
    """

    name = "bop"
    says = "BOP: poses with their models, depth and masks, in millimetres"
    needs = "camera"

    def impossible(self, spec: SynthSpec) -> str | None:
        for name in spec.classes:
            varies = _varies(spec, name, "size") or (spec.render.sizes == "picture" and _varies(spec, name, "y"))
            if varies:
                return f"things of class '{name}' are drawn in several sizes; {_ONE_SIZE}"
        return None

    def lack(self, drawn: DrawnSet) -> str | None:
        for picture in drawn.pictures:
            told = [picture.row.get("camera"), picture.row.get("depth"), *(each.get("pose") for each in picture.objects)]
            if any(one is None for one in told):
                why = "lacks camera, depth or a pose, which bop writes"
                return f"{picture.row['key']} {why}; take coco, or draw with the backend blender"
        there = models_of(drawn.folder)
        for (name, asset), sizes in _sizes(drawn).items():
            if asset not in there:
                return f"{INDEX} has no model of '{asset}', which bop writes; draw the set anew"
            if max(sizes) > (1 + _SAME) * min(sizes):
                return f"'{asset}' of class '{name}' is {min(sizes):.2f} to {max(sizes):.2f} metres large; {_ONE_SIZE}"
        return None

    def fill(self, drawn: DrawnSet, out: Path) -> list[str]:
        objects = _objects(drawn)
        _write_models(objects, out / "models")
        splits = drawn.splits()
        targets: list[dict[str, int]] = []
        for split, pictures in splits.items():
            for number, start in enumerate(range(0, len(pictures), _PICTURES)):
                scene = _Scene(out / split / f"{number:06d}", objects)
                for picture in pictures[start : start + _PICTURES]:
                    scene.add(picture)
                scene.close()
                targets += scene.targets(number) if split == "test" else []
        if "test" in splits:
            _write_lines(out / "test_targets_bop19.json", "[]", map(json.dumps, targets))
        first = drawn.pictures[0]
        _write_json(out / "camera.json", _camera(first, _depth(first)[1]))
        return [*splits, "models"]


class _Scene:
    """Pictures in one folder, numbered from 0 as they are added."""

    def __init__(self, folder: Path, objects: Mapping[tuple[str, str], _Object]) -> None:
        self.folder, self.objects = folder, objects
        self.cameras: list[dict[str, Any]] = []
        self.truth: list[list[dict[str, Any]]] = []
        self.about: list[list[dict[str, Any]]] = []
        for name in ("depth", "mask", "mask_visib"):
            (folder / name).mkdir(parents=True)

    def add(self, picture: Picture) -> None:
        number = len(self.cameras)
        picture.link(self.folder / "rgb" / f"{number:06d}{picture.file.suffix}")
        depth, step = _depth(picture)
        _save(self.folder / "depth" / f"{number:06d}.png", depth)
        pose = np.linalg.inv(np.reshape(picture.row["camera"]["pose"], (4, 4)))
        world = {"cam_R_w2c": pose[:3, :3].ravel().tolist(), "cam_t_w2c": (_MM * pose[:3, 3]).tolist()}
        self.cameras.append({"cam_K": _intrinsics(picture).ravel().tolist(), "depth_scale": step} | world)
        self.truth.append([])
        self.about.append([])
        for place, each in enumerate(picture.objects):
            one = self.objects[each["class"], each["asset"]]
            turn, middle = _rigid(each)
            seen = decode_mask(each["mask"])
            mask = seen | _silhouette(one, turn, middle, picture)
            for name, pixels in (("mask", mask), ("mask_visib", seen)):
                _save(self.folder / name / f"{number:06d}_{place:06d}.png", pixels.astype(np.uint8) * 255)
            self.truth[-1].append({"cam_R_m2c": turn.ravel().tolist(), "cam_t_m2c": middle.tolist(), "obj_id": one.number})
            self.about[-1].append(_info(each, int(seen.sum()), int((depth[mask] > 0).sum())))

    def close(self) -> None:
        for name, rows in (("camera", self.cameras), ("gt", self.truth), ("gt_info", self.about)):
            lines = (f'"{number}": {json.dumps(row)}' for number, row in enumerate(rows))
            _write_lines(self.folder / f"scene_{name}.json", "{}", lines)

    def targets(self, scene: int) -> list[dict[str, int]]:
        """What a test looks for in each picture: objects of which enough is seen, and how many of each."""
        found = []
        for picture, (truth, about) in enumerate(zip(self.truth, self.about, strict=True)):
            seen = Counter(one["obj_id"] for one, info in zip(truth, about, strict=True) if info["visib_fract"] >= _TARGET)
            found += [{"im_id": picture, "inst_count": many, "obj_id": of, "scene_id": scene} for of, many in seen.items()]
        return found


def _varies(spec: SynthSpec, name: str, factor: str) -> bool:
    """Whether a factor of objects of a class has several values over all splits."""
    ways: list[Any] = [spec.of(factor, name, split) for split in spec.splits]
    ways += [there for of, there in spec.shifts().values() if of == factor]
    if factor in spec.motion:
        return True
    return any(not isinstance(way, Spread) for way in ways) or len({value for way in ways for value in way.span()}) > 1


def _scale(each: Row) -> float:
    """Metres of the diameter of an object."""
    return float(np.cbrt(np.linalg.det(np.reshape(each["pose"], (4, 4))[:3, :3])))


def _rigid(each: Row) -> tuple[Floats, Floats]:
    """(rotation [3, 3], place of the middle [3] in millimetres), from the model to the camera."""
    pose = np.reshape(each["pose"], (4, 4))
    left, _, right = np.linalg.svd(pose[:3, :3])  # the nearest rotation: what fell is one in single precision alone
    return left @ right, _MM * pose[:3, 3]


def _sizes(drawn: DrawnSet) -> dict[tuple[str, str], list[float]]:
    """Of each class and asset that is seen."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for picture in drawn.pictures:
        for each in picture.objects:
            found[each["class"], each["asset"]].append(_scale(each))
    return dict(found)


def _objects(drawn: DrawnSet) -> dict[tuple[str, str], _Object]:
    """Numbers are those of the whole set; of a split that shows some of them there are gaps."""
    files, sizes, found = models_of(drawn.folder), _sizes(drawn), {}
    for number, of in enumerate(drawn.assets, 1):
        if of in sizes:
            size, mesh = (min(sizes[of]) + max(sizes[of])) / 2, read_ply(files[of[1]])
            large = Mesh(mesh.points * size * _MM, mesh.normals, mesh.triangles)
            found[of] = _Object(number, size, large, edges(mesh.triangles))
    return found


def _write_models(objects: Mapping[tuple[str, str], _Object], folder: Path) -> None:
    folder.mkdir()
    about, names = [], []
    for (name, asset), one in objects.items():
        (folder / f"obj_{one.number:06d}.ply").write_bytes(ply(one.mesh))
        low, extent = one.mesh.points.min(0).tolist(), np.ptp(one.mesh.points, axis=0).tolist()
        info = {"diameter": diameter(one.mesh.points)}
        info |= {f"min_{axis}": value for axis, value in zip("xyz", low, strict=True)}
        info |= {f"size_{axis}": value for axis, value in zip("xyz", extent, strict=True)}
        about.append(f'"{one.number}": {json.dumps(info)}')
        names.append(f'"{one.number}": {json.dumps({"class": name, "asset": asset})}')
    _write_lines(folder / "models_info.json", "{}", about)
    _write_lines(folder / "names.json", "{}", names)


def _depth(picture: Picture) -> tuple[npt.NDArray[np.uint16], float]:
    """([height, width] in steps, 0 where nothing is within reach; millimetres a step)."""
    file = picture.folder / picture.row["depth"]
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            depth = _MM * arrays["depth"].astype(np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise DataError(f"{file}: is missing or holds no depth, though the set has a row of it; draw the set anew") from None
    depth[depth > _MOST * _STEPS[-1]] = 0
    step = next((step for step in _STEPS if depth.max() <= _MOST * step), _STEPS[-1])
    return np.rint(depth / step).astype(np.uint16), step


def _intrinsics(picture: Picture) -> Floats:
    """[3, 3], where the middle of the first pixel is 0, 0 and not a half."""
    matrix = np.reshape(picture.row["camera"]["intrinsics"], (3, 3)).astype(np.float64)
    matrix[:2, 2] -= 0.5
    return matrix


def _camera(picture: Picture, step: float) -> dict[str, Any]:
    matrix, (width, height) = _intrinsics(picture), picture.size
    place = {"cx": matrix[0, 2], "cy": matrix[1, 2], "fx": matrix[0, 0], "fy": matrix[1, 1]}
    return place | {"depth_scale": step, "width": width, "height": height}


def _silhouette(one: _Object, turn: Floats, middle: Floats, picture: Picture) -> Bools:
    """[height, width]: what the object would cover with nothing before it; nothing of one that reaches behind the camera."""
    points = one.mesh.points @ turn.T + middle
    width, height = picture.size
    if points[:, 2].min() < _NEAR * _MM:
        return np.zeros((height, width), dtype=bool)
    pixels = points @ np.reshape(picture.row["camera"]["intrinsics"], (3, 3)).T
    return covered(pixels[:, :2] / pixels[:, 2:], one.mesh.triangles, one.edges, (0, 0, width, height))


def _info(each: Row, seen: int, valid: int) -> dict[str, Any]:
    """Of an object of which something is seen; `visible` is the share of its whole area, which lies beyond the picture, too."""
    whole = max(seen, round(seen / each["visible"]))
    pixels = {"px_count_all": whole, "px_count_valid": valid, "px_count_visib": seen, "visib_fract": seen / whole}
    return {"bbox_obj": _reach(full_box_of(each)), "bbox_visib": _reach(box_of(each))} | pixels


def _reach(box: Box) -> list[int]:
    """From the first pixel to the last."""
    left, top, width, height = box
    return [left, top, width - 1, height - 1]


def _save(path: Path, pixels: npt.NDArray[Any]) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, around: str, lines: Iterable[str]) -> None:
    """A list or a mapping with a line for each of its items."""
    path.write_text(f"{around[0]}\n" + ",\n".join(lines) + f"\n{around[1]}\n", encoding="utf-8")
