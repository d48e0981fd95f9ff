"""Official state dicts of DINO, DINOv2 and DINOv3 under timm's names, and what network they are of.

One table a family: patterns of the official names and what they are called here. Whatever is missing or left over is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfsight.errors import WeightsError

_SHOWN = 8
_MASK = "mask_token"

_REGISTERS = ("register_tokens", "storage_tokens", "reg_token")
PARTS = frozenset(("cls_token", "pos_embed", "patch_embed", "blocks", "norm", "rope_embed", _MASK, *_REGISTERS))
"""Modules and parameters that published backbones are made of; what stands beside them is a head."""

_NAMES: dict[str, list[tuple[str, str]]] = {
    "dino": [],
    "dinov2": [
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # in chunks, as a sharded training has them
        (r"^register_tokens$", "reg_token"),
        (r"\.mlp\.w12\.", ".mlp.fc1."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
    ],
    "dinov3": [
        (r"^storage_tokens$", "reg_token"),
        (r"\.ls([12])\.gamma$", r".gamma_\1"),
        (r"\.mlp\.w1\.", ".mlp.fc1_g."),
        (r"\.mlp\.w2\.", ".mlp.fc1_x."),
        (r"\.mlp\.w3\.", ".mlp.fc2."),
    ],
}


_NETWORKS: dict[str, dict[tuple[int, int, int, bool], str]] = {
    "dino": {
        (192, 12, 16, False): "vit_tiny_patch16_224",
        (384, 12, 16, False): "vit_small_patch16_224",
        (384, 12, 8, False): "vit_small_patch8_224",
        (768, 12, 16, False): "vit_base_patch16_224",
        (768, 12, 8, False): "vit_base_patch8_224",
    },
    "dinov2": {
        (384, 12, 14, False): "vit_small_patch14_dinov2",
        (768, 12, 14, False): "vit_base_patch14_dinov2",
        (1024, 24, 14, False): "vit_large_patch14_dinov2",
        (1536, 40, 14, True): "vit_giant_patch14_dinov2",
    },
    "dinov3": {
        (384, 12, 16, False): "vit_small_patch16_dinov3_qkvb",
        (384, 12, 16, True): "vit_small_plus_patch16_dinov3_qkvb",
        (768, 12, 16, False): "vit_base_patch16_dinov3_qkvb",
        (1024, 24, 16, False): "vit_large_patch16_dinov3_qkvb",
        (1280, 32, 16, True): "vit_huge_plus_patch16_dinov3_qkvb",
        (4096, 40, 16, True): "vit_7b_patch16_dinov3",
    },
}
"""timm's names of the published networks by width, depth, patch and whether the MLP is gated: a file does not tell the heads."""


class Told(NamedTuple):
    """What the tensors of a ViT say of it. `positions` are the rows of its table of positions, 0 where it has none."""

    family: str
    width: int
    depth: int
    patch: int
    gated: bool
    registers: int
    layer_scale: bool
    positions: int

    @property
    def name(self) -> str | None:
        """timm's name, for networks that were published."""
        name = _NETWORKS[self.family].get((self.width, self.depth, self.patch, self.gated))
        if name is None or self.family != "dinov2" or not self.registers:
            return name
        return name.replace("_dinov2", f"_reg{self.registers}_dinov2")


class Published(NamedTuple):
    """The network's state dict, and the token that stood for hidden patches [1, D] (None in DINO)."""

    tensors: dict[str, Tensor]
    mask_token: Tensor | None


def family_of(found: Mapping[str, Tensor]) -> str:
    """Of which family these official names are."""
    if "storage_tokens" in found or "rope_embed.periods" in found:
        return "dinov3"
    return "dinov2" if _MASK in found else "dino"


def told_by(found: Mapping[str, Tensor]) -> Told | None:
    """The network of official names without prefix; None where they are not those of a ViT."""
    patch, cls = found.get("patch_embed.proj.weight"), found.get("cls_token")
    if patch is None or cls is None or patch.ndim != 4:
        return None
    family = family_of(found)
    blocks = {match[1] for name in found if (match := re.match(r"blocks\.(?:\d+\.)?(\d+)\.", name))}
    registers = next((found[name] for name in _REGISTERS if name in found), None)
    table = found.get("pos_embed")
    return Told(
        family=family,
        width=cls.shape[-1],
        depth=len(blocks),
        patch=patch.shape[-1],
        gated=any(".mlp.w3." in name for name in found),
        registers=0 if registers is None else registers.shape[1],
        layer_scale=any(name.endswith(".ls1.gamma") for name in found),
        positions=0 if table is None else table.shape[1],
    )


def translated(found: Mapping[str, Tensor], net: nn.Module, where: str) -> Published:
    """An official state dict of a backbone for timm's network `net`.

    `WeightsError`, which begins with `where`, lists what is missing, unexpected or of another shape.
    """
    family = family_of(found)
    own = net.state_dict()
    tensors = {_renamed(name, family): tensor for name, tensor in found.items() if name != _MASK}
    if family == "dinov3":
        tensors = _without_key_bias(_without_periods(tensors, net, where), own)
    if family == "dinov2" and "reg_token" in tensors and getattr(net, "no_embed_class", False):
        # There CLS has no position of its own; registers never had one.
        table = tensors["pos_embed"]
        tensors |= {"cls_token": tensors["cls_token"] + table[:, :1], "pos_embed": table[:, 1:]}
    _check(tensors, own, where, family)
    return Published({name: tensors[name] for name in own}, found.get(_MASK))


def _renamed(name: str, family: str) -> str:
    for pattern, ours in _NAMES[family]:
        name = re.sub(pattern, ours, name)
    return name


def _without_key_bias(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries and values have a bias. That of the keys is masked, whatever is stored in its place."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".qkv.bias_mask"):
            continue
        stem = name.removesuffix("qkv.bias")
        if stem == name:
            out[name] = tensor
            continue
        q, _, v = tensor.chunk(3)
        # The distilled networks' biases are all zero, and timm has variants of them without any.
        if f"{stem}q_bias" in own or bool(q.any()) or bool(v.any()):
            out |= {f"{stem}q_bias": q, f"{stem}v_bias": v}
    return out


def _without_periods(tensors: dict[str, Tensor], net: nn.Module, where: str) -> dict[str, Tensor]:
    """The periods of rotary positions are computed here; the stored ones, some in bfloat16, must be the same."""
    periods = tensors.pop("rope_embed.periods", None)
    ours = getattr(getattr(net, "rope", None), "periods", None)
    if (
        periods is not None
        and ours is not None
        and not (periods.shape == ours.shape and torch.allclose(periods.float(), ours.float().cpu(), rtol=1e-2))
    ):
        raise WeightsError(
            f"{where}: rope_embed.periods are {periods.tolist()}, the network has {ours.tolist()}. Is the network right?"
        )
    return tensors


def _check(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, family: str) -> None:
    missing, unexpected = [name for name in own if name not in tensors], [name for name in tensors if name not in own]
    if missing or unexpected:
        kinds = (("missing", missing), ("unexpected", unexpected))
        said = [f"{len(names)} tensors are {kind}: {_listed(names)}" for kind, names in kinds if names]
        raise WeightsError(f"{where}: weights of {family} for another network; {'; '.join(said)}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(own[name].shape)} in the network"
            raise WeightsError(f"{where}: weights of {family} for another network; '{name}' is {shapes}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
