"""Tasks: what frozen features are good for.

A task takes features with labels and yields predictions for the test images; it knows neither encoders nor reports. To add one:
a file here with a `Task`, and a line in `TASKS`; `tests/test_tasks.py` runs its contract over every entry. A task that trains the
network itself is an `ImageTask`, which a comparison is handed from above.
"""

from __future__ import annotations

from selfsight.evaluate.base import FeatureSet, ImageSet, ImageTask, Predictions, Task
from selfsight.evaluate.knn import KNN
from selfsight.evaluate.linear import Linear
from selfsight.evaluate.shift import Shift

TASKS: dict[str, type[Task]] = {"knn": KNN, "linear": Linear, "shift": Shift}
USUAL = ("knn", "linear")
"""Those of a comparison that names none."""

__all__ = ["TASKS", "USUAL", "FeatureSet", "ImageSet", "ImageTask", "Predictions", "Shift", "Task"]
