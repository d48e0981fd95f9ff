"""Views are distributed like those of the published augmentation, whose statistics are stored.

Both sides are samples, so every tolerance is a number of standard errors of their difference: LIMIT of them, which a fair pair of
samples passes in all of the some hundred comparisons here with 95 % (two-sided normal, and fewer than that are independent).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from golden.arrays import Golden, golden
from selfsight.data import photometry
from selfsight.data.multicrop import cut_views, finish_views, plan_views
from selfsight.data.opening import OpenedImage, open_image
from selfsight.data.views import Photometry, ViewSettings, crop_boxes, draw_photometry, view_uniforms

LIMIT = 3.5
KINDS = ("global 1", "global 2", "locals")
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def assert_within(found: np.ndarray, expected: np.ndarray, error: np.ndarray, what: str) -> None:
    """`error` is the standard error of the difference."""
    z = (np.asarray(found, dtype=float) - expected) / error
    assert np.abs(z).max() < LIMIT, f"{what}: {found} is not {expected}: {np.round(z, 1)} standard errors"


# --- crops ----------------------------------------------------------------------------------------------------------


def boxes(g: Golden, scale: str) -> np.ndarray:
    count = g.config["area_samples"]
    height, width = (np.full(count, side) for side in g.config["source_hw"])
    return crop_boxes(view_uniforms(0, 0, range(count), 0, 0), width, height, tuple(g.config[f"{scale}_crops_scale"]))


def of_quantiles(values: np.ndarray, deciles: np.ndarray, count: int) -> np.ndarray:
    """Standard error of the inner deciles of `count` samples: sqrt(q (1 - q) / n) / density(quantile).

    The density around a decile is a fifth of all samples over the way from the decile before to the one after.
    """
    q = np.linspace(0.1, 0.9, 9)
    density = 0.2 / (deciles[2:] - deciles[:-2])
    return np.sqrt(q * (1 - q) / count) / density


@pytest.mark.parametrize("scale", ["global", "local"])
@pytest.mark.parametrize("measure", ["area", "log_aspect"])
def test_crops_have_the_published_deciles_of_area_and_aspect(scale: str, measure: str) -> None:
    """20,000 samples on either side. The ends of the range are extremes of a sample: they are compared to a 50th of a decile step
    and to half a pixel of the shortest side, by which the rounding of a box can move them."""
    g = golden("multicrop_stats")
    left, top, right, bottom = boxes(g, scale).T.astype(float)
    (height, width), count = g.config["source_hw"], g.config["area_samples"]
    w, h = right - left, bottom - top
    values = w * h / (width * height) if measure == "area" else np.log(w / h)
    expected = g[f"{measure}_deciles_{scale}"].astype(float)
    found = np.quantile(values, np.linspace(0, 1, 11))
    error = of_quantiles(values, expected, count) * np.sqrt(2)
    assert_within(found[1:-1], expected[1:-1], error, f"deciles of {measure}, {scale}")
    ends = np.abs(found[[0, -1]] - expected[[0, -1]])
    assert ends.max() < np.diff(expected).max() / 50 + 0.5 / min(w.min(), h.min())
    assert_within(values.mean(), g[f"{measure}_mean_{scale}"], values.std() * np.sqrt(2 / count), f"mean {measure}, {scale}")
    if measure == "log_aspect":
        # A deviation has the standard error sd sqrt((kurtosis - 1) / 4n).
        kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
        assert_within(values.std(), g[f"log_aspect_sd_{scale}"], values.std() * np.sqrt((kurtosis - 1) / (2 * count)), "spread")


@pytest.mark.parametrize("scale", ["global", "local"])
def test_crops_lie_as_far_from_the_corner_as_the_published_ones(scale: str) -> None:
    g = golden("multicrop_stats")
    left, top, right, bottom = boxes(g, scale).T.astype(float)
    height, width = g.config["source_hw"]
    for number, (offset, room) in enumerate(((top, height - (bottom - top)), (left, width - (right - left)))):
        share = (offset / np.maximum(room, 1))[room > 0]
        error = share.std() * np.sqrt(2 / g.config["area_samples"])
        assert_within(share.mean(), g[f"offset_mean_{scale}"][number], error, f"offset {number}, {scale}")


# --- draws ----------------------------------------------------------------------------------------------------------


def drawn(view: int, count: int) -> Photometry:
    return draw_photometry(view_uniforms(0, 0, range(count), 0, view), view, ViewSettings())


@pytest.mark.parametrize("view", range(3))
def test_grey_blur_and_solarise_have_the_published_probabilities(view: int) -> None:
    """Ours over 200,000 draws against the probability itself, and the stored shares, of some hundred crops, against it too."""
    g, count = golden("multicrop_stats"), 200_000
    draws, crops = drawn(view, count), int(g["crops_per_view"][view])
    colour = crops * (1 - g["source_gray"].mean())
    expected = {
        "gray_share_color_sources": (g.config["gray_p"], draws.grey, colour),
        "blur_share": (g.config["blur_p"][view], draws.sigma > 0, crops),
        "solarize_share": (g.config["solarize_p"] if view == 1 else 0.0, draws.solarize, crops),
    }
    for name, (p, ours, stored) in expected.items():
        if p in (0.0, 1.0):
            assert ours.mean() == float(g[name][view]) == p
            continue
        spread = np.sqrt(p * (1 - p))
        assert_within(ours.mean(), p, spread / np.sqrt(count), f"{name}, {KINDS[view]}")
        assert_within(g[name][view], p, spread / np.sqrt(stored), f"stored {name}, {KINDS[view]}")


def test_the_radius_of_blur_has_the_published_deciles() -> None:
    """Uniform in (0.1, 2); the stored deciles are those of the some 1,500 crops that were blurred, ours of 200,000."""
    g = golden("multicrop_stats")
    low, high = g.config["blur_radius"]
    blurred = round(float((g["blur_share"] * g["crops_per_view"]).sum()))
    found = np.quantile(drawn(0, 200_000).sigma, np.linspace(0, 1, 11))
    q = np.linspace(0.1, 0.9, 9)
    error = (high - low) * np.sqrt(q * (1 - q) * (1 / blurred + 1 / 200_000))
    assert_within(found[1:-1], g["blur_radius_deciles"][1:-1], error, "radius of blur")
    # The least of n uniform draws lies above the edge by 1 / n on average, and by more than 7 / n once in a thousand samples.
    np.testing.assert_allclose(g["blur_radius_deciles"][[0, -1]], found[[0, -1]], atol=7 * (high - low) / blurred)


# --- photographs ----------------------------------------------------------------------------------------------------


@dataclass
class Crops:
    """Measures of n crops of one kind; `picture` says of which photograph each is."""

    picture: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    sharpness: np.ndarray
    blurred: np.ndarray
    looks_grey: np.ndarray
    drew_grey: np.ndarray

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The stored statistics, of some of the crops."""
        mean, square, sharp = self.mean[rows], self.square[rows], self.sharpness[rows]
        blurred = self.blurred[rows]
        found = {
            "pixel_mean": mean.mean(0),
            "pixel_std": np.sqrt(square.mean(0) - mean.mean(0) ** 2),
            "crop_mean_sd": mean.std(0),
            "crop_std_mean": np.sqrt(np.maximum(square - mean**2, 0)).mean(0),
            "laplacian_var_mean": sharp.mean(),
            "laplacian_var_median": np.median(sharp),
            "laplacian_var_mean_blurred": sharp[blurred].mean(),
        }
        return found if blurred.all() else found | {"laplacian_var_mean_not_blurred": sharp[~blurred].mean()}

    def spread(self, pictures: int, resamples: int = 300) -> dict[str, np.ndarray]:
        """Standard errors of the statistics of so many pictures, by drawing pictures with all their crops with replacement."""
        rng = np.random.default_rng(0)
        order = np.argsort(self.picture, kind="stable").reshape(len(np.unique(self.picture)), -1)
        found = [self.of(order[rng.integers(len(order), size=pictures)].ravel()) for _ in range(resamples)]
        return {name: np.std([f[name] for f in found], axis=0) for name in found[0]}


