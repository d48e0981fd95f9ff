"""`random/ARCH`: a network with the weights it is born with, the floor of a comparison."""

from __future__ import annotations

import torch

from selfsight.encoders import architecture
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.spec import Spec
from selfsight.models.backbones import Backbone, BackboneSettings


def load(spec: Spec) -> Encoder:
    """Any backbone name; options `seed`, `size`, `patch`, `pool` and those of the preprocessing."""
    prepare = architecture.preprocess_of(spec, architecture.default_preprocess(spec.path))
    seed = spec.number("seed", 0, least=0)
    backbone = born(spec, architecture.settings_of(spec, spec.path, prepare.size), seed)
    return TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), f"untrained (seed {seed})")


def born(spec: Spec, settings: BackboneSettings, seed: int) -> Backbone:
    """The weights that a training with this seed starts from; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(spec, settings)


FAMILY = Family("random/ARCHITECTURE", (*architecture.OPTIONS, "seed"), load)
