"""Pure measures of masks and boxes.

Of one pair they lie between 0 and 1; over a set of images or the frames of a video they are in percent. A mask is [h, w] of
booleans, a box (left, top, right, bottom) with right and bottom the first ones outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

TOLERANCE = 0.008
"""Share of a picture's diagonal by which a boundary may be off, as DAVIS has it."""
LOCATED = 0.5
"""The least overlap of boxes at which an object counts as located."""


def jaccard(a: Bools, b: Bools) -> Doubles:
    """Region similarity J: [..., h, w] twice -> [...], what masks share of what either holds; two empty ones are alike, 1.

    `J` of Perazzi et al. 2016 (DAVIS).
    """
    both = np.count_nonzero(a & b, axis=(-2, -1))
    either = np.count_nonzero(a | b, axis=(-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def boundary_f(a: Bools, b: Bools, tolerance: float = TOLERANCE) -> float:
    """Contour accuracy F of two masks: the harmonic mean of how much of each boundary lies near to the other one.

    Near is within `tolerance` times the diagonal, rounded up to pixels, as by a dilation with a disk (Perazzi et al. 2016;
    `db_eval_boundary` of davis2017-evaluation). A mask without boundary, empty or full, has nothing that could be wrong.
    """
    outlines = np.argwhere(boundary(a)), np.argwhere(boundary(b))
    if not len(outlines[0]) or not len(outlines[1]):
        return float(len(outlines[0]) == len(outlines[1]))
    reach = np.ceil(tolerance * np.hypot(*a.shape))
    precision, recall = _share_near(*outlines, reach), _share_near(*outlines[::-1], reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Bools) -> Bools:
    """[h, w]: the pixels that differ from the next one to the right, below, or right below.

    The edge of a picture is no boundary (`_seg2bmap` of davis2017-evaluation).
    """
    wider = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != wider[:-1, 1:]) | (mask != wider[1:, :-1]) | (mask != wider[1:, 1:])


def _share_near(points: Ints, others: Ints, reach: float) -> float:
    """The share of `points` [n, 2] that have one of the `others` within `reach`."""
    return float((KDTree(others).query(points)[0] <= reach).mean())


class Course(NamedTuple):
    """How a measure goes through the frames of a video, in percent: its mean, how often it is above 0.5, and what it loses."""

    mean: float
    recall: float
    decay: float


def course(values: Sequence[float] | Doubles) -> Course:
    """J or F of each frame [n], n > 0. Decay is the mean of the first quarter less that of the last; neighbouring quarters share
    a frame (Perazzi et al. 2016; `db_statistics` of davis2017-evaluation)."""
    each = np.asarray(values, dtype=np.float64) * 100
    ends = np.floor(np.linspace(0, len(each) - 1, 5) + 0.5).astype(np.intp)
    decay = each[: ends[1] + 1].mean() - each[ends[3] :].mean()
    return Course(float(each.mean()), float((each > 50).mean() * 100), float(decay))


def box_iou(a: npt.ArrayLike, b: npt.ArrayLike) -> Doubles:
    """Boxes [m, 4] and [n, 4] -> [m, n]: what two boxes share of what either covers; 0 where neither covers anything."""
    first, second = _boxes(a)[:, None], _boxes(b)[None]
    left_top, right_bottom = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    shared = np.clip(right_bottom - left_top, 0, None).prod(-1)
    either = _areas(first) + _areas(second) - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


def _boxes(boxes: npt.ArrayLike) -> Doubles:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _areas(boxes: Doubles) -> Doubles:
    return np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1)


def located(box: npt.ArrayLike, true: npt.ArrayLike, least: float = LOCATED) -> bool:
    """Whether a box [4] overlaps one of the true ones [n, 4] by `least` or more."""
    return bool((box_iou(box, true) >= least).any())


def corloc(found: Sequence[npt.ArrayLike | None], true: Sequence[npt.ArrayLike], least: float = LOCATED) -> float:
    """Percent of images whose best box [4] is `located` among the true ones [n, 4]; None is an image where none was found.

    Images without a true box take no part (`main_lost.py` of valeoai/LOST). At least one must have one.
    """
    pairs = [(box, boxes) for box, boxes in zip(found, true, strict=True) if len(_boxes(boxes))]
    return sum(box is not None and located(box, boxes, least) for box, boxes in pairs) / len(pairs) * 100


def confusion(predicted: Ints, true: Ints, classes: int) -> npt.NDArray[np.int64]:
    """[classes, classes] pixels of each true class (row) by what was predicted for them (column); arrays of any one shape.

    Pixels whose true class is none of them, such as the 255 around the objects of Pascal VOC, take no part. `ValueError` where
    what was predicted for another one is no class.
    """
    known = (true >= 0) & (true < classes)
    said = predicted[known]
    if said.size and not 0 <= said.min() <= said.max() < classes:
        raise ValueError(f"predicted: expected classes from 0 to {classes - 1}, got {said.min()} to {said.max()}")
    pairs = true[known].astype(np.int64) * classes + said
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(confusion: Ints) -> Doubles:
    """[C]: IoU of each class of a confusion [C, C]; NaN for one that is neither there nor predicted."""
    right = np.diag(confusion).astype(np.float64)
    either = confusion.sum(0) + confusion.sum(1) - right
    return np.divide(right, either, out=np.full_like(right, np.nan), where=either > 0)


def mean_iou(confusion: Ints) -> float:
    """Mean of `class_iou` over the classes that are there or predicted, of which there must be one, in percent."""
    return float(np.nanmean(class_iou(confusion)) * 100)
