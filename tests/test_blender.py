"""Rendered scenes against geometry that is worked out by hand, and models of every kind of file."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

import selfsight
from backend_cases import STILL, drawer, scene_of, spec_of
from blenders import needs_blender
from selfsight import api, manifest
from selfsight.errors import ConfigError, DataError
from selfsight.manifest import decode_mask
from selfsight.synthesis.backends import backend
from selfsight.synthesis.backends.blender.arranging import check_places
from selfsight.synthesis.backends.blender.loaded import _missing, blender
from selfsight.synthesis.backends.blender.models import Models
from selfsight.synthesis.backends.blender.placing import Eye, before, beside, eye, standing, usual_eye
from selfsight.synthesis.backends.pictures import Pictures, cropped
from selfsight.synthesis.exports import FORMATS, check_drawable
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.files import resolved
from selfsight.synthesis.frame import Frame, object_rows
from selfsight.synthesis.loading import checked
from selfsight.synthesis.meshes import models_of, read_ply
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.silhouettes import covered, edges
from selfsight.synthesis.spec import RenderSettings, Sizes, SynthSpec

Floats = npt.NDArray[np.float64]
BALL = {"classes": {"ball": {"assets": "model/sphere"}}}


def drawn(folder: Path, *, sizes: Sizes = "picture", **changes: Any) -> tuple[Scene, Frame]:
    scene = scene_of("blender", folder, **changes)
    drawer_ = drawer("blender", folder)
    drawer_.settings = RenderSettings(samples=4, device="cpu", sizes=sizes)
    return scene, drawer_.draw(scene)


# --- geometry alone ---------------------------------------------------------------------------------------------------


def test_outlines_wind_around_what_triangles_cover_whether_the_mesh_is_closed_or_not() -> None:
    rng = np.random.default_rng(0)
    for closed in (False, True):
        points = rng.uniform(0, 20, (12, 2))
        corners = np.array(list(itertools.combinations(range(4), 3))) if closed else rng.integers(0, 12, (9, 3))
        mask = covered(points, corners, edges(corners), (-2, -1, 24, 22))
        x, y = np.meshgrid(np.arange(24) - 2 + 0.5, np.arange(22) - 1 + 0.5)
        assert np.array_equal(mask, _inside(points, corners, x, y))
        assert 0 < mask.sum() < mask.size


def _inside(points: Floats, corners: npt.NDArray[np.intp], x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    found = np.zeros(x.shape, dtype=bool)
    for a, b, c in points[corners]:
        turns = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        found |= np.all([turn > 0 for turn in turns], 0) | np.all([turn < 0 for turn in turns], 0)
    return found


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_the_usual_camera_sees_a_thing_where_and_as_large_as_its_factors_say(size: tuple[int, int], tmp_path: Path) -> None:
    ball = np.random.default_rng(0).normal(size=(500, 3))
    ball /= 2 * np.linalg.norm(ball, axis=1, keepdims=True)
    for x, y, wide in ((0.5, 0.5, 0.4), (0.1, 0.9, 0.2), (0.9, -0.4, 0.3), (0.5, 0.5, 2.5)):
        scene = _flat_scene(size, x=x, y=y, size=wide)
        camera = eye(scene)
        pose = standing(scene.objects[0], ball, camera)
        [[px, py]], [depth] = camera.seen(pose.middle[None])
        assert (px / size[0], py / size[1]) == pytest.approx((x, y))
        assert pose.middle[2] == pytest.approx(pose.scale * 0.5, rel=0.02)
        # A sphere's outline is where rays touch it: at an angle whose sine is radius over distance.
        angle = np.arcsin(pose.scale / 2 / depth)
        assert 2 * np.tan(angle) * camera.intrinsics[0, 0] == pytest.approx(wide * min(size))
    [[px, py]], _ = camera.seen(np.zeros((1, 3)))
    assert (px, py) == pytest.approx((size[0] / 2, size[1] / 2))


def test_a_size_of_the_world_is_metres_wherever_a_thing_stands() -> None:
    corners = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 3))
    for x, y, size in ((0.5, 0.5, 0.4), (0.1, 0.9, 0.4), (0.9, -0.4, 0.4), (0.4, 1.4, 0.9)):
        scene = _flat_scene((96, 48), x=x, y=y, size=size, pitch=30, roll=-20)
        camera = eye(scene)
        pose = standing(scene.objects[0], corners, camera, "world")
        assert pose.scale == size
        [[px, py]], [depth] = camera.seen(pose.middle[None])
        assert (px / 96, py / 48, depth > 0) == (pytest.approx(x), pytest.approx(y), True)
        matrix = pose.matrix()
        assert (corners @ matrix[:3, :3].T + matrix[:3, 3])[:, 2].min() == pytest.approx(0)  # it stands on the ground
    # Where the usual camera looks both are the same but for the height of the middle, which is nothing of a small thing.
    small = _flat_scene((96, 48), size=0.01).objects[0]
    assert standing(small, corners, camera).scale == pytest.approx(0.01, rel=0.01)


def test_a_distractor_is_moved_beside_what_its_metres_cover_in_the_picture() -> None:
    ball = np.random.default_rng(0).normal(size=(500, 3))
    ball /= 2 * np.linalg.norm(ball, axis=1, keepdims=True)
    for seed in range(20):
        scene = _flat_scene((80, 64), y=1.0, size=0.4, distractors=1, seed=seed)
        thing, other = scene.things
        usual = usual_eye(scene.size)
        placed = [standing(each, ball, usual, "world") for each in (thing, beside(other, [thing], usual, "world"))]
        pixels, depth = usual.seen(np.stack([pose.middle for pose in placed]))
        radii = np.array([pose.scale for pose in placed]) / 2 / depth * usual.intrinsics[0, 0]
        assert np.hypot(*(pixels[0] - pixels[1])) >= 0.98 * radii.sum()


@pytest.mark.parametrize(
    ("size", "factors", "line"),
    [
        (
            64,
            {"size": 2},
            "size: 2 metres with 'render: {sizes: world}': its middle is as high as the usual camera, which stands",
        ),
        ([32, 96], {"y": -0.5}, "y: -0.5 is above the horizon of the usual camera"),
    ],
)
def test_metres_that_cannot_stand_where_they_should_are_told_before_the_first_picture(
    size: Any, factors: dict[str, float], line: str
) -> None:
    values = {"name": "a", "size": size, "backend": "blender", **BALL, "factors": factors}
    check_places(SynthSpec.model_validate(values))
    with pytest.raises(ConfigError, match=re.escape(line)):
        check_places(SynthSpec.model_validate(values | {"render": {"sizes": "world"}}))


def _flat_scene(picture: tuple[int, int], seed: int = 0, **factors: float) -> Scene:
    spec = SynthSpec.model_validate(
        {"name": "a", "size": list(picture), "factors": STILL | factors, "distractors": "ball", **BALL}
    )
    return sample(checked(spec, "a"), seed, "train", 0)


def test_what_hides_a_thing_is_as_large_as_it_in_the_picture_and_does_not_touch_it() -> None:
    ball = np.array([[0, 0, -0.5], [0, 0, 0.5]])
    for camera_factors in ({}, {"camera_azimuth": 70, "camera_elevation": 15, "distance": 2}):
        scene = _flat_scene((80, 64), occlusion=0.5, size=0.3, **camera_factors)
        occluder, thing = scene.things
        camera = eye(scene)
        behind = standing(thing, ball, _usual(scene))
        front = before(occluder, thing, behind, camera)
        assert np.linalg.norm(front.middle - behind.middle) >= (front.scale + behind.scale) / 2
        pixels, depth = camera.seen(np.stack([front.middle, behind.middle]))
        sizes = np.array([front.scale, behind.scale]) / depth
        assert sizes[0] == pytest.approx(sizes[1])
        away = (occluder.number("x") - thing.number("x")) * 80, (occluder.number("y") - thing.number("y")) * 64
        apart = np.hypot(*(pixels[0] - pixels[1])) / (sizes[0] * camera.intrinsics[0, 0])
        assert apart == pytest.approx(np.hypot(*away) / (0.3 * 64))


def _usual(scene: Scene) -> Eye:
    usual = {name: FACTORS[name].usual.draw(0) for name in ("camera_azimuth", "camera_elevation", "distance", "focal_length")}
    return eye(replace(scene, factors={**scene.factors, **usual}))


# --- rendered ---------------------------------------------------------------------------------------------------------


@needs_blender
@pytest.mark.parametrize(("x", "y", "size"), [(0.5, 0.5, 0.6), (0.2, 0.7, 0.3), (0.97, 0.4, 0.5)])
def test_a_sphere_has_the_mask_box_depth_and_normals_of_the_sphere(x: float, y: float, size: float, tmp_path: Path) -> None:
    scene, frame = drawn(tmp_path, **BALL, factors={"x": x, "y": y, "size": size})
    camera, solid = eye(scene), frame.solids[0]
    middle, radius = solid.pose[:3, 3], np.linalg.norm(solid.pose[:3, 0]) / 2
    hit, *_ = _sphere(camera, middle, radius, 64, 64)
    mask = frame.instances == 1
    assert np.array_equal(mask, hit) or (mask ^ hit).sum() <= 2  # rays within a thousandth of a pixel of the outline
    wide, tall = 3 * 64, 3 * 64
    whole, *_ = _sphere(camera, middle, radius, wide, tall, -64)
    ys, xs = np.nonzero(whole)
    box = xs.min() - 64, ys.min() - 64, np.ptp(xs) + 1, np.ptp(ys) + 1
    assert np.abs(np.array(frame.full[0].box) - box).max() <= 1
    assert frame.full[0].area == pytest.approx(whole.sum(), abs=3)
    # A ray is somewhere within its pixel: depth and normal are among those that the footprint has.
    fine = [_sphere(camera, middle, radius, 64, 64, shift=s) for s in itertools.product((0, 0.25, 0.5, 0.75, 1), repeat=2)]
    inner = np.all([one[0] for one in fine], 0) & mask
    depths, normals = np.stack([one[1] for one in fine]), np.stack([one[2] for one in fine])
    assert inner.sum() > 30 and frame.depth is not None and frame.normals is not None
    slack = 1e-3 * radius
    assert (frame.depth >= depths.min(0) - slack)[inner].all() and (frame.depth <= depths.max(0) + slack)[inner].all()
    low, high = normals.min(0)[inner] - 0.01, normals.max(0)[inner] + 0.01
    assert (frame.normals[inner] >= low).all() and (frame.normals[inner] <= high).all()
    assert np.linalg.norm(frame.normals, axis=2) == pytest.approx(np.ones((64, 64)), abs=1e-4)


def _sphere(
    camera: Eye, middle: Floats, radius: float, width: int, height: int, start: int = 0, shift: tuple[float, float] = (0.5, 0.5)
) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    """(hit, planar depth, normal) where rays through pixels meet a sphere, in the camera's axes; `shift` is within the pixel."""
    px, py = np.meshgrid(np.arange(width) + start + shift[0], np.arange(height) + start + shift[1])
    rays = np.stack([px, py, np.ones_like(px)], -1) @ np.linalg.inv(camera.intrinsics).T
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - radius**2
    inside = b * b - a * c
    depth = (b - np.sqrt(np.maximum(inside, 0))) / a
    return inside > 0, depth, (rays * depth[..., None] - middle) / radius


