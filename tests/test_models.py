"""Backbones yield named tokens, heads yield cosines, positions are interpolated as published."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from selfsight.errors import ConfigError
from selfsight.models.backbones import BackboneSettings, build_backbone, is_vit_name, patch_of, wrap
from selfsight.models.heads import DINOHead, HeadSettings, WeightNormLinear
from selfsight.models.positions import interpolate_published


@pytest.fixture(autouse=True)
def fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def settings(name: str, size: int = 32, **options: object) -> BackboneSettings:
    return BackboneSettings(name=name, image_size=size, **options)


def vit(**options: object) -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0, **options)


def images(size: int | tuple[int, int] = 32, count: int = 2) -> torch.Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_head_turns_features_into_cosines_with_the_prototypes(layers: int) -> None:
    head = DINOHead(24, HeadSettings(prototypes=50, hidden=32, bottleneck=8, layers=layers))
    x = torch.randn(5, 24)
    logits = head(x)
    assert logits.shape == (5, 50)
    assert [m.out_features for m in head.mlp if isinstance(m, torch.nn.Linear)] == [32] * (layers - 1) + [8]
    bottleneck, prototypes = head.mlp(x), head.last_layer.weight_v
    for i in range(5):
        for k in (0, 17, 49):
            length = (bottleneck[i].norm() * prototypes[k].norm()).item()
            assert logits[i, k].item() == pytest.approx((bottleneck[i] @ prototypes[k]).item() / length, abs=1e-5)
    assert logits.abs().max() <= 1 + 1e-5


def test_head_does_not_care_about_the_length_of_the_bottleneck() -> None:
    head = DINOHead(24, HeadSettings(prototypes=50, hidden=32, bottleneck=8, layers=1))
    torch.testing.assert_close(head(torch.ones(1, 24)), head(torch.full((1, 24), 7.0)), atol=1e-5, rtol=1e-5)


def test_head_starts_as_published() -> None:
    head = DINOHead(384, HeadSettings(prototypes=1000, hidden=512, bottleneck=64))
    for module in head.mlp:
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert not module.bias.any()
    assert (head.last_layer.weight_g == 1).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_gain_of_the_last_layer_is_trained_only_where_asked(frozen: bool) -> None:
    head = DINOHead(24, HeadSettings(prototypes=10, hidden=32, bottleneck=8, norm_last_layer=frozen))
    head(torch.randn(2, 24)).sum().backward()
    assert (head.last_layer.weight_g.grad is None) is frozen
    assert head.last_layer.weight_v.grad is not None


def test_weight_norm_equals_its_formula_row_by_row() -> None:
    layer = WeightNormLinear(4, 3, train_gain=True)
    with torch.no_grad():
        layer.weight_g.copy_(torch.tensor([[0.5], [2.0], [-1.0]]))
    x = torch.randn(2, 4)
    found = layer(x).tolist()
    v, g = layer.weight_v.tolist(), layer.weight_g[:, 0].tolist()
    for i, row in enumerate(x.tolist()):
        for k in range(3):
            length = math.sqrt(sum(w * w for w in v[k]))
            assert found[i][k] == pytest.approx(sum(a * g[k] * w / length for a, w in zip(row, v[k], strict=True)), abs=1e-5)


def test_weight_norm_has_the_gradient_of_torchs_own() -> None:
    ours = WeightNormLinear(6, 4, train_gain=True)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 4, bias=False))
    with torch.no_grad():
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    x = torch.randn(3, 6)
    for layer in (ours, theirs):
        (layer(x) ** 2).sum().backward()
    torch.testing.assert_close(ours.weight_v.grad, theirs.parametrizations.weight.original1.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.weight_g.grad, theirs.parametrizations.weight.original0.grad, atol=1e-5, rtol=1e-5)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "depth", "patch"), [(32, 1, 8), (64, 2, 8), (96, 3, 4)])
def test_a_plain_vit_is_spelt_by_its_sizes(width: int, depth: int, patch: int) -> None:
    backbone = build_backbone(settings(f"vit_w{width}_d{depth}_p{patch}"))
    assert backbone.kind == "vit"
    assert backbone.width == width
    assert backbone.patch_size == patch
    assert len(backbone.net.blocks) == depth
    assert backbone.net.blocks[0].attn.num_heads == width // 32
    tokens = backbone(images())
    assert tokens.grid == (32 // patch, 32 // patch)
    assert tokens.cls.shape == (2, width)
    assert backbone.parameter_count == sum(p.numel() for p in backbone.parameters())


def test_a_patch_size_that_is_set_wins_over_that_of_the_name() -> None:
    assert build_backbone(settings("vit_w32_d1_p8", patch_size=4))(images()).grid == (8, 8)
    assert build_backbone(settings("vit_tiny_patch16_224", patch_size=8))(images()).grid == (4, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_w50_d2_p8", "backbone 'vit_w50_d2_p8': the width must be a multiple of 32 (one head for 32 channels)"),
        ("resnet51", "backbone 'resnet51': timm has no such network. Did you mean 'resnet"),
        ("vit_smal_patch16_224", "timm has no such network. Did you mean 'vit_small_patch16_224'?"),
        ("qqqqqqqq", "timm has no such network. For example vit_small_patch16_224, vit_tiny_patch16_224"),
        ("vit_w64_d2", "backbone 'vit_w64_d2': timm has no such network."),
        ("", "timm has no such network."),
    ],
)
def test_an_unknown_name_says_what_would_be_one(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_backbone(settings(name))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "patch"),
    [("vit_w96_d4_p8", 8), ("vit_small_patch16_224", 16), ("vit_small_patch14_dinov2.lvd142m", 14), ("resnet50", 1)],
)
def test_the_patch_is_read_from_the_name(name: str, patch: int) -> None:
    assert patch_of(name) == patch
    assert is_vit_name(name) is (patch > 1)


def test_the_seed_decides_the_weights() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in build_backbone(settings("vit_w32_d1_p8")).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- tokens ---------------------------------------------------------------------------------------------------------

TOKENS = {
    "cls": {},
    "four registers": {"reg_tokens": 4},
    "registers without a position": {"reg_tokens": 4, "no_embed_class": True},
    "cls without a position": {"no_embed_class": True},
    "no cls": {"class_token": False, "global_pool": "avg", "fc_norm": False},
}


@pytest.mark.parametrize("kind", TOKENS)
def test_vit_names_its_tokens_and_at_its_own_size_they_are_timms(kind: str) -> None:
    net = vit(**TOKENS[kind]).eval()
    tokens = wrap(net, settings("x"))(images())
    raw = net.forward_features(images())
    prefix = net.num_prefix_tokens
    torch.testing.assert_close(tokens.patches, raw[:, prefix:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens.pooled, raw[:, prefix:].mean(1), atol=1e-5, rtol=1e-5)
    assert tokens.grid == (4, 4)
    if kind == "no cls":
        assert tokens.cls is None
        assert torch.equal(tokens.summary, tokens.pooled)
    else:
        torch.testing.assert_close(tokens.cls, raw[:, 0], atol=1e-5, rtol=1e-5)
        assert tokens.summary is tokens.cls
    if "registers" in kind:
        torch.testing.assert_close(tokens.registers, raw[:, 1:5], atol=1e-5, rtol=1e-5)
    else:
        assert tokens.registers is None


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("size", [16, 48, (24, 40)])
def test_vit_takes_every_multiple_of_its_patch(kind: str, size: int | tuple[int, int]) -> None:
    backbone = wrap(vit(**TOKENS[kind]).eval(), settings("x"))
    height, width = images(size).shape[2:]
    tokens = backbone(images(size))
    assert tokens.grid == (height // 8, width // 8)
    assert tokens.patches.shape == (2, height * width // 64, 24)
    assert tokens.pooled.isfinite().all()


def test_patches_are_row_major_over_the_grid() -> None:
    """In a network of patch embedding alone, one bright patch shows at its own place."""
    backbone = wrap(vit(pos_embed="none").eval(), settings("x"))
    backbone.net.blocks = torch.nn.Sequential()
    backbone.net.norm = torch.nn.Identity()
    x = torch.zeros(1, 3, 24, 40)
    x[:, :, 8:16, 24:32] = 1.0
    embedded = backbone.net.patch_embed(x)[0]
    assert (embedded - embedded[0]).abs().sum(1).nonzero().flatten().tolist() == [1 * 5 + 3]
    assert torch.equal(backbone.named(torch.cat([torch.zeros(1, 1, 24), embedded[None]], 1), (3, 5)).patches[0], embedded)


def test_intermediate_layers_end_with_the_output() -> None:
    backbone = wrap(vit().eval(), settings("x"))
    last_two = backbone.intermediate(images(), 2)
    assert len(last_two) == 2
    torch.testing.assert_close(last_two[1].patches, backbone(images()).patches)
    assert not torch.allclose(last_two[0].patches, last_two[1].patches)


def test_a_transformer_of_another_class_goes_through_timms_own_pass() -> None:
    net = timm.create_model("test_vit3", num_classes=0, img_size=64).eval()
    tokens = wrap(net, settings("test_vit3"))(images(64))
    raw = net.forward_features(images(64))
    torch.testing.assert_close(tokens.patches, raw[:, net.num_prefix_tokens :], atol=1e-5, rtol=1e-5)
    assert tokens.grid[0] * tokens.grid[1] == tokens.patches.shape[1]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_nfnet", "test_byobnet"])
def test_cnn_gives_its_map_as_patches_and_its_own_pooling(name: str) -> None:
    backbone = build_backbone(settings(name)).eval()
    with torch.no_grad():
        tokens = backbone(images((96, 64)))
        raw = backbone.net.forward_features(images((96, 64)))
        pooled = backbone.net(images((96, 64)))
    assert backbone.kind == "cnn"
    assert backbone.patch_size == 1
    assert (tokens.cls, tokens.registers) == (None, None)
    assert tokens.grid == tuple(raw.shape[2:])
    assert tokens.grid[0] > tokens.grid[1]
    torch.testing.assert_close(tokens.patches, raw.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.pooled, pooled)
    assert tokens.summary is tokens.pooled
    assert tokens.patches.shape[2] == backbone.width


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_efficientnet", "test_convnext", "vit_w32_d1_p8"])
def test_the_width_is_that_of_the_summary_so_that_a_head_fits(name: str) -> None:
    backbone = build_backbone(settings(name, 64)).eval()
    assert backbone(images(64)).summary.shape == (2, backbone.width)


# --- positions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_positions_at_the_trained_size_are_the_table(prefix: int) -> None:
    table = torch.randn(1, prefix + 16, 6)
    assert torch.equal(interpolate_published(table, prefix, (4, 4)), table)


@pytest.mark.parametrize("grid", [(2, 2), (3, 5), (7, 7), (16, 2), (1, 1)])
def test_positions_at_another_size_keep_the_prefix_and_fill_the_grid(grid: tuple[int, int]) -> None:
    table = torch.randn(1, 2 + 16, 6)
    found = interpolate_published(table, 2, grid)
    assert found.shape == (1, 2 + grid[0] * grid[1], 6)
    assert torch.equal(found[:, :2], table[:, :2])
    flat = torch.ones(1, 2 + 16, 6)
    torch.testing.assert_close(interpolate_published(flat, 2, grid), torch.ones(1, 2 + grid[0] * grid[1], 6))


def _cubic(t: float) -> float:
    """Keys' kernel with a = -0.75, which torch uses."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


@pytest.mark.parametrize(("height", "width"), [(2, 2), (6, 6), (3, 5)])
def test_positions_follow_the_published_scale_pixel_by_pixel(height: int, width: int) -> None:
    """The published code samples at (i + 1/2) * g / (n + 0.1) - 1/2, without antialiasing."""
    trained = 4
    table = torch.randn(1, 1 + trained**2, 3)
    found = interpolate_published(table, 1, (height, width))[0, 1:].reshape(height, width, 3)
    grid = table[0, 1:].reshape(trained, trained, 3)
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) * trained / (height + 0.1) - 0.5
            x = (column + 0.5) * trained / (width + 0.1) - 0.5
            expected = torch.zeros(3)
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    value = grid[min(max(i, 0), trained - 1), min(max(j, 0), trained - 1)]
                    expected += _cubic(y - i) * _cubic(x - j) * value
            torch.testing.assert_close(found[row, column], expected, atol=1e-4, rtol=1e-4)


def test_positions_differ_from_timms_own_resampling() -> None:
    table = torch.randn(1, 1 + 16, 6)
    ours = interpolate_published(table, 1, (3, 3))
    theirs = resample_abs_pos_embed(table, [3, 3], num_prefix_tokens=1)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) > 0.1
