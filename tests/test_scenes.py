"""Specs, distributions and the sampler: what a scene is before anything draws it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsight.errors import ConfigError
from selfsight.synthesis.distributions import KINDS, leaves, spread
from selfsight.synthesis.factors import FACTORS
from selfsight.synthesis.loading import checked, load_spec
from selfsight.synthesis.sampler import counts, offset, sample
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.spec import SynthSpec, described, dumped, written

CUES: dict[str, Any] = {
    "name": "cues",
    "size": [96, 64],
    "classes": {
        "bolt": {"assets": ["shape/cross", "shape/star"], "factors": {"texture": "dots", "hue": {"uniform": [0, 30]}}},
        "nut": {"assets": "shape/hexagon", "factors": {"texture": ["rings", "grid"], "hue": {"uniform": [200, 220]}}},
    },
    "distractors": ["shape/ring"],
    "factors": {"size": {"uniform": [0.3, 0.5]}, "count": {"integers": [1, 3]}, "occlusion": {"uniform": [0, 0.4]}},
    "shift": {
        "size": {"small": {"uniform": [0.1, 0.2]}, "large": 0.8},
        "light": {"loguniform": [0.2, 0.5]},
        "texture": "others",
        "occlusion": 0.7,
    },
    "shift_assets": {"new": {"bolt": "shape/drop", "nut": ["shape/gear", "shape/disc"]}},
}


def spec(**changes: Any) -> SynthSpec:
    return checked(SynthSpec.model_validate(CUES | changes), "cues.yaml")


def moving(**motion: Any) -> dict[str, Any]:
    return {"frames": 5, "motion": motion}


def told(tmp_path: Path, **changes: Any) -> str:
    """The one line that a wrong spec ends in."""
    (tmp_path / "cues.yaml").write_text(yaml.safe_dump(CUES | changes))
    with pytest.raises(ConfigError) as error:
        load_spec(tmp_path / "cues.yaml")
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{tmp_path}/", "")


# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "mean", "deviation"),
    [
        (0.4, 0.4, 0.0),
        ({"uniform": [2, 4]}, 3.0, 2 / math.sqrt(12)),
        ({"loguniform": [1, math.e]}, math.e - 1, math.sqrt((math.e**2 - 1) / 2 - (math.e - 1) ** 2)),
        ({"normal": [5, 2]}, 5.0, 2 * 0.98658),  # cut at three deviations
        ({"normal": [0, 1], "within": [0, 9]}, math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)),
        ({"integers": [1, 4]}, 2.5, math.sqrt(15 / 12)),
        ([1, 2, 6], 3.0, math.sqrt(14 / 3)),
        ({"choice": [0, 1], "weights": [3, 1]}, 0.25, math.sqrt(3) / 4),
        ({"mixture": [{"uniform": [0, 1]}, {"uniform": [3, 4]}], "weights": [2, 1]}, 1.5, math.sqrt(1 / 12 + 2)),
        ({"mixture": [1, {"loguniform": [1, 4]}, {"normal": [2, 1], "within": [2, 2.5]}]}, 1.80296, 0.75676),
        ({"mixture": [{"integers": [1, 3]}, [7, 9]]}, 5.0, math.sqrt(59 / 6)),
    ],
)
def test_a_distribution_has_its_mean_and_deviation(written: Any, mean: float, deviation: float) -> None:
    drawn = np.array([spread(written).draw((k + 0.5) / 20000) for k in range(20000)])
    assert drawn.mean() == pytest.approx(mean, abs=2e-3)
    assert drawn.std() == pytest.approx(deviation, abs=2e-3)


ends = st.tuples(st.integers(-50, 50), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), ends, st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_lies_in_the_span_and_grows_with_the_share(kind: str, pair: tuple[int, int], u: float) -> None:
    low, high = pair
    apart = high - low
    values = {"loguniform": [apart, 2 * apart], "normal": [low, apart], "choice": list(range(low, high)), "value": low}
    values["mixture"] = [low, {"uniform": [low, low + apart / 2]}, {"integers": [low, high]}]  # type: ignore[list-item]
    one = spread({kind: values.get(kind, [low, high])})
    drawn, span = one.draw(u), one.span()
    assert drawn in span if one.discrete else min(span) <= drawn <= max(span)  # type: ignore[type-var, operator]
    assert one.draw(u / 2) <= drawn  # type: ignore[operator]
    assert spread(one.shorthand()) == one


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"unifrom": [0, 1]}, "Did you mean 'uniform'"),
        ({"uniform": [1, 0]}, "expected the lower end first, got 1 and 0"),
        ({"uniform": [0, 1], "integers": [0, 1]}, "Got several"),
        ({"loguniform": [0, 1]}, "expected ends above 0, got 0"),
        ({"normal": [0, 0]}, "deviation above 0"),
        ({"normal": [0, 1], "within": [50, 60]}, "expected 'within' where the values are"),
        ({"choice": []}, "one value at least"),
        ({"choice": [1, 2], "weights": [1]}, "a weight for each of the 2 values"),
        ({"choice": [1, 2], "weights": [0, 0]}, "a weight for each of the 2 values"),
        ({"mixture": []}, "one distribution at least to mix"),
        ({"mixture": [1, {"uniform": [2, 3]}], "weights": [1]}, "a weight for each of the 2 distributions"),
        ({"mixture": [1, "dots"]}, "numbers or of names, got both"),
        ({"mixture": [1, {"unifrom": [2, 3]}]}, "Did you mean 'uniform'"),
    ],
)
def test_an_impossible_distribution_is_one_line(tmp_path: Path, written: Any, why: str) -> None:
    line = told(tmp_path, factors={"light": written})
    assert line.startswith("cues.yaml: 'factors.light': ")
    assert why in line


def test_a_mixture_moves_a_value_no_further_than_the_whole_distribution_moves() -> None:
    """Beside its first part alone: no other way to draw both from one share has them nearer to each other."""
    base, more = spread({"uniform": [0, 1]}), spread({"mixture": [{"uniform": [0, 1]}, {"uniform": [0, 0.1]}], "weights": [9, 1]})
    us = [(k + 0.5) / 2000 for k in range(2000)]
    moved = np.array([float(base.draw(u)) - float(more.draw(u)) for u in us])
    assert moved.min() >= -1e-9 and moved.mean() == pytest.approx(0.1 * (0.5 - 0.05), abs=1e-3)


def test_training_alone_may_be_spread_otherwise() -> None:
    wide = {"mixture": [{"uniform": [0.3, 0.5]}, {"uniform": [0.1, 0.2]}]}
    plain, wider = spec(), spec(training={"size": wide})
    for split in ("test", "shift.light", "shift.size.small"):
        assert sample(wider, 0, split, 4) == sample(plain, 0, split, 4)
    drawn = [[sample(one, 0, "train", k).things[-1].number("size") for k in range(200)] for one in (plain, wider)]
    assert min(drawn[0]) >= 0.3 and 60 < sum(size <= 0.2 for size in drawn[1]) < 140
    assert wider.varied()["size"] == [0.1, 0.5]
    assert ("size", "50% 0.3 to 0.5 and 50% 0.1 to 0.2") in [row[:2] for row in described(wider)]
    own = spec(classes=CUES["classes"] | {"nut": CUES["classes"]["nut"] | {"training": {"texture": "dots"}}})
    assert own.of("texture", "nut", "train").span() == ["dots"] and own.of("texture", "nut").span() == ["rings", "grid"]
    assert SynthSpec.model_validate(yaml.safe_load(written(own))) == own


def test_a_shift_leaves_a_range_where_any_of_its_values_does() -> None:
    here = [spread({"uniform": [0, 1]}), spread([3, 4])]
    assert not leaves(spread({"uniform": [0.2, 1]}), here)
    assert not leaves(spread([0.5, 3]), here)
    assert leaves(spread({"uniform": [0.5, 1.5]}), here)
    assert leaves(spread(2), here)
    assert leaves(spread({"uniform": [3, 4]}), [spread([3, 4])])


# --- what is wrong with a spec ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"factors": {"sise": 1}}, "cues.yaml: factors.sise: there is no such factor. Did you mean 'size'?"),
        ({"factors": {"size": 9}}, "cues.yaml: factors.size: expected numbers from 0.01 to 3, got 9; size: diameter"),
        ({"factors": {"count": 1.5}}, "cues.yaml: factors.count: expected whole numbers from 0 to 250, got 1.5; "),
        ({"factors": {"count": {"uniform": [1, 3]}}}, "cues.yaml: factors.count: expected whole numbers"),
        ({"factors": {"texture": 3}}, "cues.yaml: factors.texture: expected names or files, got 3"),
        ({"factors": {"light": "bright"}}, "cues.yaml: factors.light: expected numbers from 0 to 10, got bright"),
        ({"factors": {"asset": "a"}}, "cues.yaml: factors.asset: assets are given by class"),
        ({"shift": {"size": {"uniform": [0.35, 0.4]}}}, "cues.yaml: shift.size: 0.35 to 0.4 lies within what training shows"),
        ({"shift": {"hue": {"far": {"uniform": [5, 9]}}}}, "cues.yaml: shift.hue.far: 5 to 9 lies within what training shows"),
        ({"shift": {"light": "others"}}, "cues.yaml: shift.light: 'others' needs a factor of objects"),
        ({"shift": {"size": "others"}}, "cues.yaml: shift.size: 'others' needs a factor of objects"),
        ({"shift_assets": {"new": {"nut": "a"}}}, "cues.yaml: shift_assets.new: expected assets of each of bolt, nut"),
        (
            {"shift_assets": {"new": {"nut": "shape/hexagon", "bolt": "a"}}},
            "cues.yaml: shift_assets.new.nut: has only assets that training shows",
        ),
        ({"clases": {}}, "cues.yaml: no setting 'clases'. Did you mean 'classes'?"),
        ({"classes": {"a": {"asets": "x"}}}, "cues.yaml: no setting 'classes.a.asets'. Did you mean 'assets'?"),
        ({"classes": {}, "shift": {}, "shift_assets": {}}, "expected one class at least"),
        ({"classes": {"a/b": {"assets": "x"}}, "shift": {}, "shift_assets": {}}, "expected names that can be folders, got 'a/b'"),
        ({"size": 4}, "expected 8 to 8192 pixels a side"),
        ({"splits": {"train": 0, "test": 1}}, "expected shares above 0"),
        ({"splits": {"train": 1, "test": 1, "te/st": 1}}, "expected a name of letters, digits, - and _, got 'te/st'"),
        ({"shift": {"light": {"../up": 3}}}, "expected a name of letters, digits, - and _, got '../up'"),
        ({"splits": {"train": 1}}, "expected 'test', of which the scenes of a shift are copies"),
        ({"sequence": {"frames": 1}}, "cues.yaml: 'sequence.frames': "),
        ({"sequence": {"motion": {"x": 0.1}}}, "cues.yaml: 'sequence.frames': "),
        (
            {"sequence": moving(rotatoin=3)},
            "cues.yaml: sequence.motion.rotatoin: there is no such factor. Did you mean 'rotation'",
        ),
        ({"sequence": moving(count=1)}, "cues.yaml: sequence.motion.count: expected a factor of numbers, which can grow"),
        (
            {"sequence": moving(x="left")},
            "cues.yaml: sequence.motion.x: expected numbers by which x grows from picture to picture",
        ),
        ({"sequence": moving(x=0.1), "factors": {"drop": 1}}, "cues.yaml: sequence.motion.x: what drops lies where it fell"),
        ({"sequence": moving(x=0.1), "shift": {"drop": 1}}, "cues.yaml: sequence.motion.x: what drops lies where it fell"),
    ],
)
def test_a_wrong_spec_is_one_line(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    assert line in told(tmp_path, **changes)


def test_a_factor_of_the_picture_is_none_of_a_class(tmp_path: Path) -> None:
    classes = {"a": {"assets": "x", "factors": {"light": 2}}}
    line = told(tmp_path, classes=classes, shift={}, shift_assets={})
    assert line == "cues.yaml: classes.a.factors.light: is a factor of the whole picture; give it in 'factors'"


def test_a_spec_is_written_as_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(written(spec()))
    assert load_spec(tmp_path / "again.yaml") == spec()


def test_sizes_of_the_world_are_written_and_leave_no_trace_where_they_are_not_asked_for(tmp_path: Path) -> None:
    for render in ({"samples": 4}, {"sizes": "world"}):
        given = spec(backend="blender", render=render)
        assert set(dumped(given)["render"]) - {"samples", "denoise", "device"} == set(render) - {"samples"}
        (tmp_path / "again.yaml").write_text(written(given))
        assert load_spec(tmp_path / "again.yaml") == given
    assert "render" not in dumped(spec(backend="blender", render={"sizes": "picture"}))


def test_every_factor_has_a_usual_spread_that_it_can_have() -> None:
    factors = {name: factor.usual for name, factor in FACTORS.items() if name != "asset"}
    assert checked(spec(factors=factors, shift={}, shift_assets={}), "usual").factors == factors


def test_the_distributions_are_told_in_words() -> None:
    rows = {factor: (here, there) for factor, here, there in described(spec())}
    assert rows["size"] == ("0.3 to 0.5", "shift.size.small: 0.1 to 0.2; shift.size.large: always 0.8")
    assert rows["texture"] == ("always dots; one of 2: rings, grid", "shift.texture: others")
    assert rows["light"] == ("always 1", "shift.light: 0.2 to 0.5, evenly by doublings")


def test_what_varies_has_its_training_range() -> None:
    varied = spec().varied()
    assert varied["size"] == [0.3, 0.5]
    assert varied["hue"] == [0, 220]
    assert varied["texture"] == ["dots", "rings", "grid"]
    assert "light" not in varied


# --- scenes -------------------------------------------------------------------------------------------------------------


def flat(scene: Scene) -> dict[str, Any]:
    """Every number of a scene by where it stands."""
    found = {f"picture {name}": value for name, value in scene.factors.items()}
    for number, thing in enumerate(scene.objects):
        found |= {
            f"{number} {name}": value for name, value in (thing.factors | {"asset": thing.asset, "seed": thing.seed}).items()
        }
    return found | {"label": scene.label, "seed": scene.seed}


def test_a_scene_is_the_same_in_another_process() -> None:
    program = "import json, sys; from dataclasses import asdict; from test_scenes import spec, sample; "
    program += "print(json.dumps([asdict(sample(spec(), 3, 'train', k)) for k in range(4)]))"
    paths = [str(Path(__file__).parent), *sys.path]
    env = {"PYTHONPATH": ":".join(paths)}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    here = json.loads(json.dumps([asdict(sample(spec(), 3, "train", k)) for k in range(4)]))
    assert json.loads(told.stdout) == here


@pytest.mark.parametrize("split", list(spec().shifts()))
def test_a_shift_is_the_test_split_but_for_one_factor(split: str) -> None:
    one, factor = spec(), split.split(".")[1]
    for index in range(40):
        here, there = flat(sample(one, 1, "test", index)), flat(sample(one, 1, split, index))
        assert list(here) == list(there)
        changed = {name.split()[-1] for name in here if here[name] != there[name]}
        assert changed == {factor}


MOTION = {"x": {"uniform": [-0.1, 0.1]}, "rotation": 7, "camera_azimuth": 30, "light": {"uniform": [0.1, 0.2]}}


@pytest.mark.parametrize("split", ["train", "test", "shift.light", "shift.texture", "shift.asset.new"])
def test_the_pictures_of_a_sequence_are_one_scene_that_moves_evenly(split: str) -> None:
    still, moved = spec(), spec(sequence=moving(**MOTION))
    for turn in range(6):
        here = flat(sample(still, 2, split, turn))
        there = [flat(sample(moved, 2, split, 5 * turn + moment)) for moment in range(5)]
        assert there[0] == here
        steps = {name: there[1][name] - here[name] for name in here if name.split()[-1] in MOTION}
        assert {name: step for name, step in steps.items() if name.endswith("rotation")} == pytest.approx(
            {name: 7 for name in steps if name.endswith("rotation")}
        )
        assert len({step for name, step in steps.items() if name.endswith(" x")}) == sum(name.endswith(" x") for name in steps)
        assert all(abs(step) <= 0.1 for name, step in steps.items() if name.endswith(" x"))
        for moment, scene in enumerate(there):
            for name, value in scene.items():
                known = FACTORS.get(name.split()[-1])
                still_so = known.within(here[name] + moment * steps[name]) if name in steps and known else here[name]
                assert value == (pytest.approx(still_so) if name in steps else still_so)


def test_sequences_are_numbered_and_whole() -> None:
    one = spec(sequence=moving(x=0.01), splits={"train": 1, "test": 0.3})
    assert counts(one, 12) == {"train": 15, "test": 5, **dict.fromkeys(one.shifts(), 5)}
    scenes = [sample(one, 0, "train", index) for index in range(15)]
    assert [(scene.sequence, scene.frame) for scene in scenes[3:7]] == [
        (f"{k:06d}", m) for k, m in ((0, 3), (0, 4), (1, 0), (1, 1))
    ]
    assert [scene.label for scene in scenes] == ["bolt"] * 5 + ["nut"] * 5 + ["bolt"] * 5
    assert len({scene.seed for scene in scenes}) == 3
    assert sample(spec(), 0, "train", 0).sequence is None


def test_what_moves_stays_within_what_is_possible_and_has_its_range() -> None:
    one = spec(sequence=moving(x={"uniform": [-0.5, -0.4]}, saturation=0.05, camera_azimuth=100))
    last = sample(one, 0, "train", 4)
    assert {thing.factors["x"] for thing in last.objects} == {-0.5} and last.factors["camera_azimuth"] == 360
    varied = one.varied()
    assert (varied["x"], varied["camera_azimuth"]) == ([-0.5, 0.65], [0.0, 360])
    assert varied["saturation"] == pytest.approx([0.5, 0.7])
    assert ("x, a picture", "-0.5 to -0.4", "") in list(described(one))
    assert SynthSpec.model_validate(yaml.safe_load(written(one))) == one
    assert "sequence" not in written(spec())


def test_splits_seeds_and_numbers_share_nothing() -> None:
    drawn = [(s, split, k) for s in (0, 1) for split in ("train", "test") for k in range(50)]
    places = [sample(spec(), *which).objects[0].factors["x"] for which in drawn]
    assert len(set(places)) == len(places)
    assert np.corrcoef(places[:50], places[50:100])[0, 1] == pytest.approx(0, abs=0.35)


def test_values_follow_their_spread_and_stay_in_their_range() -> None:
    scenes = [sample(spec(), 0, "train", k) for k in range(2000)]
    sizes = np.array([scene.objects[0].factors["size"] for scene in scenes])
    assert sizes.min() >= 0.3 and sizes.max() <= 0.5
    assert sizes.mean() == pytest.approx(0.4, abs=0.005)
    assert Counter(len(scene.objects) for scene in scenes).keys() == {1, 2, 3}
    assert Counter(scene.label for scene in scenes) == {"bolt": 1000, "nut": 1000}
    assert {thing.factors["texture"] for scene in scenes for thing in scene.objects if thing.name == "bolt"} == {"dots"}
    small = [sample(spec(), 0, "shift.size.small", k).objects[0].factors["size"] for k in range(200)]
    assert min(small) >= 0.1 and max(small) <= 0.2  # type: ignore[type-var]


def test_others_give_an_object_what_the_other_classes_have() -> None:
    scenes = [sample(spec(), 0, "shift.texture", k) for k in range(200)]
    shown = {(thing.name, thing.factors["texture"]) for scene in scenes for thing in scene.objects}
    assert shown == {("bolt", "rings"), ("bolt", "grid"), ("nut", "dots")}


def test_values_of_a_factor_are_of_one_type() -> None:
    scene = sample(spec(factors={"light": 1, "size": 1, "count": 2}, shift={}), 0, "train", 0)
    values = scene.factors["light"], scene.factors["count"], scene.objects[0].factors["size"], scene.factors["background"]
    assert [type(value) for value in values] == [float, int, float, str]


def test_objects_of_a_mixed_picture_draw_their_classes() -> None:
    scenes = [sample(spec(mixed=True, factors={"count": 3}, shift={}), 0, "train", k) for k in range(300)]
    assert {scene.label for scene in scenes} == {None}
    shown = Counter(thing.name for scene in scenes for thing in scene.objects)
    assert shown["bolt"] == pytest.approx(450, abs=60)


def test_another_object_or_distractor_leaves_the_others_as_they_were() -> None:
    few = sample(spec(factors={"count": 1}, shift={}), 0, "train", 3)
    many = sample(spec(factors={"count": 3, "distractors": 2}, shift={}), 0, "train", 3)
    assert many.things[0] == few.things[0]
    assert [thing.name for thing in many.things[3:]] == [None, None]


def test_an_occluder_hides_the_share_that_it_should_of_a_disc() -> None:
    y, x = np.mgrid[0:2000, 0:2000] / 1000 - 1
    for share in (0.05, 0.3, 0.6, 0.9):
        disc, other = x**2 + y**2 < 0.25, (x - offset(share)) ** 2 + y**2 < 0.25
        assert (disc & other).sum() / disc.sum() == pytest.approx(share, abs=2e-3)
    scene = sample(spec(factors={"occlusion": 0.5, "size": 0.4}, shift={}), 0, "train", 1)
    occluder, hidden = scene.things[:2]
    assert occluder.name is None
    across = (occluder.number("x") - hidden.number("x")) * 96 / 64  # in shorter sides
    assert math.hypot(across, occluder.number("y") - hidden.number("y")) == pytest.approx(offset(0.5) * 0.4)


def test_each_split_has_its_share_and_a_shift_as_many_as_its_pair() -> None:
    assert counts(spec(splits={"train": 1, "test": 0.1}), 100) == {"train": 100, "test": 10} | dict.fromkeys(spec().shifts(), 10)
    assert counts(spec(splits={"train": 1, "val": 0.1}, shift={}, shift_assets={}), 1) == {"train": 1, "val": 1}
