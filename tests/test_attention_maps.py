"""Maps of what an encoder sees: one contract over all of them, and each against a slow version or what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from selfsight.attention import artefacts, kinds
from selfsight.attention.colouring import colour_map, heat
from selfsight.attention.components import fitted
from selfsight.attention.drawing import for_the_eye, overlay
from selfsight.attention.kinds import MAPS, Asked
from selfsight.attention.looking import ROWS, Gaze, offers, place_of
from selfsight.attention.maps import similarity, smallest_set
from selfsight.attention.naming import name_of
from selfsight.attention.seeing import Eyes
from selfsight.attention.tiling import TiledGaze, cut
from selfsight.encoders import TorchEncoder, load_encoder
from selfsight.errors import ConfigError, InputError
from selfsight.models.backbones import RotaryViT, ViT

VIT = "random/vit_w32_d2_p8?size=32"
CNN = "random/test_efficientnet?size=64"
SPECS = [VIT, "random/test_vit2?size=64", "random/vit_tiny_patch16_dinov3_qkvb?size=64", CNN]
MIDDLE = (0.5, 0.5)


def picture(width: int = 100, height: int = 70, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def eyes_of(spec: str, size: int | None = None, block: int = -1) -> Eyes:
    return Eyes(load_encoder(spec), size, block)


@pytest.mark.parametrize("spec", SPECS)
def test_every_map_that_an_encoder_has_can_be_made_and_drawn(spec: str) -> None:
    eyes = eyes_of(spec)
    names = [
        name for name, kind in MAPS.items() if (kind.row is None or kind.row in offers(eyes)) and not _is_of_tokens(name, eyes)
    ]
    look = Gaze(eyes, kinds.rows_of(names))(picture(), MIDDLE)
    made = kinds.made(names, look, Asked(at=MIDDLE))
    assert list(made) == names
    assert kinds.finite(made)
    image = for_the_eye(picture())
    for name, values in made.items():
        colours = MAPS[name].draws == "colours"
        assert values.shape[-3 if colours else -2 : -1 if colours else None] == look.grid, name
        assert (values.dtype == bool) == (MAPS[name].draws == "mask"), name
        assert not colours or (values.min() >= 0 and values.max() <= 1)
        drawn = overlay(name, values, image)
        assert drawn.mode == "RGB"
        assert abs(drawn.width - image.width) < 20, name
        assert np.array_equal(np.asarray(drawn), np.asarray(overlay(name, values, image)))


def _is_of_tokens(name: str, eyes: Eyes) -> bool:
    return MAPS[name].tokens and eyes.encoder.kind != "vit"


def test_what_is_usual_depends_on_the_encoder_and_on_a_point() -> None:
    with_registers = kinds.chosen([], eyes_of(SPECS[2]), at=True)
    assert with_registers == ["attention", "heads", "mask", "rollout", "registers", "point", "similarity", "pca", "norm"]
    assert kinds.chosen([], eyes_of(VIT), at=False) == ["attention", "heads", "mask", "rollout", "pca", "norm"]
    assert kinds.chosen([], eyes_of(SPECS[1]), at=False) == ["registers", "pca", "norm"]  # has no CLS
    assert kinds.chosen([], eyes_of(CNN), at=False) == ["pca", "component", "norm"]


@pytest.mark.parametrize(
    ("spec", "name", "said"),
    [
        (VIT, "atention", r"--maps: no map 'atention'. Did you mean 'attention'\?"),
        (VIT, "registers", r"--maps registers: random/\S+ has none; it has attention, heads, mask, rollout, point, similarity"),
        (CNN, "rollout", r"--maps rollout: \S+ has none; it has similarity, pca, component, norm$"),
        (VIT, "similarity", r"--maps similarity: needs a point of the picture; give --query x,y in its pixels"),
    ],
)
def test_a_map_that_cannot_be_is_refused(spec: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kinds.chosen([name], eyes_of(spec), at=False)


@pytest.mark.parametrize("spec", SPECS[:3])
@torch.no_grad()
def test_rows_are_those_of_the_whole_matrices(spec: str) -> None:
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    assert isinstance(encoder.backbone, ViT | RotaryViT)
    eyes = Eyes(encoder, block=0)
    look = Gaze(eyes, offers(eyes))(picture(), (0.99, 0.0))
    _, entries = encoder.backbone.watched(eyes.prepare(picture())[None])
    matrix = entries[0].attention()[0].numpy()
    prefix = matrix.shape[1] - len(look.patches)
    has_cls = encoder.backbone.net.cls_token is not None
    if has_cls:
        np.testing.assert_allclose(look.attention, matrix[:, 0, prefix:], atol=1e-6)
    np.testing.assert_allclose(look.point, matrix.mean(0)[prefix + look.grid[1] - 1, prefix:], atol=1e-6)
    if prefix > has_cls:
        np.testing.assert_allclose(look.registers, matrix.mean(0)[has_cls:prefix, prefix:], atol=1e-6)


@torch.no_grad()
def test_rollout_is_the_product_of_all_matrices() -> None:
    """Abnar and Zuidema 2020, section 3, as they write it: half identity and half attention, from the first block up."""
    encoder = load_encoder(VIT)
    assert isinstance(encoder, TorchEncoder)
    assert isinstance(encoder.backbone, ViT)
    eyes = Eyes(encoder)
    look = Gaze(eyes, frozenset({"rollout"}))(picture())
    _, entries = encoder.backbone.watched(eyes.prepare(picture())[None])
    total = np.eye(entries[0].x.shape[1])
    for entry in entries:
        matrix = entry.attention()[0].double().mean(0).numpy()
        total = (0.5 * np.eye(len(total)) + 0.5 * matrix) @ total
    np.testing.assert_allclose(total.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(look.rollout, total[0, 1:], atol=1e-6)


def test_similarity_is_the_cosine() -> None:
    patches = np.array([[1, 0], [2, 0], [0, 3], [-1, 0], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(similarity(patches, 0), [1, 1, 0, -1, 0], atol=1e-6)


def test_a_point_is_in_the_place_that_holds_it() -> None:
    assert [place_of(at, (2, 4)) for at in ((0, 0), (0.26, 0), (0.99, 0.49), (0.1, 0.5), (0.999, 0.999))] == [0, 1, 3, 4, 7]


# Components


def planted(seed: int, at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Features [64, 6] of an 8 x 8 picture with a 3 x 4 object whose two halves differ, and its mask."""
    draw = np.random.default_rng(seed)
    features = 0.05 * draw.normal(size=(8, 8, 6)) + [3, 0, 0, 0, 0, 0]
    mask = np.zeros((8, 8), dtype=bool)
    y, x = at
    mask[y : y + 3, x : x + 4] = True
    features[mask] += [-4, 4, 0, 0, 0, 0]
    features[y : y + 3, x : x + 2, 2] += 1.5
    features[y : y + 3, x + 2 : x + 4, 3] += 1.5
    return features.reshape(64, 6).astype(np.float32), mask


