"""The labels of a video's first frame carried through the others by what an encoder sees alike, with nothing trained for it.

The protocol by which DINO is judged on DAVIS 2017 (Caron et al. 2021, table 5; Jabri et al. 2020; `eval_video_segmentation.py` of
facebookresearch/dino): each place of a frame takes the labels of the places most like it in the first frame and in the last few.
One thing is ours: there a frame is cut down to whole patches, here it is pressed into them, so that nothing of it is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from selfsight.errors import ConfigError

Ids = npt.NDArray[np.uint8]

_TILE = 8
"""Side of the square of places whose likenesses to their surroundings are held at a time."""


class Rule(NamedTuple):
    """What a place takes its labels from: the `top` places most like it, at most `radius` rows and columns away from its own, in
    the first frame and the last `context` ones. A cosine of c weighs exp(c / `temperature`)."""

    top: int = 5
    radius: int = 12
    context: int = 7
    temperature: float = 0.1

    def checked(self) -> Rule:
        """Itself; `ConfigError` for a number with which no label gets anywhere."""
        for name, least in (("top", 1), ("radius", 1), ("context", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}: expected a whole number from {least}. Got {getattr(self, name)}.")
        return self


class Frame(NamedTuple):
    """Features [H, W, D] over the grid of a frame, and how much each place is of each class [C, H, W]."""

    features: Tensor
    soft: Tensor


class Propagation:
    """A video on its way: what the first frame and the last few look like, and what they show."""

    def __init__(self, first: Frame, rule: Rule) -> None:
        self.rule = rule
        self._first = first
        self._last: deque[Frame] = deque(maxlen=rule.context)

    @property
    def last(self) -> list[Tensor]:
        """The soft maps [C, H, W] of the last frames: with the features of those frames, all that is needed to go on."""
        return [frame.soft for frame in self._last]

    def recall(self, frame: Frame) -> None:
        """Take in a frame whose soft map is known from before."""
        self._last.append(frame)

    def advance(self, features: Tensor) -> Tensor:
        """Features [H, W, D] of the next frame -> its soft map [C, H, W]."""
        frames = [self._first, *self._last]
        soft = propagate(features, [frame.features for frame in frames], [frame.soft for frame in frames], self.rule)
        self.recall(Frame(features, soft))
        return soft


def propagate(target: Tensor, context: Sequence[Tensor], labels: Sequence[Tensor], rule: Rule) -> Tensor:
    """Features [H, W, D] of a frame, and features [H, W, D] and labels [C, H, W] of each frame of its context -> [C, H, W].

    The `top` likest of all the context together count, and those exactly as like as the last of these. Tile by tile, so that
    memory grows with the neighbourhood and not with the square of the places: at most 64 x (2 radius + 8)^2 cosines a frame.
    """
    height, width = target.shape[:2]
    target, known = F.normalize(target, dim=-1), F.normalize(torch.stack(list(context)), dim=-1)
    shown = torch.stack(list(labels), dim=1)
    soft = shown.new_empty((len(shown), height, width))
    for rows in _stretches(height):
        above = _around(rows, height, rule.radius)
        for columns in _stretches(width):
            beside = _around(columns, width, rule.radius)
            near = _near(rows, above, rule.radius)[:, None, :, None] & _near(columns, beside, rule.radius)[:, None, :]
            near = near.flatten(2).flatten(0, 1).to(target.device)
            weights = _weights(target[rows, columns].flatten(0, 1), known[:, above, beside].flatten(1, 2), near, rule)
            taken = shown[:, :, above, beside].flatten(1) @ weights.T
            soft[:, rows, columns] = taken.view(len(shown), rows.stop - rows.start, -1)
    return soft


def _weights(places: Tensor, sources: Tensor, near: Tensor, rule: Rule) -> Tensor:
    """Unit features [n, D] and [T, S, D], and which of S are in the neighbourhood of each n -> [n, T * S], rows that add up to 1.

    A softmax over what is kept: to divide exp(c / temperature) by its sum, without leaving the range of floats.
    """
    cosines = torch.einsum("nd,tsd->nts", places, sources)
    cosines = cosines.masked_fill(~near[:, None], -torch.inf).flatten(1)
    last = cosines.topk(min(rule.top, cosines.shape[1])).values[:, -1:]
    return (cosines.masked_fill(cosines < last, -torch.inf) / rule.temperature).softmax(-1)


def _stretches(count: int) -> Iterator[slice]:
    for start in range(0, count, _TILE):
        yield slice(start, min(start + _TILE, count))


def _around(stretch: slice, count: int, radius: int) -> slice:
    return slice(max(0, stretch.start - radius), min(count, stretch.stop + radius))


def _near(stretch: slice, around: slice, radius: int) -> Tensor:
    """[n, s]: which of the lines `around` are at most `radius` away from each of a stretch."""
    apart = torch.arange(stretch.start, stretch.stop)[:, None] - torch.arange(around.start, around.stop)
    return apart.abs() <= radius


def one_hot(ids: Ids, classes: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """Numbers of objects [h, w] -> [C, H, W] over a grid: 1 where the pixel in the middle of a place is of the class."""
    small = np.asarray(Image.fromarray(ids).resize((grid[1], grid[0]), Image.Resampling.NEAREST))
    return torch.from_numpy(small[None] == np.array(classes)[:, None, None]).float()


def label_map(soft: Tensor, classes: Sequence[int], patch: int, size: tuple[int, int]) -> Ids:
    """Soft map [C, H, W] -> numbers of objects over pictures of `size` (height, width).

    Enlarged by the patch, each class stretched to 0 to 1 (or an object that has shrunk would lose to the background), the
    strongest taken, the result brought to the picture's size without mixing.
    """
    large = F.interpolate(soft[None], scale_factor=patch, mode="bilinear", align_corners=False)[0]
    strongest = _stretched(large).argmax(0).cpu().numpy()
    ids = np.array(classes, dtype=np.uint8)[strongest]
    return np.asarray(Image.fromarray(ids).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _stretched(soft: Tensor) -> Tensor:
    """Each class [h, w] to 0 to 1, but one that is the same everywhere (`norm_mask`, which would divide it by 0)."""
    low, high = (end(dim=-1, keepdim=True).values for end in (soft.flatten(1).min, soft.flatten(1).max))
    low, high = low[..., None], high[..., None]
    return torch.where(high > low, (soft - low) / (high - low).clamp_min(torch.finfo(soft.dtype).tiny), soft)
