"""The contract of every way to find objects: what it finds lies where the thing is, and a blank picture holds nothing."""

from __future__ import annotations

import numpy as np
import pytest

from selfsight.attention.objects import FINDERS, Found, box_of
from selfsight.attention.seeing import Seen

GRID = (9, 12)


def seen_of(mask: np.ndarray) -> Seen:
    """A thing whose places are alike and unlike the rest; CLS looks at it."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((2, 16))
    features = kinds[mask.ravel().astype(int)] + 0.05 * rng.standard_normal((mask.size, 16))
    attention = np.where(mask.ravel(), 1.0, 0.01) * rng.uniform(0.9, 1.1, (3, mask.size))
    attention /= attention.sum(1, keepdims=True)
    return Seen(mask.shape, *(each.astype(np.float32) for each in (features, features, attention)))  # type: ignore[arg-type]


def thing() -> np.ndarray:
    mask = np.zeros(GRID, dtype=bool)
    mask[3:7, 2:7] = True
    return mask


@pytest.mark.parametrize("name", FINDERS)
def test_a_thing_is_found_where_it_is(name: str) -> None:
    found = FINDERS[name]().find(seen_of(thing()), 1)
    assert len(found) == 1
    assert isinstance(found[0], Found)
    overlap = (found[0].mask & thing()).sum() / (found[0].mask | thing()).sum()
    assert overlap > 0.5
    assert found[0].box == box_of(found[0].mask)


@pytest.mark.parametrize("name", FINDERS)
def test_the_surest_comes_first_and_no_more_than_asked_for(name: str) -> None:
    two = thing()
    two[7:9, 9:12] = True
    scores = [each.score for each in FINDERS[name]().find(seen_of(two), 3)]
    assert scores == sorted(scores, reverse=True)
    assert 1 <= len(scores) <= 3
