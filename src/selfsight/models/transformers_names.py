"""Networks of Hugging Face's transformers under timm's names, and timm's under theirs.

One table a layout (`model_type` of a config.json), read in both directions: timm's name of a tensor, and what it is called in
the files of transformers from 4.56 on, which are those of the model hub. `#` stands for the number of a block and `*` for
weight or bias. Where several names stand for one tensor, it holds them one below the other: timm's fused queries, keys, values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfsight.errors import WeightsError

Table = dict[str, tuple[str, ...]]

_SHOWN = 8
_MASK = "embeddings.mask_token"
_HEADS = ("pooler.", "classifier.")

_EMBEDDING: Table = {
    "cls_token": ("embeddings.cls_token",),
    "pos_embed": ("embeddings.position_embeddings",),
    "patch_embed.proj.*": ("embeddings.patch_embeddings.projection.*",),
    "norm.*": ("layernorm.*",),
}
_ATTENTION: Table = {
    "blocks.#.attn.qkv.*": tuple(f"encoder.layer.#.attention.attention.{part}.*" for part in ("query", "key", "value")),
    "blocks.#.attn.proj.*": ("encoder.layer.#.attention.output.dense.*",),
}
_DINOV2: Table = _EMBEDDING | _ATTENTION | {
    "blocks.#.norm1.*": ("encoder.layer.#.norm1.*",),
    "blocks.#.norm2.*": ("encoder.layer.#.norm2.*",),
    "blocks.#.ls1.gamma": ("encoder.layer.#.layer_scale1.lambda1",),
    "blocks.#.ls2.gamma": ("encoder.layer.#.layer_scale2.lambda1",),
    "blocks.#.mlp.fc1.*": ("encoder.layer.#.mlp.fc1.*",),
    "blocks.#.mlp.fc2.*": ("encoder.layer.#.mlp.fc2.*",),
}  # fmt: skip
LAYOUTS: dict[str, Table] = {
    "vit": _EMBEDDING | _ATTENTION | {
        "blocks.#.norm1.*": ("encoder.layer.#.layernorm_before.*",),
        "blocks.#.norm2.*": ("encoder.layer.#.layernorm_after.*",),
        "blocks.#.mlp.fc1.*": ("encoder.layer.#.intermediate.dense.*",),
        "blocks.#.mlp.fc2.*": ("encoder.layer.#.output.dense.*",),
    },
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2 | {"reg_token": ("embeddings.register_tokens",)},
    "dinov3_vit": {
        "cls_token": ("embeddings.cls_token",),
        "reg_token": ("embeddings.register_tokens",),
        "patch_embed.proj.*": ("embeddings.patch_embeddings.*",),
        "norm.*": ("norm.*",),
        "blocks.#.norm1.*": ("layer.#.norm1.*",),
        "blocks.#.norm2.*": ("layer.#.norm2.*",),
        "blocks.#.attn.qkv.weight": tuple(f"layer.#.attention.{part}_proj.weight" for part in "qkv"),
        "blocks.#.attn.q_bias": ("layer.#.attention.q_proj.bias",),
        "blocks.#.attn.v_bias": ("layer.#.attention.v_proj.bias",),
        "blocks.#.attn.proj.*": ("layer.#.attention.o_proj.*",),
        "blocks.#.gamma_1": ("layer.#.layer_scale1.lambda1",),
        "blocks.#.gamma_2": ("layer.#.layer_scale2.lambda1",),
        "blocks.#.mlp.fc1_g.*": ("layer.#.mlp.gate_proj.*",),
        "blocks.#.mlp.fc1_x.*": ("layer.#.mlp.up_proj.*",),
        "blocks.#.mlp.fc1.*": ("layer.#.mlp.up_proj.*",),
        "blocks.#.mlp.fc2.*": ("layer.#.mlp.down_proj.*",),
    },
}  # fmt: skip
_GATED: Table = {
    "blocks.#.mlp.fc1.*": ("encoder.layer.#.mlp.weights_in.*",),
    "blocks.#.mlp.fc2.*": ("encoder.layer.#.mlp.weights_out.*",),
}
"""DINOv2's giant, where gate and value are one matrix."""

_NEUTRAL: dict[str, float] = {
    "encoder.layer.#.layer_scale1.lambda1": 1.0,
    "encoder.layer.#.layer_scale2.lambda1": 1.0,
    "layer.#.attention.q_proj.bias": 0.0,
    "layer.#.attention.k_proj.bias": 0.0,
    "layer.#.attention.v_proj.bias": 0.0,
    "embeddings.register_tokens": 0.0,  # none at all, [1, 0, D]
}
"""What a layout may hold and a network of timm need not have: with these values it changes nothing."""


class Translated(NamedTuple):
    """The network's state dict, the token that stood for hidden patches [1, D] (None where there is none), and the names of
    the heads that were set aside."""

    tensors: dict[str, Tensor]
    mask_token: Tensor | None
    aside: list[str]