@needs_blender
def test_ground_and_sky_have_the_depth_of_the_ground_and_of_nothing(tmp_path: Path) -> None:
    scene, frame = drawn(tmp_path, **BALL, factors={"count": 0, "camera_elevation": 10})
    camera = eye(scene)
    px, py = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    rays = camera.rays(np.stack([px.ravel(), py.ravel()], 1)).reshape(64, 64, 3)
    falling, up = rays[..., 2] < -0.05, rays[..., 2] > 0.02
    assert frame.depth is not None and frame.normals is not None and up.any()
    expected = -camera.place[2] / rays[..., 2]
    assert frame.depth[falling] == pytest.approx(expected[falling], rel=0.25)
    assert np.isinf(frame.depth[up]).all() and not frame.normals[up].any()
    upward = camera.pose[:3, :3].T @ [0, 0, 1]
    assert np.abs(frame.normals[falling] - upward).max() < 1e-3


@needs_blender
def test_keypoints_are_where_the_model_has_them_and_know_whether_they_are_seen(tmp_path: Path) -> None:
    monkey = {"classes": {"monkey": {"assets": "model/suzanne"}}}
    told = {}
    for side, turn in (("front", 0), ("back", 180)):
        scene, frame = drawn(tmp_path, **monkey, factors={"rotation": turn, "size": 0.6, "pitch": -30})
        points = frame.solids[0].keypoints
        for point in points.values():
            projected = eye(scene).intrinsics @ point.place
            assert (projected[:2] / projected[2]) == pytest.approx((point.x, point.y))
        told[side] = {name: point.visible for name, point in points.items()}
        [row] = object_rows(scene, frame)
        assert row["keypoints"]["nose"] == [points["nose"].x, points["nose"].y, told[side]["nose"]]
        if side == "front":
            assert points["eye.left"].x > points["nose"].x > points["eye.right"].x and points["nose"].y > points["eye.left"].y
    assert all(told["front"][name] == 2 for name in ("eye.left", "eye.right", "nose"))
    assert all(told["back"][name] == 1 for name in ("eye.left", "eye.right", "nose"))
    _, beyond = drawn(tmp_path, **monkey, factors={"x": -0.4, "size": 0.2})
    assert {point.visible for point in beyond.solids[0].keypoints.values()} == {0}


