"""Which patches are hidden: how many views, how many patches of each, and the same ones for any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from torch import Tensor

from selfsight import config
from selfsight.errors import ConfigError
from selfsight.ssl.batch import Masks
from selfsight.ssl.masking import MaskSettings, hidden_patches

GRID = (14, 14)
BATCH = 32


def masks(settings: MaskSettings | None = None, step: int = 0, batch: int = BATCH, grid: tuple[int, int] = GRID) -> Tensor:
    return hidden_patches(settings or MaskSettings(), grid, 0, step, np.arange(batch), batch)


def test_half_of_the_global_views_are_masked_with_shares_spread_from_a_tenth_to_a_half() -> None:
    """As published: of 64 views 32, and the k-th of them by a share from the k-th of 32 equal parts of (.1, .5)."""
    hidden = masks()
    assert hidden.shape == (2 * BATCH, 196)
    counts = hidden.sum(1)
    shares = np.sort(counts[counts > 0].numpy()) / 196
    assert len(shares) == BATCH
    edges = np.linspace(0.1, 0.5, BATCH + 1)
    assert (shares >= edges[:-1] - 0.5 / 196).all()
    assert (shares <= edges[1:] + 0.5 / 196).all()


def test_masked_views_are_dealt_anew_each_step_to_both_global_views() -> None:
    found = torch.stack([masks(step=step).any(1) for step in range(40)])
    assert (found.sum(1) == BATCH).all()
    often = found.float().mean(0)
    assert 0.1 < often.min() < often.max() < 0.9
    assert abs(float(often[:BATCH].mean()) - 0.5) < 0.06
    assert torch.equal(masks(step=3), masks(step=3))
    assert not torch.equal(masks(step=3), masks(step=4))


@pytest.mark.parametrize("ranks", [2, 4, 32])
def test_masks_are_the_same_for_any_number_of_ranks(ranks: int) -> None:
    whole = masks().view(2, BATCH, -1)
    for places in np.arange(BATCH).reshape(ranks, -1):
        mine = hidden_patches(MaskSettings(), GRID, 0, 0, places, BATCH).view(2, len(places), -1)
        assert torch.equal(mine, whole[:, places])


def test_an_image_that_cannot_be_read_changes_no_other_mask() -> None:
    places = np.delete(np.arange(BATCH), 5)
    left = hidden_patches(MaskSettings(), GRID, 0, 0, places, BATCH).view(2, BATCH - 1, -1)
    assert torch.equal(left, masks().view(2, BATCH, -1)[:, places])


def test_patches_are_hidden_in_blocks() -> None:
    """Of neighbours of a hidden patch far more are hidden than of a patch drawn at random."""
    hidden = masks().view(-1, *GRID)
    hidden = hidden[hidden.flatten(1).any(1)]
    pairs = hidden[:, :, 1:] & hidden[:, :, :-1]
    beside = pairs.sum() / hidden[:, :, :-1].sum()
    assert beside > 0.6
    assert hidden.float().mean() < 0.35


def test_all_or_no_views_can_be_masked() -> None:
    assert not masks(MaskSettings(share=0.0)).any()
    assert masks(MaskSettings(share=1.0)).any(1).all()


@hypothesis(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    least=st.floats(0, 1),
    more=st.floats(0, 1),
    share=st.floats(0, 1),
    batch=st.integers(1, 5),
)
def test_any_grid_and_any_share_stay_within_their_bounds(
    height: int, width: int, least: float, more: float, share: float, batch: int
) -> None:
    settings = MaskSettings(share=share, least=least, most=least + (1 - least) * more)
    counts = masks(settings, batch=batch, grid=(height, width)).sum(1).tolist()
    patches = height * width
    masked = [count for count in counts if count]
    assert len(masked) <= round(share * 2 * batch)
    for count in masked:
        assert settings.least * patches - 0.5 <= count <= settings.most * patches + 0.5


def test_weights_of_a_view_sum_to_one_and_places_are_its_hidden_patches() -> None:
    hidden = masks()
    found = Masks.of(hidden)
    assert found.places.tolist() == hidden.flatten().nonzero().flatten().tolist()
    sums = torch.zeros(len(hidden)).index_add(0, found.places // hidden.shape[1], found.weights)
    torch.testing.assert_close(sums, hidden.any(1).float())


def test_shares_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ConfigError, match="least must be at most most"):
        config.build(MaskSettings, {"least": 0.6, "most": 0.5}, "masks")
