"""What makes the views agree. An objective is a plain module: logits in, a loss and named diagnostics out.

It knows neither ranks nor files nor the trainer; the mean over ranks is passed in. To add one: a file here with a settings
model and a module that follows `Objective`, and a line in `OBJECTIVES`; `tests/test_objectives.py` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfsight.ssl.objectives.base import Objective
from selfsight.ssl.objectives.dino import DINOLoss

OBJECTIVES: dict[str, Callable[..., Objective[Any]]] = {"dino": DINOLoss}

__all__ = ["OBJECTIVES", "DINOLoss", "Objective"]
