"""Prepared pictures in, rows of objects in the pixels of the pictures out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from selfsight.attention.objects.base import Bools, Finder, Found, box_of
from selfsight.attention.objects.pixels import enlarged, guided
from selfsight.attention.seeing import Eyes, Seen
from selfsight.data.loader import read_picture
from selfsight.data.sheet import rgb
from selfsight.data.sources import BadImage, Source
from selfsight.data.windows import Window
from selfsight.errors import SelfsightError
from selfsight.manifest import decode_mask, encode_mask

REFINEMENTS = ("none", "guided")
_PLACES = 8192
"""Of pictures that are looked at together. Transformers keep what goes into each of their blocks."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Looking:
    """How objects are looked for in the images of a source: `count` of them at most, masks as in `REFINEMENTS`."""

    source: Source
    eyes: Eyes
    finder: Finder
    count: int
    refine: str

    def rows(self, window: Window, told: Callable[[int], None]) -> list[Row]:
        """A row for each sample of the window, in order: sample, key, width, height and objects with their segmentation (RLE),
        bbox (left, top, width, height), area and score; or key and why it is `bad`. `told` hears how many are done."""
        rows: dict[int, Row] = {}
        for indices, images in window.batches:
            every = zip(indices, self._seen(images), strict=True)
            # Where other programs are at work, threads that wait for one another over small matrices take 20 times as long.
            with threadpool_limits(1, user_api="blas"):
                for index, seen in every:
                    found = self.finder.find(seen, self.count) if seen is not None else []
                    rows[index] = self._row(index, window.sizes[index], found)
                    told(len(rows))
        unread = (index for index in range(window.start, window.stop) if index not in window.sizes)
        rows |= {index: _bad(image) for index, image in zip(unread, window.bad, strict=True)}
        return [rows[index] for index in sorted(rows)]

    def _seen(self, images: Tensor) -> list[Seen | None]:
        """None for a picture of one colour, where a network sees its own frame and positions alone."""
        device = next(self.eyes.backbone.parameters()).device
        patch = self.eyes.patch
        step = max(1, _PLACES * patch * patch // (images.shape[2] * images.shape[3]))
        seen = [each for part in torch.split(images, step) for each in self.eyes.see(part.to(device))]
        if not all(np.isfinite(each.keys).all() for each in seen):
            told = "features are not finite numbers; are its weights whole, and mean and std right?"
            raise SelfsightError(f"{self.eyes.encoder.spec}: {told}")
        blank = (images == images[:, :, :1, :1]).flatten(1).all(1).tolist()
        return [None if empty else each for each, empty in zip(seen, blank, strict=True)]

    def _row(self, index: int, size: tuple[int, int], found: Sequence[Found]) -> Row:
        masks = [enlarged(each.mask, size) for each in found]
        if found and self.refine == "guided":
            picture = read_picture(self.source, index, self.eyes.encoder.read)
            if isinstance(picture, BadImage):  # it was there a moment ago
                return _bad(picture)
            pixels = rgb(np.asarray(picture))
            masks = [guided(mask, pixels, each.mask.shape) for mask, each in zip(masks, found, strict=True)]
        objects = [_object(mask, each.score) for mask, each in zip(masks, found, strict=True) if mask.any()]
        return {"sample": index, "key": self.source.keys[index], "width": size[1], "height": size[0], "objects": objects}


def mask_of(each: Row) -> Bools:
    """The mask [H, W] of an object of a row."""
    return decode_mask(json.dumps(each["segmentation"]))


def _object(mask: Bools, score: float) -> Row:
    box = box_of(mask)
    return {
        "segmentation": json.loads(encode_mask(mask)),
        "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
        "area": int(mask.sum()),
        "score": round(score, 6),
    }


def _bad(image: BadImage) -> Row:
    return {"key": image.key, "bad": image.reason}
