"""Ways to find objects without a label.

To add one: a file here with a `Finder`, and a line in `FINDERS`; `tests/test_objects.py` runs its contract over every entry.
"""

from __future__ import annotations

from selfsight.attention.objects.base import Box, Finder, Found, box_of, in_pixels
from selfsight.attention.objects.kmeans import KMeans
from selfsight.attention.objects.lost import Lost
from selfsight.attention.objects.threshold import Threshold
from selfsight.attention.objects.tokencut import TokenCut

FINDERS: dict[str, type[Finder]] = {"tokencut": TokenCut, "lost": Lost, "attention": Threshold, "kmeans": KMeans}

__all__ = ["FINDERS", "Box", "Finder", "Found", "box_of", "in_pixels"]
