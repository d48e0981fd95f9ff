"""The contract of every way to find objects: what it finds lies where the thing is, and a blank picture holds nothing."""

from __future__ import annotations

import numpy as np
import pytest

from selfsight.attention.objects import FINDERS, Box, Finder, Found, box_of, in_pixels
from selfsight.attention.objects.kmeans import clustered
from selfsight.attention.objects.lost import lost
from selfsight.attention.objects.pixels import enlarged
from selfsight.attention.objects.threshold import Threshold
from selfsight.attention.objects.tokencut import Graph, TokenCut, tokencut
from selfsight.attention.seeing import Seen

GRID = (9, 12)
Mask = np.ndarray


def seen_of(mask: Mask, *, seed: int = 0) -> Seen:
    """Things (1, 2... in the mask) whose places are alike and unlike all others; CLS looks at them."""
    rng = np.random.default_rng(seed)
    count = int(mask.max()) + 1
    corners = np.linalg.qr(rng.standard_normal((16, count)))[0].T
    kinds = corners - corners.mean(0)
    features = kinds[mask.ravel().astype(int)] + 0.01 * rng.standard_normal((mask.size, 16))
    attention = np.where(mask.ravel() > 0, 1.0, 0.001) * rng.uniform(0.9, 1.1, (3, mask.size))
    attention /= attention.sum(1, keepdims=True)
    return Seen(mask.shape, *(each.astype(np.float32) for each in (features, features, attention)))  # type: ignore[arg-type]


def thing(kind: int = 1) -> Mask:
    mask = np.zeros(GRID, dtype=int)
    mask[3:7, 2:7] = kind
    return mask


def two_things() -> Mask:
    mask = thing()
    mask[1:3, 7:10] = 2
    return mask


def finder(name: str) -> Finder:
    """That of the name; attention to the last drop, where a smaller share would show parts of things."""
    return Threshold(mass=0.99) if name == "attention" else FINDERS[name]()


def overlap(found: Mask, there: Mask) -> float:
    return float((found & there).sum() / (found | there).sum())


def assert_contract(found: list[Found], grid: tuple[int, int], count: int) -> None:
    assert len(found) <= count
    scores = [each.score for each in found]
    assert np.isfinite(scores).all()
    for each in found:
        assert isinstance(each, Found)
        assert each.mask.shape == grid
        assert each.mask.dtype == np.bool_
        assert each.mask.any()
        assert each.box == box_of(each.mask)
    assert sum(each.mask.astype(int) for each in found).max() == 1 if found else True  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FINDERS)
def test_a_thing_is_found_where_it_is(name: str) -> None:
    found = finder(name).find(seen_of(thing()), 1)
    assert len(found) == 1
    assert_contract(found, GRID, 1)
    assert overlap(found[0].mask, thing() > 0) > 0.5


@pytest.mark.parametrize("name", FINDERS)
def test_the_first_is_the_one_alone_and_no_more_than_asked_for(name: str) -> None:
    seen = seen_of(two_things())
    found = FINDERS[name]().find(seen, 3)
    assert_contract(found, GRID, 3)
    (alone,) = FINDERS[name]().find(seen, 1)
    assert (alone.mask == found[0].mask).all()


@pytest.mark.parametrize("name", FINDERS)
def test_two_things_are_found_as_two(name: str) -> None:
    found = finder(name).find(seen_of(two_things()), 2)
    assert len(found) == 2
    for kind in (1, 2):
        assert max(overlap(each.mask, two_things() == kind) for each in found) > 0.9


