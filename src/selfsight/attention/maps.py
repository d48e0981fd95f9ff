"""Maps over the places of a picture, as pure functions of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


def smallest_set(attention: Floats, mass: float) -> Bools:
    """[..., N] -> [..., N]: the fewest places that hold the share `mass` of what all places get.

    What goes to CLS and registers takes no part (`visualize_attention.py` of facebookresearch/dino, `threshold`).
    """
    weights = np.asarray(attention, dtype=np.float64)
    order = np.argsort(weights, axis=-1, kind="stable")
    ascending = np.take_along_axis(weights, order, axis=-1)
    held = np.cumsum(ascending, axis=-1) / ascending.sum(axis=-1, keepdims=True)
    kept = np.empty(weights.shape, dtype=np.bool_)
    np.put_along_axis(kept, order, held > 1 - mass, axis=-1)
    return kept


def similarity(patches: Floats, place: int) -> npt.NDArray[np.float32]:
    """Features [N, D] -> [N]: the cosine of each with that at `place`, from -1 to 1; 0 where a feature is zero."""
    lengths = np.linalg.norm(patches, axis=-1, keepdims=True)
    directions = patches / np.where(lengths > 0, lengths, 1)
    return (directions @ directions[place]).astype(np.float32)