@needs_blender
def test_an_occluder_hides_about_its_share_and_labels_say_what_it_hid(tmp_path: Path) -> None:
    shares = []
    for share in (0.0, 0.3, 0.6):
        scene, frame = drawn(tmp_path, **BALL, distractors=["model/sphere"], factors={"occlusion": share, "size": 0.4})
        [row] = object_rows(scene, frame)
        shares.append(1 - row["visible"])
        assert frame.instances.max() == 1
    assert shares == pytest.approx([0, 0.3, 0.6], abs=0.04)


@needs_blender
def test_things_that_fall_come_to_rest_on_the_ground_and_apart(tmp_path: Path) -> None:
    boxes = {"classes": {"box": {"assets": "model/cube"}}}
    scene, frame = drawn(tmp_path, **boxes, factors={"count": 4, "size": 0.3, "drop": 0.5, "pitch": 20})
    poses = [eye(scene).pose @ solid.pose for solid in frame.solids]
    half = 0.5 / np.sqrt(3)
    corners = np.array(list(itertools.product((-half, half), repeat=3)))
    lowest = [(corners @ pose[:3, :3].T + pose[:3, 3])[:, 2].min() for pose in poses]
    assert min(lowest) == pytest.approx(0, abs=0.02) and max(lowest) < 0.5
    middles = [pose[:3, 3] for pose in poses]
    side = 2 * half * np.linalg.norm(poses[0][:3, 0])
    assert all(np.linalg.norm(a - b) > 0.9 * side for a, b in itertools.combinations(middles, 2))
    again = drawn(tmp_path, **boxes, factors={"count": 4, "size": 0.3, "drop": 0.5, "pitch": 20})[1]
    assert np.array_equal(frame.image, again.image)


