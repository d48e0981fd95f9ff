"""Exact nearest neighbours by cosine, at the speed of the matrix product, and what they say: k-NN votes, retrieval measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Ranked: TypeAlias = npt.NDArray[np.int64]
"""Similarities and places as `_ranked` packs them."""

_CHUNK, _BLOCK = 512, 4096
"""Queries and rows that are compared at once: 8 MiB of similarities, which stay in the cache of the processor."""
_MOST_ROWS = 2**32 - 1
_TURN = np.int32(0x7FFFFFFF)


def nearest(train: Floats, test: Floats, k: int) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """For chunks of `test`: (rows, similarities [rows, k] in falling order, train indices [rows, k]); inputs L2-normalised.

    Exact: equal similarities go to the smaller index, at the k-th place too. Memory is bounded by a chunk times a block of
    similarities, whatever the sizes. A k above n gives all n.
    """
    k = min(k, len(train))
    room = np.empty(_CHUNK * min(_BLOCK, len(train)), dtype=np.float32)
    for start in range(0, len(test), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(test)))
        yield rows, *_places(_best(train, test[rows], k, room))


def _best(train: Floats, queries: Floats, k: int, room: npt.NDArray[np.float32]) -> Ranked:
    """The k best entries of each query, the best first; `room` is where a block of similarities is put.

    The product alone decides the time as long as little is done with each of its numbers. So a block is only compared with the
    k-th best that a query holds so far, and the few entries above it wait until there are k for each query on average: about
    k log2(n / block) of them pass. A block takes every s-th row of `train`, so that each is a fair sample of it and the level
    rises at once, even where the rows are sorted by class.
    """
    held = _ranked(np.full((len(queries), k), -np.inf, dtype=np.float32), np.array(_MOST_ROWS))
    waiting: list[tuple[npt.NDArray[np.int64], Ranked]] = []
    blocks = -(-len(train) // _BLOCK)
    for first in range(blocks):
        block = train[first::blocks]
        similarity = room[: len(queries) * len(block)].reshape(len(queries), len(block))
        np.matmul(queries, block.T, out=similarity, casting="same_kind")
        worst = held.min(axis=1)
        level = _level(similarity, k) if first == 0 else _places(worst)[0]
        rows, columns = np.divmod(np.flatnonzero(similarity >= level[:, None]), len(block))
        found = _ranked(similarity[rows, columns], first + columns * blocks)
        better = found > worst[rows]  # an equal similarity counts if its index is smaller
        waiting.append((rows[better], found[better]))
        if first + 1 == blocks or sum(len(part) for part, _ in waiting) >= held.size:
            held, waiting = _merged(held, waiting), []
    held.sort(axis=1)
    return held[:, ::-1]


def _level(similarity: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """The k-th best of each row [rows]; below everything where there are fewer."""
    if k > similarity.shape[1]:
        return np.full(len(similarity), -np.inf, dtype=np.float32)
    return np.partition(similarity, -k, axis=1)[:, -k]


def _merged(held: Ranked, waiting: Sequence[tuple[npt.NDArray[np.int64], Ranked]]) -> Ranked:
    """The k best of each row of `held` [rows, k] and of what waits as (rows, entries), in no order."""
    count, k = held.shape
    rows, found = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
    order = np.argsort(rows, kind="stable")
    rows, found = rows[order], found[order]
    sizes = np.bincount(rows, minlength=count)
    column = k + np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[rows]
    both = np.full((count, k + int(sizes.max())), np.iinfo(np.int64).min)
    both[:, :k] = held
    both[rows, column] = found
    both.partition(-k, axis=1)
    return both[:, -k:].copy()


def _ranked(similarity: npt.NDArray[np.float32], places: npt.NDArray[np.int64]) -> Ranked:
    """Similarity and place in one integer, so that one order holds for both: the larger similarity, of equals the smaller place.

    The bits of a positive float32 rise with it; those of a negative one fall, and are turned. The sum makes -0 a 0.
    """
    bits = (similarity + np.float32(0)).view(np.int32)
    return (np.where(bits < 0, bits ^ _TURN, bits).astype(np.int64) << 32) - places


def _places(ranked: Ranked) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The inverse of `_ranked`: (similarities, places)."""
    places = -ranked & _MOST_ROWS
    bits = ((ranked + places) >> 32).astype(np.int32)
    return np.where(bits < 0, bits ^ _TURN, bits).view(np.float32), places