def test_components_part_an_object_from_its_ground_and_colour_its_parts() -> None:
    sample = [planted(seed, at) for seed, at in enumerate([(2, 2), (4, 3), (1, 1)])]
    components = fitted([(features, (8, 8)) for features, _ in sample])
    halves = []
    for features, mask in sample:
        colours = components.colours(features).reshape(8, 8, 3)
        np.testing.assert_array_equal(colours.any(axis=2), mask)
        y, x = np.argwhere(mask)[0]
        halves.append((colours[y : y + 3, x : x + 2].mean((0, 1)), colours[y : y + 3, x + 2 : x + 4].mean((0, 1))))
    for left, right in halves:  # what is left for green and blue is noise
        assert abs(left[0] - right[0]) > 0.7
        assert left[0] == pytest.approx(halves[0][0][0], abs=0.1)


def test_the_sign_of_a_component_does_not_hang_on_that_of_the_features() -> None:
    """A network whose last layer is negated is the same network to the eye."""
    features, mask = planted(0, (2, 2))
    for sign in (1, -1):
        components = fitted([(sign * features, (8, 8))])
        along = components.along(sign * features).reshape(8, 8)
        assert along[mask].min() > components.cut > along[~mask].max()


def test_a_small_object_is_cut_from_a_ground_that_varies() -> None:
    """Half of such a ground lies above the mean, which the cut therefore does not follow."""
    draw = np.random.default_rng(0)
    features = np.zeros((400, 3), dtype=np.float32)
    features[:, 0] = draw.normal(0, 0.5, 400)
    features[[189, 190, 209, 210], 0] += 10
    components = fitted([(features, (20, 20))])
    assert np.flatnonzero(components.along(features) > components.cut).tolist() == [189, 190, 209, 210]


