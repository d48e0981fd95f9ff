"""In which order an epoch takes the samples: a pure function of (seed, epoch, position)."""

from __future__ import annotations

import numpy as np

from selfsight.data.draws import Indices, permuted

_BLOCKS = 1
_WITHIN = 2


class Order:
    """The random order of `count` samples.

    Without `blocks`, any sample may stand anywhere. With them (the first sample of each run that is best read as a whole) the
    blocks are taken in random order, `window` of them at a time, and the samples of a window are mixed: at no time are more
    than two windows in use. A window of all blocks mixes everything.
    """

    def __init__(self, count: int, blocks: Indices | None = None, window: int = 1) -> None:
        self.count, self.window = count, window
        self.starts = blocks if blocks is not None and len(blocks) > window else None

    def at(self, seed: int, epoch: int, positions: Indices) -> Indices:
        """Samples at `positions` of the epoch."""
        if self.starts is None:
            return permuted(seed, epoch, 0, self.count, positions)
        blocks = permuted(seed, epoch, _BLOCKS, len(self.starts), np.arange(len(self.starts)))
        sizes = np.diff(self.starts, append=self.count)[blocks]
        ends = np.cumsum(sizes)
        begins = ends - sizes
        edges = begins[:: self.window]
        windows = np.searchsorted(edges, positions, side="right") - 1
        out = np.empty(len(positions), dtype=np.int64)
        for window in np.unique(windows):
            here = windows == window
            start = edges[window]
            stop = edges[window + 1] if window + 1 < len(edges) else self.count
            mixed = start + permuted(seed, epoch, _WITHIN + int(window), int(stop - start), positions[here] - start)
            block = np.searchsorted(ends, mixed, side="right")
            out[here] = self.starts[blocks[block]] + mixed - begins[block]
        return out
