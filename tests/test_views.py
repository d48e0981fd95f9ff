"""Views: what is drawn, where it is cut, what is done to its pixels, and that nothing of it depends on who does it."""

from __future__ import annotations

import colorsys
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from selfsight.data import draws as numbers
from selfsight.data import photometry
from selfsight.data.decode import DecodeSettings
from selfsight.data.loader import ViewBatch, batch_at, view_batches
from selfsight.data.multicrop import cut_views, finish_views, plan_views
from selfsight.data.opening import OpenedImage, open_image
from selfsight.data.sources import Source, open_source
from selfsight.data.views import Photometry, ViewSettings, crop_boxes, cut, draw_photometry
from selfsight.data.views import view_uniforms as uniforms
from selfsight.data.windows import image_batches


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- uniform numbers ------------------------------------------------------------------------------------------------


def test_uniforms_are_uniform_in_every_column() -> None:
    u = uniforms(3, 1, range(5000), 0, 2)
    assert u.shape == (5000, 41)
    assert u.min() >= 0
    assert u.max() < 1
    p = [stats.kstest(u[:, column], "uniform").pvalue for column in range(u.shape[1])]
    assert min(p) > 0.01 / len(p)


def test_uniforms_of_neighbours_are_not_correlated() -> None:
    u = uniforms(0, 0, range(5000), 0, 0)
    between_columns = np.corrcoef(u.T) - np.eye(u.shape[1])
    assert np.abs(between_columns).max() < 0.08
    samples = [np.corrcoef(u[:-1, c], u[1:, c])[0, 1] for c in range(u.shape[1])]
    views = [np.corrcoef(u[:, c], uniforms(0, 0, range(5000), 0, 1)[:, c])[0, 1] for c in range(u.shape[1])]
    epochs = [np.corrcoef(u[:, c], uniforms(0, 1, range(5000), 0, 0)[:, c])[0, 1] for c in range(u.shape[1])]
    assert np.abs([samples, views, epochs]).max() < 0.08


def test_uniforms_of_a_sample_do_not_depend_on_its_batch() -> None:
    alone = uniforms(5, 2, [17], 0, 3)[0]
    np.testing.assert_array_equal(uniforms(5, 2, [4, 17, 99], 0, 3)[1], alone)
    np.testing.assert_array_equal(uniforms(5, 2, [17, 17], 0, 3), np.stack([alone, alone]))


@pytest.mark.parametrize("changed", ["seed", "epoch", "sample", "occurrence", "view"])
def test_uniforms_change_with_each_thing_they_are_a_function_of(changed: str) -> None:
    def draw(**values: int) -> np.ndarray:
        at = {"seed": 1, "epoch": 1, "sample": 1, "occurrence": 1, "view": 1} | values
        return uniforms(at["seed"], at["epoch"], [at["sample"]], at["occurrence"], at["view"])[0]

    np.testing.assert_array_equal(draw(), draw())
    rows = [draw(**{changed: value}) for value in range(50)]
    assert len(np.unique(np.array(rows))) == 50 * 41


def test_uniforms_tell_every_combination_apart() -> None:
    rows = [uniforms(s, e, [i], o, v)[0, 0] for s, e, i, o, v in itertools.product(range(3), repeat=5)]
    assert len(set(rows)) == 3**5


def test_uniforms_are_the_same_numbers_on_every_machine() -> None:
    found = numbers.uniforms(7, 3, [11], 0, 1, count=3)[0]
    np.testing.assert_array_equal(found, _splitmix(7, 3, 11, 0, 1, 3))


