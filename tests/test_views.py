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
from selfsight.data.loader import ViewBatch, batch_at, image_batches, make_views, view_batches
from selfsight.data.sources import Source, open_source
from selfsight.data.views import Photometry, ViewSettings, crop_box, cut, draw_photometry
from selfsight.data.views import view_uniforms as uniforms


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- uniform numbers ------------------------------------------------------------------------------------------------


def test_uniforms_are_uniform_in_every_column() -> None:
    u = uniforms(3, 1, range(5000), 0, 2)
    assert u.shape == (5000, 33)
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
    assert len(np.unique(np.array(rows))) == 50 * 33


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
    ours = [crop_box(u, width, height, scale) for u in uniforms(0, 0, range(count), 0, 0)]
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
    for u in uniforms(1, 0, range(300), 0, 0):
        left, top, right, bottom = crop_box(u, width, height, scale)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@pytest.mark.parametrize(("width", "height", "box"), [(1000, 90, (440, 0, 560, 90)), (90, 1000, (0, 440, 90, 560))])
def test_an_image_too_narrow_for_any_try_is_cut_in_the_middle(width: int, height: int, box: tuple[int, ...]) -> None:
    assert crop_box(uniforms(0, 0, [0], 0, 0)[0], width, height, (0.9, 1.0)) == box


def test_a_cut_is_the_box_resized_with_pillows_bicubic() -> None:
    """As torchvision's `resized_crop`: cut first, so that no pixel from outside the box shines in."""
    image = picture(0, (40, 30))
    expected = image.crop((5, 3, 29, 27)).resize((12, 12), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cut(image, (5, 3, 29, 27), 12), np.asarray(expected))
    np.testing.assert_array_equal(cut(image, (5, 3, 17, 15), 12), np.asarray(image.crop((5, 3, 17, 15))))


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_probabilities_of_each_change_are_those_of_the_settings() -> None:
    """A share of 4,000 draws has a standard error below 0.008; 0.03 is allowed."""
    settings, count = ViewSettings(vertical_flip=True), 4000

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
    columns = {f.name: np.full(count, neutral.get(f.name, 1.0)) for f in fields(Photometry)}
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
    return list(view_batches(source, SMALL, batch_size=4, seed=9, start=start, stop=stop, workers=workers, finish=finish))


def same(a: Sequence[ViewBatch], b: Sequence[ViewBatch]) -> None:
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
    batch = next(view_batches(source, settings, batch_size=4, seed=9, start=0, stop=1, workers=0, finish=True))
    assert [tuple(v.shape) for v in batch.views] == [(8, 3, 16, 16)]


@pytest.mark.parametrize("workers", [1, 2])
def test_views_are_the_same_bits_whatever_the_number_of_workers(source: Source, workers: int) -> None:
    same(batches(source, workers=workers), batches(source))


@pytest.mark.parametrize("start", [1, 2, 5])
def test_views_are_the_same_bits_from_any_step_on(source: Source, start: int) -> None:
    same(batches(source, start=start), batches(source)[start:])


def test_views_finished_by_the_worker_or_by_the_trainer_are_the_same_bits(source: Source) -> None:
    raw = batches(source, finish=False)
    assert raw[0].views[0].dtype == torch.uint8
    for batch, finished in zip(raw, batches(source), strict=True):
        for v, w in zip(batch.finished(torch.device("cpu"), SMALL), finished.views, strict=True):
            assert torch.equal(v, w)


def test_cuts_of_an_image_do_not_depend_on_its_batch() -> None:
    together, _ = make_views([picture(i) for i in range(3)], [4, 5, 6], 0, 2, SMALL)
    alone, _ = make_views([picture(1)], [5], 0, 2, SMALL)
    for several, one in zip(together, alone, strict=True):
        assert torch.equal(several[1::3], one)


def test_views_follow_the_slow_way_from_bytes_to_pixels(source: Source) -> None:
    """One view at a time: draw, cut, colour."""
    batch = batches(source, start=3, stop=4)[0]
    epoch, (indices, _) = batch_at(source, 9, 3, 4)
    for view, (place, index) in itertools.product(range(SMALL.count), enumerate(indices)):
        image = Image.open(io.BytesIO(source.image_bytes(int(index))))
        u = uniforms(9, epoch, [int(index)], 0, view)
        size = SMALL.size(view)
        crop = cut(image, crop_box(u[0], image.width, image.height, SMALL.scale(view)), size)
        draws = draw_photometry(u, view, SMALL)
        expected = _slow(crop.transpose(2, 0, 1), draws, 0)
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