@needs_blender
def test_a_photograph_lies_behind_as_it_is_and_surroundings_light_from_their_side(tmp_path: Path) -> None:
    ramp = np.zeros((64, 64, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1], ramp[..., 2] = np.arange(64) * 3 + 30, np.arange(64)[:, None] * 3 + 30, 90
    Image.fromarray(ramp).save(tmp_path / "photo.png")
    still = {"count": 0, "background": "photo.png", "lights": 0, "ambient": 1}
    scene, frame = drawn(tmp_path, **BALL, factors=still)
    part = cropped(Pictures(tmp_path).image("photo.png"), scene.size, np.random.default_rng([scene.seed, 0]))
    assert np.abs(frame.image[2:-2, 2:-2] / 255 - part[2:-2, 2:-2]).max() < 0.05
    _, other = drawn(tmp_path, **BALL, factors=still, index=1)
    assert np.abs(other.image.astype(int) - frame.image).max() > 20  # another part, not the one before
    _, lit = drawn(tmp_path, **BALL, factors={"hdri": "sky.hdr", "ambient": 1, "lights": 0, "saturation": 0})
    red, blue = (lit.image[lit.instances == 1][:, k].astype(int) for k in (0, 2))
    assert (red > blue + 30).any() and (blue > red + 30).any()


@needs_blender
def test_a_size_of_the_world_is_the_diameter_in_every_pose_and_stays_when_things_fall(tmp_path: Path) -> None:
    two = {"classes": {"a": {"assets": "model/cube"}}}
    near, far = {"x": 0.3, "y": 0.9, "size": 0.3}, {"x": 0.7, "y": 0.1, "size": 0.3, "pitch": 30}
    for sizes, equal in (("world", True), ("picture", False)):
        found = [drawn(tmp_path, sizes=sizes, **two, factors=factors)[1].solids[0].pose for factors in (near, far)]
        here, there = (float(np.linalg.norm(pose[:3, 0])) for pose in found)
        assert (here == pytest.approx(0.3) == there) == equal
        assert equal or there > 1.2 * here
    fallen = {"count": 3, "drop": 0.4, "size": 0.25, "pitch": 25, "x": {"uniform": [0.2, 0.8]}}
    _, frame = drawn(tmp_path, sizes="world", **two, factors=fallen)
    assert [np.cbrt(np.linalg.det(solid.pose[:3, :3])) for solid in frame.solids] == pytest.approx([0.25] * 3, rel=1e-4)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red plate beside a small green ball, with a keypoint, as a file of every kind."""
    bpy = blender()
    folder = tmp_path_factory.mktemp("models")
    scene = bpy.data.scenes.new("export")
    with bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0]):
        for name, colour, make in (("plate", (1, 0, 0, 1), _plate), ("ball", (0, 1, 0, 1), _ball)):
            make(bpy)
            made = bpy.context.view_layer.objects.active
            material = bpy.data.materials.new(name)
            material.use_nodes = True
            material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = colour
            made.data.materials.append(material)
        tip = bpy.data.objects.new("tip", None)
        tip.location = (1, 0, 0.1)
        scene.collection.objects.link(tip)
        bpy.data.libraries.write(str(folder / "part.blend"), {scene, *scene.collection.objects})
        bpy.ops.export_scene.gltf(filepath=str(folder / "part.glb"), use_active_scene=True)
        bpy.ops.export_scene.gltf(filepath=str(folder / "part.gltf"), use_active_scene=True, export_format="GLTF_SEPARATE")
        bpy.ops.wm.obj_export(filepath=str(folder / "part.obj"))
        bpy.ops.wm.ply_export(filepath=str(folder / "part.ply"))
        bpy.ops.wm.stl_export(filepath=str(folder / "part.stl"))
        for suffix in (".usda", ".usdc"):
            bpy.ops.wm.usd_export(filepath=str(folder / f"part{suffix}"))
        for each in list(scene.collection.objects):
            bpy.data.objects.remove(each)
    bpy.data.scenes.remove(scene)
    return folder


def _plate(bpy: Any) -> None:
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0, 0, 0.1))
    bpy.context.view_layer.objects.active.scale = (2, 1, 0.2)


def _ball(bpy: Any) -> None:
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.3, location=(-0.6, 0, 0.5))


@needs_blender
@pytest.mark.parametrize("suffix", [".blend", ".glb", ".gltf", ".obj", ".ply", ".stl", ".usda", ".usdc"])
def test_a_model_of_any_kind_of_file_is_drawn_with_its_parts_colours_and_keypoints(suffix: str, models: Path) -> None:
    _, frame = drawn(models, classes={"part": {"assets": f"part{suffix}"}}, factors={"size": 0.7, "rotation": 0})
    x, _, w, h = frame.full[0].box
    assert 30 <= w <= 46 and w > 1.2 * h and x >= 8  # 0.7 of 64 pixels wide, and lying the right way up
    pixels = frame.image[frame.instances == 1].astype(int)
    coloured = suffix not in (".ply", ".stl")  # which hold no materials
    assert ((pixels[:, 0] > pixels[:, 1] + 60).sum() > 100) == coloured
    assert ((pixels[:, 1] > pixels[:, 0] + 60).sum() > 20) == coloured
    tips = suffix in (".blend", ".glb", ".gltf", ".usda", ".usdc")
    assert ("tip" in frame.solids[0].keypoints) == tips
    if tips:
        point = frame.solids[0].keypoints["tip"]
        assert point.x > x + 0.8 * w


@needs_blender
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("torn.glb", b"glTF\x02\x00\x00\x00\xff\xff", "cannot be read as a model"),
        ("torn.blend", b"BLENDER-v405nonsense", "cannot be read as a model"),
        ("empty.obj", b"# nothing\n", "holds no surface"),
        ("torn.usda", b"#usda 1.0\n(((", "(cannot be read as a model|holds no surface)"),
    ],
)
def test_a_file_that_is_no_model_is_told_in_a_line_before_the_first_picture(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    spec = {"name": "bad", "size": 32, "backend": "blender", "classes": {"a": {"assets": name}}}
    (tmp_path / "bad.yaml").write_text(json.dumps(spec))
    with pytest.raises(DataError, match=says) as error:
        selfsight.synth(tmp_path / "bad.yaml", tmp_path / "out", count=1, workers=0)
    assert "\n" not in str(error.value) and name in str(error.value) and not (tmp_path / "out").exists()


@needs_blender
def test_a_model_that_goes_away_while_it_is_drawn_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.obj: cannot be read as a model \(No such file or directory\)"):
        Models(tmp_path).model("gone.obj")


@needs_blender
def test_an_image_that_is_none_is_told_before_the_first_picture(tmp_path: Path) -> None:
    (tmp_path / "wood.png").write_bytes(b"no image")
    spec = spec_of("blender", tmp_path, factors={"texture": "wood.png"})
    with pytest.raises(DataError, match=r"wood\.png: cannot be read as an image"):
        drawer("blender", tmp_path).check(spec)


# --- sets -------------------------------------------------------------------------------------------------------------


TWO = {
    "name": "two",
    "size": 48,
    "backend": "blender",
    "render": {"samples": 2, "device": "cpu"},
    "classes": {"ball": {"assets": "model/sphere"}, "monkey": {"assets": "model/suzanne"}},
    "splits": {"train": 1.0},
}


class Killer(api.Silent):
    """Kills a worker once the first picture is drawn."""

    killed = 0

    def advance(self, what: str, done: int, total: int) -> None:
        workers = [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]
        if done and not self.killed and workers:
            workers[0].kill()
            self.killed = workers[0].pid


@needs_blender
def test_a_worker_that_is_killed_is_replaced_and_its_picture_drawn(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(json.dumps(TWO))
    killer = Killer()
    selfsight.synth(tmp_path / "two.yaml", tmp_path / "killed", count=8, workers=2, watch=killer)
    assert killer.killed
    selfsight.synth(tmp_path / "two.yaml", tmp_path / "left", count=8, workers=0)
    here, there = (
        {path.relative_to(of).as_posix(): path.read_bytes() for path in of.rglob("*.*") if path.suffix != ".npz"}
        for of in (tmp_path / "killed", tmp_path / "left")
    )
    assert len(manifest.read(tmp_path / "killed").samples) == 8 and here == there


@needs_blender
def test_a_set_has_every_label_on_disk_and_is_the_same_from_workers_and_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(json.dumps(TWO))
    for out, workers in (("one", 0), ("many", 2)):
        selfsight.synth(tmp_path / "two.yaml", tmp_path / out, count=4, workers=workers)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one/train").rglob("*.png"))
    assert len(files) == 4
    for file in files:
        here, there = (np.asarray(Image.open(tmp_path / out / file)) for out in ("one", "many"))
        assert np.array_equal(here, there), np.abs(here.astype(int) - there).max()
    content = manifest.read(tmp_path / "many")
    for row in content.samples:
        depth = np.load(tmp_path / "many" / row["depth"])["depth"]
        normals = np.load(tmp_path / "many" / row["normals"])["normals"]
        assert (depth.shape, depth.dtype, normals.shape) == ((48, 48), np.float32, (48, 48, 3))
        assert len(row["camera"]["intrinsics"]) == 9 and len(row["camera"]["pose"]) == 16
    assert {each["class"]: each["keypoints"] is not None for each in content.objects} == {"ball": False, "monkey": True}
    names = {"model/sphere": "models/sphere.ply", "model/suzanne": "models/suzanne.ply"}
    assert json.loads((tmp_path / "many/models/models.json").read_text()) == names
    for file in names.values():
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


@needs_blender
def test_the_models_of_a_set_are_those_that_its_poses_move_to_where_the_depth_is(tmp_path: Path) -> None:
    spec = {
        "name": "one",
        "size": 64,
        "backend": "blender",
        "render": {"samples": 1, "device": "cpu", "denoise": False},
        "classes": {"monkey": {"assets": "model/suzanne"}},
        "splits": {"train": 1.0},
        "factors": {"size": 0.6, "distractors": 1},
    }
    (tmp_path / "one.yaml").write_text(json.dumps(spec))
    selfsight.synth(tmp_path / "one.yaml", tmp_path / "set", count=1, workers=0)
    assert sorted(path.name for path in (tmp_path / "set/models").iterdir()) == ["models.json", "suzanne.ply"]
    mesh = read_ply(models_of(tmp_path / "set")["model/suzanne"])
    assert np.linalg.norm(mesh.points, axis=1).max() == pytest.approx(0.5, abs=1e-6)
    content = manifest.read(tmp_path / "set")
    [row], [each] = content.samples, content.objects
    pose, matrix = np.reshape(each["pose"], (4, 4)), np.reshape(row["camera"]["intrinsics"], (3, 3))
    points, normals = mesh.points @ pose[:3, :3].T + pose[:3, 3], mesh.normals @ pose[:3, :3].T
    pixels = points @ matrix.T
    x, y = np.floor(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    depth, seen = np.load(tmp_path / "set" / row["depth"])["depth"], decode_mask(each["mask"])
    facing = (normals * points).sum(1) < -0.5 * np.linalg.norm(normals, axis=1) * np.linalg.norm(points, axis=1)
    here = (facing & seen[np.clip(y, 0, 63), np.clip(x, 0, 63)]).nonzero()[0]
    off = points[here, 2] - depth[y[here], x[here]]
    # What faces the camera is on the surface or behind a part of it; before it, only where a pixel's ray passes an edge.
    assert len(here) > 2000 and np.mean(off > -0.01) > 0.95 and np.mean(np.abs(off) < 0.01) > 0.7
    corners = mesh.points[mesh.triangles]
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    turned = (of_faces * mesh.normals[mesh.triangles[:, 0]]).sum(1)
    assert np.mean(turned > 0) > 0.98  # triangles are wound as their normals say
    (tmp_path / "set/models/models.json").unlink()  # as a kill leaves it between the models and their list
    selfsight.synth(tmp_path / "one.yaml", tmp_path / "set", count=2, workers=0)
    assert np.array_equal(read_ply(models_of(tmp_path / "set")["model/suzanne"]).points, mesh.points)


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crowd of things of one size each, some beyond the edge and behind others, and the set as BOP has it in `set-bop`."""
    folder = tmp_path_factory.mktemp("posed")
    spec = {
        "name": "crowd",
        "size": [64, 48],
        "backend": "blender",
        "mixed": True,
        "splits": {"train": 1.0, "test": 0.5},
        "render": {"samples": 2, "device": "cpu", "sizes": "world"},
        "classes": {
            "monkey": {"assets": "model/suzanne", "factors": {"size": 0.45}},
            "solid": {"assets": ["model/torus", "model/cube"], "factors": {"size": 0.3}},
        },
        "factors": {
            "count": 4,
            "x": {"uniform": [0, 1]},
            "y": {"uniform": [0.1, 1]},
            "roll": {"uniform": [-40, 40]},
            "camera_elevation": {"uniform": [15, 60]},
            "camera_azimuth": {"uniform": [0, 90]},
            "occlusion": [0, 0.4],
        },
    }
    (folder / "crowd.yaml").write_text(json.dumps(spec))
    selfsight.synth(folder / "crowd.yaml", folder / "set", count=4, workers=0, export=["bop"])
    return folder


class Annotation(NamedTuple):
    """What a reader of BOP sees of one object: vertices [n, 3] in millimetres before the camera, pixels [n, 2] of them, masks."""

    points: Floats
    pixels: Floats
    depth: Floats
    mask: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.bool_]
    info: dict[str, Any]
    row: dict[str, Any]
    normals: Floats


