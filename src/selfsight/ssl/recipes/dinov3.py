"""DINOv3 (Siméoni et al. 2025), scaled to the number and the size of the images."""

from __future__ import annotations

import math

from selfsight.models.names import is_plain_name
from selfsight.ssl.recipes.base import SMALL_SIDE, Derived, Facts
from selfsight.ssl.recipes.dinov2 import over, with_patches


def dinov3(facts: Facts, backbone: str | None) -> list[Derived]:
    """DINOv3 (Siméoni et al. 2025) scaled to the number and the size of the images: constant rates, rotary positions, and Gram
    anchoring in the last fifth of the run."""
    small = "vit_w192_d6" if facts.accelerator else "vit_w64_d3"
    large = "vit_w384_d12_p16" if facts.accelerator else "vit_w192_d12_p16"
    rows = with_patches("dinov3", facts, backbone, small, large)
    values = {row.key: row.value for row in rows}
    if facts.side >= SMALL_SIDE:
        peak = round(2e-3 * math.sqrt(values["batch_size"] / 1024), 6)
        rows.append(Derived("optimizer.learning_rate", peak, "2e-3 x sqrt(batch/1024), to the end"))
    if is_plain_name(values["backbone.name"]):
        rows.append(Derived("backbone.rope", True, "published"))
        rows.append(Derived("backbone.rope_rescale", 2.0, "published"))
    return over(
        rows,
        Derived("teacher_momentum", min(0.994, values["teacher_momentum"]), "published"),
        Derived("optimizer.schedule", "constant", "published"),
        Derived("objective.gram.start", 0.8, "the last fifth of a run of any length"),
        Derived("objective.gram.refresh_every", 0.05, "three times in that fifth"),
    )
