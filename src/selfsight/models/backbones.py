"""Backbones from timm behind one adapter that yields named tokens.

A name is a timm architecture (`vit_small_patch16_224`, `resnet50`, `convnext_tiny`...), a plain ViT spelt by its sizes (see
`names`), or a CNN of torchvision (`torchvision/convnext_tiny`).
"""

from __future__ import annotations

import warnings

import timm
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from selfsight.errors import ConfigError
from selfsight.models import torchvision_cnns
from selfsight.models.base import Backbone, BackboneSettings, Tokens
from selfsight.models.cnns import CNN
from selfsight.models.names import architecture, is_vit_name, patch_of
from selfsight.models.stems import ConvStem
from selfsight.models.torchvision_cnns import TorchvisionCNN
from selfsight.models.vits import OtherTransformer, RotaryViT, ViT

__all__ = [
    "CNN",
    "Backbone",
    "BackboneSettings",
    "OtherTransformer",
    "RotaryViT",
    "Tokens",
    "TorchvisionCNN",
    "ViT",
    "build_backbone",
    "is_vit_name",
    "patch_of",
    "wrap",
]


def build_backbone(settings: BackboneSettings) -> Backbone:
    """An untrained backbone; draws its weights from torch's generator. Unknown names list the nearest."""
    if settings.name.startswith(torchvision_cnns.PREFIX):
        return torchvision_cnns.build(settings)
    name, options = architecture(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns about its own deprecated aliases
        try:
            net = timm.create_model(name, pretrained=False, num_classes=0, in_chans=settings.channels, **options)
        except TypeError as error:
            raise ConfigError(f"backbone '{settings.name}': does not take these sizes ({error})") from None
    if settings.name.endswith("_conv"):
        patch = int(net.patch_embed.patch_size[0])
        net.patch_embed = ConvStem(settings.image_size, patch, int(net.num_features), settings.channels)
    if settings.rope_rescale > 1:
        # Not every timm that has these networks takes it as an argument.
        net.rope.rescale_coords, net.rope.aug_active = settings.rope_rescale, True
    backbone = wrap(net, settings)
    if settings.checkpointing and not isinstance(backbone, ViT | RotaryViT):
        net.set_grad_checkpointing(True)
    return backbone


def wrap(net: nn.Module, settings: BackboneSettings) -> Backbone:
    """Put a timm network without classifier behind the adapter."""
    if isinstance(net, VisionTransformer):
        # The adapter itself fits positions to pictures, for which timm's own way has another layout.
        net.patch_embed.strict_img_size, net.patch_embed.flatten, net.dynamic_img_size = False, True, False
        return ViT(net, settings)
    if isinstance(net, Eva):
        return RotaryViT(net, settings)
    if getattr(net, "num_prefix_tokens", None) is not None and hasattr(getattr(net, "patch_embed", None), "patch_size"):
        return OtherTransformer(net, settings)
    return CNN(net, settings)
