"""Colour, blur and flips of a batch of views, on the device that trains.

Brightness, contrast, saturation, hue and grey are each an affine map of the pixel (x -> M x + b); in the drawn order they
compose to one C x (C + 1) map a view, and the normalisation is one more, so the pixels are touched once. Against torchvision's
chain this leaves out the clamping between steps and turns hue in the YIQ plane instead of HSV. Saturation, hue and grey are
colours of people's eyes: images of other than three channels know brightness and contrast alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from selfsight.data.draws import Floats
from selfsight.data.views import Photometry, ViewSettings

_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = torch.tensor([_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ.double()).float()
_STAINS = functional.normalize(torch.tensor([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)]), dim=1)
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))


_CACHE = 3_000_000
"""Bytes of float pixels that a processor core works on at a time; an accelerator takes all at once."""


def apply(pixels: Tensor, draws: Photometry, settings: ViewSettings) -> Tensor:
    """Views [n, C, size, size] of values 0 to 255 to normalised float32 of the same shape, on the device of `pixels`."""
    n, channels, size = pixels.shape[:3]
    step = max(1, _CACHE // (4 * channels * size**2)) if pixels.device.type == "cpu" else n
    if settings.stain:
        pixels = _stained(pixels.float(), draws.stain)
    affine = _colour_map(_means(pixels, step), draws, settings)
    # Views of one blur radius next to each other: a slice of them costs no copy, a selection would.
    radius = np.minimum(np.ceil(3 * draws.sigma).astype(np.int64), size - 1)
    order = np.argsort(radius, kind="stable")
    out = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    # A channel of ones takes the offset of the colour map into the product.
    values = torch.ones(min(step, n), channels + 1, size, size, device=pixels.device)
    for start in range(0, n, step):
        rows = order[start : start + step]
        some, index = draws.rows(rows), _index(rows, pixels)
        x = values[: len(rows)]
        x[:, :channels] = _placed(pixels.index_select(0, index), some)
        y = torch.bmm(affine.index_select(0, index), x.flatten(2)).view(-1, channels, size, size)
        _finish(y, some, radius[rows], settings)
        _put(y, rows, out)
    return out


def _finish(x: Tensor, draws: Photometry, radius: npt.NDArray[np.int64], settings: ViewSettings) -> None:
    """Clamp to black and white, blur and solarise normalised views in place; `radius` ascends."""
    for channel, (mean, std) in enumerate(zip(settings.mean, settings.std, strict=True)):
        x[:, channel].clamp_(-mean / std, (1 - mean) / std)
    for r in np.unique(radius[radius > 0]):
        first, last = np.searchsorted(radius, [r, r + 1])
        _blur(x[first:last], draws.sigma[first:last], int(r))
    for row in np.flatnonzero(draws.solarize):
        m, s = (torch.tensor(values, device=x.device)[:, None, None] for values in (settings.mean, settings.std))
        # 128 of 255 or brighter is turned around.
        x[row] = torch.where(x[row] >= (128 / 255 - m) / s, (1 - 2 * m) / s - x[row], x[row])


def _put(views: Tensor, rows: npt.NDArray[np.int64], out: Tensor) -> None:
    """`out[rows] = views`: by whole views on a processor, where an index is five times as slow."""
    if out.device.type == "cpu":
        for row, view in zip(rows.tolist(), views, strict=True):
            out[row].copy_(view)
    else:
        out.index_copy_(0, _index(rows, out), views)


def _means(pixels: Tensor, step: int) -> Tensor:
    """Mean colour of each view, [n, C], 0 to 1."""
    return torch.cat([part.float().mean(dim=(2, 3)) for part in torch.split(pixels, step)]) / 255


def _placed(pixels: Tensor, draws: Photometry) -> Tensor:
    """Turned by quarters, then mirrored."""
    for quarters in (1, 2, 3):
        pixels = _changed(pixels, draws.quarters == quarters, partial(torch.rot90, k=quarters, dims=(2, 3)))
    pixels = _changed(pixels, draws.flip, partial(torch.flip, dims=(3,)))
    return _changed(pixels, draws.vertical, partial(torch.flip, dims=(2,)))


def _changed(pixels: Tensor, rows: npt.NDArray[np.bool_], change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of some rows. Changing all and picking whole rows is several times as fast as a mask."""
    if not rows.any():
        return pixels
    n = len(rows)
    return torch.cat([pixels, change(pixels)]).index_select(0, _index(np.arange(n) + n * rows, pixels))