def photographs() -> list[OpenedImage]:
    folder = os.environ.get("SELFSIGHT_PHOTOS")
    if not folder:
        pytest.skip("SELFSIGHT_PHOTOS is not set: it names a folder of a hundred or more ImageNet photographs")
    return [open_image(path.read_bytes()) for path in sorted(Path(folder).iterdir()) if path.suffix.lower() == ".jpeg"]


def shown(views: torch.Tensor) -> torch.Tensor:
    """Normalised views to values of 0 to 1."""
    settings = ViewSettings()
    return views * torch.tensor(settings.std)[:, None, None] + torch.tensor(settings.mean)[:, None, None]


def sharpness(values: torch.Tensor) -> np.ndarray:
    """Variance of the Laplacian of the luminance of each view, without its border."""
    y = torch.einsum("c,nchw->nhw", _LUMA, values)
    edges = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:] - 4 * y[:, 1:-1, 1:-1]
    return edges.var(dim=(1, 2), correction=0).numpy()


@cache
def measured(passes: int) -> tuple[Crops, ...]:
    """Crops of each kind of all photographs, some passes, as the stored ones were made: default settings, ten views a pass."""
    images, settings = photographs(), ViewSettings()
    rows: list[list[tuple[np.ndarray, ...]]] = [[], [], []]
    for epoch in range(passes):
        for start in range(0, len(images), 25):
            part = images[start : start + 25]
            n = len(part)
            plan = plan_views(part, range(start, start + n), 0, epoch, settings)
            views = [v for crops in finish_views(part, plan, settings).crops for v in torch.split(crops, n)]
            for view, x in enumerate(views):
                values = shown(x)
                # Half a level: three equal channels of 8 bits differ by nothing, and float32 by less than a thousandth of one.
                grey = (values.amax(1) - values.amin(1)).amax(dim=(1, 2)) < 0.5 / 255
                draws = plan.draws[view]
                of_crop = (x.mean(dim=(2, 3)), x.square().mean(dim=(2, 3)), sharpness(values), draws.sigma > 0, grey, draws.grey)
                rows[min(view, 2)].append((np.arange(start, start + n), *(np.asarray(c) for c in of_crop)))
    return tuple(Crops(*(np.concatenate(column) for column in zip(*kind, strict=True))) for kind in rows)


