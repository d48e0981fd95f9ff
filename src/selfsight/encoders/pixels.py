"""`pixels`: the picture itself, small and flattened. What it scores needs no network."""

from __future__ import annotations

from torch import Tensor

from selfsight.encoders import preprocess
from selfsight.encoders.base import Encoder, digest
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Family, Spec


class PixelsEncoder(Encoder):
    """D = 3 * size * size normalised pixels, channel by channel."""

    kind = "pixels"
    weights = "none: the pixels themselves"
    pool = "flatten"
    parameters = 0

    def __init__(self, spec: str, prepare: Preprocess) -> None:
        self.spec = spec
        self.prepare = prepare
        self.input_size = prepare.size
        self.feature_width = 3 * prepare.size**2
        self.notes = []
        self._fingerprint = digest(["pixels", repr(prepare)], [])

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def load(spec: Spec) -> Encoder:
    return PixelsEncoder(spec.text, preprocess.with_options(Preprocess(size=32, crop_pct=1.0), spec))


FAMILY = Family("pixels", preprocess.OPTIONS, load)
