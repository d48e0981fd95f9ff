"""Transformers with registers, LayerScale and rotary positions, built small."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfsight.errors import ConfigError
from selfsight.models.backbones import Backbone, BackboneSettings, RotaryViT, ViT, build_backbone
from selfsight.models.positions import interpolate_antialiased

WIDTH, PATCH, SIDE = 64, 8, 32


def small(**settings: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSettings(name="vit_w64_d2_p8", image_size=SIDE, **settings))


def images(height: int = SIDE, width: int = SIDE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rope", [False, True])
def test_registers_stand_beside_the_summary_and_belong_to_no_patch(rope: bool) -> None:
    for count in (0, 4):
        tokens = small(registers=count, rope=rope)(images())
        assert tokens.cls is not None
        assert tokens.cls.shape == (2, WIDTH)
        assert tokens.patches.shape == (2, 16, WIDTH)
        assert (tokens.registers is None) == (count == 0)
        if tokens.registers is not None:
            assert tokens.registers.shape == (2, 4, WIDTH)


@pytest.mark.parametrize("rope", [False, True])
def test_layer_scale_is_what_a_block_adds_at_first(rope: bool) -> None:
    """With a scale of nearly nothing the patches leave the network as they entered it, but for the final norm."""
    backbone = small(layer_scale=1e-8, rope=rope)
    x = images()
    entered = backbone.net.patch_embed(x)
    entered = entered if entered.ndim == 3 else entered.flatten(1, 2)
    if not rope:
        entered = entered + backbone.net.pos_embed[:, 1:]
    torch.testing.assert_close(backbone(x).patches, backbone.net.norm(entered), atol=1e-4, rtol=1e-4)
    scales = [p for name, p in backbone.named_parameters() if ".ls" in name or ".gamma_" in name]
    assert len(scales) == 4
    assert all(torch.equal(p, torch.full_like(p, 1e-8)) for p in scales)


def test_without_a_layer_scale_plain_networks_have_none_and_rotary_ones_that_of_dinov3() -> None:
    assert not [name for name, _ in small().named_parameters() if ".ls" in name]
    scales = [p for name, p in small(rope=True).named_parameters() if ".gamma_" in name]
    assert len(scales) == 4
    assert all(torch.equal(p, torch.full_like(p, 1e-5)) for p in scales)


def test_rotary_positions_tell_places_apart_at_any_size() -> None:
    """The same patch everywhere: without positions all would be alike, which they are at first, all keys being equal. A different
    patch in one corner is seen from near and far."""
    backbone = small(rope=True)
    assert isinstance(backbone, RotaryViT)
    assert not any("pos_embed" in name for name, _ in backbone.named_parameters())
    x = torch.zeros(1, 3, 48, 24)
    x[:, :, :8, :8] = 1.0
    tokens = backbone(x)
    assert tokens.grid == (6, 3)
    others = tokens.patches[0, 1:]
    assert torch.cdist(others, others)[~torch.eye(17, dtype=torch.bool)].min() > 0


@pytest.mark.parametrize("rope", [False, True])
def test_what_is_under_a_hidden_patch_cannot_be_seen(rope: bool) -> None:
    backbone, token = small(rope=rope, registers=2), torch.randn(1, WIDTH)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 5] = True  # row 1, column 1
    x = images()
    changed = x.clone()
    changed[:, :, 8:16, 8:16] += 1
    assert torch.equal(backbone(x, hidden, token).patches, backbone(changed, hidden, token).patches)
    assert not torch.allclose(backbone(x).patches, backbone(changed).patches)
    assert not torch.allclose(backbone(x, hidden, token).patches, backbone(x, hidden, 2 * token).patches)


def test_a_stretch_of_rotary_positions_is_drawn_in_training_alone_and_not_by_the_teacher() -> None:
    settings = BackboneSettings(name="vit_w64_d2_p8", image_size=SIDE, rope=True, rope_rescale=2.0, drop_path=0.1)
    backbone, x = build_backbone(settings), images()
    assert not torch.equal(backbone(x).patches, backbone(x).patches)
    backbone.eval()
    assert torch.equal(backbone(x).patches, backbone(x).patches)
    teacher = build_backbone(settings.calm()).train()
    assert torch.equal(teacher(x).patches, teacher(x).patches)
    assert backbone.state_dict().keys() == teacher.state_dict().keys()


def test_networks_with_registers_resample_their_positions_antialiased() -> None:
    backbone = small(registers=4)
    assert isinstance(backbone, ViT)
    table = backbone.net.pos_embed
    torch.testing.assert_close(backbone.position_embedding((2, 3)), interpolate_antialiased(table, 0, (2, 3)))
    assert backbone.position_embedding((4, 4)) is table
    assert not torch.allclose(interpolate_antialiased(table, 0, (2, 8)), table)


@pytest.mark.parametrize("rope", [False, True])
def test_blocks_are_numbered_from_the_embedding_to_the_last_norm(rope: bool) -> None:
    backbone = small(rope=rope, registers=2, layer_scale=1e-5)
    depths = {name: backbone.depth_of(name) for name, _ in backbone.named_parameters()}
    assert set(depths.values()) == {0, 1, 2, 3}
    assert {name.removeprefix("net.") for name, depth in depths.items() if depth == 3} == {"norm.weight", "norm.bias"}
    zero = {name.removeprefix("net.").split(".")[0] for name, depth in depths.items() if depth == 0}
    assert zero == {"cls_token", "reg_token", "patch_embed"} | (set() if rope else {"pos_embed"})


@pytest.mark.parametrize("changes", [{"rope": True}, {"rope_rescale": 2.0}])
def test_rotary_positions_of_a_network_that_has_its_own_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.rope: only for ViTs spelt by their sizes.*Got vit_tiny_patch16_224"):
        build_backbone(BackboneSettings(name="vit_tiny_patch16_224", **changes))


def test_registers_of_a_network_that_takes_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="backbone 'resnet18'"):
        build_backbone(BackboneSettings(name="resnet18", registers=4))
