"""Objects as clusters of places: which of them are objects is told by where they lie, not by labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from selfsight.attention.objects.base import Bools, Finder, Floats, Found, all_alike, box_of, looked_in
from selfsight.attention.seeing import Seen

Ints = npt.NDArray[np.int64]
CLUSTERS = 5
_ROUNDS = 100
_INSIDE = 0.5
"""Of the share of the frame that places have by chance."""


def clustered(features: Floats, clusters: int = CLUSTERS, seed: int = 0) -> Ints:
    """[N, D] -> [N]: the cluster of each place; Lloyd's k-means from the start of k-means++ (Arthur and Vassilvitskii 2007).

    Fewer clusters where there are fewer different places.
    """
    points = np.asarray(features, dtype=np.float64)
    centres = _start(points, clusters, np.random.default_rng(seed))
    nearest = _nearest(points, centres)
    for _ in range(_ROUNDS):
        for number in range(len(centres)):
            if (nearest == number).any():
                centres[number] = points[nearest == number].mean(0)
        before, nearest = nearest, _nearest(points, centres)
        if (before == nearest).all():
            break
    return nearest


def _start(points: Floats, clusters: int, draw: np.random.Generator) -> Floats:
    """Points far from one another: each is drawn with the square of its distance to those before."""
    chosen = [int(draw.integers(len(points)))]
    while len(chosen) < clusters:
        far = ((points[:, None] - points[None, chosen]) ** 2).sum(-1).min(1)
        if far.sum() == 0:
            break
        chosen.append(int(draw.choice(len(points), p=far / far.sum())))
    return points[chosen].copy()


def _nearest(points: Floats, centres: Floats) -> Ints:
    return np.asarray(((centres**2).sum(1) - 2 * points @ centres.T).argmin(1), dtype=np.int64)


class KMeans(Finder):
    """Clusters of normalised features. A cluster is of objects if not half as much of it lies on the frame of the picture as of
    the picture as a whole: what is photographed stands inside, background runs on beyond the edge.

    Objects are the connected parts of these clusters taken together; the score is the share of what lies within the frame that a
    part holds.
    """

    def __init__(self, clusters: int = CLUSTERS) -> None:
        self.clusters = clusters

    def find(self, seen: Seen, count: int) -> list[Found]:
        features, frame = looked_in(seen), _frame(seen.grid)
        if all_alike(seen.keys) or frame.all() or not frame.any():
            return []
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        clusters = clustered(unit, self.clusters).reshape(seen.grid)
        inside = [each for each in np.unique(clusters) if frame[clusters == each].mean() < _INSIDE * frame.mean()]
        parts, number = ndimage.label(np.isin(clusters, inside))
        masks = [parts == part for part in range(1, number + 1)]
        shares = [float((mask & ~frame).sum() / (~frame).sum()) for mask in masks]
        found = [Found(mask, box_of(mask), share) for mask, share in zip(masks, shares, strict=True) if share > 0]
        return sorted(found, key=lambda each: -each.score)[:count]


def _frame(grid: tuple[int, int]) -> Bools:
    """Places [h, w] near the edge; along a side of one or two places there is no inside to tell them from.

    An eighth of each side, since the outermost places of a CNN's map differ from all others by the zeros beyond them.
    """
    frame = np.ones(grid, dtype=np.bool_)
    across, down = (slice(None) if side < 3 else slice(round(side / 8) or 1, -(round(side / 8) or 1)) for side in grid)
    frame[across, down] = False
    return frame
