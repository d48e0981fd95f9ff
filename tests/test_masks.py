"""Measures of masks and boxes: numbers worked out by hand, an obviously right slow version, and what holds for any mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco
from sklearn.metrics import confusion_matrix, jaccard_score

from selfsight import masks

SIDES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SIDES)
    return draw(arrays(np.bool_, shape)), draw(arrays(np.bool_, shape))


def rectangle(shape: tuple[int, int], left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def slow_boundary(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            if any(mask[there] != mask[y, x] for there in ((y, right), (below, x), (below, right))):
                found.append((y, x))
    return found


def slow_f(a: np.ndarray, b: np.ndarray, tolerance: float) -> float:
    """Precision and recall counted pixel by pixel, as the definition has them."""
    reach = math.ceil(tolerance * math.sqrt(a.shape[0] ** 2 + a.shape[1] ** 2))
    first, second = slow_boundary(a), slow_boundary(b)

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [p for p in points if any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= reach**2 for q in others)]
        return len(near) / len(points) if points else 1.0

    precision, recall = share(first, second), share(second, first)
    if bool(first) != bool(second):
        return 0.0
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_jaccard_of_two_overlapping_rectangles() -> None:
    """4 x 4 and 4 x 4, of which 2 x 3 are shared: 6 / (16 + 16 - 6)."""
    a, b = rectangle((10, 10), 0, 0, 4, 4), rectangle((10, 10), 2, 1, 6, 5)
    assert masks.jaccard(a, b) == pytest.approx(6 / 26)


def test_jaccard_of_a_stack_is_that_of_each_pair_and_two_empty_masks_are_alike() -> None:
    empty, full = np.zeros((3, 4), dtype=bool), np.ones((3, 4), dtype=bool)
    half = rectangle((3, 4), 0, 0, 2, 3)
    found = masks.jaccard(np.stack([empty, empty, half, half]), np.stack([empty, full, full, half]))
    np.testing.assert_allclose(found, [1.0, 0.0, 0.5, 1.0])


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_jaccard_is_scikit_learns_symmetric_and_one_for_a_mask_and_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert masks.jaccard(a, b) == masks.jaccard(b, a)
    assert masks.jaccard(a, a) == 1
    if (a | b).any():
        assert masks.jaccard(a, b) == pytest.approx(jaccard_score(a.ravel(), b.ravel()))


@settings(max_examples=80, deadline=None)
@given(pairs(), st.sampled_from([masks.TOLERANCE, 0.1, 0.3]))
def test_boundary_f_is_the_slow_one_symmetric_and_one_for_a_mask_and_itself(
    pair: tuple[np.ndarray, np.ndarray], tolerance: float
) -> None:
    a, b = pair
    found = masks.boundary_f(a, b, tolerance)
    assert found == pytest.approx(slow_f(a, b, tolerance), abs=1e-12)
    assert 0 <= found <= 1
    assert found == pytest.approx(masks.boundary_f(b, a, tolerance), abs=1e-12)
    assert masks.boundary_f(a, a, tolerance) == 1


def test_a_boundary_may_be_off_by_the_tolerance_and_no_more() -> None:
    """The diagonal of 300 x 400 is 500 pixels, so a boundary may be 4 pixels off."""
    true = rectangle((300, 400), 100, 100, 200, 200)
    within, beyond = (rectangle((300, 400), 100 - by, 100 - by, 200 + by, 200 + by) for by in (2, 5))
    assert masks.boundary_f(within, true) == 1
    assert masks.boundary_f(beyond, true) == 0
    assert masks.boundary_f(rectangle((300, 400), 104, 100, 204, 200), true) == 1
    shifted = masks.boundary_f(rectangle((300, 400), 110, 100, 210, 200), true)
    assert shifted == pytest.approx(slow_f(rectangle((300, 400), 110, 100, 210, 200), true, masks.TOLERANCE))
    assert 0.4 < shifted < 0.6  # the two long sides that still lie on each other


def test_where_one_mask_alone_has_a_boundary_nothing_of_it_is_right() -> None:
    shape, some = (20, 20), rectangle((20, 20), 5, 5, 9, 9)
    empty, full = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    assert masks.boundary_f(empty, some) == masks.boundary_f(some, empty) == masks.boundary_f(full, some) == 0
    assert masks.boundary_f(empty, empty) == masks.boundary_f(empty, full) == 1


def test_the_edge_of_a_picture_is_no_boundary() -> None:
    corner = rectangle((6, 6), 0, 0, 3, 3)
    expected = np.zeros((6, 6), dtype=bool)
    expected[2, :3] = expected[:3, 2] = True
    np.testing.assert_array_equal(masks.boundary(corner), expected)


def test_a_course_has_mean_recall_and_decay_in_percent() -> None:
    """Nine frames: the quarters are frames 1 to 3 and 7 to 9."""
    found = masks.course([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert found.mean == pytest.approx(60)
    assert found.recall == pytest.approx(5 / 9 * 100)
    assert found.decay == pytest.approx(90 - 30)


@pytest.mark.parametrize("count", [*range(1, 13), 68, 104, 300])
def test_the_quarters_of_a_course_are_those_of_davis(count: int) -> None:
    """Its own expression, but for the 8-bit numbers in which it counts frames, which a video of 256 overruns."""
    values = np.random.default_rng(count).random(count)
    ids = (np.round(np.linspace(1, count, 5) + 1e-10) - 1).astype(int)
    expected = values[ids[0] : ids[1] + 1].mean() - values[ids[3] : ids[4] + 1].mean()
    assert masks.course(values).decay == pytest.approx(expected * 100)


def test_iou_of_boxes_worked_out_by_hand() -> None:
    """10 x 10 at the origin with: itself, one a quarter of which it shares, one beside it, and one of no area."""
    others = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [3, 3, 3, 8]])
    found = masks.box_iou(np.array([[0, 0, 10, 10]]), others)
    np.testing.assert_allclose(found, [[1.0, 25 / 175, 0.0, 0.0]])
    np.testing.assert_array_equal(masks.box_iou(np.array([[2, 2, 2, 2]]), np.array([[2, 2, 2, 2]])), [[0.0]])


def test_iou_of_boxes_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.integers(0, 50, size=(n, 2, 2)), axis=1).reshape(n, 4) for n in (30, 40))
    found = masks.box_iou(a, b)
    sized = [np.concatenate([each[:, :2], each[:, 2:] - each[:, :2]], axis=1).astype(float) for each in (a, b)]
    assert (found > 0).sum() > 100
    np.testing.assert_allclose(np.nan_to_num(coco.iou(*sized, np.zeros(40))), found, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (3, 4), elements=st.integers(-20, 20)), arrays(np.int64, (2, 4), elements=st.integers(-20, 20)))
def test_iou_of_boxes_is_symmetric_and_within_bounds(a: np.ndarray, b: np.ndarray) -> None:
    found = masks.box_iou(a, b)
    assert found.shape == (3, 2)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found, masks.box_iou(b, a).T)
    covers = ((a[:, 2] > a[:, 0]) & (a[:, 3] > a[:, 1])).astype(float)
    np.testing.assert_array_equal(np.diag(masks.box_iou(a, a)), covers)


def test_corloc_counts_images_whose_box_overlaps_a_true_one_by_half() -> None:
    """Overlaps of exactly one half, of less, of another of two true boxes, none found, and an image without a true box."""
    square = np.array([[0, 0, 10, 10]])
    half, less = np.array([0, 0, 10, 5]), np.array([0, 0, 10, 4])
    two = np.array([[50, 50, 60, 60], [0, 0, 10, 10]])
    nothing = np.zeros((0, 4), dtype=int)
    assert masks.located(half, square) and not masks.located(less, square)
    found = masks.corloc([half, less, square[0], None, half], [square, square, two, square, nothing])
    assert found == pytest.approx(2 / 4 * 100)
    assert masks.corloc([half, less], [square, square], least=0.4) == 100


def test_confusion_leaves_out_what_is_no_class_and_iou_follows_from_it() -> None:
    true = np.array([[0, 0, 1], [1, 255, 2]])
    predicted = np.array([[0, 1, 1], [1, 0, 0]])
    found = masks.confusion(predicted, true, 4)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(masks.class_iou(found), [1 / 3, 2 / 3, 0.0, np.nan])
    assert masks.mean_iou(found) == pytest.approx(100 / 3)


def test_a_prediction_that_is_no_class_is_not_counted_for_another() -> None:
    true = np.array([0, 1, 255])
    for predicted, told in (([2, 0, 0], "0 to 2"), ([-1, 0, 0], "-1 to 0")):
        with pytest.raises(ValueError, match=f"expected classes from 0 to 1, got {told}"):
            masks.confusion(np.array(predicted), true, 2)
    assert masks.confusion(np.array([1, 1, 9]), true, 2).tolist() == [[0, 1], [0, 1]]


def test_confusion_and_iou_of_many_pixels_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, (40, 50)).astype(np.uint8), rng.integers(0, 5, (40, 50)).astype(np.uint8)
    found = masks.confusion(predicted, true, 5)
    np.testing.assert_array_equal(found, confusion_matrix(true.ravel(), predicted.ravel()))
    expected = jaccard_score(true.ravel(), predicted.ravel(), average=None)
    np.testing.assert_allclose(masks.class_iou(found), expected)
    assert masks.mean_iou(found) == pytest.approx(expected.mean() * 100)