def test_components_of_a_picture_of_one_colour_and_of_few_places() -> None:
    for features, grid in ((np.ones((9, 4)), (3, 3)), (np.eye(2), (1, 2)), (np.ones((1, 2)), (1, 1))):
        components = fitted([(features.astype(np.float32), grid)])
        assert np.isfinite(components.colours(features.astype(np.float32))).all()


# Outlier tokens


def test_outliers_are_those_planted_whatever_the_scale() -> None:
    norms = np.random.default_rng(0).normal(10, 1, 400)
    assert not artefacts.outliers(norms).any()
    norms[[7, 200]] = 40
    for scale in (1e-3, 1, 1e3):
        assert np.flatnonzero(artefacts.outliers(scale * norms)).tolist() == [7, 200]
    assert not artefacts.outliers(np.full(9, 3.0)).any()
    norms[:190] = 60  # as long as less than half of the tokens are outliers
    assert artefacts.outliers(norms)[:190].all()


def test_places_are_filled_from_their_neighbours_and_others_stay() -> None:
    values = np.arange(25, dtype=np.float32).reshape(1, 25)
    hole = np.zeros(25, dtype=bool)
    hole[12] = True
    spoilt = values.copy()
    spoilt[0, 12] = 1e6
    mended = artefacts.mended(spoilt, hole, (5, 5))
    assert mended[0, 12] == pytest.approx(12)
    np.testing.assert_array_equal(mended[0, ~hole], values[0, ~hole])
    spot = np.zeros((5, 5), dtype=bool)
    spot[:3, :3] = True
    grown = artefacts.mended(np.where(spot.ravel(), 1e6, 2.0).astype(np.float32), spot.ravel(), (5, 5))
    np.testing.assert_allclose(grown, 2)


