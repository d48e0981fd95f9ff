"""What things stand in: it hides, holds and is where its file says, and leaves nothing behind in the next picture."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import selfsight
from backend_cases import drawer, scene_of
from blenders import needs_blender
from selfsight.errors import DataError
from selfsight.synthesis.backends.blender.arranging import arranged
from selfsight.synthesis.backends.blender.models import Models
from selfsight.synthesis.backends.blender.placing import Eye, eye
from selfsight.synthesis.backends.blender.scenery import BUILT_IN, scenery_of
from selfsight.synthesis.frame import Frame, object_rows
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.spec import RenderSettings

Floats = npt.NDArray[np.float64]
BALL = {"classes": {"ball": {"assets": "model/sphere"}}}
INNER, WALL = 0.4, 0.1
"""Of the tray: half its inner side and the height of its walls, in metres."""


def drawn(folder: Path, **changes: Any) -> tuple[Scene, Frame]:
    scene = scene_of("blender", folder, **{**BALL, **changes})
    backend = drawer("blender", folder)
    backend.settings = RenderSettings(samples=2, device="cpu")
    return scene, backend.draw(scene)


def box(path: Path, low: tuple[float, float, float], high: tuple[float, float, float], colour: str = "") -> None:
    """An .obj of a box between two corners of the world; such files have y upwards and z towards the viewer."""
    corners = [(x, z, -y) for x, y, z in itertools.product(*zip(low, high, strict=True))]
    sides = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    if colour:
        path.with_suffix(".mtl").write_text(f"newmtl paint\nKd {colour}\n")
        lines += [f"mtllib {path.stem}.mtl", "usemtl paint"]
    path.write_text("\n".join([*lines, *("f {} {} {} {}".format(*side) for side in sides)]))


def rays(camera: Eye) -> Floats:
    """[64, 64, 3], each 1 metre deep, through the middles of pixels."""
    px, py = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    return camera.rays(np.stack([px.ravel(), py.ravel()], 1)).reshape(64, 64, 3)


@needs_blender
def test_a_wall_before_half_of_a_sphere_hides_that_half_and_has_the_depth_of_the_wall(tmp_path: Path) -> None:
    # Its left edge lies in the plane that goes through the camera and the middle of the sphere.
    box(tmp_path / "wall.obj", (0, -0.6, 0), (2, -0.59, 2))
    _, alone = drawn(tmp_path)
    scene, frame = drawn(tmp_path, factors={"scenery": "wall.obj"})
    whole, left = alone.instances == 1, np.arange(64) < 32
    assert whole.sum() > 500 and np.array_equal(frame.instances == 1, whole & left)
    [row] = object_rows(scene, frame)
    assert row["visible"] == pytest.approx(0.5, abs=0.02) and row["x"] + row["w"] == 32
    assert frame.full == alone.full
    camera = eye(scene)
    depth = (-0.6 - camera.place[1]) / rays(camera)[..., 1]
    top = camera.place[2] + depth * rays(camera)[..., 2]
    there = ~left & (top > 0.05) & (top < 1.95)
    assert frame.depth is not None and there.sum() > 1000
    assert frame.depth[there] == pytest.approx(depth[there], rel=0.03)


@needs_blender
def test_the_floor_of_the_tray_is_at_height_0_and_a_table_below_it(tmp_path: Path) -> None:
    scene, frame = drawn(tmp_path, factors={"scenery": "scenery/tray", "count": 0, "camera_elevation": 90, "distance": 1.3})
    camera = eye(scene)
    assert frame.depth is not None
    floor, table = camera.place[2], camera.place[2] + 0.008
    x, y = (camera.place + floor * rays(camera))[..., :2].transpose(2, 0, 1)
    far = np.maximum(abs(x), abs(y))
    assert frame.depth[far < INNER - 0.02] == pytest.approx(floor, abs=1e-4)
    # The wall's edge is nearer than the floor, and so hides more of what lies beyond it.
    outside = far > (INNER + 0.03) * floor / (floor - WALL)
    assert outside.sum() > 100 and frame.depth[outside] == pytest.approx(table, abs=1e-3)
    walls = frame.depth < floor - 0.02
    assert walls.sum() > 40 and frame.depth.min() >= floor - WALL - 1e-4 and abs(far[walls] - INNER).max() < 0.08


@needs_blender
def test_what_falls_into_the_tray_lies_on_its_floor_within_its_walls(tmp_path: Path) -> None:
    factors = {"scenery": "scenery/tray", "count": 12, "size": 0.14, "drop": 0.4, "pitch": 30}
    spread = {"x": {"uniform": [0.3, 0.7]}, "y": {"uniform": [0.25, 0.7]}}
    scene, frame = drawn(tmp_path, classes={"box": {"assets": "model/cube"}}, factors=factors | spread)
    half = 0.5 / np.sqrt(3)
    corners = np.array(list(itertools.product((-half, half), repeat=3)))
    poses = [eye(scene).pose @ solid.pose for solid in frame.solids]
    placed = np.stack([corners @ pose[:3, :3].T + pose[:3, 3] for pose in poses])
    assert np.abs(placed[..., :2]).max() < INNER + 0.002
    assert placed[..., 2].min() == pytest.approx(0, abs=0.002) and placed[..., 2].min(1).max() < 0.2


@needs_blender
def test_a_thing_that_misses_the_tray_falls_on_the_table(tmp_path: Path) -> None:
    factors = {"scenery": "scenery/tray", "size": 0.1, "drop": 0.2, "x": 1.1}
    scene, frame = drawn(tmp_path, classes={"box": {"assets": "model/cube"}}, factors=factors)
    pose = eye(scene).pose @ frame.solids[0].pose
    lowest = pose[2, 3] - np.linalg.norm(pose[:3, 0]) / np.sqrt(3) / 2
    assert pose[0, 3] > INNER and lowest == pytest.approx(-0.008, abs=0.001)


@needs_blender
def test_distractors_stand_beside_an_object_on_the_board_and_not_before_its_edge(tmp_path: Path) -> None:
    factors = {"distractors": 6, "size": 0.3, "x": {"uniform": [0.4, 0.6]}, "y": {"uniform": [0.48, 0.52]}}
    scene = scene_of("blender", tmp_path, **BALL, distractors=["model/cube"], factors={"scenery": "scenery/shelf", **factors})
    _, placed = arranged(scene, tmp_path, "picture", scenery_of(scene, tmp_path))
    away = [one.pose.middle - placed[-1].pose.middle for one in placed if one.thing.name is None]
    assert len(away) == 6 and min(abs(x) for x, _, _ in away) > 0.25 and max(abs(y) for _, y, _ in away) < 0.1


@needs_blender
def test_scenery_leaves_nothing_in_the_next_picture(tmp_path: Path) -> None:
    box(tmp_path / "deep.obj", (-1, 1, -3), (1, 1.1, 1))
    names = ["none", *BUILT_IN, "deep.obj"]
    first = {name: drawn(tmp_path, factors={"scenery": name})[1] for name in names}
    assert len({frame.image.tobytes() for frame in first.values()}) == len(names)
    for name in reversed(names):
        again = drawn(tmp_path, factors={"scenery": name})[1]
        assert np.array_equal(again.image, first[name].image) and np.array_equal(again.instances, first[name].instances)
        assert again.depth is not None and np.array_equal(again.depth, np.asarray(first[name].depth))


@needs_blender
def test_a_file_stands_where_its_metres_say_with_its_own_colours(tmp_path: Path) -> None:
    low, high = (0.1, -0.1, 0.0), (0.3, 0.2, 0.3)
    box(tmp_path / "post.obj", low, high, colour="0.8 0.02 0.02")
    here = {"count": 0, "light_azimuth": 200}
    scene, frame = drawn(tmp_path, factors={"scenery": "post.obj", **here})
    _, bare = drawn(tmp_path, factors=here)
    assert frame.depth is not None and bare.depth is not None
    there = frame.depth < bare.depth - 0.05
    pixels, _ = eye(scene).seen(np.array(list(itertools.product(*zip(low, high, strict=True)))))
    ys, xs = np.nonzero(there)
    assert xs.min() == pytest.approx(pixels[:, 0].min(), abs=1.5) and xs.max() + 1 == pytest.approx(pixels[:, 0].max(), abs=1.5)
    assert ys.min() == pytest.approx(pixels[:, 1].min(), abs=1.5)
    red, green, _ = frame.image[there].astype(int).T
    assert np.median(red - green) > 60
    assert not frame.instances.any()


@needs_blender
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("torn.blend", b"BLENDER-v405nonsense", r"torn\.blend: cannot be read as a model"),
        ("points.obj", b"v 0 0 0\nv 1 0 0\n", r"points\.obj: holds no surface"),
        ("tray.txt", b"a tray", r"factors\.scenery: .*tray\.txt: expected a file that ends in \.blend or"),
        ("scenery/trey", None, r"nothing built in is 'scenery/trey'. Did you mean 'scenery/tray'"),
    ],
)
def test_scenery_that_cannot_be_built_is_told_in_a_line_before_the_first_picture(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    spec = {"name": "bad", "size": 32, "backend": "blender", **BALL, "shift": {"scenery": name}}
    spec = spec if name != "tray.txt" else {**spec, "shift": {}, "factors": {"scenery": name}}
    (tmp_path / "bad.yaml").write_text(json.dumps(spec))
    with pytest.raises(DataError, match=says) as error:
        selfsight.synth(tmp_path / "bad.yaml", tmp_path / "out", count=1, workers=0)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@needs_blender
@pytest.mark.parametrize("name", ["model/sphere", "model/suzanne", "model/cylinder", "model/cube"])
def test_a_few_points_reach_as_far_as_all_of_them_in_every_direction(name: str, tmp_path: Path) -> None:
    model = Models(tmp_path).model(name)
    ways = np.random.default_rng(0).normal(size=(500, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    missing = (model.points @ ways.T).max(0) - (model.hull @ ways.T).max(0)
    assert len(model.hull) <= 256 and missing.min() >= 0 and missing.max() < 0.01
