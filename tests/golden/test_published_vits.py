"""The networks of DINOv2 and DINOv3, from the published state dicts, give the published code's tokens."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch
from torch import Tensor

from golden.arrays import Golden, golden
from selfsight.errors import WeightsError
from selfsight.models.backbones import Backbone, BackboneSettings, RotaryViT, Tokens, ViT, wrap
from selfsight.models.positions import interpolate_published
from selfsight.models.published import family_of, translated

BASES = {"vit_dinov2": "vit_small_patch14_reg4_dinov2", "vit_dinov3": "vit_small_patch16_dinov3_qkvb"}
FAMILIES = sorted(BASES)
REGISTERS = {"vit_dinov2": "x_norm_regtokens", "vit_dinov3": "x_storage_tokens"}


def assert_near(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def untrained(name: str) -> Backbone:
    """timm's own network of the family, at the stored sizes."""
    c = golden(name).config
    sizes = {key: c[key] for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
    return wrap(timm.create_model(BASES[name], num_classes=0, **sizes), BackboneSettings(image_size=c["img_size"])).eval()


@cache
def network(name: str) -> tuple[Golden, Backbone, Tensor]:
    """With the stored weights; the last is the mask token."""
    g, backbone = golden(name), untrained(name)
    found = translated(g.under("param."), backbone.net, name)
    backbone.net.load_state_dict(found.tensors)
    assert found.mask_token is not None
    return g, backbone, found.mask_token


def sizes(g: Golden) -> list[str]:
    return [f"{height}x{width}" for height, width in g.config["inputs"]]


def assert_tokens(tokens: Tokens, g: Golden, name: str, which: str) -> None:
    assert tokens.cls is not None
    assert tokens.registers is not None
    assert_near(tokens.cls, g.tensor(f"x_norm_clstoken.{which}"))
    assert_near(tokens.registers, g.tensor(f"{REGISTERS[name]}.{which}"))
    assert_near(tokens.patches, g.tensor(f"x_norm_patchtokens.{which}"))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_names_tell_the_family(name: str) -> None:
    assert family_of(golden(name).under("param.")) == name.removeprefix("vit_")
    assert family_of(golden("vit_dino").under("param.")) == "dino"


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_tokens_are_the_published_ones_at_every_size(name: str) -> None:
    g, backbone, _ = network(name)
    assert isinstance(backbone, {"vit_dinov2": ViT, "vit_dinov3": RotaryViT}[name])
    for size in sizes(g):
        assert_tokens(backbone(g.tensor(f"x.{size}")), g, name, size)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_hidden_patches_are_replaced_as_published(name: str) -> None:
    g, backbone, mask_token = network(name)
    x, hidden = g.tensor("x.masked"), g.tensor("masks.masked").bool()
    assert_tokens(backbone(x, hidden, mask_token), g, name, "masked")
    assert not torch.allclose(backbone(x).patches, g.tensor("x_norm_patchtokens.masked"), atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_last_blocks_give_the_published_tokens(name: str) -> None:
    g, backbone, _ = network(name)
    assert isinstance(backbone, ViT | RotaryViT)
    stored = [size for size in sizes(g) if f"inter_cls.{size}" in g.arrays]
    assert len(stored) == 2
    for size in stored:
        found = backbone.intermediate(g.tensor(f"x.{size}"), g.config["n_intermediate"])
        assert_near(torch.stack([tokens.cls for tokens in found]), g.tensor(f"inter_cls.{size}"))
        assert_near(torch.stack([tokens.patches for tokens in found]), g.tensor(f"inter_patch.{size}"))
        if f"inter_storage.{size}" in g.arrays:
            assert_near(torch.stack([tokens.registers for tokens in found]), g.tensor(f"inter_storage.{size}"))


@torch.no_grad()
def test_position_tables_of_dinov2_with_and_without_registers() -> None:
    """timm's network has the position of CLS in CLS itself."""
    g, backbone, _ = network("vit_dinov2")
    assert isinstance(backbone, ViT)
    for size, (height, width) in zip(sizes(g), g.config["inputs"], strict=True):
        grid = (height // g.config["patch_size"], width // g.config["patch_size"])
        assert_near(backbone.position_embedding(grid), g.tensor(f"posenc.{size}")[:, 1:], 1e-5)
        assert_near(interpolate_published(g.tensor("param.pos_embed"), 1, grid), g.tensor(f"posenc_noreg.{size}"), 1e-5)
    assert_near(backbone.net.cls_token, g.tensor("param.cls_token") + g.tensor("param.pos_embed")[:, :1], 0)


@torch.no_grad()
def test_rotary_tables_of_dinov3() -> None:
    g, backbone, _ = network("vit_dinov3")
    assert_near(backbone.net.rope.periods, g.tensor("param.rope_embed.periods"), 1e-6)
    for size, (height, width) in zip(sizes(g), g.config["inputs"], strict=True):
        grid = [height // g.config["patch_size"], width // g.config["patch_size"]]
        sine, cosine = backbone.net.rope.get_embed(grid).chunk(2, dim=-1)
        assert_near(sine, g.tensor(f"rope_sin.{size}"), 1e-5)
        assert_near(cosine, g.tensor(f"rope_cos.{size}"), 1e-5)


def test_a_key_bias_that_is_masked_plays_no_part() -> None:
    """The stored one is not zero."""
    g = golden("vit_dinov3")
    keys = g.tensor("param.blocks.0.attn.qkv.bias").chunk(3)[1]
    assert keys.abs().max() > 0.1
    assert g.tensor("param.blocks.0.attn.qkv.bias_mask").chunk(3)[1].abs().max() == 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm.weight": None}, "1 tensors are missing: norm.weight"),
        ({"head.weight": torch.zeros(2)}, "1 tensors are unexpected: head.weight"),
        ({"patch_embed.proj.bias": torch.zeros(7)}, r"'patch_embed.proj.bias' is \(7,\) in the file, \(48,\) in the network"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(name: str, change: dict[str, Tensor | None], said: str) -> None:
    found = {key: tensor for key, tensor in (golden(name).under("param.") | change).items() if tensor is not None}
    with pytest.raises(WeightsError, match=f"^weights.pth: weights of {name.removeprefix('vit_')} for another network; .*{said}"):
        translated(found, untrained(name).net, "weights.pth")


def test_rotary_positions_of_another_period_are_refused() -> None:
    found = golden("vit_dinov3").under("param.")
    found["rope_embed.periods"] = found["rope_embed.periods"] * 2
    with pytest.raises(WeightsError, match=r"rope_embed\.periods"):
        translated(found, untrained("vit_dinov3").net, "weights.pth")


def test_weights_in_chunks_are_those_without() -> None:
    """A sharded training of DINOv2 names block 2 `blocks.0.2`."""
    found, net = golden("vit_dinov2").under("param."), untrained("vit_dinov2").net
    chunked = {key.replace("blocks.", "blocks.0."): tensor for key, tensor in found.items()}
    ours, theirs = translated(found, net, "one"), translated(chunked, net, "two")
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(tensor, theirs.tensors[key]) for key, tensor in ours.tensors.items())
