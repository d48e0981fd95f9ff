"""Values that change over a run, as pure functions of a position in it.

`cosine` is `cosine_scheduler` of the published utils.py at a single step. Steps may be fractional: a run with a wall-clock
budget has no step count, so it maps the share of its time onto a nominal number of steps.
"""

from __future__ import annotations

import math


def cosine(step: float, total: float, base: float, final: float, warmup: float = 0, start: float = 0.0) -> float:
    """Value at `step` of `total`: linear from `start` to `base` over `warmup` steps, then half a cosine down to `final`.

    Both ends of the warm-up are included, so its last step has `base`, and the first cosine step has it again. The cosine
    would reach `final` one step after the last.
    """
    if step < warmup:
        return base if warmup <= 1 else start + (base - start) * min(1.0, step / (warmup - 1))
    phase = min(1.0, (step - warmup) / max(1e-12, total - warmup))
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * phase))


def constant(step: float, total: float, base: float, final: float, warmup: float = 0, start: float = 0.0) -> float:
    """The same warm-up, then `base` to the end (DINOv3); `total` and `final` are those of `cosine` and play no part."""
    return cosine(step, total, base, base, warmup, start)


def linear_warmup(progress: float, share: float, start: float, end: float) -> float:
    """Linear from `start` to `end` over the first `share` of the run, then `end`."""
    if share <= 0 or progress >= share:
        return end
    return start + (end - start) * progress / share
