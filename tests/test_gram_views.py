"""The views of the Gram teacher: the crops of the global views, larger, flipped alike and in their own colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from selfsight.data.multicrop import cut_views, finish_views, plan_views
from selfsight.data.opening import open_image
from selfsight.data.views import ViewSettings

SMALL = ViewSettings(global_size=32, local_size=16, local_count=2, gram_size=64)
PLAIN = {"jitter": 0.0, "grey": 0.0, "solarize": 0.0, "blur": (0.0, 0.0, 0.0)}


def images(count: int = 3) -> list:
    found = []
    for seed in range(count):
        rough = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(rough).resize((240, 180), Image.Resampling.BICUBIC).save(data, "PNG")
        found.append(open_image(data.getvalue()))
    return found


def test_the_same_crops_come_once_more_and_larger() -> None:
    """Without colours both sizes of a view show the same."""
    settings = SMALL.model_copy(update=PLAIN)
    made = images()
    views = finish_views(made, plan_views(made, range(3), 0, 0, settings), settings)
    globals_, local, gram = views.crops
    assert (globals_.shape, local.shape, gram.shape) == ((6, 3, 32, 32), (6, 3, 16, 16), (6, 3, 64, 64))
    assert (F.avg_pool2d(gram, 2) - globals_).abs().mean() < 0.1
    assert (F.avg_pool2d(gram.flip(0), 2) - globals_).abs().mean() > 0.3


def test_its_colours_are_those_of_the_image_and_its_flips_those_of_the_view() -> None:
    made = images()
    coloured = plan_views(made, range(3), 0, 0, SMALL)
    plain = plan_views(made, range(3), 0, 0, SMALL.model_copy(update=PLAIN))
    one, two = (finish_views(made, plan, SMALL).crops for plan in (coloured, plain))
    assert torch.equal(one[2], two[2])
    assert not torch.equal(one[0], two[0])
    for view, gram in zip(coloured.draws[:2], coloured.draws[4:], strict=True):
        assert np.array_equal(view.flip, gram.flip)
        assert np.array_equal(view.quarters, gram.quarters)
    assert np.array_equal(coloured.boxes[:2], coloured.boxes[4:])


@pytest.mark.parametrize("make", [cut_views, finish_views])
def test_the_other_views_are_as_they_are_without_it(make: object) -> None:
    made, without = images(), SMALL.model_copy(update={"gram_size": None})
    with_it = make(made, plan_views(made, range(3), 0, 0, SMALL), SMALL)  # type: ignore[operator]
    bare = make(made, plan_views(made, range(3), 0, 0, without), without)  # type: ignore[operator]
    assert len(bare.crops) == 2
    assert all(torch.equal(a, b) for a, b in zip(bare.crops, with_it.crops, strict=False))