@torch.no_grad()
def test_a_token_that_is_made_an_outlier_is_mended_in_every_map_and_a_clean_picture_is_left_alone() -> None:
    encoder = load_encoder("random/vit_w32_d2_p8?size=64")
    assert isinstance(encoder, TorchEncoder)
    eyes = Eyes(encoder)
    gaze = Gaze(eyes, offers(eyes))
    square = picture(64, 64)
    clean = gaze(square, MIDDLE)
    assert not clean.outliers.any()
    assert clean.mended() is clean
    place = 3 * 8 + 5
    encoder.backbone.net.pos_embed[:, 1 + place] += 40 * torch.sign(torch.randn(32, generator=torch.manual_seed(0)))
    spoilt = gaze(square, MIDDLE)
    assert np.flatnonzero(spoilt.outliers).tolist() == [place]
    mended = spoilt.mended()
    around = [place + dy * 8 + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    others = np.arange(64) != place
    for name in (*ROWS, "patches"):
        before, after = getattr(spoilt, name), getattr(mended, name)
        if after is None:
            assert name == "registers"
            continue
        before, after = (before.T, after.T) if name == "patches" else (before, after)
        np.testing.assert_array_equal(after[..., others], before[..., others])
        np.testing.assert_allclose(after[..., place], before[..., around].mean(-1), rtol=1e-5, atol=1e-7)
    far = np.abs(spoilt.patches[place] - clean.patches[place]).max()
    assert np.abs(mended.patches[place] - clean.patches[place]).max() < far


# Tiles


def test_the_weights_of_tiles_add_up_to_one_everywhere() -> None:
    for grid, side in (((5, 9), 4), ((4, 4), 4), ((13, 3), 5), ((40, 41), 16)):
        total = np.zeros(grid)
        for tile in cut(grid, side):
            assert tile.weight.shape == (min(side, grid[0]), min(side, grid[1]))
            assert tile.weight.min() > 0
            total[tile.rows, tile.columns] += tile.weight
        np.testing.assert_allclose(total, 1)


def test_a_picture_that_fits_a_tile_is_seen_as_without_tiles() -> None:
    eyes = eyes_of(VIT)
    rows = offers(eyes) - {"point"}
    plain, tiled = Gaze(eyes, rows)(picture(64, 64)), TiledGaze(eyes, rows, 32)(picture(64, 64))
    assert plain.attention is not None
    np.testing.assert_array_equal(plain.attention, tiled.attention)
    np.testing.assert_array_equal(plain.patches, tiled.patches)


@pytest.mark.parametrize("spec", SPECS[2:])
def test_tiles_are_put_together_over_the_whole_picture(spec: str) -> None:
    eyes = eyes_of(spec, 160)
    rows = offers(eyes) - {"point"}
    look = TiledGaze(eyes, rows, 96)(picture(200, 160))
    image = eyes.prepare(picture(200, 160))
    patch = eyes.patch
    assert look.grid == (image.shape[1] // patch, image.shape[2] // patch)
    corner = Gaze(eyes, rows).look(image[None, :, :96, :96])
    np.testing.assert_allclose(look.patches[0], corner.patches[0], atol=1e-4)  # no other tile holds the first place
    if look.attention is not None:
        whole = TiledGaze(eyes, rows, 96)
        small = whole.gaze.look(whole._small(image[None], look.grid))
        for name in rows:
            np.testing.assert_allclose(getattr(look, name).sum(-1), getattr(small, name).sum(-1), rtol=1e-4)


def test_tiles_that_cannot_be_are_refused() -> None:
    eyes = eyes_of(VIT)
    with pytest.raises(InputError, match=r"--tile 8: is less than two patches of \S+; expected a number from 16"):
        TiledGaze(eyes, frozenset(), 8)
    with pytest.raises(InputError, match="--tile: a point attends to its own tile alone"):
        TiledGaze(eyes, frozenset({"point"}), 32)


# Drawing


def test_colours_go_from_dark_to_light_in_even_steps() -> None:
    grey = np.array(
        [Image.fromarray(heat(np.full((1, 1), value))).convert("L").getpixel((0, 0)) for value in np.linspace(0, 1, 33)]
    )
    assert np.all(np.diff(grey) > 0)
    assert grey[0] < 16
    assert grey[-1] > 235
    steps = np.abs(np.diff(colour_map().astype(int), axis=0)).max(axis=1)
    assert steps.max() <= 6


def test_a_small_picture_is_enlarged_by_a_whole_number_and_a_large_one_made_smaller() -> None:
    assert for_the_eye(picture(40, 30)).size == (320, 240)
    assert for_the_eye(picture(500, 30)).size == (500, 30)
    assert for_the_eye(picture(4096, 100)).size == (2048, 50)


def test_a_mask_keeps_the_picture_inside_and_darkens_it_outside() -> None:
    image = Image.new("RGB", (400, 400), (200, 100, 50))
    values = np.zeros((4, 4), dtype=bool)
    values[1:3, 1:3] = True
    drawn = overlay("mask", values, image)
    assert drawn.getpixel((200, 200)) == (200, 100, 50)
    assert max(drawn.getpixel((50, 50))) < 60  # type: ignore[type-var, arg-type]
    assert smallest_set(values.ravel().astype(float), 0.9).reshape(4, 4)[values].all()


# Names of files


def test_a_key_of_plain_letters_is_its_own_name_and_any_other_stays_within_the_folder() -> None:
    assert name_of("cats/01 (a).jpg") == "cats/01 (a).jpg"
    assert name_of("clip.mp4@12.400s") == "clip.mp4@12.400s"
    odd = [
        "../up",
        "/etc/passwd",
        "a//b",
        ".",
        "a/..",
        ".hidden",
        "a\\b",
        "a:b",
        "nul.txt",
        "x" * 300,
        "caf\xe9",
        "a\udce9",
        "",
        "a.",
    ]
    names = [name_of(key) for key in odd]
    assert len(set(names)) == len(odd)
    for name in names:
        parts = name.split("/")
        assert all(part and len(part) < 150 and not part.startswith(".") and part.isascii() for part in parts), name
        assert "~" in name
        assert not set(name) & set('\\:*?"<>|')


def test_names_of_keys_that_are_made_plain_alike_differ() -> None:
    assert name_of("a:b") != name_of("a?b")