def bop_annotations(folder: Path) -> Iterator[Annotation]:
    """Each object of an exported set beside its row of the manifest, read from the files alone."""
    content = manifest.read(folder / "set")
    for split in ("train", "test"):
        scene = folder / "set-bop" / split / "000000"
        truth, about, cameras = (json.loads((scene / f"scene_{n}.json").read_text()) for n in ("gt", "gt_info", "camera"))
        for number, sample_ in enumerate(row for row in content.samples if row["split"] == split):
            rows = [each for each in content.objects if each["sample"] == sample_["key"] and each["visible"]]
            camera, name = cameras[str(number)], f"{number:06d}"
            depth = camera["depth_scale"] * np.asarray(Image.open(scene / "depth" / f"{name}.png")).astype(float)
            for place, (one, row) in enumerate(zip(truth[str(number)], rows, strict=True)):
                mesh = read_ply(folder / "set-bop" / "models" / f"obj_{one['obj_id']:06d}.ply")
                turn = np.reshape(one["cam_R_m2c"], (3, 3))
                points = mesh.points @ turn.T + one["cam_t_m2c"]
                flat = points @ np.reshape(camera["cam_K"], (3, 3)).T
                masks = (np.asarray(Image.open(scene / kind / f"{name}_{place:06d}.png")) > 0 for kind in ("mask", "mask_visib"))
                pixels = flat[:, :2] / flat[:, 2:]
                yield Annotation(points, pixels, depth, *masks, about[str(number)][place], row, mesh.normals @ turn.T)


