"""What maps of a picture are made of: features, and those rows of attention that a map asks for, no others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfsight.attention import artefacts
from selfsight.attention.seeing import Eyes
from selfsight.data.decode import Picture
from selfsight.models.attention import Entry
from selfsight.models.backbones import RotaryViT, Tokens, ViT

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Point = tuple[float, float]
"""From the left and from the top, as shares of the width and the height of a picture."""
ROWS = ("attention", "rollout", "registers", "point")
"""Parts of a `Look` that are shares of attention, and cost something."""


@dataclass(frozen=True)
class Look:
    """One picture under one encoder, over a grid of (height, width) places, row-major, N in all. float32.

    `patches` [N, D] are the features after the last norm. `norms` [N] are the lengths of the tokens on their way into the last
    block, where no layer norm has levelled them; of other networks those of their features. What was asked for of the rest:
    `attention` [heads, N] is what CLS takes of each place, `registers` [R, N] what each register takes (mean over the heads),
    `point` [N] what the patch at the point takes (mean over the heads), all in the block that the eyes look at; `rollout` [N]
    is what CLS takes through all blocks up to that one.
    """

    grid: tuple[int, int]
    patches: Floats
    norms: Floats
    attention: Floats | None = None
    rollout: Floats | None = None
    registers: Floats | None = None
    point: Floats | None = None

    @cached_property
    def outliers(self) -> Bools:
        """[N]: the places whose tokens are artefacts."""
        return artefacts.outliers(self.norms)

    def mended(self) -> Look:
        """With what outlier tokens hold replaced by what their neighbours hold; itself where there is no outlier.

        The norms stay as they were measured.
        """
        if not self.outliers.any():
            return self
        rows = {name: value for name in ROWS if (value := getattr(self, name)) is not None}
        found = {name: artefacts.mended(value, self.outliers, self.grid) for name, value in rows.items()}
        patches = artefacts.mended(self.patches.T, self.outliers, self.grid).T
        return Look(self.grid, patches, self.norms, **found)


class Gaze:
    """Looks at pictures for some of `ROWS`. Which of them an encoder can give, `offers` says."""

    def __init__(self, eyes: Eyes, rows: frozenset[str] = frozenset()) -> None:
        self.eyes, self.rows = eyes, rows

    def __call__(self, picture: Picture, at: Point | None = None) -> Look:
        """One picture, whole; `at` is needed for the row of a point."""
        device = next(self.eyes.backbone.parameters()).device
        return self.look(self.eyes.prepare(picture)[None].to(device), at)

    @torch.no_grad()
    def look(self, image: Tensor, at: Point | None = None) -> Look:
        """A prepared picture [1, C, H, W]."""
        tokens, entries = self.eyes.watched(image)
        patches = _floats(tokens.patches)
        if not entries:
            return Look(tokens.grid, patches, np.linalg.norm(patches, axis=-1).astype(np.float32))
        prefix = entries[-1].x.shape[1] - len(patches)
        norms = _floats(entries[-1].x[:, prefix:].norm(dim=-1))
        return Look(tokens.grid, patches, norms, **self._taken(tokens, entries[: self.eyes.block + 1], prefix, at))

    def _taken(self, tokens: Tokens, entries: list[Entry], prefix: int, at: Point | None) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        watched = entries[-1]
        if "attention" in self.rows:
            found["attention"] = _floats(watched.attention(slice(0, 1))[:, :, 0, prefix:])
        if "registers" in self.rows:
            first = 0 if tokens.cls is None else 1
            found["registers"] = _floats(watched.attention(slice(first, prefix)).mean(1)[:, :, prefix:])
        if "rollout" in self.rows:
            found["rollout"] = _floats(rollout(entries)[:, prefix:])
        if "point" in self.rows and at is not None:
            place = prefix + place_of(at, tokens.grid)
            found["point"] = _floats(watched.attention(slice(place, place + 1)).mean(1)[:, 0, prefix:])
        return found


def offers(eyes: Eyes) -> frozenset[str]:
    """Which of `ROWS` the encoder can give."""
    if not isinstance(eyes.backbone, ViT | RotaryViT):
        return frozenset()
    net = eyes.backbone.net
    has_cls = net.cls_token is not None
    found = {"point": True, "attention": has_cls, "rollout": has_cls, "registers": net.num_prefix_tokens > has_cls}
    return frozenset(name for name, there in found.items() if there)


def rollout(entries: list[Entry]) -> Tensor:
    """[B, T]: what CLS takes of each token that enters the first block, through all of them (Abnar and Zuidema 2020)."""
    weights = torch.zeros_like(entries[-1].x[:, :, 0])
    weights[:, 0] = 1
    for entry in reversed(entries):
        weights = entry.carried_on(weights)
    return weights


def place_of(at: Point, grid: tuple[int, int]) -> int:
    """The place, of those in a row, in which a point lies."""
    height, width = grid
    return min(height - 1, int(at[1] * height)) * width + min(width - 1, int(at[0] * width))


def _floats(tensor: Tensor) -> Floats:
    return tensor[0].float().cpu().numpy()
