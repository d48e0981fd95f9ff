"""Maps of attention against those of the published code."""

from __future__ import annotations

import numpy as np

from golden.arrays import golden
from selfsight.attention.maps import smallest_set


def test_the_mask_of_a_share_of_the_attention() -> None:
    g = golden("attention_mask")
    for mass in g.config["thresholds"]:
        mask = smallest_set(g["attention"][:, 1:], mass)
        np.testing.assert_array_equal(mask.reshape(-1, g.config["h"], g.config["w"]), g[f"mask_{round(mass * 100)}"])
