"""Objects found without a label against those of the published code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from golden.arrays import Golden, golden
from selfsight.attention.objects import Box, in_pixels
from selfsight.attention.objects.lost import Likeness, lost
from selfsight.attention.objects.tokencut import tokencut


def cases(g: Golden) -> list[tuple[str, tuple[int, int], dict[str, Any]]]:
    return [(f"case{number}.", (case["h"], case["w"]), case) for number, case in enumerate(g.config["cases"])]


def assert_box(g: Golden, case: str, box: Box, config: dict[str, Any]) -> None:
    assert [box.top, box.left, box.bottom, box.right] == g[f"{case}box_tokens"].tolist()
    assert list(in_pixels(box, (config["patch"],) * 2, tuple(config["img"]))) == g[f"{case}box_pixels"].tolist()


def test_lost_step_by_step() -> None:
    g = golden("lost")
    for case, grid, config in cases(g):
        features = g[f"{case}features"]
        likeness = Likeness(features, grid)
        np.testing.assert_array_equal(likeness.scores, g[f"{case}scores"])
        np.testing.assert_array_equal(likeness.scores[likeness.order], likeness.scores[g[f"{case}order"]])
        found = lost(features, grid, g.config["k_patches"])
        assert found.seed == g[f"{case}seed"]
        np.testing.assert_array_equal(found.similars, g[f"{case}similars"])
        np.testing.assert_allclose(likeness.correlations[found.seed], g[f"{case}seed_correlation"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.correlation, g[f"{case}correlation"], rtol=1e-5, atol=1e-4)
        assert_box(g, case, found.box, config)


@pytest.mark.parametrize("plain", [True, False], ids=["the whole matrix", "Lanczos"])
def test_tokencut_step_by_step(plain: bool) -> None:
    g = golden("tokencut")
    for case, grid, config in cases(g):
        found = tokencut(g[f"{case}features"][1:], grid, g.config["tau"], g.config["eps"], plain=plain)
        np.testing.assert_allclose(found.cut.vector.reshape(grid), g[f"{case}eigvec"], rtol=1e-6)
        np.testing.assert_allclose(found.cut.value, g[f"{case}eigval2"], rtol=1e-6)
        assert found.cut.seed == g[f"{case}seed"]
        np.testing.assert_array_equal(found.bipartition, g[f"{case}bipartition"])
        np.testing.assert_array_equal(found.components, g[f"{case}components"])
        np.testing.assert_array_equal(found.mask, g[f"{case}mask"])
        assert_box(g, case, found.box, config)
