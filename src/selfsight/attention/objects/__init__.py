"""Ways to find objects without a label.

To add one: a file here with a `Finder`, and a line in `FINDERS`; `tests/test_objects.py` runs its contract over every entry.
"""

from __future__ import annotations

from selfsight.attention.objects.base import Box, Finder, Found, box_of
from selfsight.attention.objects.threshold import Threshold

FINDERS: dict[str, type[Finder]] = {"attention": Threshold}

__all__ = ["FINDERS", "Box", "Finder", "Found", "box_of"]
