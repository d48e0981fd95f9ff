"""`--to transformers`: a folder for `AutoModel.from_pretrained(PATH)`, in the one of its layouts that fits exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from selfsight.encoders.base import TorchEncoder
from selfsight.encoders.export.base import CONFIG, WEIGHTS, Outputs, Reader, Target, baked, refuse_what_folders_lack
from selfsight.errors import WeightsError
from selfsight.models.backbones import RotaryViT, ViT
from selfsight.models.transformers_names import from_timm

_FITS = (
    "ViTModel, Dinov2Model, Dinov2WithRegistersModel and DINOv3ViTModel, for plain ViTs with CLS, those with layer scale or "
    "registers, and rotary ones"
)
_CLASSES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
_RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""


def write(encoder: TorchEncoder, place: Path) -> list[str]:
    refuse_what_folders_lack(encoder, "transformers")
    kind = _layout(encoder)
    tensors = from_timm(kind, baked(encoder), encoder.spec)
    config = {"architectures": [_CLASSES[kind]], "model_type": kind, **_sizes(encoder, kind)}
    if kind == "vit":
        # Its AutoModel has a layer upon CLS; this one leaves CLS as it is, where transformers would draw one at random.
        width = encoder.backbone.width
        tensors |= {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
        config["pooler_act"] = "linear"
    (place / CONFIG).write_text(json.dumps(config | {"dtype": "float32"}, indent=1) + "\n", encoding="utf-8")
    (place / "preprocessor_config.json").write_text(json.dumps(_preprocessor(encoder), indent=1) + "\n", encoding="utf-8")
    save_file(tensors, place / WEIGHTS, {"format": "pt"})
    if encoder.pool == "cls":
        return []
    return [f"transformers pools CLS alone: for '{encoder.pool}' take it from last_hidden_state"]


def _layout(encoder: TorchEncoder) -> str:
    """The `model_type`; `WeightsError` for a network that none of them holds."""
    net: Any = encoder.backbone.net
    if encoder.backbone.settings.name.endswith("_conv"):
        raise _no_layout(encoder, "it has a convolutional stem")
    if isinstance(encoder.backbone, RotaryViT):
        if net.pos_embed is not None or type(net.rope).__name__ != "RotaryEmbeddingDinoV3":
            raise _no_layout(encoder, "its positions are not those of DINOv3")
        return "dinov3_vit"
    if not isinstance(encoder.backbone, ViT):
        raise _no_layout(encoder, f"it is of timm's class {type(net).__name__}")
    if net.cls_token is None or net.pos_embed is None:
        raise _no_layout(encoder, "it has no CLS or no table of positions")
    if not isinstance(net.norm, nn.LayerNorm):
        raise _no_layout(encoder, "it has no norm after its last block")
    if net.reg_token is not None:
        return "dinov2_with_registers"
    return "dinov2" if hasattr(net.blocks[0].ls1, "gamma") else "vit"


def _no_layout(encoder: TorchEncoder, why: str) -> WeightsError:
    return WeightsError(
        f"{encoder.spec}: no layout of transformers fits, {why}; there are {_FITS}. Export it --to timm or --to onnx"
    )


def _sizes(encoder: TorchEncoder, kind: str) -> dict[str, Any]:
    """What config.json says of the network."""
    net: Any = encoder.backbone.net
    block, gated = net.blocks[0], not hasattr(net.blocks[0].mlp, "act") or isinstance(net.blocks[0].mlp.act, nn.SiLU)
    width, hidden = encoder.backbone.width, int(block.mlp.fc2.in_features)
    common = {
        "hidden_size": width,
        "num_hidden_layers": encoder.backbone.depth,
        "num_attention_heads": int(block.attn.num_heads),
        "layer_norm_eps": float(net.norm.eps),
        "image_size": encoder.input_size,
        "patch_size": encoder.backbone.patch_size,
        "num_channels": encoder.backbone.settings.channels,
    }
    registers = 0 if net.reg_token is None else int(net.reg_token.shape[1])
    if kind == "dinov3_vit":
        bias = block.attn.q_bias is not None
        biases = {"query_bias": bias, "key_bias": False, "value_bias": bias}
        gate = {"use_gated_mlp": gated, "hidden_act": "silu" if gated else "gelu", "intermediate_size": hidden}
        theta = float(net.rope.temperature)
        return common | biases | gate | {"num_register_tokens": registers, "rope_theta": theta, "pos_embed_rescale": None}
    common["qkv_bias"] = block.attn.qkv.bias is not None
    if kind == "vit":
        return common | {"intermediate_size": hidden}
    if kind == "dinov2_with_registers":
        common["num_register_tokens"] = registers
    return common | {"mlp_ratio": _ratio(encoder, hidden, gated), "use_swiglu_ffn": gated}


def _ratio(encoder: TorchEncoder, hidden: int, gated: bool) -> int:
    """The whole number from which transformers makes the width of the MLP of DINOv2."""
    width = encoder.backbone.width
    ratio = round(hidden * 3 / 2 / width) if gated else round(hidden / width)
    made = (int(width * ratio * 2 / 3) + 7) // 8 * 8 if gated else width * ratio
    if made != hidden:
        raise _no_layout(encoder, f"its MLP of {hidden} is no whole multiple of its width, {width}")
    return ratio


def _preprocessor(encoder: TorchEncoder) -> dict[str, Any]:
    """Our preprocessing as transformers can say it: it cuts the middle of an odd rest half a pixel elsewhere."""
    prepare = encoder.prepare
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": math.floor(prepare.size / prepare.crop_pct)},
        "resample": _RESAMPLE[prepare.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": prepare.size, "width": prepare.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(prepare.mean),
        "image_std": list(prepare.std),
    }


def read(place: Path, encoder: TorchEncoder) -> Reader:
    """transformers' own network from the folder. `ImportError` where transformers is not installed."""
    from transformers import AutoModel
    from transformers.utils import logging

    bar, loud = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        net = AutoModel.from_pretrained(place).eval()
    finally:
        logging.set_verbosity(loud)
        if bar:
            logging.enable_progress_bar()

    def outputs(images: Tensor) -> Outputs:
        with torch.no_grad():
            out = net(images)
        tokens, registers = out.last_hidden_state, getattr(net.config, "num_register_tokens", 0)
        named = {"cls": tokens[:, 0], "patches": tokens[:, 1 + registers :]}
        if registers:
            named["registers"] = tokens[:, 1 : 1 + registers]
        return named | ({"features": out.pooler_output} if encoder.pool == "cls" else {})

    return outputs


def sizes(place: Path, encoder: TorchEncoder) -> list[tuple[int, int]]:
    return [encoder.prepare.shape]


def usage(place: Path, encoder: TorchEncoder) -> str:
    return f"""from PIL import Image
from transformers import AutoImageProcessor, AutoModel

prepare = AutoImageProcessor.from_pretrained("{place}")
net = AutoModel.from_pretrained("{place}").eval()
seen = net(**prepare(Image.open("picture.jpg").convert("RGB"), return_tensors="pt"))
cls, tokens = seen.pooler_output, seen.last_hidden_state"""


TARGET = Target("transformers", True, write, read, sizes, usage)