def _index(places: npt.NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(places).to(like.device)


def _colour_map(mean: Tensor, draws: Photometry, settings: ViewSettings) -> Tensor:
    """The drawn steps and the normalisation as one map (M | b) [n, C, C + 1] of values 0 to 255.

    `mean` [n, C] is the mean colour of each view, 0 to 1. Contrast blends with the mean grey value at that point of
    the chain, which is the same affine map applied to `mean`.
    """
    n, channels = mean.shape
    # Worked out on the device of the pixels: to bring the means to the host would make it wait for the device.
    device = mean.device
    luma = torch.tensor(_LUMA if channels == 3 else (1 / channels,) * channels, device=device)
    steps = _steps(draws, channels).to(device)
    matrix, offset = torch.eye(channels, device=device).repeat(n, 1, 1), torch.zeros(n, channels, device=device)
    order = _ORDERS[torch.from_numpy(draws.order)].to(device)
    rows = torch.arange(n, device=device)
    contrast = torch.from_numpy(draws.contrast).float().to(device)
    for position in range(4):
        kind = order[:, position]
        step = steps[kind, rows]
        grey = ((matrix @ mean[:, :, None])[:, :, 0] + offset) @ luma
        shift = torch.where(kind == 1, (1 - contrast) * grey, 0.0)
        matrix = step @ matrix
        offset = (step @ offset[:, :, None])[:, :, 0] + shift[:, None]
    if channels == 3:
        grey_rows = torch.from_numpy(draws.grey).to(device)
        to_grey = luma.expand(3, 3)
        matrix = torch.where(grey_rows[:, None, None], to_grey @ matrix, matrix)
        offset = torch.where(grey_rows[:, None], offset @ to_grey.T, offset)
    m, s = torch.tensor(settings.mean, device=device), torch.tensor(settings.std, device=device)
    return torch.cat([matrix / 255, (offset - m)[:, :, None]], dim=2) / s[:, None]


def _steps(draws: Photometry, channels: int) -> Tensor:
    """Linear parts [4, n, C, C] of brightness, contrast, saturation and hue."""
    eye = torch.eye(channels)
    brightness, contrast = _column(draws.brightness) * eye, _column(draws.contrast) * eye
    if channels != 3:
        same = eye.expand(len(draws.hue), -1, -1)
        return torch.stack([brightness, contrast, same, same])
    saturation = _column(draws.saturation)
    angle = torch.from_numpy(draws.hue).float() * 2 * math.pi
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = torch.sin(angle), -torch.sin(angle)
    less_colour = saturation * eye + (1 - saturation) * torch.tensor(_LUMA).expand(3, 3)
    return torch.stack([brightness, contrast, less_colour, _FROM_YIQ @ turn @ _TO_YIQ])


def _column(values: Floats) -> Tensor:
    return torch.from_numpy(values).float()[:, None, None]


def _blur(x: Tensor, sigma: Floats, radius: int) -> None:
    """Gaussian blur of each view with its own sigma in pixels, in place."""
    offsets = torch.arange(-radius, radius + 1).float()
    kernel = torch.exp(-0.5 * (offsets / torch.from_numpy(sigma).float()[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x.device)
    _along(_along(x, kernel, 3, torch.empty_like(x)), kernel, 2, x)


def _along(x: Tensor, kernel: Tensor, dim: int, out: Tensor) -> Tensor:
    """One-dimensional convolution of each view with its own kernel [n, 2r + 1], mirrored at the borders.

    A sum of shifted copies: a convolution with one group a view is slower.
    """
    radius, size = kernel.shape[1] // 2, x.shape[dim]
    padded = functional.pad(x, (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius), mode="reflect")
    weights = kernel[:, :, None, None, None].unbind(1)
    torch.mul(padded.narrow(dim, 0, size), weights[0], out=out)
    for shift in range(1, 2 * radius + 1):
        out.addcmul_(padded.narrow(dim, shift, size), weights[shift])
    return out


def _stained(x: Tensor, stain: Floats) -> Tensor:
    """Haematoxylin, eosin and residual made stronger or weaker in the optical density (Tellez et al. 2018, HED-light).

    `x` holds 0 to 255. The stain vectors are those of Ruifrok and Johnston 2001.
    """
    change = torch.from_numpy(stain).float().to(x.device)
    to_rgb = _STAINS.to(x.device)
    density = -torch.log((x.flatten(2) + 1) / 256)
    amounts = torch.linalg.inv(to_rgb).T @ density
    amounts = amounts * (1 + change[:, :3, None]) + change[:, 3:, None]
    return (torch.exp(-(to_rgb.T @ amounts)) * 256 - 1).clamp_(0, 255).view_as(x)