def _splitmix(*arguments: int) -> list[float]:
    """The same hash in Python's own whole numbers."""
    *values, count = arguments
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = (z + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key = 0x5E1F5167
    for value in values:
        key = mix(((key * 0x9E3779B97F4A7C15) & mask) ^ mix(value))
    return [(mix((key + n * 0x9E3779B97F4A7C15) & mask) >> 11) / 2**53 for n in range(1, count + 1)]


# --- crops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
def test_crops_are_distributed_like_those_of_torchvision(scale: tuple[float, float]) -> None:
    """Deciles of 20,000 draws each: the standard error of a decile is below 0.006 of the range; 0.02 is allowed."""
    width, height, count = 500, 375, 20_000
    torch.manual_seed(0)
    picture = torch.empty(3, height, width)
    theirs = []
    for _ in range(count):
        top, left, h, w = RandomResizedCrop.get_params(picture, list(scale), [3 / 4, 4 / 3])
        theirs.append((left, top, left + w, top + h))
    ours = crop_boxes(uniforms(0, 0, range(count), 0, 0), np.full(count, width), np.full(count, height), scale)
    deciles = np.linspace(0.1, 0.9, 9)

    def quantiles(boxes: Sequence[tuple[int, int, int, int]]) -> dict[str, np.ndarray]:
        left, top, right, bottom = np.array(boxes, dtype=float).T
        w, h = right - left, bottom - top
        values = {
            "area": (w * h / (width * height) - scale[0]) / (scale[1] - scale[0]),
            "aspect": np.log(w / h) / (2 * math.log(4 / 3)),
            "across": (left + right) / 2 / width,
            "down": (top + bottom) / 2 / height,
        }
        return {name: np.quantile(value, deciles) for name, value in values.items()}

    expected = quantiles(theirs)
    for name, found in quantiles(ours).items():
        np.testing.assert_allclose(found, expected[name], atol=0.02, err_msg=name)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 1000), (1000, 1), (3, 500), (32, 32), (2000, 100), (7, 8)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4), (1.0, 1.0)])
def test_crops_lie_inside_the_image_whatever_its_shape(width: int, height: int, scale: tuple[float, float]) -> None:
    boxes = crop_boxes(uniforms(1, 0, range(300), 0, 0), np.full(300, width), np.full(300, height), scale)
    for left, top, right, bottom in boxes.tolist():
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize(("width", "height", "box"), [(1000, 90, (440, 0, 560, 90)), (90, 1000, (0, 440, 90, 560))])
def test_an_image_too_narrow_for_any_try_is_cut_in_the_middle(width: int, height: int, box: tuple[int, ...]) -> None:
    found = crop_boxes(uniforms(0, 0, [0], 0, 0), np.array([width]), np.array([height]), (0.9, 1.0))
    assert tuple(found[0].tolist()) == box


@pytest.mark.parametrize(
    ("box", "size"), [((5, 3, 29, 27), 12), ((0, 0, 40, 30), 16), ((5, 3, 17, 15), 12), ((8, 8, 14, 13), 20)]
)
def test_a_cut_is_the_box_resized_with_pillows_bicubic(box: tuple[int, ...], size: int) -> None:
    """As torchvision's `resized_crop`: cut first, so that no pixel from outside the box shines in; within one level."""
    image = picture(0, (40, 30))
    expected = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    found = cut(np.array(image), box, size)
    assert found.dtype == torch.uint8
    assert found.shape == (3, size, size)
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_a_cut_of_many_channels_keeps_fractions_of_a_level_and_stays_in_range() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (30, 40, 6)).astype(np.float32)
    found = cut(pixels, (5, 3, 29, 27), 12)
    assert (found.dtype, found.shape) == (torch.float32, (6, 12, 12))
    assert found.min() >= 0
    assert found.max() <= 255
    for channel in range(6):
        plane = Image.fromarray(pixels[:, :, channel], "F").crop((5, 3, 29, 27)).resize((12, 12), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[channel], np.clip(np.asarray(plane), 0, 255), atol=2e-3)


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_probabilities_of_each_change_are_those_of_the_settings() -> None:
    """A share of 4,000 draws has a standard error below 0.008; 0.03 is allowed."""
    settings, count = ViewSettings(vertical_flip=0.5), 4000

    def share(values: np.ndarray) -> float:
        return float(np.mean(values))

    for view in (0, 1, 2, 5):
        draws = draw_photometry(uniforms(0, 0, range(count), 0, view), view, settings)
        assert share(draws.flip) == pytest.approx(0.5, abs=0.03)
        assert share(draws.vertical) == pytest.approx(0.5, abs=0.03)
        assert share(draws.vertical & draws.flip) == pytest.approx(0.25, abs=0.03)
        assert share(draws.brightness != 1) == pytest.approx(0.8, abs=0.03)
        assert share(draws.grey) == pytest.approx(0.2, abs=0.03)
        assert share(draws.sigma > 0) == pytest.approx({0: 1.0, 1: 0.1}.get(view, 0.5), abs=0.03)
        assert share(draws.solarize) == pytest.approx(0.2 if view == 1 else 0.0, abs=0.03)
        np.testing.assert_allclose(np.bincount(draws.order, minlength=24) / count, 1 / 24, atol=0.015)


