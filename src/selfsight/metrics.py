"""Pure measures of arrays. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.errors import DataError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

_CHUNK = 256


def normalize(features: Floats) -> npt.NDArray[np.float32]:
    """Rows of [n, D] scaled to length 1 (rows of zeros stay)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def nearest_neighbours(
    train: Floats, test: Floats, k: int
) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """For chunks of `test`: (rows, similarities [rows, k] in falling order, train indices [rows, k]); inputs L2-normalised."""
    k = min(k, len(train))
    for start in range(0, len(test), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(test)))
        similarity = (test[rows] @ train.T).astype(np.float32)
        # Ties go to the smaller index, at the k-th place too, so that the answer does not depend on the partition.
        last = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
        above, level = similarity > last, similarity == last
        chosen = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdims=True)))
        part = np.nonzero(chosen)[1].reshape(-1, k)
        values = np.take_along_axis(similarity, part, axis=1)
        order = np.lexsort((part, -values), axis=1)
        yield rows, np.take_along_axis(values, order, axis=1), np.take_along_axis(part, order, axis=1)


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


def rankme(features: Floats) -> float:
    """Effective rank of [n, D]: exp of the entropy of the normalised singular values (Garrido et al. 2023, equation 2)."""
    values = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False)
    total = values.sum()
    if total <= 0:
        return 1.0
    p = values / total + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


class Retrieval(NamedTuple):
    """How well neighbours share a label: mean average precision and recall at each k, in percent, over `queries` images."""

    mean_average_precision: float
    recall: dict[int, float]
    queries: int


def retrieval(vectors: Floats, labels: Ints, ks: Sequence[int]) -> Retrieval:
    """Each row of `vectors` [n, D], L2-normalised, asks for the others of its label; a row is never its own neighbour.

    Average precision is the mean, over the relevant rows, of the precision at their rank; recall at k is the share of queries
    with a relevant row among the first k (Recall@k of Jegou et al. 2011 and of metric learning). Equal similarities rank by
    rising index. Queries whose label stands alone have nothing to find and do not count; a `DataError` where none is left.
    """
    precisions: list[float] = []
    first_hits: list[int] = []
    for start in range(0, len(vectors), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(vectors)))
        similarity = (vectors[rows] @ vectors.T).astype(np.float32)
        similarity[np.arange(len(rows)), rows] = -np.inf  # the query itself comes last and is cut off
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        for relevant in labels[order] == labels[rows][:, None]:
            ranks = np.flatnonzero(relevant) + 1
            if len(ranks):
                precisions.append(float((np.arange(1, len(ranks) + 1) / ranks).mean()))
                first_hits.append(int(ranks[0]))
    if not precisions:
        raise DataError("retrieval: no label stands on two images, so there is nothing to find")
    hits = np.array(first_hits)
    recall = {k: float((hits <= k).mean() * 100) for k in ks}
    return Retrieval(float(np.mean(precisions) * 100), recall, len(precisions))
