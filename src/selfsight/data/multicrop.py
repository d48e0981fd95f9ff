"""All views of a batch, cut straight from the decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsight.data import photometry
from selfsight.data.decode import UndecodableError
from selfsight.data.draws import Indices
from selfsight.data.opening import OpenedImage
from selfsight.data.views import Photometry, ViewSettings, crop_boxes, cut, draw_photometry, view_uniforms

_TOGETHER = 16
"""Images whose views a processor core finishes at a time: few enough for its cache."""


class Views(NamedTuple):
    """Views by size, view-major, of the n images that decode: globals [2n, C, S, S], locals [Ln, C, s, s] and the Gram teacher's
    [2n, C, T, T], the last two if there are any.

    `draws` says what is still to be done to their pixels, or is None where they are finished; `failed` maps the place of an
    image that did not decode to the reason.
    """

    crops: list[Tensor]
    draws: list[Photometry] | None
    failed: dict[int, str]


class Plan(NamedTuple):
    """Where each view is cut, [views, n, 4], and what is done to its pixels, one `Photometry` of n rows a view."""

    boxes: Indices
    draws: list[Photometry]


def plan_views(
    images: Sequence[OpenedImage],
    samples: Sequence[int] | Indices,
    seed: int,
    epoch: int,
    settings: ViewSettings,
    occurrences: int | Indices = 0,
) -> Plan:
    """Everything that is random about the views of some images; `samples` are their numbers in the source."""
    width, height = np.array([i.width for i in images]), np.array([i.height for i in images])
    uniforms = [view_uniforms(seed, epoch, samples, occurrences, view) for view in range(settings.count)]
    boxes = [crop_boxes(u, width, height, settings.scale(view)) for view, u in enumerate(uniforms)]
    draws = [draw_photometry(u, view, settings) for view, u in enumerate(uniforms)]
    if settings.gram_size is not None:
        boxes, draws = [*boxes, *boxes[:2]], [*draws, *(draw.uncoloured() for draw in draws[:2])]
    return Plan(np.stack(boxes), draws)


def cut_views(images: Sequence[OpenedImage], plan: Plan, settings: ViewSettings) -> Views:
    """Decode and cut; the pixels are left as they are, for a device that is quicker at changing them."""
    crops: list[list[Tensor]] = [[] for _ in range(settings.total)]
    failed: dict[int, str] = {}
    for place, image in enumerate(images):
        try:
            found = _cut_all(image, plan.boxes[:, place], settings)
        except UndecodableError as error:
            failed[place] = str(error)
            continue
        for view, crop in enumerate(found):
            crops[view].append(crop)
    good = [place for place in range(len(images)) if place not in failed]
    kinds = [kind for kind in _kinds(settings) if good]
    stacked = [torch.stack([crop for view in kind for crop in crops[view]]) for kind in kinds]
    return Views(stacked, [Photometry.joined([plan.draws[v].rows(np.array(good)) for v in kind]) for kind in kinds], failed)


def finish_views(images: Sequence[OpenedImage], plan: Plan, settings: ViewSettings) -> Views:
    """Decode, cut and colour on the CPU, a few images at a time, so that their pixels do not leave its cache in between."""
    n = len(images)
    shapes = [(len(kind), n, settings.read.channels, *[settings.size(kind[0])] * 2) for kind in _kinds(settings)]
    out = [torch.empty(shape) for shape in shapes]
    failed: dict[int, str] = {}
    done = 0
    for start in range(0, n, _TOGETHER):
        part = slice(start, start + _TOGETHER)
        views = cut_views(images[part], Plan(plan.boxes[:, part], [d.rows(part) for d in plan.draws]), settings)
        failed |= {start + place: reason for place, reason in views.failed.items()}
        for into, crops, draws in zip(out, views.crops, views.draws or (), strict=False):
            good = len(crops) // len(into)
            into[:, done : done + good] = photometry.apply(crops, draws, settings).view(len(into), good, *into.shape[2:])
        done += len(images[part]) - len(views.failed)
    return Views([o[:, :done].flatten(0, 1) for o in out] if done else [], None, failed)


def _kinds(settings: ViewSettings) -> list[range]:
    """The global views, the local ones if there are any, and those of the Gram teacher if there are any."""
    return [kind for kind in (range(2), range(2, settings.count), range(settings.count, settings.total)) if kind]


def _cut_all(image: OpenedImage, boxes: Indices, settings: ViewSettings) -> list[Tensor]:
    """Views of one image, decoded at the smallest size at which no view has fewer pixels than it needs."""
    sizes = np.array([settings.size(view) for view in range(settings.total)])
    sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    spare = float((sides / sizes).min())
    pixels = image.pixels(next(shrink for shrink in (8, 4, 2, 1) if shrink <= max(1.0, spare)))
    if pixels.shape[:2] != (image.height, image.width):
        boxes = _scaled(boxes, pixels.shape[1] / image.width, pixels.shape[0] / image.height, pixels.shape)
    return [cut(pixels, box, int(size)) for box, size in zip(boxes.tolist(), sizes, strict=True)]


def _scaled(boxes: Indices, across: float, down: float, shape: tuple[int, ...]) -> Indices:
    scaled = np.rint(boxes * np.array([across, down, across, down])).astype(np.int64)
    scaled[:, :2] = np.minimum(scaled[:, :2], [shape[1] - 1, shape[0] - 1])
    scaled[:, 2:] = np.clip(scaled[:, 2:], scaled[:, :2] + 1, [shape[1], shape[0]])
    return scaled
