"""`file/PATH?arch=ARCH`: the user's own weights for any backbone, from whatever trainer wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from selfsight.encoders import architecture, checkpoint, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Family, Spec
from selfsight.errors import WeightsError
from selfsight.models.backbones import Backbone, is_vit_name


def load(spec: Spec) -> Encoder:
    """Options `arch` (required), `size`, `patch`, `pool`, `ignore` (module names, comma separated) and the preprocessing."""
    if "arch" not in spec.options:
        raise WeightsError(
            f"{spec.text}: which network is it? Add ?arch=, for example ?arch=resnet50 or ?arch=vit_small_patch16_224"
        )
    path = spec.file(checkpoint.EXPECTS)
    tensors, notes = checkpoint.read_tensors(path, spec.text)
    arch = spec.options["arch"]
    backbone = _sized(spec, arch, tensors)
    fitted = state.fit(
        tensors,
        backbone.net.state_dict(),
        spec.text,
        arch,
        heads=architecture.classifier_of(backbone.net),
        ignore=spec.names("ignore"),
    )
    backbone.net.load_state_dict(fitted.tensors)
    prepare = architecture.preprocess_of(spec, _usual(backbone))
    encoder = TorchEncoder(spec.text, backbone, prepare, prepare.size, spec.options.get("pool"), f"file {path.name}, as {arch}")
    encoder.notes += [*notes, *fitted.notes, *assumed(spec)]
    return encoder


def assumed(spec: Spec) -> list[str]:
    """A note for a mean or deviation that the user left to us."""
    left = [key for key in ("mean", "std") if key not in spec.options]
    if not left:
        return []
    return [f"{' and '.join(left)} not given: ImageNet's assumed; say how the network was trained with ?mean=...&std=..."]


def _sized(spec: Spec, arch: str, tensors: Mapping[str, Tensor]) -> Backbone:
    """The network, with position embeddings for as many patches as the file has."""
    size = architecture.default_preprocess(arch).size
    backbone = architecture.build(spec, architecture.settings_of(spec, arch, size))
    own = getattr(backbone.net, "pos_embed", None)
    table = next((tensor for key, tensor in tensors.items() if key.split(".")[-1] == "pos_embed"), None)
    if own is None or table is None or table.ndim != own.ndim or table.shape[1] == own.shape[1] or not is_vit_name(arch):
        return backbone
    prefix = own.shape[1] - (size // backbone.patch_size) ** 2
    side = math.isqrt(max(0, table.shape[1] - prefix))
    if not side or side**2 + prefix != table.shape[1]:
        return backbone  # not a square of patches: the comparison of shapes will say so
    return architecture.build(spec, architecture.settings_of(spec, arch, side * backbone.patch_size))


def _usual(backbone: Backbone) -> Preprocess:
    """ImageNet's mean and deviation at the size that the network was built for, resampled as torchvision does by default."""
    name = backbone.settings.name
    size = backbone.settings.image_size if is_vit_name(name) else architecture.default_preprocess(name).size
    return Preprocess(size=size, crop_pct=preprocess.plain_crop(size), interpolation="bilinear")


FAMILY = Family("file/PATH?arch=ARCHITECTURE", (*architecture.OPTIONS, "arch", "ignore"), load)
