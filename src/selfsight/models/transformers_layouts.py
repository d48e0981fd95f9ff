"""The networks that a config.json of Hugging Face's transformers describes, built as timm's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from selfsight.errors import ConfigError, WeightsError
from selfsight.models.backbones import Backbone, BackboneSettings, build_backbone
from selfsight.models.published import Told
from selfsight.models.transformers_names import LAYOUTS

_FAMILIES = {"vit": "dino", "dinov2": "dinov2", "dinov2_with_registers": "dinov2", "dinov3_vit": "dinov3"}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 16, "layer_norm_eps": 1e-12},
    "dinov2": {"patch_size": 14, "layer_norm_eps": 1e-6},
    "dinov2_with_registers": {"patch_size": 14, "layer_norm_eps": 1e-6, "num_register_tokens": 4},
    "dinov3_vit": {"patch_size": 16, "layer_norm_eps": 1e-5, "num_register_tokens": 0},
}
"""What older files leave to the library."""
_SHARED: dict[str, Any] = {
    "qkv_bias": True, "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True,
    "rope_theta": 100.0, "apply_layernorm": True,
}  # fmt: skip
"""What these networks have in common, whatever their size."""


class Described(NamedTuple):
    """A network as transformers describes it."""

    model_type: str
    settings: BackboneSettings
    epsilon: float


def described(config: Mapping[str, Any], where: str) -> Described:
    """`WeightsError`, which begins with `where`, for a layout or a setting that is not known here."""
    model_type = str(config.get("model_type"))
    if model_type not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise WeightsError(
            f"{where}: a network of type '{model_type}' is not known here; known are {known}. "
            "timm may have it as timm/NAME, and an export to ONNX is taken as onnx/PATH"
        )
    values = {**_DEFAULTS[model_type], **config}
    shared = _SHARED | {"hidden_act": "silu" if model_type == "dinov3_vit" and values.get("use_gated_mlp") else "gelu"}
    for key, known_value in shared.items():
        if key in values and values[key] != known_value:
            raise WeightsError(f"{where}: '{key}' is {values[key]!r}; a {model_type} is known here with {known_value!r}")
    try:
        settings, epsilon = _settings(model_type, values), float(values["layer_norm_eps"])
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"{where}: its config.json describes no {model_type} ({error})") from None
    return Described(model_type, settings, epsilon)


def build(found: Described, where: str) -> Backbone:
    """The untrained network; a `WeightsError` where there is none of these sizes."""
    try:
        backbone = build_backbone(found.settings)
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}") from None
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = found.epsilon
    return backbone


def _settings(model_type: str, values: Mapping[str, Any]) -> BackboneSettings:
    width, depth, patch = (int(values[key]) for key in ("hidden_size", "num_hidden_layers", "patch_size"))
    registers = int(values.get("num_register_tokens", 0))
    gated = bool(values.get("use_swiglu_ffn") or values.get("use_gated_mlp"))
    told = Told(_FAMILIES[model_type], width, depth, patch, gated, registers, model_type != "vit", 0)
    heads = int(values["num_attention_heads"])
    common = {"image_size": int(values.get("image_size", 224)), "channels": int(values.get("num_channels", 3))}
    if told.name is not None and (gated or heads * 64 == width):
        return BackboneSettings(name=told.name, **common)
    if gated:
        raise ValueError(f"width {width} and depth {depth} with a gated MLP are none of those published")
    return BackboneSettings(
        name=f"vit_w{width}_d{depth}_p{patch}_h{heads}",
        registers=registers,
        layer_scale=1.0 if model_type.startswith("dinov2") else None,
        rope=model_type == "dinov3_vit",
        **common,
    )
