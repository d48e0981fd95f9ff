"""`timm/NAME`: published weights through timm, from the model hub or its cache; `timm/local-dir:PATH`, see `timm_local`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from selfsight.encoders import architecture, hub, preprocess, timm_local
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.family import Family
from selfsight.encoders.spec import LOCAL, Spec
from selfsight.errors import WeightsError, nearest
from selfsight.models.backbones import is_vit_name, wrap

_FILES = ("model.safetensors", "pytorch_model.bin")


def load(spec: Spec) -> Encoder:
    """Options `size`, `pool` and those of the preprocessing; the first load of a name downloads it."""
    if spec.path.startswith(LOCAL):
        return timm_local.load(spec)
    config = _published(spec)
    prepare = architecture.preprocess_of(spec, preprocess.from_timm(config))
    net = _create(spec, config, prepare.size)
    backbone = wrap(net, architecture.settings_of(spec, spec.path, prepare.size))
    weights = f"published weights '{config.get('tag') or 'default'}' of timm/{spec.path}"
    return TorchEncoder(spec.text, backbone, prepare, spec.options.get("pool"), weights)


def _published(spec: Spec) -> dict[str, Any]:
    """timm's configuration of the name; `WeightsError` for an unknown network, an unknown tag, or one without weights."""
    base, dot, tag = spec.path.partition(".")
    if not timm.is_model(base):
        hint = nearest(base, timm.list_models())
        hint = hint if hint.startswith("Did") else "For example timm/resnet50.a1_in1k or timm/vit_small_patch14_dinov2.lvd142m."
        raise WeightsError(f"{spec.text}: timm has no network '{base}'. {hint}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
    if not tags:
        raise WeightsError(f"{spec.text}: timm publishes no weights of '{base}'; random/{base} is the same network untrained")
    if dot and tag not in tags:
        raise WeightsError(f"{spec.text}: '{base}' has no weights '{tag}'. {nearest(tag, tags)}")
    return architecture.published_config(spec.path)


def _create(spec: Spec, config: dict[str, Any], size: int) -> nn.Module:
    options: dict[str, Any] = {}
    if cached := _cached(config):
        # Loading by path asks the hub nothing: with the network down timm would try again for most of a minute.
        options["pretrained_cfg_overlay"] = {"file": str(cached)}
    elif not hub.reachable(constants.ENDPOINT if config.get("hf_hub_id") else str(config.get("url"))):
        raise WeightsError(_unreachable(spec))
    try:
        net = _pretrained(spec.path, options)
        if size != config["input_size"][-1] and is_vit_name(spec.path) and not isinstance(net, VisionTransformer):
            # Plain ViTs take any size through the adapter; the others are built for theirs.
            net = _pretrained(spec.path, options | {"img_size": size})
    except (OSError, HfHubHTTPError) as error:
        raise WeightsError(f"{_unreachable(spec)} ({_first_line(error)})") from None
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{spec.text}: the weights cannot be loaded at {size} pixels ({_first_line(error)})") from None
    return net


def _pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns about its own deprecated aliases
        net: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **options)
    return net


def _cached(config: dict[str, Any]) -> Path | None:
    """The weights in the hub's cache on this machine, if they are there."""
    repository = config.get("hf_hub_id")
    for name in (config.get("hf_hub_filename"), *_FILES):
        if repository and name and (path := hub.cached(repository, name)):
            return path
    return None


def _unreachable(spec: Spec) -> str:
    base = spec.path.partition(".")[0]
    return (
        f"{spec.text}: its weights come once from the model hub, which cannot be reached, and are not in the cache of this "
        f"machine; without a network use efficientnet-lite0, random/{base}, a run folder or file/PATH?arch={base}"
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


FAMILY = Family("timm/NAME", (*preprocess.OPTIONS, "pool"), load)
