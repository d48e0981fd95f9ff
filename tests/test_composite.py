"""Composited pictures against geometry and light that are worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend_cases import cutout, drawer, scene_of
from selfsight.errors import DataError
from selfsight.synthesis.backends import backend
from selfsight.synthesis.backends.composite.light import lamps
from selfsight.synthesis.backends.composite.shapes import SHAPES, coverage, shapes
from selfsight.synthesis.colours import lamp_colour
from selfsight.synthesis.files import resolved
from selfsight.synthesis.frame import Frame, object_rows
from selfsight.synthesis.loading import checked
from selfsight.synthesis.patterns import PATTERNS, evened
from selfsight.synthesis.spec import SynthSpec


def drawn(folder: Path, asset: str, **factors: object) -> Frame:
    """Of 128 x 128 pixels."""
    scene = scene_of("composite", folder, size=128, classes={"a": {"assets": asset}}, factors=factors)
    return drawer("composite", folder).draw(scene)


# --- geometry -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.1, 0.37, 0.8, 1.6])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.41, 0.63), (0.02, 0.9)])
def test_a_disc_covers_the_pixels_whose_middle_it_covers(tmp_path: Path, size: float, place: tuple[float, float]) -> None:
    classes, factors = {"a": {"assets": "shape/disc"}}, {"size": size, "x": place[0], "y": place[1]}
    scene = scene_of("composite", tmp_path, size=128, classes=classes, factors=factors)
    frame = drawer("composite", tmp_path).draw(scene)
    y, x = np.mgrid[0:128, 0:128] + 0.5
    away = np.hypot(x - 128 * place[0], y - 128 * place[1]) - 64 * size
    assert np.array_equal((frame.instances == 1)[abs(away) > 0.5], (away < 0)[abs(away) > 0.5])
    [row] = object_rows(scene, frame)
    for at, side, centre in (("full_x", "full_w", place[0]), ("full_y", "full_h", place[1])):
        assert row[at] == pytest.approx(128 * (centre - size / 2), abs=1)
        assert row[side] == pytest.approx(128 * size, abs=1)
    assert frame.full[0].area == pytest.approx(math.pi * (64 * size) ** 2, rel=0.02, abs=6)  # pixels are counted
    y, x = np.mgrid[-200:330, -200:330] + 0.5
    whole = np.count_nonzero(np.hypot(x - 128 * place[0], y - 128 * place[1]) < 64 * size)
    assert row["visible"] == pytest.approx(np.count_nonzero(away < 0) / whole, abs=0.02)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("turn", [0.0, 0.7, 4.0])
def test_a_shape_covers_what_its_outline_holds(name: str, turn: float) -> None:
    """Against crossing numbers of the middles of pixels, apart from those that the outline passes."""
    covered = coverage(name, (50.0, 44.0), 40.0, turn, (100, 90))
    y, x = np.mgrid[0:90, 0:100] + 0.5
    inside, near = np.zeros(x.shape, dtype=bool), np.zeros(x.shape, dtype=bool)
    cos, sin = math.cos(turn), math.sin(turn)
    for outline in shapes()[name]:
        points = [(50 + 40 * (px * cos + py * sin), 44 + 40 * (py * cos - px * sin)) for px, py in outline]
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
            if (ax, ay) == (bx, by):
                continue
            along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
            near |= np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) < 0.75
    assert np.array_equal((covered >= 128)[~near], inside[~near])
    assert set(np.unique(covered[~near])) == {0, 255}
    assert abs(int((covered >= 128).sum()) - int(inside.sum())) < 0.02 * inside.sum() + 4


def test_a_shape_touches_the_circle_that_its_size_names() -> None:
    for name, outlines in shapes().items():
        assert np.hypot(*outlines[0].T).max() == pytest.approx(1), name


def test_rotation_is_counter_clockwise(tmp_path: Path) -> None:
    """The tip of a triangle goes from the top to the left."""
    up, left = (drawn(tmp_path, "shape/triangle", rotation=turn).instances for turn in (0, 90))
    assert np.count_nonzero(left != np.rot90(up)) <= 4


def test_a_cut_out_is_as_large_as_its_size_says_and_keeps_its_shape(tmp_path: Path) -> None:
    cutout(tmp_path / "bolt.png")
    for size in (0.2, 0.5, 1.0):
        scene = scene_of("composite", tmp_path, size=200, classes={"a": {"assets": "bolt.png"}}, factors={"size": size})
        frame = drawer("composite", tmp_path).draw(scene)
        [full] = frame.full
        diagonal = math.hypot(120, 60)
        assert full.box[2] == pytest.approx(200 * size * 120 / diagonal, abs=1.5)
        assert full.box[3] == pytest.approx(200 * size * 60 / diagonal, abs=1.5)
        assert full.area == pytest.approx((200 * size / diagonal) ** 2 * (120 * 60 - 20 * 20), rel=0.03)


def test_nothing_of_what_is_transparent_shines_through(tmp_path: Path) -> None:
    """Red on transparent white, over blue: no pixel is nearer to white than either."""
    cutout(tmp_path / "bolt.png", colour=(200, 0, 0), ground=(255, 255, 255))
    for size in (0.13, 0.4, 0.9):
        factors = {"size": size, "rotation": 30, "background_hue": 240, "background_saturation": 1, "lights": 0, "ambient": 1}
        scene = scene_of("composite", tmp_path, size=128, classes={"a": {"assets": "bolt.png"}}, factors=factors)
        image = drawer("composite", tmp_path).draw(scene).image
        assert image[..., 1].max() <= 2
        assert image.min(2).max() <= 2


def test_planned_occlusion_is_what_is_hidden_of_discs(tmp_path: Path) -> None:
    for share in (0.1, 0.3, 0.6):
        for index in range(4):
            factors = {"size": 0.4, "occlusion": share}
            classes = {"a": {"assets": "shape/disc"}}
            scene = scene_of("composite", tmp_path, index, size=160, classes=classes, distractors="shape/disc", factors=factors)
            [row] = object_rows(scene, drawer("composite", tmp_path).draw(scene))
            assert row["visible"] == pytest.approx(1 - share, abs=0.02)


# --- light --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("azimuth", [0, 90, 180, 270, 45])
def test_the_shadow_falls_away_from_the_lamp(tmp_path: Path, azimuth: float) -> None:
    factors = {"light_azimuth": azimuth, "light_elevation": 25, "ambient": 0.2, "size": 0.3}
    frame = drawn(tmp_path, "shape/disc", **factors)
    plain = drawn(tmp_path, "shape/disc", **factors, count=0)
    darker = (plain.image.astype(int) - frame.image).sum(2) * (frame.instances == 0)
    y, x = np.mgrid[0:128, 0:128] + 0.5 - 64
    middle = np.array([(darker * x).sum(), (darker * y).sum()]) / darker.sum()
    away = -math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))
    assert middle @ away > 5
    assert abs(middle @ (away[1], -away[0])) < 0.15 * (middle @ away)


def test_low_lamps_cast_long_shadows_and_each_lamp_one(tmp_path: Path) -> None:
    low, high = (lamps(scene_of("composite", tmp_path, factors={"light_elevation": angle}))[0] for angle in (20, 60))
    assert math.hypot(*low.shadow(1)) == pytest.approx(0.16 / math.tan(math.radians(20)))
    assert math.hypot(*high.shadow(1)) == pytest.approx(0.16 / math.tan(math.radians(60)))
    three = lamps(scene_of("composite", tmp_path, factors={"lights": 3}))
    assert len(three) == 3
    assert sum(lamp.x for lamp in three) == pytest.approx(0, abs=1e-9)


def test_light_is_counted_in_linear_values(tmp_path: Path) -> None:
    """Half the light is a factor of two before the curve of sRGB, which is taken as a power of 2.2."""
    bright, dim = (drawn(tmp_path, "shape/disc", light=light, count=0).image[64, 64] / 255 for light in (1.0, 0.5))
    assert dim / bright == pytest.approx([0.5 ** (1 / 2.2)] * 3, rel=0.02)


@pytest.mark.parametrize("light", [0.3, 1.0, 3.0])
def test_the_camera_evens_out_the_light_as_far_as_it_is_told(tmp_path: Path, light: float) -> None:
    """Nothing is lost of highlights that it brings back: the picture is the same under any light."""
    factors = {"light": light, "texture": "dots", "saturation": 0, "background_saturation": 0}
    even = drawn(tmp_path, "shape/star", **factors, auto_exposure=1).image.astype(int)
    assert even.mean() == pytest.approx(127.5, abs=1)
    assert np.abs(even - drawn(tmp_path, "shape/star", **factors | {"light": 1}, auto_exposure=1).image).max() <= 1
    plain = {"light": min(light, 1.5), "count": 0, "background_saturation": 0}
    none, half = (drawn(tmp_path, "shape/star", **plain, auto_exposure=share).image.mean() / 255 for share in (0, 0.5))
    assert half == pytest.approx(math.sqrt(0.5 * none), abs=0.005)


def test_ground_in_the_open_is_as_bright_from_whichever_side(tmp_path: Path) -> None:
    views = [drawn(tmp_path, "shape/disc", count=0, light_azimuth=a, light_elevation=e).image for a, e in ((0, 20), (200, 80))]
    assert np.array_equal(*views)
    assert views[0][0, 0].max() == pytest.approx(0.5 * 255, abs=1)  # the brightness of the ground


def test_white_light_is_white_low_kelvin_are_red_and_high_ones_blue() -> None:
    assert lamp_colour(6500) == pytest.approx([1, 1, 1])
    red, green, blue = lamp_colour(3000)
    assert red > green == 1 > blue
    red, green, blue = lamp_colour(12000)
    assert red < green == 1 < blue


# --- files --------------------------------------------------------------------------------------------------------------


def test_a_photograph_is_cut_not_squeezed(tmp_path: Path) -> None:
    """A picture whose channels are its places: each pixel of the ground tells where it came from."""
    y, x = np.mgrid[0:300, 0:400]
    Image.fromarray(np.stack([x * 255 / 400, y * 255 / 300, 0 * x], 2).astype(np.uint8)).save(tmp_path / "photo.png")
    places = []
    for index in range(6):
        factors = {"background": "photo.png", "count": 0, "lights": 0, "ambient": 1}
        scene = scene_of("composite", tmp_path, index, size=[80, 40], factors=factors)
        image = drawer("composite", tmp_path).draw(scene).image.astype(float)
        across, down = np.diff(image[20, :, 0]).mean() * 400 / 255, np.diff(image[:, 40, 1]).mean() * 300 / 255
        assert across == pytest.approx(down, rel=0.05)
        assert 2.4 <= across <= 5.1  # from half of the largest part that fits, 400 x 200, to all of it
        places.append(tuple(image[0, 0]))
    assert len(set(places)) == 6


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.png", b"", "cannot be read as an image"),
        ("a.png", b"text that is no image", "cannot be read as an image"),
        ("a.png", "cut short", "cannot be read as an image"),
        ("a.png", Image.new("RGB", (9, 9)), "has no alpha channel; expected a cut-out"),
        ("a.png", Image.new("RGBA", (9, 9), (1, 2, 3, 255)), "has no transparent pixel; expected a cut-out"),
        ("a.png", Image.new("RGBA", (9, 9), (1, 2, 3, 0)), "has no opaque pixel; expected a cut-out"),
    ],
)
def test_what_is_no_cut_out_is_one_line(tmp_path: Path, name: str, content: object, why: str) -> None:
    if isinstance(content, Image.Image):
        content.save(tmp_path / name)
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        cutout(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:120])
    line = refused(tmp_path, classes={"a": {"assets": name}})
    assert line.startswith(f"{tmp_path / name}: ") and why in line and "\n" not in line


def test_images_of_textures_and_grounds_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    classes = {"a": {"assets": "shape/disc"}, "b": {"assets": "shape/star", "factors": {"texture": "bad.jpg"}}}
    for changes in (
        {"factors": {"background": ["plain", "bad.jpg"]}},
        {"classes": classes},
        {"shift": {"background": "bad.jpg"}},
    ):
        line = refused(tmp_path, **{"classes": {"a": {"assets": "shape/disc"}}, **changes})
        assert line.startswith(f"{tmp_path / 'bad.jpg'}: cannot be read as an image")


def test_what_is_not_there_is_named_with_what_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert "nothing built in is 'shape/dics'. Did you mean 'shape/disc'" in refused(
        tmp_path, classes={"a": {"assets": "shape/dics"}}
    )
    assert "empty: holds no file that ends in .png" in refused(tmp_path, classes={"a": {"assets": "empty"}})
    assert "notes.txt: expected a file that ends in .png" in refused(tmp_path, classes={"a": {"assets": "notes.txt"}})
    assert "factors.texture: there is no file" in refused(
        tmp_path, classes={"a": {"assets": "shape/disc"}}, factors={"texture": "strips"}
    )


def refused(folder: Path, **given: object) -> str:
    with pytest.raises(DataError) as error:
        drawer = backend("composite", folder)
        drawer.check(resolved(checked(SynthSpec.model_validate({"name": "x", **given}), "x.yaml"), drawer, "x.yaml"))
    return str(error.value)


def test_a_folder_is_its_files_and_keeps_its_weight(tmp_path: Path) -> None:
    (tmp_path / "bolts" / "old").mkdir(parents=True)
    for name in ("a.png", "b.PNG", "old/c.png"):
        cutout(tmp_path / "bolts" / name)
    Image.new("RGB", (40, 40)).save(tmp_path / "bolts" / "d.jpg")
    spec = SynthSpec.model_validate(
        {"name": "x", "classes": {"a": {"assets": "bolts"}}, "factors": {"background": ["bolts", "plain"]}}
    )
    whole = resolved(checked(spec, "x"), backend("composite", tmp_path), "x")
    assert whole.classes["a"].assets == ("bolts/a.png", "bolts/b.PNG", "bolts/old/c.png")
    chosen = whole.factors["background"]
    drawn = [chosen.draw((k + 0.5) / 1000) for k in range(1000)]
    assert drawn.count("plain") == 500
    assert drawn.count("bolts/d.jpg") == 125
    assert whole.distractors == ("shape/cross", "shape/gear")


def test_patterns_of_a_surface_turn_with_it(tmp_path: Path) -> None:
    def image(turn: float) -> np.ndarray:
        factors = {"texture": "checks", "rotation": turn, "lights": 0, "ambient": 1}
        return drawn(tmp_path, "shape/disc", **factors).image.astype(int)

    assert np.abs(np.rot90(image(0)) - image(90)).mean() < 1
    assert np.abs(image(0) - image(45)).mean() > 5


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_is_brighter_or_of_more_contrast_than_another(name: str) -> None:
    rng = np.random.default_rng(0)
    v, u = (np.mgrid[0:400, 0:400] + 0.5) / 20 - 10.0
    even = evened(name, u, v, rng)
    assert even.mean() == pytest.approx(0, abs=0.06)
    assert even.std() == pytest.approx(1, abs=0.06)
