"""The high-resolution stage of DINOv3 (Siméoni et al. 2025, section 5.1), scaled to the images."""

from __future__ import annotations

import math

from selfsight.ssl.recipes.base import Derived, Facts
from selfsight.ssl.recipes.dinov2 import over
from selfsight.ssl.recipes.dinov3 import dinov3

_LARGER = 2


def dinov3_highres(facts: Facts, backbone: str | None) -> list[Derived]:
    """A short stage after a run of `dinov3`: views twice as large, patches held to the likeness that the weights it starts from
    give them, with a Gram teacher that sees the same crops at twice the size again.

    It is made to start from the weights of a run. From scratch the Gram teacher would be an untrained network. Published are
    global views of 512 and 768 pixels in turn, local ones of 112 to 336 and the Gram teacher's of 768 and 1152; here there is one
    size of each.
    """
    rows = dinov3(facts, backbone)
    values = {row.key: row.value for row in rows}
    batch = max(1, values["batch_size"] // _LARGER**2)
    sizes = {key: _LARGER * values[f"views.{key}"] for key in ("global_size", "local_size")}
    rate = round(values["optimizer.learning_rate"] / math.sqrt(_LARGER**2), 7)
    return over(
        rows,
        *(Derived(f"views.{key}", size, "twice that of dinov3") for key, size in sizes.items()),
        Derived("views.gram_size", 2 * sizes["global_size"], "twice the global views"),
        Derived("batch_size", batch, "larger views"),
        Derived("optimizer.learning_rate", rate, "smaller batch"),
        Derived("objective.gram.start", 0.0, "the weights it starts from"),
        Derived("objective.gram.max_refreshes", 0, "the weights it starts from"),
        Derived("objective.gram.refresh_every", 1.0, "never"),
    )
