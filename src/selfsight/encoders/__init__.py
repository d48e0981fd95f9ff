"""Frozen networks by name: a spec string in, an `Encoder` out.

To add a family: a file here with a `load(spec)` and its `FAMILY`, and a line in `FAMILIES`; `tests/test_encoders.py` runs its
contract over every entry.
"""

from __future__ import annotations

import torch

from selfsight.encoders import hugging_face, lite0, onnx_file, pixels, run, timm_hub, torchvision_hub, untrained, weights_file
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.features import Features, extract
from selfsight.encoders.spec import Spec, parse

FAMILIES: dict[str, Family] = {
    "runs": run.FAMILY,
    "timm": timm_hub.FAMILY,
    "hf": hugging_face.FAMILY,
    "torchvision": torchvision_hub.FAMILY,
    "file": weights_file.FAMILY,
    "onnx": onnx_file.FAMILY,
    "efficientnet-lite0": lite0.FAMILY,
    "random": untrained.FAMILY,
    "pixels": pixels.FAMILY,
}


def parse_spec(text: str) -> Spec:
    """The spec that `text` spells; a `WeightsError` lists what would have been valid. Touches no weights."""
    return parse(text, FAMILIES)


def load_encoder(spec: str, device: torch.device | str = "cpu") -> Encoder:
    """The encoder that a spec names, ready on `device`; a `WeightsError` says in one line what is wrong with it."""
    parsed = parse_spec(spec)
    return FAMILIES[parsed.family].load(parsed).to(device)


__all__ = ["FAMILIES", "Encoder", "Family", "Features", "Spec", "TorchEncoder", "extract", "load_encoder", "parse_spec"]
