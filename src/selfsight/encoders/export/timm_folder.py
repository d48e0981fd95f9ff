"""`--to timm`: a folder in the layout of timm's hub, for `timm.create_model("local-dir:PATH", pretrained=True)`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selfsight.encoders.base import TorchEncoder
from selfsight.encoders.export.base import CONFIG, WEIGHTS, Outputs, Reader, Target, baked, provenance, refuse_what_folders_lack
from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import ViT
from selfsight.models.names import architecture

_POOLS = {"cls": "token", "mean": "avg"}
_OUTPUTS = {"token": "cls", "avg": "pooled"}
_KEPT = ("fixed_input_size", "first_conv", "classifier")


def write(encoder: TorchEncoder, place: Path) -> list[str]:
    refuse_what_folders_lack(encoder, "timm")
    name, options = _architecture(encoder)
    pooling, _, notes = _pooling(encoder)
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.backbone.width,
        "global_pool": pooling.get("global_pool", str(getattr(encoder.backbone.net, "global_pool", "") or "avg")),
        "model_args": options | pooling,
        "pretrained_cfg": _pretrained(encoder),
        "selfsight": provenance(encoder),
    }
    (place / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(baked(encoder), place / WEIGHTS, {"format": "pt"})
    return notes


def _architecture(encoder: TorchEncoder) -> tuple[str, dict[str, Any]]:
    """timm's name of the network and the arguments in which it differs from timm's own."""
    settings = encoder.backbone.settings
    if settings.name.endswith("_conv"):
        raise WeightsError(
            f"{encoder.spec}: timm has no ViT with a convolutional stem as {settings.name} has; export it --to onnx"
        )
    try:
        name, options = architecture(settings.calm())
    except ConfigError:
        raise WeightsError(f"{encoder.spec}: timm has no network '{settings.name}'; export it --to onnx") from None
    options = {key: value for key, value in options.items() if value is not None}
    if "img_size" in options:
        options["img_size"] = encoder.input_size if isinstance(encoder.backbone, ViT) else settings.image_size
    if settings.channels != 3:
        options["in_chans"] = settings.channels
    return name.split(".")[0], options


def _pooling(encoder: TorchEncoder) -> tuple[dict[str, Any], str | None, list[str]]:
    """timm's arguments by which the network's own output is the encoder's feature where timm has such a pool; which of our
    outputs it then is (None: none of them); and notes."""
    net: Any = encoder.backbone.net
    if not isinstance(getattr(net, "fc_norm", nn.Identity()), nn.Identity):
        return {}, None, ["timm's network norms after pooling: its forward_features, not its output, is what the encoder sees"]
    pool = _POOLS.get(encoder.pool, "token" if getattr(net, "cls_token", None) is not None else "avg")
    told = []
    if encoder.pool not in (*_POOLS, "gap"):
        told = [f"timm has no pool '{encoder.pool}': its network's output is that of pool '{pool}'"]
    if not isinstance(net, VisionTransformer | Eva):
        pool = str(getattr(net, "global_pool", "") or "avg")
        return {}, _OUTPUTS.get(pool, "pooled"), told
    norm = "fc_norm" if isinstance(net, VisionTransformer) else "use_fc_norm"
    return {"global_pool": pool, norm: False}, _OUTPUTS[pool], told


def _pretrained(encoder: TorchEncoder) -> dict[str, Any]:
    prepare, published = encoder.prepare, getattr(encoder.backbone.net, "pretrained_cfg", None) or {}
    return {
        **{key: published[key] for key in _KEPT if published.get(key) is not None},
        "input_size": [encoder.backbone.settings.channels, encoder.input_size, encoder.input_size],
        "interpolation": prepare.interpolation,
        "crop_pct": prepare.crop_pct,
        "crop_mode": "squash" if prepare.aspect == "squash" else "center",
        "mean": list(prepare.mean),
        "std": list(prepare.std),
        "num_classes": 0,
    }


def read(place: Path, encoder: TorchEncoder) -> Reader:
    """timm's own network from the folder: its output, and the tokens of its `forward_features`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns about its own deprecated aliases
        try:
            net = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
        except (RuntimeError, TypeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{encoder.spec}: timm cannot rebuild this network ({reason}); export it --to onnx") from None
    name = _pooling(encoder)[1]

    def outputs(images: Tensor) -> Outputs:
        with torch.no_grad():
            tokens = net.forward_features(images)
            out = {} if name is None else {name: net(images)}
        if tokens.ndim == 3 and hasattr(net, "num_prefix_tokens"):
            out["patches"] = tokens[:, int(net.num_prefix_tokens) :]
        return out

    return outputs


def sizes(place: Path, encoder: TorchEncoder) -> list[tuple[int, int]]:
    return [(encoder.input_size, encoder.input_size)]


def usage(place: Path, encoder: TorchEncoder) -> str:
    return f"""import timm
from PIL import Image

net = timm.create_model("local-dir:{place}", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=net))
features = net(prepare(Image.open("picture.jpg").convert("RGB"))[None])"""


TARGET = Target("timm", True, write, read, sizes, usage)
