"""Files in the layouts of the published code, loaded as encoders, give the published code's features and attention."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from golden.arrays import Golden, golden
from selfsight.encoders import TorchEncoder, load_encoder
from selfsight.errors import WeightsError
from selfsight.models.backbones import RotaryViT, ViT

FAMILIES = ["vit_dino", "vit_dinov2", "vit_dinov3"]
LAYOUTS = ["backbone", "teacher"]


def checkpoint_of(tensors: dict[str, Tensor], layout: str) -> dict[str, Any]:
    """As `main_dino.py` and DINOv2's trainer save them: the student of one wrapped once more, heads beside, and the arguments."""
    if layout == "backbone":
        return tensors
    teacher = {f"backbone.{key}": tensor for key, tensor in tensors.items()}
    student = {f"module.backbone.{key}": torch.zeros_like(tensor) for key, tensor in tensors.items()}
    heads = {f"{name}.mlp.0.weight": torch.zeros(2, 2) for name in ("head", "dino_head", "ibot_head")}
    return {
        "student": student | {f"module.{key}": tensor for key, tensor in heads.items()},
        "teacher": teacher | heads,
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def sized(config: dict[str, Any]) -> str:
    return f"vit_w{config['embed_dim']}_d{config['depth']}_p{config['patch_size']}_h{config['num_heads']}"


def loaded(
    folder: Path, name: str, options: str = "", layout: str = "backbone", change: Any = None
) -> tuple[Golden, TorchEncoder]:
    g = golden(name)
    tensors = g.under("param.")
    path = folder / f"{name}.pth"
    torch.save(checkpoint_of(tensors if change is None else change(tensors), layout), path)
    encoder = load_encoder(f"file/{path}?arch={sized(g.config)}{options}")
    assert isinstance(encoder, TorchEncoder)
    return g, encoder


def sizes(g: Golden) -> list[str]:
    return [f"{height}x{width}" for height, width in g.config["inputs"]]


def near(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def cls_of(g: Golden, size: str) -> Tensor:
    name = "x_norm_clstoken" if f"x_norm_clstoken.{size}" in g.arrays else "cls"
    return g.tensor(f"{name}.{size}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_features_at_every_size(tmp_path: Path, name: str, layout: str) -> None:
    for size in sizes(golden(name)):
        g, encoder = loaded(tmp_path, name, f"&size={size}", layout)
        assert encoder.prepare.shape == tuple(map(int, size.split("x")))
        near(encoder.encode(g.tensor(f"x.{size}")), cls_of(g, size))
        heads = [note for note in encoder.notes if note.startswith("head set aside")]
        assert len(heads) == (layout == "teacher")


@pytest.mark.parametrize("name", ["vit_dinov2", "vit_dinov3"])
def test_dense_pools_hold_the_published_tokens(tmp_path: Path, name: str) -> None:
    size = sizes(golden(name))[0]
    g, patches = loaded(tmp_path, name, f"&pool=patches&size={size}")
    _, registers = loaded(tmp_path, name, f"&pool=registers&size={size}")
    stored = {"vit_dinov2": "x_norm_regtokens", "vit_dinov3": "x_storage_tokens"}[name]
    for encoder, array in ((patches, "x_norm_patchtokens"), (registers, stored)):
        images, expected = g.tensor(f"x.{size}"), g.tensor(f"{array}.{size}")
        assert encoder.feature_shape == expected.shape[1:]
        near(encoder.encode(images).unflatten(1, encoder.feature_shape), expected)


def test_last_attention_of_dino_at_every_size(tmp_path: Path) -> None:
    g, encoder = loaded(tmp_path, "vit_dino")
    assert isinstance(encoder.backbone, ViT)
    for size in sizes(g):
        with torch.no_grad():
            near(encoder.backbone.last_attention(g.tensor(f"x.{size}")), g.tensor(f"attn.{size}"), 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_last_attention_is_what_the_last_block_does(tmp_path: Path, name: str) -> None:
    """Values mixed by it, projected and added, are the block's own residual."""
    g, encoder = loaded(tmp_path, name)
    backbone = encoder.backbone
    assert isinstance(backbone, ViT | RotaryViT)
    images = g.tensor(f"x.{sizes(g)[0]}")
    block = backbone.net.blocks[-1]
    seen: list[Tensor] = []
    handle = block.attn.register_forward_hook(lambda module, args, out: seen.extend([args[0], out]))
    backbone(images)
    handle.remove()
    x, out = seen
    bias = block.attn.qkv.bias
    if bias is None:
        bias = torch.cat((block.attn.q_bias, block.attn.k_bias, block.attn.v_bias))
    width = x.shape[-1]
    values = (x @ block.attn.qkv.weight[2 * width :].T + bias[2 * width :]).unflatten(-1, (block.attn.num_heads, -1))
    attention = backbone.last_attention(images)
    near(attention.sum(-1), torch.ones_like(attention[..., 0]), 1e-5)
    near(block.attn.proj((attention @ values.transpose(1, 2)).transpose(1, 2).flatten(2)), out, 1e-5)


def test_the_student_where_it_is_asked_for(tmp_path: Path) -> None:
    _, encoder = loaded(tmp_path, "vit_dino", "&part=student", "teacher")
    assert not any(tensor.any() for tensor in encoder.backbone.net.state_dict().values())


def test_the_published_evaluation_prepares_the_pictures(tmp_path: Path) -> None:
    _, encoder = loaded(tmp_path, "vit_dinov2")
    assert (encoder.prepare.interpolation, encoder.prepare.size, encoder.prepare.crop_pct) == ("bicubic", 56, 1.0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("key", "tensor", "said"),
    [
        ("norm.weight", None, "1 tensors .*missing: norm.weight"),
        ("criterion.weight", torch.zeros(2), "1 tensors are unexpected: criterion.weight"),
        ("patch_embed.proj.bias", torch.zeros(7), r"patch_embed.proj.bias'.* \(7,\) in the file, \(48,\)"),
    ],
)
def test_nothing_is_loaded_in_part(tmp_path: Path, name: str, key: str, tensor: Tensor | None, said: str) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: t for k, t in (tensors | {key: tensor}).items() if t is not None}

    with pytest.raises(WeightsError, match=said):
        loaded(tmp_path, name, change=change)
