"""A few samples that stand for all, where those that belong together lie together."""

from __future__ import annotations

import numpy as np

from selfsight.data.draws import Indices


def one_of_each(groups: Indices, limit: int) -> Indices:
    """`limit` indices, ascending: the first sample of each group (class, video), then the second, until there are enough."""
    order = np.argsort(groups, kind="stable")
    grouped = groups[order]
    turn = np.arange(len(groups)) - np.searchsorted(grouped, grouped)
    return np.sort(order[np.lexsort((grouped, turn))[:limit]])
