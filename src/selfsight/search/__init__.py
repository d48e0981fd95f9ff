"""Nearest images by their features: an index that can be kept, and pairs that are too alike."""

from selfsight.search.duplicates import Pairs, groups, pairs
from selfsight.search.index import Index, Neighbours

__all__ = ["Index", "Neighbours", "Pairs", "groups", "pairs"]
