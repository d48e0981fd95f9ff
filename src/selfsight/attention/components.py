"""Principal components of features as colours, the same for every picture that they are applied to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

_TAIL = 2.0
"""Percent of the sample that is darker than black, and as much that is brighter than full, in each colour."""
_LEAST = 8
"""Places of a foreground that has colours of its own."""


@dataclass(frozen=True)
class Components:
    """What `fitted` found in the features [n, D] of a sample.

    A place is foreground where its feature, less `mean` [D], lies further along `first` [D] than `cut`. Its colour is where it
    lies along the `axes` [3, D], between `low` [3] and `high` [3], once `centre` [D] is taken away.
    """

    mean: Doubles
    first: Doubles
    cut: Doubles
    centre: Doubles
    axes: Doubles
    low: Doubles
    high: Doubles

    def along(self, patches: Floats) -> Floats:
        """[N, D] -> [N]: the first component."""
        return ((patches - self.mean) @ self.first).astype(np.float32)

    def colours(self, patches: Floats) -> Floats:
        """[N, D] -> [N, 3], red, green and blue from 0 to 1; black outside the foreground."""
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        shares = ((patches - self.centre) @ self.axes.T - self.low) / span
        # Black is for the background alone.
        return np.where(self.along(patches)[:, None] > self.cut, 0.1 + 0.9 * shares.clip(0, 1), 0).astype(np.float32)

    def arrays(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Components:
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def fitted(sample: Sequence[tuple[Floats, tuple[int, int]]]) -> Components:
    """Components of the features [N, D] of pictures, each with its grid.

    As in the figures of DINOv2 (Oquab et al. 2024, section 7.6): the first component of all features parts foreground from
    background, the first three of the foreground's own are its colours. Where to cut was chosen by hand there, here it is where
    two groups differ most (Otsu 1979). An axis has no direction by itself: the first is turned so that the borders of pictures
    lie on its negative side, the others so that their larger numbers weigh positive.
    """
    features = np.concatenate([patches for patches, _ in sample]).astype(np.float64)
    border = np.concatenate([_border(grid) for _, grid in sample])
    mean = features.mean(axis=0)
    first = _axes(features - mean, 1)[0]
    along = (features - mean) @ first
    if border.any() and not border.all() and along[border].mean() > along[~border].mean():
        first, along = -first, -along
    cut = _between_two_groups(along)
    kept = features[along > cut] if (along > cut).sum() >= _LEAST else features
    centre = kept.mean(axis=0)
    axes = _axes(kept - centre, 3)
    low, high = np.percentile((kept - centre) @ axes.T, [_TAIL, 100 - _TAIL], axis=0)
    return Components(mean, first, np.array(cut), centre, axes, low, high)


def _axes(centred: Doubles, count: int) -> Doubles:
    """[n, D] -> [count, D], the longest first; zeros where there are no more."""
    width = centred.shape[1]
    found = min(count, width)
    _, vectors = linalg.eigh(centred.T @ centred, subset_by_index=[width - found, width - 1])
    axes = vectors.T[::-1]
    turned = axes * np.sign((axes**3).sum(axis=1, keepdims=True) + 1e-300)
    return np.concatenate([turned, np.zeros((count - found, width))])


def _between_two_groups(values: Doubles) -> float:
    """[n] -> where to cut so that the means of the two sides differ most for their sizes; the greatest where all are the same."""
    ascending = np.sort(values)
    below = np.arange(1, len(values))
    sums = np.cumsum(ascending)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(values) - below)
    apart = below * (len(values) - below) * (means[1] - means[0]) ** 2
    apart[ascending[1:] == ascending[:-1]] = 0
    if not apart.any():
        return float(ascending[-1])
    at = int(apart.argmax())
    return float((ascending[at] + ascending[at + 1]) / 2)


def _border(grid: tuple[int, int]) -> Bools:
    """[N]: the places at the edge of a picture."""
    edge = np.ones(grid, dtype=np.bool_)
    edge[1:-1, 1:-1] = False
    return edge.ravel()
