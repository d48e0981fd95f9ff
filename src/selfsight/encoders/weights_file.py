"""`file/PATH?arch=ARCH`: weights for any backbone, from whatever trainer wrote them.

Files of the published code (DINO, DINOv2, DINOv3: backbones alone, or student and teacher with their heads) need no `arch`, and
neither do files in their layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from selfsight.encoders import architecture, checkpoint, deployed, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import Spec
from selfsight.errors import WeightsError
from selfsight.models import published
from selfsight.models.backbones import Backbone, is_vit_name
from selfsight.models.names import is_plain_name
from selfsight.models.published import Told

_EVALUATED = 224
"""Side at which the published ViTs were evaluated, whatever size they were finished at."""


def load(spec: Spec) -> Encoder:
    """Options `arch` (needed where the file does not tell it), `part` (teacher or student), `size`, `patch`, `pool`, `ignore`
    (module names, comma separated) and the preprocessing."""
    path = spec.file(checkpoint.EXPECTS)
    first = spec.choice("part", ("teacher", "student"))
    tensors, notes = checkpoint.read_tensors(path, spec.text, first)
    told = _told(tensors)
    arch = spec.options.get("arch") or (told.name if told is not None else None)
    if arch is None:
        raise WeightsError(f"{spec.text}: {_which(told)} Add ?arch=, for example ?arch=resnet50 or ?arch=vit_small_patch16_224")
    backbone = _sized(spec, arch, tensors, told)
    fitted = state.fit(
        tensors if told is None else _under_our_names(tensors, backbone, spec.text),
        backbone.net.state_dict(),
        spec.text,
        arch,
        heads=architecture.classifier_of(backbone.net),
        ignore=spec.names("ignore"),
        first=first,
    )
    backbone.net.load_state_dict(fitted.tensors)
    official = told is not None and (told.family != "dino" or "arch" not in spec.options)
    prepare = architecture.preprocess_of(spec, _published(backbone) if official else _usual(backbone))
    head = deployed.head_of(spec, fitted.head)
    head = head._replace(own=False) if head is not None and official else head
    encoder = TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), f"file {path.name}, as {arch}", head)
    kept = [note for note in fitted.notes if head is None or not note.startswith("head set aside")]
    encoder.notes += [*_network(spec, told, arch), *notes, *kept, *([] if official else assumed(spec))]
    return encoder


def assumed(spec: Spec) -> list[str]:
    """A note for a mean or deviation that the user left to us."""
    left = [key for key in ("mean", "std") if key not in spec.options]
    if not left:
        return []
    return [f"{' and '.join(left)} not given: ImageNet's assumed; say how the network was trained with ?mean=...&std=..."]


def _which(told: Told | None) -> str:
    if told is None:
        return "which network is it?"
    return f"a ViT of width {told.width}, depth {told.depth} and patch {told.patch} is none of those published: which is it?"


def _network(spec: Spec, told: Told | None, arch: str) -> list[str]:
    return [f"a network of {told.family}, taken for {arch}"] if told is not None and "arch" not in spec.options else []


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Where ViTs of the published code are."""
    end = "patch_embed.proj.weight"
    return [key.removesuffix(end) for key in tensors if key == end or key.endswith("." + end)]


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The backbone's tensors, without those of heads that stand among them."""
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return {key: tensor for key, tensor in inside.items() if key.split(".")[0] in published.PARTS}


def _told(tensors: Mapping[str, Tensor]) -> Told | None:
    """The published network that the file holds, if it holds one."""
    return next((told for prefix in _prefixes(tensors) if (told := published.told_by(_under(tensors, prefix)))), None)


def _under_our_names(tensors: Mapping[str, Tensor], backbone: Backbone, where: str) -> dict[str, Tensor]:
    """All tensors of the file, those of DINOv2 and DINOv3 by timm's names."""
    renamed = dict(tensors)
    for prefix in _prefixes(tensors):
        found = _under(tensors, prefix)
        if published.family_of(found) == "dino":
            continue
        for key in found:
            del renamed[prefix + key]
        ours = published.translated(found, backbone.net, where).tensors
        renamed |= {prefix + key: tensor for key, tensor in ours.items()}
    return renamed


def _sized(spec: Spec, arch: str, tensors: Mapping[str, Tensor], told: Told | None) -> Backbone:
    """The network, with position embeddings for as many patches as the file has, and with what else only the file tells."""
    size = architecture.default_preprocess(arch).size
    settings = architecture.settings_of(spec, arch, size)
    if told is not None and is_plain_name(arch):
        more = {"registers": told.registers, "layer_scale": 1.0 if told.layer_scale else None, "rope": told.family == "dinov3"}
        settings = settings.model_copy(update=more)
    backbone = architecture.build(spec, settings)
    own = getattr(backbone.net, "pos_embed", None)
    table = next((tensor for key, tensor in tensors.items() if key.split(".")[-1] == "pos_embed"), None)
    if own is None or table is None or table.ndim != own.ndim or not is_vit_name(arch):
        return backbone
    # In DINOv2 with registers CLS has a position in the file, and none in timm's network.
    prefix = 1 if told is not None and told.family != "dino" else own.shape[1] - (size // backbone.patch_size) ** 2
    side = math.isqrt(max(0, table.shape[1] - prefix))
    if not side or side**2 + prefix != table.shape[1] or side == size // backbone.patch_size:
        return backbone  # where it is no square of patches the comparison of shapes will say so
    return architecture.build(spec, settings.model_copy(update={"image_size": side * backbone.patch_size}))


def _usual(backbone: Backbone) -> Preprocess:
    """ImageNet's mean and deviation at the size that the network was built for, resampled as torchvision does by default."""
    name = backbone.settings.name
    size = backbone.settings.image_size if is_vit_name(name) else architecture.default_preprocess(name).size
    return Preprocess(size=size, crop_pct=preprocess.plain_crop(size), interpolation="bilinear")


def _published(backbone: Backbone) -> Preprocess:
    """The evaluation transform of the published code."""
    side = backbone.patch_size
    size = min(backbone.settings.image_size, _EVALUATED) // side * side
    return Preprocess(size=size, crop_pct=preprocess.plain_crop(size))


FAMILY = Family("file/PATH?arch=ARCHITECTURE", (*architecture.OPTIONS, "arch", "ignore", "part", *deployed.OPTIONS), load)