@pytest.mark.parametrize("name", FINDERS)
def test_a_blank_picture_holds_nothing(name: str) -> None:
    places = GRID[0] * GRID[1]
    features = np.full((places, 16), 0.3, dtype=np.float32)
    shaken = features * (1 + 1e-7 * np.random.default_rng(0).standard_normal(features.shape).astype(np.float32))
    attention = np.full((3, places), 1 / (places + 1), dtype=np.float32)
    for each in (features, np.zeros_like(features), shaken):
        assert FINDERS[name]().find(Seen(GRID, each, each.copy(), attention), 2) == []
        assert FINDERS[name]().find(Seen(GRID, each, each, attention), 2) == []


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (1, 9), (9, 1), (2, 2), (2, 7), (3, 3)], ids=str)
@pytest.mark.parametrize("name", FINDERS)
def test_grids_with_hardly_any_places(name: str, grid: tuple[int, int]) -> None:
    mask = np.zeros(grid, dtype=int)
    mask[grid[0] // 2, grid[1] // 2] = 1
    assert_contract(FINDERS[name]().find(seen_of(mask), 4), grid, 4)


@pytest.mark.parametrize("name", FINDERS)
def test_a_thing_that_fills_almost_all_breaks_nothing(name: str) -> None:
    mask = np.ones(GRID, dtype=int)
    mask[0, :3] = 0
    assert_contract(FINDERS[name]().find(seen_of(mask), 3), GRID, 3)


@pytest.mark.parametrize("name", FINDERS)
def test_noise_and_features_that_are_nowhere_negative(name: str) -> None:
    draw = np.random.default_rng(1)
    places = GRID[0] * GRID[1]
    noise, attention = draw.standard_normal((places, 8)).astype(np.float32), draw.dirichlet(np.ones(places), 2).astype(np.float32)
    for features in (noise, np.maximum(noise, 0)):
        for keys in (features, features.copy()):
            seen = Seen(GRID, features, keys, attention)
            found = FINDERS[name]().find(seen, 5)
            assert_contract(found, GRID, 5)
            again = FINDERS[name]().find(seen, 5)
            assert all((a.mask == b.mask).all() and a.score == b.score for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("name", ["tokencut", "lost", "kmeans"])
def test_the_map_of_a_cnn_is_looked_at_without_its_mean(name: str) -> None:
    seen = seen_of(thing())
    behind_a_relu = seen.patches - seen.patches.min()
    found = FINDERS[name]().find(Seen(GRID, behind_a_relu, behind_a_relu), 1)
    assert overlap(found[0].mask, thing() > 0) > 0.9


def test_the_fast_cut_is_the_plain_one() -> None:
    draw = np.random.default_rng(0)
    for number, grid in enumerate([(12, 18), (20, 20), (9, 40)]):
        mask = np.zeros(grid, dtype=int)
        mask[2:7, 3:9], mask[8:, 1:4] = 1, 2
        scene = seen_of(mask, seed=number)
        features = scene.keys + draw.normal(0, 0.15, scene.keys.shape)
        fast, plain = (tokencut(features, grid, plain=how) for how in (False, True))
        np.testing.assert_allclose(fast.cut.vector, plain.cut.vector, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(fast.cut.value, plain.cut.value, rtol=1e-6)
        assert (fast.mask == plain.mask).all()
        assert fast.box == plain.box


def test_equal_eigenvalues_do_not_stop_the_fast_cut() -> None:
    """Four things that are equal in size and strangers to one another: no eigenvector is the second."""
    features = np.repeat(np.eye(4), 75, axis=0)
    cut = Graph.of(features).cut(plain=False)
    assert np.isfinite(cut.vector).all()
    assert 0 < cut.side.sum() < len(features)
    assert {int(cut.side[start : start + 75].sum()) for start in range(0, 300, 75)} <= {0, 75}


def test_a_cut_at_random_tells_nothing_and_a_clean_one_all() -> None:
    sides = np.arange(40) < 20
    assert Graph(np.ones((40, 40))).apart(sides) == pytest.approx(0.5)
    assert Graph(np.where(sides[:, None] == sides, 1.0, 0.0)).apart(sides) == 1


def test_cuts_go_on_in_what_is_left() -> None:
    found = TokenCut().find(seen_of(two_things()), 5)
    assert len(found) == 2
    first, second = found
    assert not (first.mask & second.mask).any()


def test_the_first_cut_stays_the_first_where_a_later_one_is_surer() -> None:
    features = np.random.default_rng(3).standard_normal((48, 4))
    seen = Seen((6, 8), features, features.copy())
    found = TokenCut().find(seen, 3)
    assert found[1].score > found[0].score
    assert (found[0].mask == tokencut(features, (6, 8)).mask).all()


def test_lost_takes_the_seed_that_is_like_the_fewest() -> None:
    found = lost(seen_of(thing()).keys, GRID)
    assert thing().flat[found.seed]
    assert (thing().flat[found.similars] == 1).all()
    assert overlap(found.mask, thing() > 0) == 1


def test_clusters_are_those_of_the_points_however_many_are_asked_for() -> None:
    points = np.repeat([[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]], 10, axis=0) + np.tile([[0.0, 0.1], [0.1, 0.0]], (15, 1))
    parts = clustered(points, 3).reshape(3, 10)
    assert (parts == parts[:, :1]).all()
    assert len(set(parts[:, 0].tolist())) == 3
    assert len(np.unique(clustered(points, 50))) <= 6
    assert len(np.unique(clustered(np.zeros((4, 2)), 2))) == 1


def test_a_box_in_pixels_ends_with_the_picture() -> None:
    assert in_pixels(Box(1, 0, 3, 2), (16, 16), (30, 60)) == (16, 0, 48, 30)
    assert in_pixels(Box(0, 0, 5, 4), (2.5, 3.2), (10, 16)) == (0, 0, 16, 10)


def test_a_box_in_pixels_is_the_one_around_the_mask_in_pixels() -> None:
    """Of every size at which a place has a pixel: where an edge falls on the middle of a pixel, rounding may not decide."""
    for places in range(1, 31):
        for pixels in range(places, 300):
            size, place = (pixels, 4), (pixels / places, 4.0)
            for start in {0, places // 3, places - 1}:
                mask = np.zeros((places, 1), dtype=bool)
                mask[start : start + 1 + places // 4] = True
                assert in_pixels(box_of(mask), place, size) == box_of(enlarged(mask, size)), (places, pixels, start)
