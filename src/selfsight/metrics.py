"""Pure measures of arrays. Accuracies are in percent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Labels = npt.NDArray[np.integer] | npt.NDArray[np.bool_]
"""One class an image [n], or a set of them [n, C]."""
Ranked: TypeAlias = npt.NDArray[np.int64]
"""Similarities and places as `_ranked` packs them."""

_CHUNK, _BLOCK = 512, 4096
"""Queries and rows that are compared at once: 8 MiB of similarities, which stay in the cache of the processor."""
_MOST_ROWS = 2**32 - 1
_TURN = np.int32(0x7FFFFFFF)


def normalize(features: Floats) -> npt.NDArray[np.float32]:
    """Rows of [n, D] scaled to length 1 (rows of zeros stay)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def nearest_neighbours(
    train: Floats, test: Floats, k: int
) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """For chunks of `test`: (rows, similarities [rows, k] in falling order, train indices [rows, k]); inputs L2-normalised.

    Exact: equal similarities go to the smaller index, at the k-th place too. Memory is bounded by a chunk times a block of
    similarities, whatever the sizes. A k above n gives all n.
    """
    k = min(k, len(train))
    room = np.empty(_CHUNK * min(_BLOCK, len(train)), dtype=np.float32)
    for start in range(0, len(test), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(test)))
        yield rows, *_places(_nearest(train, test[rows], k, room))


def _nearest(train: Floats, queries: Floats, k: int, room: npt.NDArray[np.float32]) -> Ranked:
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
    for rows, similarity, index in nearest_neighbours(train, test, max(ks)):
        votes = np.exp(similarity / np.float32(temperature))
        voted = labels[index]
        at = np.arange(len(votes))
        for k in ks:
            chunk = out[k][rows]
            for neighbour in range(min(k, votes.shape[1])):
                chunk[at, voted[:, neighbour]] += votes[:, neighbour]
    return out


def ranking(scores: Floats) -> npt.NDArray[np.int64]:
    """Classes [n, C] by falling score; equal scores by rising class index."""
    return np.argsort(-scores, axis=1, kind="stable")


def top_k_accuracy(scores: Floats, labels: Ints, k: int) -> float:
    """Percent of rows whose label is among the first k of the ranking."""
    return float((ranking(scores)[:, :k] == labels[:, None]).any(1).mean() * 100)


def surprises(logits: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """-log of the probability given to what is so (nats): [n] for labels [n] by softmax, [n, C] for sets [n, C] by sigmoid."""
    z = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        return np.logaddexp(0.0, np.where(labels, -z, z))
    z = z - z.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


def nll(logits: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood (nats) of labels [n] or sets of them [n, C], there over images and classes."""
    return float(surprises(logits, labels).mean())


def probabilities(logits: Floats, *, several: bool = False) -> npt.NDArray[np.float64]:
    """[n, C] softmax over classes; with `several`, where each class is a question of its own, sigmoid."""
    z = np.asarray(logits, dtype=np.float64)
    if several:
        return np.exp(-np.logaddexp(0.0, -z))
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ece(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error in percent: how far answers [n] are from being right as often as they are sure to be.

    The mean over `bins` of equal width, weighted by their answers (Naeini et al. 2015; Guo et al. 2017, equation 3). A bin holds
    its upper end.
    """
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    true = np.bincount(place, weights=right, minlength=bins)
    return float(np.abs(sure - true).sum() / len(place) * 100)


def calibration_error(logits: Floats, labels: Labels) -> float:
    """`ece` of the most probable class [n], or of sets [n, C] of every yes or no."""
    p = probabilities(logits, several=labels.ndim == 2)
    if labels.ndim == 2:
        return ece(p.ravel(), labels.ravel().astype(np.bool_))
    return ece(p.max(axis=1), ranking(p)[:, 0] == labels)


def fit_temperature(logits: Floats, labels: Labels, least: float = 0.05, most: float = 20.0) -> float:
    """The T in [least, most] whose logits / T have the least `nll` (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T, so it has one valley over log T, which a golden section finds to 1e-4.
    """
    low, high = math.log(least), math.log(most)
    golden = (math.sqrt(5) - 1) / 2
    z = np.asarray(logits, dtype=np.float64)

    def loss(at: float) -> float:
        return nll(z / math.exp(at), labels)

    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-4:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = loss(b)
    return math.exp((low + high) / 2)


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Mean recall over the classes present, in percent."""
    return float(np.mean([(predicted[labels == each] == each).mean() for each in np.unique(labels)]) * 100)


def mean_average_precision(scores: Floats, sets: npt.NDArray[np.bool_]) -> float:
    """Mean over classes with an image of the average precision of `scores` [n, C], in percent; equal scores count as one step."""
    found = [_average_precision(scores[:, k], sets[:, k]) for k in range(sets.shape[1]) if sets[:, k].any()]
    return float(np.mean(found) * 100) if found else 0.0


def _average_precision(scores: Floats, relevant: npt.NDArray[np.bool_]) -> float:
    """Sum over thresholds of precision times the recall that each adds."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(relevant[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    recall = hits[ends] / hits[-1]
    return float((hits[ends] / (ends + 1) * np.diff(recall, prepend=0.0)).sum())


def macro_f1(predicted: npt.NDArray[np.bool_], sets: npt.NDArray[np.bool_]) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), in percent; a class that is neither there nor predicted takes no part."""
    both, either = (predicted & sets).sum(0), predicted.sum(0) + sets.sum(0)
    some = either > 0
    return float((2 * both[some] / either[some]).mean() * 100) if some.any() else 0.0


def rankme(features: Floats) -> float:
    """Effective rank of [n, D]: exp of the entropy of the normalised singular values (Garrido et al. 2023, equation 2)."""
    values = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False)
    total = values.sum()
    if total <= 0:
        return 1.0
    p = values / total + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


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
