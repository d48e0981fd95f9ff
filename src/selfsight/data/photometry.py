"""Colour, blur and flips of a batch of views, on the device that trains.

Brightness, contrast, saturation, hue and grey are each an affine map of the pixel (x -> M x + b); in the drawn order they
compose to one 3x4 map a view, so the pixels are touched once. Against torchvision's chain this leaves out the clamping between
steps and turns hue in the YIQ plane instead of HSV.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selfsight.data.draws import Floats
from selfsight.data.views import Photometry, ViewSettings

_LUMA = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ.double()).float()
_ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def apply(pixels: Tensor, draws: Photometry, settings: ViewSettings) -> Tensor:
    """Views [n, 3, size, size] as uint8 to normalised float32 of the same shape, on the device of `pixels`."""
    x = _flipped(pixels, draws).float().div_(255)
    matrix, offset = _colour_map(x.mean(dim=(2, 3)).cpu(), draws)
    x = torch.einsum("nij,njhw->nihw", matrix.to(x.device), x).add_(offset.to(x.device)[:, :, None, None]).clamp_(0, 1)
    x = _blurred(x, draws, settings.blur_sigma[1])
    solarize = torch.from_numpy(draws.solarize).to(x.device)[:, None, None, None]
    x = torch.where(solarize & (x >= 128 / 255), 1 - x, x)
    mean = torch.tensor(settings.mean, device=x.device)[:, None, None]
    std = torch.tensor(settings.std, device=x.device)[:, None, None]
    return x.sub_(mean).div_(std)


def _flipped(pixels: Tensor, draws: Photometry) -> Tensor:
    if draws.flip.any():
        flip = torch.from_numpy(draws.flip).to(pixels.device)[:, None, None, None]
        pixels = torch.where(flip, pixels.flip(3), pixels)
    if draws.vertical.any():
        vertical = torch.from_numpy(draws.vertical).to(pixels.device)[:, None, None, None]
        pixels = torch.where(vertical, pixels.flip(2), pixels)
    return pixels


def _colour_map(mean: Tensor, draws: Photometry) -> tuple[Tensor, Tensor]:
    """Compose the drawn steps into M [n, 3, 3] and b [n, 3]; `mean` [n, 3] is the mean colour of each view.

    Contrast blends with the mean grey value at that point of the chain, which is the same affine map applied to `mean`.
    """
    n = len(mean)
    steps = _steps(draws)
    matrix, offset = torch.eye(3).repeat(n, 1, 1), torch.zeros(n, 3)
    order = _ORDERS[torch.from_numpy(draws.order)]
    rows = torch.arange(n)
    contrast = torch.from_numpy(draws.contrast).float()
    for position in range(4):
        kind = order[:, position]
        step = steps[kind, rows]
        grey = ((matrix @ mean[:, :, None])[:, :, 0] + offset) @ _LUMA
        shift = torch.where(kind == 1, (1 - contrast) * grey, torch.zeros(n))
        matrix = step @ matrix
        offset = (step @ offset[:, :, None])[:, :, 0] + shift[:, None]
    grey_rows = torch.from_numpy(draws.grey)
    to_grey = _LUMA.expand(3, 3)
    matrix = torch.where(grey_rows[:, None, None], to_grey @ matrix, matrix)
    offset = torch.where(grey_rows[:, None], offset @ to_grey.T, offset)
    return matrix, offset


def _steps(draws: Photometry) -> Tensor:
    """Linear parts [4, n, 3, 3] of brightness, contrast, saturation and hue."""
    eye = torch.eye(3)

    def column(values: Floats) -> Tensor:
        return torch.from_numpy(values).float()[:, None, None]

    saturation = column(draws.saturation)
    angle = torch.from_numpy(draws.hue).float() * 2 * math.pi
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = torch.sin(angle), -torch.sin(angle)
    return torch.stack(
        [
            column(draws.brightness) * eye,
            column(draws.contrast) * eye,
            saturation * eye + (1 - saturation) * _LUMA.expand(3, 3),
            _FROM_YIQ @ turn @ _TO_YIQ,
        ]
    )


def _blurred(x: Tensor, draws: Photometry, widest: float) -> Tensor:
    """Gaussian blur of the views whose sigma (pixels) is above 0: two one-dimensional convolutions, one kernel a view."""
    rows = np.flatnonzero(draws.sigma > 0)
    if not len(rows):
        return x
    sigma = torch.from_numpy(draws.sigma[rows]).float()
    size = x.shape[-1]
    radius = min(math.ceil(3 * widest), size - 1)
    offsets = torch.arange(-radius, radius + 1).float()
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0).to(x.device)
    index = torch.from_numpy(rows).to(x.device)
    part = x[index].reshape(1, -1, size, size)
    part = F.conv2d(F.pad(part, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=part.shape[1])
    part = F.conv2d(F.pad(part, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=part.shape[1])
    return x.index_copy(0, index, part.reshape(-1, 3, size, size))