@pytest.mark.parametrize("view", range(3))
def test_photographs_look_like_the_published_views(view: int) -> None:
    """Not the same hundred photographs: the standard errors are those between photographs, of both sets."""
    g = golden("multicrop_stats")
    crops = measured(g.config["passes"])[view]
    found, ours = crops.of(np.arange(len(crops.picture))), crops.spread(len(np.unique(crops.picture)))
    theirs = crops.spread(g.config["images"]) | {"pixel_mean": g["crop_mean_se"][view]}
    for name, value in found.items():
        assert_within(value, g[name][view], np.hypot(ours[name], theirs[name]), f"{name}, {KINDS[view]}")


@pytest.mark.parametrize("view", range(3))
def test_crops_that_drew_grey_are_grey_and_the_others_are_not(view: int) -> None:
    """Photographs that are grey themselves left out, as in the stored shares. A crop of white paper or of the night is grey of
    its own accord, which is rare."""
    crops = measured(golden("multicrop_stats").config["passes"])[view]
    assert crops.looks_grey[crops.drew_grey].all()
    grey_photograph = np.array([crops.looks_grey[crops.picture == p].all() for p in range(int(crops.picture.max()) + 1)])
    others = ~grey_photograph[crops.picture] & ~crops.drew_grey
    assert others.mean() > 0.7
    assert crops.looks_grey[others].mean() < 0.003


def test_a_gaussian_in_place_of_pillows_boxes_hardly_shows() -> None:
    """Pillow's GaussianBlur, which the published code calls, is three box blurs; ours samples a Gaussian at whole pixels. On the
    same cuts of a hundred photographs they differ by less than one level of 255 in the mean at every radius. The sharpness of
    what was blurred differs by up to a third at a radius of .4 (ours blurs less there) and by a fifth the other way at .75; over
    all radii ours is 9 % sharper. The comparison with the stored sharpness of blurred views has standard errors of 12 % (locals)
    to 48 % (global 2), so this is within them."""
    settings = ViewSettings(jitter=0, grey=0, flip=0, solarize=0, local_count=0)
    images = photographs()[:100]
    plan = plan_views(images, range(len(images)), 0, 0, settings)
    cuts = cut_views(images, plan, settings).crops[0][: len(images)]
    pictures = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in cuts]
    ours, theirs = [], []
    for sigma in np.linspace(0.1, 2.0, 21)[1::2]:  # the middles of ten equal parts of the range
        draws = replace(plan.draws[0], sigma=np.full(len(images), sigma))
        x = shown(photometry.apply(cuts, draws, settings))
        blurred = [np.array(picture.filter(ImageFilter.GaussianBlur(float(sigma)))) for picture in pictures]
        y = torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2) / 255
        assert (x - y).abs().mean() * 255 < 1, sigma
        ours.append(sharpness(x).mean())
        theirs.append(sharpness(y).mean())
    ratios = np.array(ours) / np.array(theirs)
    assert 0.75 < ratios.min() < 0.85
    assert 1.25 < ratios.max() < 1.4
    assert np.mean(ours) / np.mean(theirs) == pytest.approx(1.09, abs=0.04)
