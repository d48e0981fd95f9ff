"""Outlier tokens: patches that a transformer has made its scratch paper, and maps without them.

Large ViTs store global information in the tokens of patches that tell them nothing new. Such tokens are several times as long
as others and draw attention to places where nothing is (Darcet et al. 2024, "Vision Transformers Need Registers", section 2).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Number = TypeVar("Number", bound=np.floating)
Bools = npt.NDArray[np.bool_]

FACTOR, DEVIATIONS = 2.0, 6.0
"""How much longer than the median an outlier is at least, as a factor and in robust standard deviations."""
_TO_DEVIATION = 1.4826
"""The median distance from the median times this is the standard deviation of a normal distribution."""


def outliers(norms: npt.NDArray[np.floating]) -> Bools:
    """Lengths of tokens [N] -> [N]: longer than twice the median, and than the median and six deviations.

    The paper reads its cut-off, one for each network, from a histogram. This one needs no hand: median and deviation hold still
    as long as less than half of the tokens are outliers. The deviations leave alone what merely varies much, the factor what
    hardly varies at all, such as the tokens of a picture of one colour.
    """
    median = np.median(norms)
    deviation = _TO_DEVIATION * np.median(np.abs(norms - median))
    found: Bools = norms > max(FACTOR * median, median + DEVIATIONS * deviation)
    return found


def mended(values: npt.NDArray[Number], places: Bools, grid: tuple[int, int]) -> npt.NDArray[Number]:
    """[..., N] -> [..., N]: at the `places` the mean of those of the eight neighbours that are none of them; others as they were.

    A patch becomes an outlier where it is much like its neighbours (section 2.2 and figure 5a of the paper), so they say what
    it would have held. Within a larger spot the mean grows inwards from its edge.
    """
    if not places.any():
        return values
    filled = np.where(places, 0, values).reshape(-1, *grid)
    known = ~places.reshape(grid)
    around = np.ones((1, 3, 3))
    while not known.all():
        count = ndimage.convolve(known.astype(np.float64), around[0], mode="constant")
        edge = ~known & (count > 0)
        total = ndimage.convolve(filled.astype(np.float64), around, mode="constant")
        filled[:, edge] = total[:, edge] / count[edge]
        known |= edge
    return filled.reshape(values.shape)