def test_strengths_span_the_ranges_of_torchvisions_colour_jitter() -> None:
    settings = ViewSettings(jitter=1.0, blur=(1.0, 1.0, 1.0))
    draws = draw_photometry(uniforms(0, 0, range(4000), 0, 0), 0, settings)
    for values, low, high in (
        (draws.brightness, 0.6, 1.4),
        (draws.contrast, 0.6, 1.4),
        (draws.saturation, 0.8, 1.2),
        (draws.hue, -0.1, 0.1),
        (draws.sigma, 0.1, 2.0),
    ):
        assert low <= values.min() < low + 0.01 * (high - low) + 1e-9
        assert high - 0.01 * (high - low) - 1e-9 < values.max() <= high
        assert stats.kstest((values - low) / (high - low), "uniform").pvalue > 0.001


def test_jitter_takes_all_four_colour_changes_or_none() -> None:
    draws = draw_photometry(uniforms(0, 0, range(1000), 0, 0), 0, ViewSettings())
    still = draws.brightness == 1
    assert 0.1 < still.mean() < 0.3
    for values, neutral in ((draws.contrast, 1.0), (draws.saturation, 1.0), (draws.hue, 0.0)):
        np.testing.assert_array_equal(values == neutral, still)


# --- pixels ---------------------------------------------------------------------------------------------------------