@needs_blender
def test_bop_models_project_into_their_boxes_and_masks(posed: Path) -> None:
    found = list(bop_annotations(posed))
    hidden = beyond = 0
    for one in found:
        left, top, width, height = one.info["bbox_obj"]
        low, high = one.pixels.min(0), one.pixels.max(0)
        # The middles of the first and of the last pixel are within the outline; those beside them are not, but for sharp corners.
        over = np.array([left - low[0], top - low[1], high[0] - left - width, high[1] - top - height])
        assert over.min() >= -0.01 and over.max() <= 1.25 and over.mean() < 1
        assert np.array_equal(one.visible, decode_mask(one.row["mask"])) and one.mask[one.visible].all()
        assert one.info["px_count_visib"] == one.visible.sum() and one.info["px_count_all"] >= one.mask.sum()
        assert one.info["visib_fract"] == one.info["px_count_visib"] / one.info["px_count_all"]
        inside = low[0] >= 0 and low[1] >= 0 and high[0] <= 63 and high[1] <= 47
        assert not inside or one.info["px_count_all"] == pytest.approx(one.mask.sum(), abs=2)
        hidden += one.visible.sum() < 0.9 * one.mask.sum()
        beyond += not inside
        at = np.rint(one.pixels).astype(int)
        at = at[(at >= 0).all(1) & (at < [64, 48]).all(1)]
        # A vertex lies in the mask, or in a pixel beside it.
        assert maximum_filter(one.mask, 3)[at[:, 1], at[:, 0]].all()
    assert len(found) > 15 and hidden >= 3 and beyond >= 3


