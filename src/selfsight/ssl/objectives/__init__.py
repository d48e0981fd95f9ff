"""What makes the views agree. An objective says what the networks look at and what their loss is.

It knows neither ranks nor files nor the trainer; the reduction over ranks is passed in. To add one: a file here with a settings
model and a class that follows `Objective`, and a line in `OBJECTIVES`; `tests/test_objectives.py` finds it.
"""

from __future__ import annotations

from selfsight.ssl.objectives.base import AnyObjective, Guide, Look, Objective, ObjectiveSettings, Ranks
from selfsight.ssl.objectives.dino import DINO
from selfsight.ssl.objectives.dinov2 import DINOv2
from selfsight.ssl.objectives.dinov3 import DINOv3
from selfsight.ssl.objectives.distill import Distill
from selfsight.ssl.objectives.supervised import Supervised

OBJECTIVES: dict[str, type[AnyObjective]] = {
    "dino": DINO,
    "dinov2": DINOv2,
    "dinov3": DINOv3,
    "distill": Distill,
    "supervised": Supervised,
}

__all__ = ["OBJECTIVES", "AnyObjective", "Guide", "Look", "Objective", "ObjectiveSettings", "Ranks"]