PLAIN = ViewSettings(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def drawn(count: int, **values: Sequence[float] | np.ndarray) -> Photometry:
    """Draws of `count` views that change nothing but what is given."""
    neutral = {"flip": False, "vertical": False, "grey": False, "solarize": False, "hue": 0.0, "sigma": 0.0, "order": 0}
    neutral |= {"quarters": 0}
    columns = {f.name: np.full(count, neutral.get(f.name, 1.0)) for f in fields(Photometry)}
    columns["stain"] = np.zeros((count, 6))
    return replace(Photometry(**columns), **{name: np.asarray(value) for name, value in values.items()})


def views(count: int, low: int = 0, high: int = 256, size: int = 20) -> torch.Tensor:
    draw = np.random.default_rng(1)
    return torch.from_numpy(draw.integers(low, high, (count, 3, size, size), dtype=np.uint8))


def applied(pixels: torch.Tensor, draws: Photometry, settings: ViewSettings = PLAIN) -> np.ndarray:
    out = photometry.apply(pixels, draws, settings)
    assert out.dtype == torch.float32
    assert out.shape == pixels.shape
    return out.numpy().astype(np.float64)


def test_nothing_drawn_leaves_the_pixels_but_for_the_normalisation() -> None:
    pixels = views(3)
    np.testing.assert_allclose(applied(pixels, drawn(3)), pixels.numpy() / 255, atol=1e-6)
    settings = ViewSettings()
    mean, std = np.array(settings.mean)[:, None, None], np.array(settings.std)[:, None, None]
    np.testing.assert_allclose(applied(pixels, drawn(3), settings), (pixels.numpy() / 255 - mean) / std, atol=1e-5)


def test_the_input_is_not_changed() -> None:
    pixels = views(2)
    before = pixels.clone()
    applied(pixels, drawn(2, flip=[True, False], sigma=[1.0, 0.0], brightness=[0.5, 1.5]))
    assert torch.equal(pixels, before)


def test_quarter_turns_come_before_flips() -> None:
    pixels = views(5)
    x = pixels.numpy() / 255
    found = applied(pixels, drawn(5, quarters=[0, 1, 2, 3, 1], flip=[False] * 4 + [True]))
    expected = [np.rot90(x[i], k, (1, 2)) for i, k in enumerate([0, 1, 2, 3, 1])]
    expected[4] = expected[4][:, :, ::-1]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_other_than_three_channels_know_brightness_and_contrast_alone() -> None:
    settings = ViewSettings(read=DecodeSettings(channels=5), mean=(0.0,) * 5, std=(1.0,) * 5)
    pixels = torch.from_numpy(np.random.default_rng(2).uniform(90, 160, (3, 5, 12, 12)).astype(np.float32))
    draws = drawn(
        3, brightness=[1.2, 1, 1], contrast=[1, 0.7, 1], saturation=[0.5] * 3, hue=[0.1] * 3, grey=[True] * 3, order=[0] * 3
    )
    x = pixels.double().numpy() / 255
    found = applied(pixels, draws, settings)
    np.testing.assert_allclose(found[0], 1.2 * x[0], atol=1e-5)
    np.testing.assert_allclose(found[1], 0.7 * x[1] + 0.3 * x[1].mean(), atol=1e-5)
    np.testing.assert_allclose(found[2], x[2], atol=1e-5)


def test_stain_changes_the_optical_density_of_each_stain() -> None:
    """Against the definition, a pixel at a time in float64: OD = stains x amounts; amounts a -> a (1 + alpha) + beta."""
    settings = PLAIN.model_copy(update={"stain": 0.1})
    pixels = views(2, 60, 250, size=6)
    stain = np.array([[0.1, -0.05, 0.02, 0.01, 0.02, -0.01], [0.0] * 6])
    found = applied(pixels, drawn(2, stain=stain), settings)
    vectors = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for y, x in itertools.product(range(6), repeat=2):
        amounts = -np.log((pixels[0, :, y, x].numpy() + 1.0) / 256) @ np.linalg.inv(vectors)
        expected = 256 * np.exp(-(amounts * (1 + stain[0, :3]) + stain[0, 3:]) @ vectors) - 1
        np.testing.assert_allclose(found[0, :, y, x] * 255, np.clip(expected, 0, 255), atol=0.02)
    np.testing.assert_allclose(found[1], pixels[1].numpy() / 255, atol=1e-5)


def test_flips_turn_only_the_views_that_drew_them() -> None:
    pixels = views(4)
    x = pixels.numpy() / 255
    found = applied(pixels, drawn(4, flip=[True, False, True, False], vertical=[False, True, True, False]))
    expected = [x[0, :, :, ::-1], x[1, :, ::-1], x[2, :, ::-1, ::-1], x[3]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_colour_change_equals_torchvisions_where_nothing_is_clamped(name: str) -> None:
    pixels, factors = views(4, 90, 160), [0.6, 0.9, 1.1, 1.4]
    theirs = {"brightness": tv.adjust_brightness, "contrast": tv.adjust_contrast, "saturation": tv.adjust_saturation}[name]
    expected = np.stack([theirs(x, f).numpy() for x, f in zip(pixels.float() / 255, factors, strict=True)])
    assert expected.min() > 0.01
    assert expected.max() < 0.99
    np.testing.assert_allclose(applied(pixels, drawn(4, **{name: factors})), expected, atol=5e-4)


def test_grey_has_torchvisions_weights_in_all_three_channels() -> None:
    pixels = views(2)
    expected = tv.rgb_to_grayscale(pixels.float() / 255, num_output_channels=3).numpy()
    np.testing.assert_allclose(applied(pixels, drawn(2, grey=[True, True])), expected, atol=5e-4)


def test_solarising_turns_the_bright_half_around() -> None:
    levels = torch.arange(256, dtype=torch.uint8)[None, None, :, None].expand(2, 3, 256, 256).contiguous()
    found = applied(levels, drawn(2, solarize=[True, False])) * 255
    expected = [level if level < 128 else 255 - level for level in range(256)]
    np.testing.assert_allclose(found[0, 1, :, 5], expected, atol=1e-3)
    np.testing.assert_allclose(found[1, 1, :, 5], range(256), atol=1e-3)


@pytest.mark.parametrize("share", [-0.5, -0.1, 0.03, 0.1, 0.25])
def test_hue_leaves_grey_grey_and_the_luminance_where_it_was(share: float) -> None:
    grey = views(1)[:, :1].expand(1, 3, 20, 20).contiguous()
    np.testing.assert_allclose(applied(grey, drawn(1, hue=[share])), grey.numpy() / 255, atol=2e-3)
    coloured = views(1, 110, 146)
    luma = np.array([0.299, 0.587, 0.114])
    found = np.einsum("c,nchw->nhw", luma, applied(coloured, drawn(1, hue=[share])))
    np.testing.assert_allclose(found, np.einsum("c,nchw->nhw", luma, coloured.numpy() / 255), atol=2e-3)


def test_hue_turns_the_way_torchvision_turns_it() -> None:
    """In the YIQ plane and not in HSV, so the angle is only roughly the same: within 0.06 of the circle."""
    for share, colour in itertools.product([-0.1, -0.05, 0.05, 0.1], [(150, 100, 110), (100, 140, 90), (95, 110, 150)]):
        pixels = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8).contiguous()
        ours = colorsys.rgb_to_hsv(*applied(pixels, drawn(1, hue=[share]))[0, :, 0, 0])[0]
        theirs = colorsys.rgb_to_hsv(*tv.adjust_hue(pixels[0].float() / 255, share)[:, 0, 0].tolist())[0]
        assert abs((ours - theirs + 0.5) % 1 - 0.5) < 0.06


def test_blur_equals_scipys_gaussian() -> None:
    pixels, sigmas = views(4, size=24), [0.3, 0.8, 1.4, 2.0]
    x = pixels.numpy().astype(np.float64) / 255
    found = applied(pixels, drawn(4, sigma=sigmas))
    for i, sigma in enumerate(sigmas):
        expected = np.stack([ndimage.gaussian_filter(channel, sigma, mode="mirror", radius=6) for channel in x[i]])
        np.testing.assert_allclose(found[i], expected, atol=2e-4)


def test_blur_of_a_view_smaller_than_the_kernel_works() -> None:
    pixels = views(1, size=4)
    found = applied(pixels, drawn(1, sigma=[2.0]))
    assert found.std() < 0.5 * (pixels.numpy() / 255).std()
    assert found.mean() == pytest.approx((pixels.numpy() / 255).mean(), abs=0.1)


def _slow(pixels: np.ndarray, draws: Photometry, i: int) -> np.ndarray:
    """One view in float64, pixel by pixel and step by step in the drawn order, clamped once before the blur."""
    x = pixels.astype(np.float64) / 255
    x = x[:, :, ::-1] if draws.flip[i] else x
    x = x[:, ::-1] if draws.vertical[i] else x
    x = x.copy()
    luma = np.array([0.299, 0.587, 0.114])
    # Hue rises against the sense of (I, Q): red, yellow, green lie clockwise in that plane.
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    angle = 2 * math.pi * draws.hue[i]
    turn = np.array([[1, 0, 0], [0, math.cos(angle), math.sin(angle)], [0, -math.sin(angle), math.cos(angle)]])
    _, height, width = x.shape
    for step in list(itertools.permutations(range(4)))[draws.order[i]]:
        mean_grey = sum(float(luma @ x[:, r, c]) for r in range(height) for c in range(width)) / (height * width)
        for r, c in itertools.product(range(height), range(width)):
            pixel = x[:, r, c]
            if step == 0:
                pixel = draws.brightness[i] * pixel
            elif step == 1:
                pixel = draws.contrast[i] * pixel + (1 - draws.contrast[i]) * mean_grey
            elif step == 2:
                pixel = draws.saturation[i] * pixel + (1 - draws.saturation[i]) * (luma @ pixel)
            else:
                pixel = np.linalg.inv(to_yiq) @ turn @ to_yiq @ pixel
            x[:, r, c] = pixel
    if draws.grey[i]:
        x[:] = np.einsum("c,chw->hw", luma, x)
    x = x.clip(0, 1)
    if draws.sigma[i] > 0:
        x = np.stack([ndimage.gaussian_filter(channel, draws.sigma[i], mode="mirror", radius=6) for channel in x])
    return np.where(x >= 128 / 255, 1 - x, x) if draws.solarize[i] else x


def test_the_whole_chain_equals_the_slow_one_in_every_order() -> None:
    u = uniforms(0, 0, range(48), 0, 1)
    settings = ViewSettings(blur=(0.5, 0.5, 0.5), vertical_flip=True)
    draws = replace(draw_photometry(u, 1, settings), order=np.arange(48) % 24)
    pixels = views(48, size=12)
    found = applied(pixels, draws)
    for i in range(48):
        expected = _slow(pixels[i].numpy(), draws, i)
        near = np.abs(expected - 127.5 / 255) < 4e-3  # which side of the threshold a pixel falls is not settled by float32
        np.testing.assert_allclose(np.where(near, 0, found[i]), np.where(near, 0, expected), atol=1e-3, err_msg=str(i))


def test_the_pixels_of_a_view_do_not_depend_on_its_batch() -> None:
    u = uniforms(0, 0, range(16), 0, 0)
    settings = PLAIN.model_copy(update={"blur_sigma": (0.1, 2.0)})
    draws = draw_photometry(u, 0, settings)
    pixels = views(16)
    together = applied(pixels, draws)
    for i in range(16):
        alone = Photometry(**{f.name: getattr(draws, f.name)[i : i + 1] for f in fields(Photometry)})
        np.testing.assert_allclose(
            applied(pixels[i : i + 1], alone)[0], together[i], atol=1e-5, err_msg=f"sigma {draws.sigma[i]}"
        )


# --- batches --------------------------------------------------------------------------------------------------------

SMALL = ViewSettings(global_size=16, local_size=8, local_count=2)


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for i in range(11):
        picture(i).save(tmp_path / f"{i:02d}.png")
    return open_source(tmp_path)


def batches(source: Source, start: int = 0, stop: int = 6, workers: int = 0, finish: bool = True) -> list[ViewBatch]:
    crew = view_batches(source, SMALL, batch_size=4, seed=9, workers=workers, finish=finish)
    return list(crew.items(start, stop))


def opened(image: Image.Image, kind: str = "PNG", **options: object) -> OpenedImage:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return open_image(file.getvalue())


def assert_same(a: Sequence[ViewBatch], b: Sequence[ViewBatch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.size == y.size
        assert [v.shape for v in x.views] == [v.shape for v in y.views]
        assert all(torch.equal(v, w) for v, w in zip(x.views, y.views, strict=True))


class Numbered(Source):
    """Samples without pixels."""

    def __init__(self, count: int, blocks: Sequence[int] | None = None, window: int = 1) -> None:
        self.location, self.keys, self.labels, self.classes = "numbers", [str(i) for i in range(count)], None, ()
        self.blocks, self.window = None if blocks is None else np.array(blocks), window

    def image_bytes(self, index: int) -> bytes:
        raise OSError("has no pixels")

    def columns(self) -> tuple[str, ...]:
        return ()

    def column(self, name: str) -> np.ndarray:
        raise KeyError(name)


@pytest.mark.parametrize("count", [1, 4, 7, 8, 11])
def test_every_sample_comes_once_an_epoch_but_for_the_rest_of_a_batch(count: int) -> None:
    per_epoch = max(1, count // 4)
    for epoch in range(3):
        seen = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            found, drawn = batch_at(Numbered(count), 5, step, 4)
            assert found == epoch
            seen += drawn.indices.tolist()
            assert drawn.occurrences.tolist() == [0] * len(drawn.indices)
        assert len(set(seen)) == len(seen) == min(count, per_epoch * 4)
        assert set(seen) <= set(range(count))


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [tuple(Numbered(32).draws(seed, epoch, np.arange(32)).indices) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_share_the_batch_that_one_rank_would_take(ranks: int) -> None:
    source = Numbered(100, blocks=range(0, 100, 10), window=3)
    for step in range(8):
        _, whole = batch_at(source, 3, step, 12)
        parts = [batch_at(source, 3, step, 12, rank, ranks)[1].indices for rank in range(ranks)]
        assert [len(part) for part in parts] == [12 // ranks] * ranks
        assert np.concatenate(parts).tolist() == whole.indices.tolist()


def test_ranks_read_few_blocks_each() -> None:
    """Eight blocks are mixed at a time; of four ranks each touches about two of them and not all eight."""
    source = Numbered(64_000, blocks=range(0, 64_000, 1000), window=8)
    for step in range(0, 250, 25):
        touched = [len(set(batch_at(source, 0, step, 256, rank, 4)[1].indices // 1000)) for rank in range(4)]
        assert max(touched) <= 4


def test_batches_have_two_global_views_and_then_the_local_ones(source: Source) -> None:
    batch = batches(source, stop=1)[0]
    assert [tuple(v.shape) for v in batch.views] == [(8, 3, 16, 16), (8, 3, 8, 8)]
    assert batch.size == 4
    assert batch.draws is None
    assert batch.bad == []


def test_without_local_views_there_are_only_global_ones(source: Source) -> None:
    settings = SMALL.model_copy(update={"local_count": 0})
    batch = next(view_batches(source, settings, batch_size=4, seed=9, workers=0, finish=True).items(0, 1))
    assert [tuple(v.shape) for v in batch.views] == [(8, 3, 16, 16)]


@pytest.mark.parametrize("workers", [1, 2])
def test_views_are_the_same_bits_whatever_the_number_of_workers(source: Source, workers: int) -> None:
    assert_same(batches(source, workers=workers), batches(source))


@pytest.mark.parametrize("start", [1, 2, 5])
def test_views_are_the_same_bits_from_any_step_on(source: Source, start: int) -> None:
    assert_same(batches(source, start=start), batches(source)[start:])


def test_views_finished_by_the_worker_or_by_the_trainer_are_the_same_bits(source: Source) -> None:
    raw = batches(source, finish=False)
    assert raw[0].views[0].dtype == torch.uint8
    for batch, finished in zip(raw, batches(source), strict=True):
        for v, w in zip(batch.finished(torch.device("cpu"), SMALL), finished.views, strict=True):
            assert torch.equal(v, w)


def test_cuts_of_an_image_do_not_depend_on_its_batch() -> None:
    images = [opened(picture(i)) for i in range(3)]
    together = cut_views(images, plan_views(images, [4, 5, 6], 0, 2, SMALL), SMALL)
    alone = cut_views(images[1:2], plan_views(images[1:2], [5], 0, 2, SMALL), SMALL)
    for several, one in zip(together.crops, alone.crops, strict=True):
        assert torch.equal(several[1::3], one)


def test_views_follow_the_slow_way_from_bytes_to_pixels(source: Source) -> None:
    """One view at a time: draw, cut, colour."""
    batch = batches(source, start=3, stop=4)[0]
    epoch, (indices, _) = batch_at(source, 9, 3, 4)
    for view, (place, index) in itertools.product(range(SMALL.count), enumerate(indices)):
        image = Image.open(io.BytesIO(source.image_bytes(int(index))))
        u = uniforms(9, epoch, [int(index)], 0, view)
        size = SMALL.size(view)
        (box,) = crop_boxes(u, np.array([image.width]), np.array([image.height]), SMALL.scale(view))
        crop = cut(np.array(image), box.tolist(), size).numpy()
        draws = draw_photometry(u, view, SMALL)
        expected = _slow(crop, draws, 0)
        mean, std = np.array(SMALL.mean)[:, None, None], np.array(SMALL.std)[:, None, None]
        row = place + 4 * (view if view < 2 else view - 2)
        found = batch.views[0 if view < 2 else 1][row].numpy() * std + mean
        near = np.abs(expected - 127.5 / 255) < 4e-3 if draws.solarize[0] else np.zeros_like(expected, dtype=bool)
        np.testing.assert_allclose(np.where(near, 0, found), np.where(near, 0, expected), atol=2e-3)


def test_bad_samples_are_left_out_and_reported(source: Source, tmp_path: Path) -> None:
    good = batches(source)
    (tmp_path / "04.png").write_bytes(b"no picture")
    (tmp_path / "07.png").write_bytes(b"")
    found = batches(source)
    reported = {bad.key: bad.reason for batch in found for bad in batch.bad}
    assert reported == {"04.png": "no known image format", "07.png": "empty file"}
    for step, batch in enumerate(found):
        _, (indices, _) = batch_at(source, 9, step, 4)
        keep = [place for place, index in enumerate(indices) if index not in (4, 7)]
        assert batch.size == len(keep) == 4 - len(batch.bad)
        rows = [view * 4 + place for view in range(2) for place in keep]
        for found_views, good_views in zip(batch.views, good[step].views, strict=True):
            torch.testing.assert_close(found_views, good_views[rows], atol=1e-3, rtol=0)


def test_a_batch_of_bad_samples_alone_is_empty_and_says_so(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    batch = batches(open_source(tmp_path), stop=1)[0]
    assert (batch.views, batch.size, len(batch.bad)) == ([], 0, 4)


def test_an_image_that_breaks_while_decoding_is_left_out_of_cut_and_finished_views() -> None:
    """Its head is whole, so its size is known, but the data end early."""
    file = io.BytesIO()
    picture(3, (90, 70)).save(file, "JPEG")
    images = [opened(picture(i)) for i in range(9)]
    images[2] = images[5] = open_image(file.getvalue()[:-300])
    plan = plan_views(images, range(9), 0, 0, SMALL)
    whole = [i for i in range(9) if i not in (2, 5)]
    expected = finish_views([images[i] for i in whole], plan_views([images[i] for i in whole], whole, 0, 0, SMALL), SMALL)
    raw = cut_views(images, plan, SMALL)
    coloured = [photometry.apply(v, d, SMALL) for v, d in zip(raw.crops, raw.draws or (), strict=True)]
    for crops, failed in ((finish_views(images, plan, SMALL).crops, raw.failed), (coloured, raw.failed)):
        assert sorted(failed) == [2, 5]
        assert all("truncated" in reason for reason in failed.values())
        for v, w in zip(crops, expected.crops, strict=True):
            torch.testing.assert_close(v, w, atol=1e-5, rtol=0)


class Spied:
    """An image that remembers at what fraction of its size it was asked for, and gives no smaller one than `most`."""

    def __init__(self, image: OpenedImage, most: int) -> None:
        self.image, self.most, self.asked = image, most, list[int]()
        self.width, self.height = image.width, image.height

    def pixels(self, shrink: int = 1) -> np.ndarray:
        self.asked.append(shrink)
        return self.image.pixels(min(shrink, self.most))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_images_are_decoded_small_and_look_the_same(kind: str) -> None:
    """Views of a JPEG decoded at a fraction of its size differ from those of the whole by less than 3 levels in the mean."""
    image = picture(5, (12, 9)).resize((1600, 1200), Image.Resampling.BICUBIC)
    found = opened(image, kind, quality=95)
    settings = SMALL.model_copy(update={"local_size": 16})
    for seed in range(5):
        plan = plan_views([found], [seed], seed, 0, settings)
        small, large = Spied(found, 8), Spied(found, 1)
        for v, w in zip(cut_views([small], plan, settings).crops, cut_views([large], plan, settings).crops, strict=True):
            assert (v.float() - w.float()).abs().mean() < 3
        assert small.asked == [8]
    assert found.pixels(8).shape == ((150, 200, 3) if kind == "JPEG" else (1200, 1600, 3))


def test_no_view_is_enlarged_because_the_image_was_decoded_small() -> None:
    found = opened(picture(5, (40, 30)).resize((500, 375)), "JPEG")
    for seed in range(40):
        plan = plan_views([found], [seed], 0, 0, ViewSettings())
        spied = Spied(found, 8)
        cut_views([spied], plan, ViewSettings())
        sides = (plan.boxes[:, 0, 2:] - plan.boxes[:, 0, :2]).min(1)
        assert spied.asked[0] <= max(1, min(side / (224 if v < 2 else 96) for v, side in enumerate(sides)))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_for_an_encoder_come_once_in_order_without_the_bad_ones(source: Source, tmp_path: Path, workers: int) -> None:
    for i in (0, 1, 2, 3, 6):
        (tmp_path / f"{i:02d}.png").write_bytes(b"no picture")

    parts = list(image_batches(source, _mean_level, batch_size=4, workers=workers))
    assert [indices for indices, _, _ in parts] == [[], [4, 5, 7], [8, 9, 10]]
    assert parts[0][1] is None
    assert [bad.key for _, _, found in parts for bad in found] == ["00.png", "01.png", "02.png", "03.png", "06.png"]
    levels = torch.cat([values for _, values, _ in parts if values is not None])
    expected = [np.asarray(picture(i)).mean() for i in (4, 5, 7, 8, 9, 10)]
    np.testing.assert_allclose(levels[:, 0], expected, rtol=1e-5)


def _mean_level(image: Image.Image) -> torch.Tensor:
    return torch.tensor([np.asarray(image).mean()], dtype=torch.float32)
