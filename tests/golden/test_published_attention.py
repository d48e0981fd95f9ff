"""Maps of attention against those of the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from golden.arrays import Golden, golden
from selfsight.attention.looking import Gaze, offers
from selfsight.attention.maps import smallest_set
from selfsight.attention.seeing import Eyes
from selfsight.encoders import TorchEncoder, load_encoder


def test_the_mask_of_a_share_of_the_attention() -> None:
    g = golden("attention_mask")
    for mass in g.config["thresholds"]:
        mask = smallest_set(g["attention"][:, 1:], mass)
        np.testing.assert_array_equal(mask.reshape(-1, g.config["h"], g.config["w"]), g[f"mask_{round(mass * 100)}"])


def published(folder: Path) -> tuple[Golden, TorchEncoder]:
    """The stored ViT as anybody would load it: a file, and the sizes that it does not tell."""
    g = golden("vit_dino")
    c = g.config
    torch.save(g.under("param."), folder / "vit.pth")
    encoder = load_encoder(
        f"file/{folder / 'vit.pth'}?arch=vit_w{c['embed_dim']}_d{c['depth']}_p{c['patch_size']}_h{c['num_heads']}"
    )
    assert isinstance(encoder, TorchEncoder)
    return g, encoder


def test_eyes_see_the_published_attention_at_every_size(tmp_path: Path) -> None:
    g, encoder = published(tmp_path)
    for height, width in g.config["inputs"]:
        size = f"{height}x{width}"
        seen = Eyes(encoder).see(g.tensor(f"x.{size}"))
        assert len(seen) == len(g[f"attn.{size}"])
        for one, attention in zip(seen, g[f"attn.{size}"], strict=True):
            assert one.grid == (height // g.config["patch_size"], width // g.config["patch_size"])
            np.testing.assert_allclose(one.attention, attention[:, 0, 1:], atol=1e-5)


def test_every_row_of_a_gaze_is_that_of_the_published_matrix_at_every_size(tmp_path: Path) -> None:
    g, encoder = published(tmp_path)
    eyes = Eyes(encoder)
    gaze = Gaze(eyes, offers(eyes))
    for height, width in g.config["inputs"]:
        size = f"{height}x{width}"
        matrix = g[f"attn.{size}"][0]
        look = gaze.look(g.tensor(f"x.{size}")[:1], (0.999, 0.999))
        np.testing.assert_allclose(look.attention, matrix[:, 0, 1:], atol=1e-5)
        np.testing.assert_allclose(look.point, matrix.mean(0)[-1, 1:], atol=1e-5)
        np.testing.assert_allclose(look.patches, g[f"inter.{size}"][-1, 0, 1:], atol=1e-4)


def test_a_block_that_was_asked_for_is_none_of_the_others(tmp_path: Path) -> None:
    g, encoder = published(tmp_path)
    height, width = g.config["inputs"][0]
    x = g.tensor(f"x.{height}x{width}")
    stored = g[f"attn.{height}x{width}"][0][:, 0, 1:]
    depth = g.config["depth"]
    near = [np.allclose(Eyes(encoder, block=block).see(x)[0].attention, stored, atol=1e-5) for block in range(depth)]
    assert near == [False] * (depth - 1) + [True]