def to_timm(model_type: str, found: Mapping[str, Tensor], net: nn.Module, where: str) -> Translated:
    """Tensors of a transformers file of this `model_type` for timm's network `net`, which has no classifier.

    `WeightsError`, which begins with `where`, lists what is missing, unexpected or of another shape.
    """
    own = net.state_dict()
    table = _table(model_type, own, where)
    found = {name.removeprefix(f"{model_type}."): tensor for name, tensor in found.items()}
    theirs = {name: _renamed(name, table) or (name,) for name in own}
    wanted = {name for names in theirs.values() for name in names}
    aside = [name for name in found if name.startswith(_HEADS)]
    missing = sorted(wanted - found.keys())
    unexpected = [name for name in found if name not in wanted | {_MASK, *aside} and not _changes_nothing(name, found[name])]
    _refuse(missing, unexpected, model_type, where)
    tensors = {name: torch.cat([found[part] for part in parts]) for name, parts in theirs.items()}
    if "pos_embed" in own and tensors["pos_embed"].shape[1] == own["pos_embed"].shape[1] + 1:
        # There CLS has no position of its own; registers never had one.
        positions = tensors["pos_embed"]
        tensors |= {"cls_token": tensors["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    _check_shapes(tensors, own, model_type, where)
    mask = found.get(_MASK)
    return Translated(tensors, None if mask is None else mask.reshape(1, -1), aside)


def from_timm(model_type: str, own: Mapping[str, Tensor], where: str, mask_token: Tensor | None = None) -> dict[str, Tensor]:
    """`own`, the state dict of a network of timm without classifier, as a file of transformers of this `model_type` has it.

    Positions are those of a square grid. `mask_token` [1, D] is zero where none is given. `WeightsError`, which begins with
    `where`, for a network that has other tensors than the layout.
    """
    table = _table(model_type, own, where)
    unknown = [name for name in own if not _renamed(name, table)]
    if unknown:
        raise WeightsError(f"{where}: {model_type} has no place for {len(unknown)} tensors: {_listed(unknown)}")
    if "pos_embed" in own:
        own = {**own, "pos_embed": _with_position_of_cls(own["pos_embed"], model_type, where)}
    out = _demanded(model_type, own, mask_token)
    for name, tensor in own.items():
        names = _renamed(name, table)
        out |= dict(zip(names, tensor.chunk(len(names)), strict=True))
    return {name: tensor.contiguous() for name, tensor in out.items()}


def _with_position_of_cls(positions: Tensor, model_type: str, where: str) -> Tensor:
    """Positions [1, 1 + g*g, D]: transformers gives one to CLS, which is zero where timm gives none."""
    rows = positions.shape[1]
    if math.isqrt(rows) ** 2 == rows:
        return torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    if math.isqrt(rows - 1) ** 2 != rows - 1:
        raise WeightsError(f"{where}: {model_type} has places for the positions of a square and CLS, not for {rows}")
    return positions


def _demanded(model_type: str, own: Mapping[str, Tensor], mask_token: Tensor | None) -> dict[str, Tensor]:
    """What the layout always holds, with the values that change nothing."""
    if model_type == "vit":
        return {}
    width = own["cls_token"].shape[-1]
    mask = torch.zeros(1, width) if mask_token is None else mask_token.reshape(1, width)
    if model_type == "dinov3_vit":
        return {_MASK: mask[None], "embeddings.register_tokens": torch.zeros(1, 0, width)}
    blocks = sorted({found[1] for name in own if (found := re.match(r"blocks\.(\d+)\.", name))})
    scales = [name.replace("#", block) for name in _NEUTRAL if "lambda1" in name for block in blocks]
    return {_MASK: mask} | {name: torch.ones(width) for name in scales}


def _table(model_type: str, own: Mapping[str, Tensor], where: str) -> Table:
    if model_type not in LAYOUTS:
        raise WeightsError(f"{where}: '{model_type}' is no layout that is known here; known are {', '.join(LAYOUTS)}")
    into, out_of = own.get("blocks.0.mlp.fc1.weight"), own.get("blocks.0.mlp.fc2.weight")
    packed = into is not None and out_of is not None and into.shape[0] == 2 * out_of.shape[1]
    return LAYOUTS[model_type] | (_GATED if packed and model_type.startswith("dinov2") else {})


def _renamed(name: str, table: Table) -> tuple[str, ...]:
    """What transformers calls timm's `name`; empty where the layout has no place for it."""
    for ours, theirs in table.items():
        if found := _pattern(ours).fullmatch(name):
            marks = dict(zip(_marks(ours), found.groups(), strict=True))
            return tuple("".join(marks.get(letter, letter) for letter in each) for each in theirs)
    return ()


def _pattern(form: str) -> re.Pattern[str]:
    return re.compile(re.escape(form).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)"))


def _marks(form: str) -> Iterator[str]:
    return (letter for letter in form if letter in "#*")


def _changes_nothing(name: str, tensor: Tensor) -> bool:
    return any(_pattern(form).fullmatch(name) and bool((tensor == value).all()) for form, value in _NEUTRAL.items())


def _refuse(missing: list[str], unexpected: list[str], model_type: str, where: str) -> None:
    kinds = (("missing", missing), ("unexpected", unexpected))
    said = [f"{len(names)} tensors are {kind}: {_listed(names)}" for kind, names in kinds if names]
    if said:
        raise WeightsError(f"{where}: weights of {model_type} for another network; {'; '.join(said)}")


def _check_shapes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], model_type: str, where: str) -> None:
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(own[name].shape)} in the network"
            raise WeightsError(f"{where}: weights of {model_type} for another network; '{name}' is {shapes}")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