def knn_scores(
    train: Floats, labels: Ints, test: Floats, ks: Sequence[int], classes: int, temperature: float = 0.07
) -> dict[int, npt.NDArray[np.float32]]:
    """Weighted vote of the k nearest neighbours: class scores [test, classes] for each k.

    A neighbour votes exp(cosine / temperature) for its class (Wu et al. 2018; `knn_classifier` of eval_knn.py in
    facebookresearch/dino). `train` [n, D] and `test` [m, D] are L2-normalised. A k above n counts all n.
    """
    out = {k: np.zeros((len(test), classes), dtype=np.float32) for k in ks}
    for rows, similarity, index in nearest(train, test, max(ks)):
        votes = np.exp(similarity / np.float32(temperature))
        voted = labels[index]
        at = np.arange(len(votes))
        for k in ks:
            chunk = out[k][rows]
            for neighbour in range(min(k, votes.shape[1])):
                chunk[at, voted[:, neighbour]] += votes[:, neighbour]
    return out


class Retrieval(NamedTuple):
    """How well neighbours share a label, in percent over `queries` images: mean average precision, recall and precision at k."""

    mean_average_precision: float
    recall: dict[int, float]
    precision: dict[int, float]
    queries: int


def retrieval(vectors: Floats, labels: Ints, ks: Sequence[int], progress: Callable[[int], None] | None = None) -> Retrieval:
    """Each row of `vectors` [n, D], L2-normalised, asks for the others of its label; a row is never its own neighbour.

    Average precision is the mean, over the relevant rows, of the precision at their rank; recall at k is the share of queries
    with a relevant row among the first k (Recall@k of Jegou et al. 2011 and of metric learning), precision at k the relevant
    share of the first k, or of all others where they are fewer. Equal similarities rank by rising index. Queries whose label
    stands alone have nothing to find and do not count; a `DataError` where none is left. `progress` hears of rows done.
    """
    members = _members(labels)
    ranks: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(vectors), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(vectors)))
        for row, similarity in zip(rows, (vectors[start : rows.stop] @ vectors.T).astype(np.float32), strict=True):
            others = members[labels[row]]
            ranks.append(_ranks(similarity, row, others[others != row]))
        if progress:
            progress(rows.stop)
    found = [r for r in ranks if len(r)]
    if not found:
        raise DataError("retrieval: no label stands on two images, so there is nothing to find")
    precisions = [(np.arange(1, len(r) + 1) / r).mean() for r in found]
    most = len(vectors) - 1
    return Retrieval(
        float(np.mean(precisions) * 100),
        {k: float(np.mean([r[0] <= k for r in found]) * 100) for k in ks},
        {k: float(np.mean([(r <= k).sum() / min(k, most) for r in found]) * 100) for k in ks},
        len(found),
    )


def _members(labels: Ints) -> dict[int, npt.NDArray[np.int64]]:
    """The rows of each label."""
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _ranks(similarity: npt.NDArray[np.float32], query: int, relevant: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ranks from 1, rising, at which `relevant` rows come among all rows but the query."""
    ranked = _ranked(similarity, np.arange(len(similarity)))
    wanted = np.sort(ranked[relevant])[::-1]
    ranked[query] = np.iinfo(np.int64).min
    ranked.sort()
    return len(ranked) - np.searchsorted(ranked, wanted)
