"""The contract of backends, over every one of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backend_cases import MOVING, SPECS, VALUES, drawer, scene_of
from blenders import needs_blender
from selfsight.errors import ConfigError
from selfsight.synthesis.backends import BACKENDS, backend
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.frame import LABELS, object_rows, sample_row, semantic

CROWD = {"count": 5, "distractors": 2, "x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}, "noise": 0.02, "background": "mottled"}

pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_blender if name == "blender" else ()) for name in sorted(BACKENDS)]
)


def test_a_backend_has_a_case_and_says_what_it_draws(name: str) -> None:
    kind = BACKENDS[name]
    assert name in SPECS and kind.name == name and kind.says
    assert kind.labels <= set(LABELS) and {"instances", "semantic", "boxes", "full_boxes", "visible"} <= kind.labels
    assert kind.factors <= set(FACTORS) and kind.factors - {"asset"} <= set(VALUES)
    assert set(kind.distractors) <= set(kind.built_in["asset"])


def test_a_scene_is_the_same_picture_from_another_drawer_and_in_another_order(name: str, tmp_path: Path) -> None:
    scenes = [scene_of(name, tmp_path, index, factors=CROWD) for index in range(4)]
    first, second = drawer(name, tmp_path), drawer(name, tmp_path)
    here = [first.draw(scene) for scene in scenes]
    there = [second.draw(scene) for scene in reversed(scenes)][::-1]
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.instances, other.instances)
        assert one.full == other.full
    assert len({frame.image.tobytes() for frame in here}) == 4


def test_a_frame_has_the_size_of_its_scene_and_the_labels_of_its_objects(name: str, tmp_path: Path) -> None:
    for index in range(6):
        scene = scene_of(name, tmp_path, index, size=[80, 48], mixed=True, factors=CROWD)
        frame = drawer(name, tmp_path).draw(scene)
        assert (frame.image.shape, frame.image.dtype) == ((48, 80, 3), np.uint8)
        assert (frame.instances.shape, frame.instances.dtype) == ((48, 80), np.uint16)
        assert frame.instances.max() <= len(scene.objects) == len(frame.full) == 5
        classes = semantic(scene, frame, ["disc", "bolt"])
        for number, thing in enumerate(scene.objects, 1):
            assert set(classes[frame.instances == number]) <= {["disc", "bolt"].index(str(thing.name)) + 1}
        assert not classes[frame.instances == 0].any()


def test_boxes_hold_what_is_seen_and_whole_boxes_hold_those(name: str, tmp_path: Path) -> None:
    for index in range(6):
        scene = scene_of(name, tmp_path, index, factors=CROWD | {"occlusion": 0.4})
        frame = drawer(name, tmp_path).draw(scene)
        for number, row in enumerate(object_rows(scene, frame), 1):
            ys, xs = np.nonzero(frame.instances == number)
            assert 0 <= row["visible"] <= 1
            assert (row["visible"] == 0) == (len(xs) == 0)
            if len(xs):
                assert (row["x"], row["y"], row["w"], row["h"]) == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
                assert row["full_x"] <= row["x"] and row["full_y"] <= row["y"]
                assert row["x"] + row["w"] <= row["full_x"] + row["full_w"]
                assert row["y"] + row["h"] <= row["full_y"] + row["full_h"]


def test_an_object_by_itself_is_wholly_seen_and_one_across_the_edge_by_half(name: str, tmp_path: Path) -> None:
    for x, y, seen in ((0.5, 0.5, 1.0), (0.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.0, 0.0, 0.25)):
        scene = scene_of(name, tmp_path, factors={"x": x, "y": y})
        [row] = object_rows(scene, drawer(name, tmp_path).draw(scene))
        assert row["visible"] == pytest.approx(seen, abs=0.04)
    scene = scene_of(name, tmp_path, factors={"x": -0.5, "size": 0.2})
    [row] = object_rows(scene, drawer(name, tmp_path).draw(scene))
    assert (row["visible"], row["w"], row["full_x"] < -20) == (0.0, 0, True)


def test_each_object_of_a_crowd_is_where_it_is_by_itself(name: str, tmp_path: Path) -> None:
    """What an object hides is taken from the ones behind it and from nothing else: later ones, or those farther off."""
    draw = drawer(name, tmp_path).draw
    for index in range(2):
        scene = scene_of(name, tmp_path, index, factors=CROWD)
        scene = replace(scene, things=scene.objects)
        frame, alone = draw(scene), [draw(replace(scene, things=(thing,))) for thing in scene.things]
        assert [one.full[0] for one in alone] == frame.full
        masks = np.stack([one.instances == 1 for one in alone])
        order = np.broadcast_to(np.arange(len(alone), dtype=float)[:, None, None], masks.shape)
        far = np.where(masks, np.stack([one.depth for one in alone]) if frame.depth is not None else order, np.inf)
        nearest, next_to_it = np.sort(far, 0)[:2]
        # Where two objects pass through one another, the ray of a pixel decides.
        sure = ~masks.any(0) | (next_to_it > nearest + (0.03 if frame.depth is not None else 0))
        expected = np.where(masks.any(0), far.argmin(0) + 1, 0)
        assert sure.mean() > 0.95 and np.array_equal(frame.instances[sure], expected[sure])


@pytest.mark.parametrize("factor", sorted(VALUES))
def test_a_factor_changes_the_picture_and_only_those_that_move_change_masks(name: str, factor: str, tmp_path: Path) -> None:
    if factor not in BACKENDS[name].factors:
        with pytest.raises(ConfigError, match=f"factors.{factor}: the backend {name} does not draw it"):
            scene_of(name, tmp_path, factors={factor: VALUES[factor][0]})
        return
    others = {"texture": "dots"} if factor in ("texture_scale", "texture_contrast") else {}
    others |= {"background_saturation": 0.5} if factor == "background_hue" else {}
    others |= {"rotation": 30} if factor in ("roughness", "metallic") else {}
    # The second picture is of a cut-out or a star, which a turn changes.
    scenes = [scene_of(name, tmp_path, 1, factors=others | {factor: value}) for value in VALUES[factor]]
    here, there = (drawer(name, tmp_path).draw(scene) for scene in scenes)
    assert np.abs(here.image.astype(int) - there.image.astype(int)).max() >= 8
    assert np.array_equal(here.instances, there.instances) == (factor not in MOVING)


def test_what_moves_along_a_sequence_is_the_same_thing_elsewhere(name: str, tmp_path: Path) -> None:
    """Eight pixels a picture, across a plain ground in even light: it keeps its colours and its outline."""
    factors = {"size": 0.3, "x": 0.25, "texture": "dots", "background": "plain", "distractors": 0, "ambient": 1, "noise": 0}
    sequence = {"frames": 4, "motion": {"x": 0.125}}
    frames = [drawer(name, tmp_path).draw(scene_of(name, tmp_path, k, factors=factors, sequence=sequence)) for k in range(4)]
    for here, there in pairwise(frames):
        assert there.full[0].box[0] - here.full[0].box[0] == pytest.approx(8, abs=1)
        assert np.mean(np.roll(here.instances, 8, 1) != there.instances) < 0.02
        colours = [frame.image[frame.instances > 0].mean(0) for frame in (here, there)]
        assert np.abs(colours[0] - colours[1]).max() < 8
    noisy = [scene_of(name, tmp_path, k, factors=factors | {"noise": 0.05}, sequence={"frames": 2}) for k in range(2)]
    first, second = (drawer(name, tmp_path).draw(scene) for scene in noisy)
    assert np.array_equal(first.instances, second.instances)
    assert 8 < np.abs(first.image.astype(int) - second.image).std() < 30  # its noise alone is another


@pytest.mark.parametrize("kind", ["asset", "texture", "background"])
def test_what_is_built_in_is_drawn_and_each_is_another(name: str, kind: str, tmp_path: Path) -> None:
    pictures = set()
    for word in BACKENDS[name].built_in[kind]:
        changes = {"classes": {"a": {"assets": word}}} if kind == "asset" else {"factors": {kind: word}}
        scene = scene_of(name, tmp_path, **changes)
        frame = drawer(name, tmp_path).draw(scene)
        assert (frame.instances == 1).sum() > 100
        pictures.add(frame.image.tobytes())
    same = 1 if kind == "texture" else 0  # `own` of a built-in shape is `plain`
    assert len(pictures) == len(BACKENDS[name].built_in[kind]) - same


def test_a_picture_without_objects_is_a_picture(name: str, tmp_path: Path) -> None:
    scene = scene_of(name, tmp_path, factors={"count": 0, "occlusion": 0.5})
    frame = drawer(name, tmp_path).draw(scene)
    assert (frame.instances.max(), len(frame.full), object_rows(scene, frame)) == (0, 0, [])
    assert sample_row(scene, ["disc", "bolt"], {"path": "a.png"})["label"] == 0


@pytest.mark.parametrize("size", [0.01, 3])
def test_the_smallest_and_the_largest_are_drawn(name: str, size: float, tmp_path: Path) -> None:
    frame = drawer(name, tmp_path).draw(scene_of(name, tmp_path, factors={"size": size}))
    assert (frame.instances == 1).mean() == (1.0 if size == 3 else pytest.approx(0, abs=0.001))


def test_an_unknown_backend_names_the_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no backend '{name}s'. Did you mean '{name}'"):
        backend(f"{name}s", tmp_path)
