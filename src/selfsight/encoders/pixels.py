"""`pixels`: the picture itself, small and flattened. What it scores needs no network."""

from __future__ import annotations

import math

from torch import Tensor

from selfsight.encoders import preprocess
from selfsight.encoders.base import Encoder, digest
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError


class PixelsEncoder(Encoder):
    """D = 3 * height * width normalised pixels, channel by channel."""

    kind = "pixels"
    weights = "none: the pixels themselves"
    pool = "flatten"
    pools = ("flatten",)
    parameters = 0

    def __init__(self, spec: str, prepare: Preprocess) -> None:
        self.spec = spec
        self.prepare = prepare
        self.input_size = prepare.size
        self.feature_width = 3 * math.prod(prepare.shape)
        self.notes = []
        self._fingerprint = digest(["pixels", repr(prepare)], [])

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def load(spec: Spec) -> Encoder:
    prepare = preprocess.with_options(Preprocess(size=32, crop_pct=1.0), spec)
    if not prepare.one_shape:
        raise WeightsError(f"{spec.text}: the pixels of differently shaped pictures cannot be compared; leave 'aspect' out")
    return PixelsEncoder(spec.text, prepare)


FAMILY = Family("pixels", preprocess.OPTIONS, load)
