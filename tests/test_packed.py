"""Views packed into one pass, or cut down to what is asked for, are what they are one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor

from selfsight.models.backbones import BackboneSettings, ViT, wrap
from selfsight.models.packed import PackedBlock, pack, unpack

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers and LayerScale": {"reg_tokens": 3, "init_values": 0.3},
    "norms of queries and keys, no bias": {"qk_norm": True, "qkv_bias": False},
    "no cls": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "blocks of another kind": {"block_fn": ParallelScalingBlock},
}


@pytest.fixture(autouse=True)
def fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def backbone(**options: Any) -> ViT:
    net = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=0, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    found = wrap(net, BackboneSettings(name="x", image_size=32))
    assert isinstance(found, ViT)
    return found


def views() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(count, 3, size, size, generator=draw) for count, size in ((4, 32), (6, 16))]


def gradients(of: ViT, out: list[Tensor]) -> dict[str, Tensor]:
    of.zero_grad()
    sum((each * torch.linspace(-1, 1, each.numel()).view_as(each)).sum() for each in out).backward()
    return {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patches", [True, False])
def test_views_together_are_the_views_one_by_one_and_so_are_their_gradients(kind: str, patches: bool) -> None:
    net = backbone(**KINDS[kind])
    single = [net(batch) for batch in views()]
    both = net.views(views(), patches=patches)
    pairs = [(a.summary, b.summary) for a, b in zip(single, both, strict=True)]
    if patches:
        pairs += [(a.patches, b.patches) for a, b in zip(single, both, strict=True)]
        pairs += [(a.pooled, b.pooled) for a, b in zip(single, both, strict=True)]
    for a, b in pairs:
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)
    assert [t.grid for t in both] == [(4, 4), (2, 2)]
    expected, found = (gradients(net, [pair[side] for pair in pairs]) for side in (0, 1))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("first_alone", [True, False])
def test_sizes_packed_into_one_pass_do_not_see_each_other(first_alone: bool) -> None:
    """The path of a GPU, here on the processor: all sizes in one matrix, attention within each."""
    net = backbone(reg_tokens=2)
    groups = [torch.randn(3, 19, 24), torch.randn(5, 7, 24)]
    together = net._blocks(groups, whole=not first_alone)
    alone = [net._blocks([group], whole=True)[0] for group in groups]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b[:, :1] if first_alone else b, atol=1e-5, rtol=1e-5)


def test_patches_that_are_not_asked_for_are_left_out() -> None:
    tokens = backbone(reg_tokens=3).views(views(), patches=False)
    assert [t.patches.shape for t in tokens] == [(4, 0, 24), (6, 0, 24)]
    assert all(t.registers is None for t in tokens)


def test_hidden_patches_are_hidden_in_the_first_batch_alone() -> None:
    net, token, hidden = backbone(), torch.randn(1, 24), torch.rand(4, 16) < 0.5
    both = net.views(views(), hidden, token)
    torch.testing.assert_close(both[0].patches, net(views()[0], hidden, token).patches, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1].patches, net(views()[1]).patches, atol=1e-5, rtol=1e-5)


def test_a_block_that_is_packed_is_still_timms_under_timms_names() -> None:
    net = backbone()
    twin = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=0)
    twin.load_state_dict(net.net.state_dict())
    torch.testing.assert_close(net(views()[0]).cls, twin.forward_features(views()[0])[:, 0], atol=1e-5, rtol=1e-5)
    assert all(type(block) is PackedBlock for block in net.net.blocks)
    assert not backbone(block_fn=ParallelScalingBlock).packs


def test_blocks_are_called_as_modules_so_that_wrappers_of_one_see_it() -> None:
    net, seen = backbone(), []
    for number, block in enumerate(net.net.blocks):
        block.register_forward_pre_hook(lambda module, args, number=number: seen.append(number))
    net.views(views()[:1], patches=False)
    assert seen == [0, 1, 2]


def test_packing_and_unpacking_leave_everything_where_it_was() -> None:
    groups = [torch.randn(2, 5, 3), torch.randn(4, 1, 3)]
    rows, layout = pack(groups)
    assert rows.shape == (14, 3)
    for a, b in zip(unpack(rows, layout), groups, strict=True):
        assert torch.equal(a, b)


# --- stochastic depth -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_alone", [True, False])
def test_stochastic_depth_leaves_samples_as_they_are_or_scales_the_branch(first_alone: bool) -> None:
    """With the MLP silent, a block adds to each sample either nothing or its attention times the samples over those kept."""
    block = backbone(drop_path_rate=0.5).net.blocks[2]
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    torch.nn.init.zeros_(block.mlp.fc2.bias)
    groups = [torch.randn(6, 4, 24), torch.randn(8, 2, 24)]
    rows, layout = pack(groups)
    block.eval()
    branch = [after - before for after, before in zip(unpack(block(rows, layout=layout), layout), groups, strict=True)]
    block.train()
    out = block(rows, layout=layout, first_alone=first_alone)
    sizes = tuple(g._replace(tokens=1) for g in layout) if first_alone else layout
    for after, before, added, kept in zip(unpack(out, sizes), groups, branch, (3, 4), strict=True):
        before, added = (x[:, :1] if first_alone else x for x in (before, added))
        moved = [i for i in range(len(after)) if not torch.allclose(after[i], before[i], atol=1e-6)]
        assert len(moved) == kept
        torch.testing.assert_close(after[moved], (before + added * len(after) / kept)[moved], atol=1e-5, rtol=1e-5)


def test_stochastic_depth_is_drawn_anew_and_only_in_training() -> None:
    net = backbone(drop_path_rate=0.6)
    a, b = (net.views(views(), patches=False)[0].summary for _ in range(2))
    assert not torch.allclose(a, b)
    net.eval()
    a, b = (net.views(views(), patches=False)[0].summary for _ in range(2))
    assert torch.equal(a, b)


def test_stochastic_depth_in_half_precision_keeps_the_stream_of_tokens_whole() -> None:
    net = backbone(drop_path_rate=0.6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = net.views(views(), patches=False)
    assert all(t.summary.isfinite().all() for t in tokens)
    gradients(net, [t.summary.float() for t in tokens])
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
