"""Random numbers without a generator: each is a pure function of what it is for.

A counter-based hash (SplitMix64, Steele et al. 2014) of (seed, epoch, sample, ...) takes the place of a generator's state, so
that nothing drawn depends on the number of workers or ranks, on the neighbours in a batch or on the point of a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

_ROUNDS = 6
_SHORT = 2048
_ORDER = -1  # stands where views have their occurrence, so that no order shares its numbers with a view
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, epoch: int, samples: Sequence[int] | Indices, occurrence: int | Indices, view: int, count: int) -> Floats:
    """Uniform numbers in [0, 1) of shape [samples, count], a function of the arguments alone."""
    with np.errstate(over="ignore"):
        key = _key(len(samples), seed, epoch, np.asarray(samples, dtype=np.int64), occurrence, view)
        counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(key[:, None] + counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(seed: int, epoch: int, stream: int, count: int, positions: Indices) -> Indices:
    """Where `positions` go in a random order of 0..count-1: the same order for every call with the same first four arguments.

    A short order is a sort of random numbers. A long one is a Feistel network over the next power of four, walked until it
    falls below `count` (Black and Rogaway 2002): no table is made, so an order of any length costs nothing.
    """
    if count <= _SHORT:
        order = np.argsort(uniforms(seed, epoch, [stream], _ORDER, 0, count)[0], kind="stable")
        return order[positions]
    half = ((count - 1).bit_length() + 1) // 2
    bits, low = np.uint64(half), np.uint64((1 << half) - 1)
    with np.errstate(over="ignore"):
        keys = [_key(1, seed, epoch, stream, _ORDER, number)[0] for number in range(_ROUNDS)]
        out = np.asarray(positions, dtype=np.int64).astype(np.uint64)
        outside = np.ones(len(out), dtype=bool)
        while outside.any():
            left, right = out[outside] >> bits, out[outside] & low
            for key in keys:
                left, right = right, left ^ (_mix(right + key) & low)
            out[outside] = (left << bits) | right
            outside = out >= np.uint64(count)
    return out.astype(np.int64)


def _key(size: int, *values: int | Indices) -> npt.NDArray[np.uint64]:
    key = np.full(size, 0x5E1F5167, dtype=np.uint64)
    for value in values:
        key = _mix(key * _GOLDEN ^ _mix(np.asarray(value, dtype=np.int64).astype(np.uint64)))
    return key


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
