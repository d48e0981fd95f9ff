"""`timm/local-dir:PATH`: a folder that `selfsight export --to timm`, or timm's own `save_for_hf`, has written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from selfsight import config
from selfsight.encoders import architecture, checkpoint, preprocess, state
from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.preprocess import Preprocess
from selfsight.encoders.spec import LOCAL, Spec
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import BackboneSettings, is_vit_name, wrap

_FILES = ("model.safetensors", "pytorch_model.bin")


def load(spec: Spec) -> Encoder:
    """The network, its preprocessing and, where selfsight wrote them, its name and pool. Asks no network."""
    folder = Path(spec.path.removeprefix(LOCAL))
    return from_folder(spec, folder, f"timm folder {folder.resolve().name}")


def from_folder(spec: Spec, folder: Path, weights: str) -> Encoder:
    """The same from a folder that the spec does not name itself; `weights` says what it is."""
    path, told = _files(spec, folder)
    prepare = architecture.preprocess_of(spec, _usual(spec, told))
    net = _created(spec, folder, str(told["architecture"]), prepare.size)
    settings, pool = _recorded(spec, told, prepare.size)
    tensors, notes = checkpoint.read_tensors(path, spec.text)
    advice = f"{path.name} and config.json are not of the same network."
    heads = architecture.classifier_of(net)
    fitted = state.fit(tensors, net.state_dict(), spec.text, settings.name, heads=heads, advice=advice)
    net.load_state_dict(fitted.tensors)
    if "selfsight" in told:
        weights = f"{weights}: {told['selfsight'].get('weights', 'unknown')}"
    encoder = TorchEncoder(spec.text, wrap(net, settings), prepare, spec.options.get("pool", pool), weights)
    encoder.read = encoder.read.model_copy(update={"channels": settings.channels})
    encoder.notes += [*notes, *fitted.notes]
    return encoder


def _files(spec: Spec, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of weights and what config.json says."""
    where = folder / "config.json"
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None or not where.is_file():
        raise WeightsError(f"{spec.text}: '{folder}' is no folder of timm; expected one with config.json and {_FILES[0]}")
    try:
        told = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{spec.text}: {where}: is no JSON ({error})") from None
    needed = {"architecture": str, "pretrained_cfg": Mapping}
    for key, kind in needed.items():
        if not isinstance(told, dict) or not isinstance(told.get(key), kind):
            raise WeightsError(f"{spec.text}: {where}: has no '{key}'; expected a config.json that timm wrote")
    if not timm.is_model(told["architecture"]):
        raise WeightsError(f"{spec.text}: {where}: this version of timm has no network '{told['architecture']}'")
    return path, told


def _usual(spec: Spec, told: Mapping[str, Any]) -> Preprocess:
    try:
        return preprocess.from_timm(told["pretrained_cfg"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"{spec.text}: 'pretrained_cfg' in its config.json says no preprocessing ({error!r})") from None


def _created(spec: Spec, folder: Path, name: str, size: int) -> nn.Module:
    """The untrained network as config.json describes it, at another size where only the network can change that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm warns about its own deprecated aliases
            net: nn.Module = timm.create_model(f"{LOCAL}{folder}", num_classes=0)
            built = getattr(getattr(net, "patch_embed", None), "img_size", None)
            if not isinstance(net, VisionTransformer) and is_vit_name(name) and built is not None and built[0] != size:
                net = timm.create_model(f"{LOCAL}{folder}", num_classes=0, img_size=size)
    except (AssertionError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{spec.text}: '{name}' cannot be built as {folder / 'config.json'} says ({reason})") from None
    return net


def _recorded(spec: Spec, told: Mapping[str, Any], size: int) -> tuple[BackboneSettings, str | None]:
    """Our name of the network, by which a training can begin with it, and how it was pooled."""
    ours = told.get("selfsight")
    if ours is None:
        channels = int(told["pretrained_cfg"]["input_size"][0])
        values: Mapping[str, Any] = {"name": told["architecture"], "image_size": size, "channels": channels}
        return config.build(BackboneSettings, values, spec.text), None
    try:
        settings = config.build(BackboneSettings, ours["backbone"], f"{spec.text}, selfsight.backbone of config.json")
        return settings, str(ours["pool"])
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{spec.text}: 'selfsight' in its config.json is not that of an export ({error!r})") from None
