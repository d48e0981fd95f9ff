"""What is seen of a picture, whatever the encoder and the shape of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from selfsight.attention.maps import smallest_set
from selfsight.attention.seeing import Eyes
from selfsight.encoders import TorchEncoder, load_encoder
from selfsight.encoders.preprocess import Preprocess
from selfsight.errors import ConfigError, InputError, WeightsError
from selfsight.models.backbones import RotaryViT, ViT

VITS = ["random/vit_w32_d2_p8?size=32", "random/vit_tiny_patch16_dinov3_qkvb?size=64"]


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 32), (500, 375), (3, 200), (64, 64)])
def test_a_whole_picture_is_in_whole_patches_and_hardly_pressed(size: tuple[int, int]) -> None:
    prepare = Preprocess(size=48, aspect="whole", multiple=8)
    height, width = prepare(picture(*size)).shape[1:]
    assert height % 8 == width % 8 == 0
    if max(size) < 8 * min(size):
        scale = 48 / min(size)
        assert abs(width - size[0] * scale) <= 4
        assert abs(height - size[1] * scale) <= 4
    else:
        assert (width, height) == (48, 48 * 8)


def test_nothing_of_a_whole_picture_is_cut_away() -> None:
    pixels = np.zeros((30, 60, 3), dtype=np.uint8)
    pixels[:, -4:] = 255
    seen = Preprocess(size=24, aspect="whole", multiple=8, mean=(0, 0, 0), std=(1, 1, 1))(Image.fromarray(pixels))
    assert seen.shape == (3, 24, 48)
    assert seen[:, :, -2:].mean() > 0.9


@pytest.mark.parametrize("spec", [*VITS, "random/resnet18?size=64", "torchvision"])
def test_every_network_sees_places(spec: str) -> None:
    spec = "random/torchvision/mobilenet_v3_small?size=64" if spec == "torchvision" else spec
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    eyes = Eyes(encoder)
    seen = eyes(picture(100, 70))
    places = seen.grid[0] * seen.grid[1]
    assert seen.grid[1] > seen.grid[0]
    assert len(seen.patches) == len(seen.keys) == places
    np.testing.assert_allclose(seen.patches, encoder.tokens(eyes.prepare(picture(100, 70))[None]).patches[0], atol=1e-5)
    if encoder.kind == "cnn":
        assert seen.attention is None
        assert seen.keys is seen.patches
    else:
        assert seen.attention is not None
        assert seen.attention.shape == (encoder.backbone.net.blocks[0].attn.num_heads, places)  # type: ignore[union-attr, index]


@pytest.mark.parametrize("spec", VITS)
@torch.no_grad()
def test_rows_of_attention_are_those_of_all_of_it(spec: str) -> None:
    encoder = load_encoder(spec)
    assert isinstance(encoder, TorchEncoder)
    assert isinstance(encoder.backbone, ViT | RotaryViT)
    _, entries = encoder.backbone.watched(torch.randn(2, 3, 64, 48))
    whole = entries[0].attention()
    torch.testing.assert_close(whole.sum(-1), torch.ones(whole.shape[:3]))
    torch.testing.assert_close(entries[0].attention(slice(1, 4)), whole[:, :, 1:4])
    weights = torch.rand(2, whole.shape[-1])
    mean = whole.mean(1)
    torch.testing.assert_close(entries[0].carried_on(weights), (weights + (weights[:, None] @ mean)[:, 0]) / 2)


def test_a_block_and_a_size_that_there_are_not() -> None:
    encoder = load_encoder(VITS[0])
    with pytest.raises(InputError, match=r"--block 2: random/\S+ has blocks 0 to 1; -1 is the last"):
        Eyes(encoder, block=2)
    with pytest.raises(InputError, match=r"--size 4: is less than one patch of .* expected a number from 8"):
        Eyes(encoder, size=4)
    first, last = (Eyes(encoder, block=b)(picture(32, 32)).attention for b in (0, -1))
    assert first is not None and last is not None
    assert not np.allclose(first, last)


def test_an_encoder_without_places_is_refused() -> None:
    with pytest.raises(WeightsError, match="pixels: gives one vector a picture and no map of it"):
        Eyes(load_encoder("pixels"))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("vit_base_patch16_rpn_224", ConfigError, r"what its blocks \(ResPostBlock\) attend to is not known here"),
        (
            "vit_small_patch16_rope_224",
            WeightsError,
            "does not take pictures of 224 x 288 pixels .* maps need one that takes any",
        ),
    ],
)
def test_networks_that_cannot_be_watched_say_so(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Eyes(load_encoder(f"random/{name}"))(picture(90, 70))


def test_the_smallest_set_that_holds_the_mass() -> None:
    weights = np.array([[0.1, 0.5, 0.2, 0.2], [4.0, 1.0, 1.0, 2.0]])
    assert smallest_set(weights, 0.6).tolist() == [[False, True, False, True], [True, False, False, True]]
    assert smallest_set(weights[0], 1.0).all()


@pytest.mark.parametrize("spec", [VITS[0], "random/resnet18?size=64"])
def test_the_whole_picture_is_summed_up_as_the_default_pool_does(spec: str) -> None:
    """CLS of a ViT, the pooled map of a CNN: of a square picture that is pressed into the very pixels which `encode` takes."""
    encoder = load_encoder(f"{spec}&crop=1")
    assert isinstance(encoder, TorchEncoder)
    side = encoder.input_size
    seen = Eyes(encoder)(picture(side, side))
    assert seen.summary is not None
    np.testing.assert_allclose(seen.summary, encoder.encode(encoder.prepare(picture(side, side))[None])[0], atol=1e-5)
