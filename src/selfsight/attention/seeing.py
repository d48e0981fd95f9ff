"""What an encoder makes of one picture, place by place: the ground of every map and of every object found without a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfsight.data.decode import Picture
from selfsight.encoders import Encoder, TorchEncoder
from selfsight.encoders.base import STRIDE
from selfsight.errors import InputError, WeightsError
from selfsight.models.attention import Entry
from selfsight.models.backbones import RotaryViT, Tokens, ViT

Floats = npt.NDArray[np.float32]

MOST = 8192
"""Pixels of the shorter side: of a square picture 0.8 GB as the encoder takes it."""


@dataclass(frozen=True)
class Seen:
    """One picture under one encoder, over a grid of (height, width) places, row-major, N in all. float32 on the CPU.

    `patches` [N, D] are the features after the last norm: patches of a ViT, places in the last map of a CNN. `keys` [N, K] are
    those in which objects are looked for: the keys of the last block, as LOST and TokenCut take them, of a CNN its map again.
    `attention` [heads, N] is what CLS takes of each place in the block that was asked for, as the softmax gave it: a row adds up
    to 1 with what CLS takes of itself and of registers. None where there is no CLS: CNNs, and ViTs that pool patches. `summary`
    [W] stands for the whole picture: CLS, or what the network pools.
    """

    grid: tuple[int, int]
    patches: Floats
    keys: Floats
    attention: Floats | None = None
    summary: Floats | None = None


class Eyes:
    """Turns pictures into what an encoder sees of them, whole: nothing of a picture is cut away.

    `size` is the side to which the shorter side of a picture is brought; by default that of the encoder's own input. `block`
    counts from 0, or from the last one as -1. `WeightsError` for an encoder without places (`pixels`, `onnx/`), `InputError`
    for a size or a block that it does not have.
    """

    def __init__(self, encoder: Encoder, size: int | None = None, block: int = -1) -> None:
        if not isinstance(encoder, TorchEncoder):
            raise WeightsError(f"{encoder.spec}: gives one vector a picture and no map of it; take a ViT or a CNN of torch")
        self.encoder, self.backbone = encoder, encoder.backbone
        self.patch = self.backbone.patch_size if encoder.kind == "vit" else STRIDE
        self.block = self._block(block)
        self.prepare = replace(
            encoder.prepare, size=self._size(size), width=None, aspect="whole", crop_pct=1.0, multiple=self.patch
        )

    def __call__(self, picture: Picture) -> Seen:
        """What is seen of one picture, on the encoder's device."""
        device = next(self.backbone.parameters()).device
        return self.see(self.prepare(picture)[None].to(device))[0]

    @torch.no_grad()
    def see(self, images: Tensor) -> list[Seen]:
        """Prepared pictures [B, C, H, W] of one shape."""
        tokens, entries = self.watched(images)
        patches, summaries = _floats(tokens.patches), _floats(tokens.summary)
        if not entries:
            return [Seen(tokens.grid, each, each, None, summary) for each, summary in zip(patches, summaries, strict=True)]
        prefix = entries[-1].x.shape[1] - tokens.patches.shape[1]
        keys = _floats(entries[-1].keys()[:, prefix:])
        taken: Sequence[Floats | None] = [None] * len(keys)
        if tokens.cls is not None:
            taken = list(_floats(entries[self.block].attention(slice(0, 1))[:, :, 0, prefix:]))
        return [Seen(tokens.grid, *each) for each in zip(patches, keys, taken, summaries, strict=True)]

    def watched(self, images: Tensor) -> tuple[Tokens, list[Entry]]:
        """Tokens, and what went into each block; of a network without blocks that are known, none.

        `WeightsError` where it does not take pictures of this shape.
        """
        try:
            if isinstance(self.backbone, ViT | RotaryViT):
                with torch.no_grad():
                    return self.backbone.watched(images)
            return self.encoder.tokens(images), []
        except (AssertionError, ValueError) as error:
            height, width = images.shape[2:]
            told = f"does not take pictures of {height} x {width} pixels ({str(error).rstrip('.')})"
            raise WeightsError(f"{self.encoder.spec}: {told}; maps need one that takes any shape") from None

    def _size(self, size: int | None) -> int:
        least = self.patch
        if size is not None and size < least:
            raise InputError(f"--size {size}: is less than one patch of {self.encoder.spec}; expected a number from {least}")
        if size is not None and size > MOST:
            raise InputError(f"--size {size}: is more than memory holds of a picture; expected a number up to {MOST}")
        return self.encoder.input_size if size is None else size

    def _block(self, block: int) -> int:
        depth = self.backbone.depth if isinstance(self.backbone, ViT | RotaryViT) else 0
        if depth and not -depth <= block < depth:
            raise InputError(f"--block {block}: {self.encoder.spec} has blocks 0 to {depth - 1}; -1 is the last")
        return block % depth if depth else block


def _floats(tensor: Tensor) -> Floats:
    return tensor.float().cpu().numpy()