@needs_blender
def test_bop_models_lie_where_the_depth_of_what_is_seen_is(posed: Path) -> None:
    off = []
    for one in bop_annotations(posed):
        at = np.rint(one.pixels).astype(int)
        sure = minimum_filter(one.visible, 3)  # not along outlines
        within = (at >= 0).all(1) & (at < [64, 48]).all(1)
        facing = (one.normals * one.points).sum(1) < -0.8 * np.linalg.norm(one.points, axis=1)
        chosen = (within & facing).nonzero()[0]
        chosen = chosen[sure[at[chosen, 1], at[chosen, 0]]]
        off.append(one.points[chosen, 2] - one.depth[at[chosen, 1], at[chosen, 0]])
    found = np.concatenate(off)
    # Millimetres; a pixel is about 20 wide. What faces the camera is at the depth, or behind a nearer part of the same thing.
    assert len(found) > 2000 and np.median(np.abs(found)) < 4 and np.mean(found > -12) > 0.98 and np.mean(found < 12) > 0.75


@needs_blender
def test_bop_depth_is_that_of_the_set_and_every_thing_is_of_its_one_size(posed: Path) -> None:
    content = manifest.read(posed / "set")
    for number, row in enumerate(row for row in content.samples if row["split"] == "train"):
        scene = posed / "set-bop" / "train" / "000000"
        step = json.loads((scene / "scene_camera.json").read_text())[str(number)]["depth_scale"]
        depth = step * np.asarray(Image.open(scene / "depth" / f"{number:06d}.png")).astype(float)
        expected = 1000.0 * np.load(posed / "set" / row["depth"])["depth"].astype(float)
        expected[expected > 65535] = 0
        assert np.abs(depth - expected).max() <= step / 2 + 1e-6 and depth.any()
    names = json.loads((posed / "set-bop" / "models" / "names.json").read_text())
    assert [one["asset"] for one in names.values()] == ["model/suzanne", "model/cube", "model/torus"]
    for number, size in zip(names, (450, 300, 300), strict=True):
        points = read_ply(posed / "set-bop" / "models" / f"obj_{int(number):06d}.ply").points
        assert 2 * np.linalg.norm(points, axis=1).max() == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"render": {}}, False),
        ({"render": {}, "factors": {"size": 0.3, "y": 0.5}}, True),
        ({"factors": {"size": {"uniform": [0.2, 0.3]}}}, False),
        ({"factors": {"size": 0.3}, "training": {"size": 0.2}}, False),
        ({"shift": {"size": 0.8}}, False),
        ({"classes": {**BALL["classes"], "b": {"assets": "model/cube", "factors": {"size": 0.4}}}}, True),
    ],
)
def test_several_sizes_of_a_class_are_told_before_bop_is_drawn(changes: dict[str, Any], possible: bool) -> None:
    values = {"name": "a", "backend": "blender", "render": {"sizes": "world"}, **BALL, "factors": {"size": 0.3}, **changes}
    spec = SynthSpec.model_validate(values)
    told = FORMATS["bop"].impossible(spec)
    assert (told is None) == possible
    if told is not None:
        assert "give 'size' one value and 'render: {sizes: world}'" in told
        with pytest.raises(ConfigError, match="--export bop: things of class 'ball' are drawn in several sizes; BOP's models"):
            check_drawable(["coco", "bop"], spec)


def test_without_blender_the_message_says_what_to_install(tmp_path: Path) -> None:
    assert "pip install 'selfsight[synth]'" in _missing((3, 11))
    assert _missing((3, 12)) == "Blender's module bpy exists for Python 3.11 or 3.13; this is 3.12"


def test_a_spec_for_blender_is_read_without_it(tmp_path: Path) -> None:
    spec = SynthSpec.model_validate({"name": "a", "backend": "blender", **BALL, "factors": {"distance": 2}})
    assert resolved(checked(spec, "a"), backend("blender", tmp_path), "a").factors["distance"].draw(0.5) == 2
