"""Claim: exact weighted k-NN (DINO's) within 1.5 times the time of the bare matrix product, its memory bounded by a chunk.

    python benchmarks/knn.py [--rounds 5] [--threads 2] [--order classes]

10,000 queries against 100,000 vectors of 384 numbers, 100 classes, cosine, votes exp(similarity / 0.07) of the 20 nearest. The
limit is the bare product: NumPy's, 10,000 x 384 by 384 x 100,000 in float32, 1,000 queries at a time into the same memory (in
one piece its result would take 4 GB), nothing done with it. Peers: scikit-learn's KNeighborsClassifier (brute force; the square
of the distance of unit vectors is 2 - 2 cosine, so the votes are the same) and faiss's IndexFlatIP with our vote. All take their
turn in each round, so that whatever else the machine does falls on all; figures are medians of rounds, the ratio is the median of
ours / bare product within a round.

The three must name the same class for every query, but for those whose two best classes differ by less than rounding does.
`--order classes` sorts the vectors by class, the order of most folders; by default they come shuffled.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import faiss
import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from selfsight import metrics, neighbours

QUERIES, VECTORS, WIDTH, CLASSES = 10_000, 100_000, 384, 100
K, TEMPERATURE = 20, 0.07
ROWS = 1000
"""Queries of the bare product, and of each call of a peer, at a time."""
SPREAD = 5.0
"""Deviation of vectors around their class, whose own numbers deviate by 1: two queries in five are voted right."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def drawn(order: str) -> tuple[Floats, Ints, Floats]:
    """(vectors, their labels, queries), normalised."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    labels = draw.integers(0, CLASSES, VECTORS)
    if order == "classes":
        labels.sort()

    def around(classes: Ints) -> Floats:
        return metrics.normalize(centres[classes] + SPREAD * draw.standard_normal((len(classes), WIDTH), np.float32))

    return around(labels), labels, around(draw.integers(0, CLASSES, QUERIES))


def bare(train: Floats, test: Floats) -> None:
    room = np.empty((ROWS, VECTORS), dtype=np.float32)
    for start in range(0, QUERIES, ROWS):
        np.matmul(test[start : start + ROWS], train.T, out=room)


def ours(train: Floats, labels: Ints, test: Floats) -> Floats:
    return neighbours.knn_scores(train, labels, test, [K], CLASSES, TEMPERATURE)[K]


def with_faiss(index: faiss.IndexFlatIP, labels: Ints, test: Floats) -> Floats:
    scores = np.zeros((QUERIES, CLASSES), dtype=np.float32)
    similarity, places = index.search(test, K)
    rows = np.arange(QUERIES)
    for neighbour in range(K):
        scores[rows, labels[places[:, neighbour]]] += np.exp(similarity[:, neighbour] / TEMPERATURE)
    return scores


def with_sklearn(model: KNeighborsClassifier, test: Floats) -> Floats:
    return np.concatenate([model.predict_proba(test[start : start + ROWS]) for start in range(0, QUERIES, ROWS)])


def votes(distance: Floats) -> Floats:
    """exp(cosine / 0.07) over the largest vote, which leaves scikit-learn's shares as they are."""
    return np.exp(-np.square(distance) / (2 * TEMPERATURE))


def agree(name: str, scores: Floats, expected: Floats) -> None:
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4 * top[:, -1]
    same = (scores.argmax(1) == expected.argmax(1))[clear]
    print(f"{name}: the same class for {same.sum()} of {clear.sum()} queries ({QUERIES - clear.sum()} undecided)", flush=True)
    if not same.all() or clear.mean() < 0.99:
        sys.exit(f"knn: {name} and ours do not agree")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--order", choices=["shuffled", "classes"], default="shuffled")
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    with threadpool_limits(given.threads):
        run(given.order, given.rounds)


def run(order: str, rounds: int) -> None:
    train, labels, test = drawn(order)
    tracemalloc.start()
    scores = ours(train, labels, test)
    held = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"ours held {held:.0f} MiB at most beside vectors of {train.nbytes / 2**20:.0f} MiB", flush=True)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(train)
    model = KNeighborsClassifier(K, weights=votes, algorithm="brute", metric="euclidean").fit(train, labels)
    sides: dict[str, Callable[[], Floats]] = {
        "faiss": lambda: with_faiss(index, labels, test),
        "scikit-learn": lambda: with_sklearn(model, test),
    }
    for name, side in sides.items():
        agree(name, side(), scores)
    timed: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(train, labels, test),
        "bare product": lambda: bare(train, test),
        **sides,
    }
    rows = []
    for number in range(rounds):
        names = list(timed) if number % 2 else list(reversed(timed))
        rows.append({name: seconds(timed[name]) for name in names})
        print(f"round {number + 1}: " + "   ".join(f"{name} {rows[-1][name]:.2f} s" for name in timed), flush=True)
    median = {name: statistics.median(row[name] for row in rows) for name in timed}
    peer = min(sides, key=lambda name: median[name])
    for name in sides:
        print(f"{name} to ours: {statistics.median(row[name] / row['ours'] for row in rows):.2f}")
    ratio = statistics.median(row["ours"] / row["bare product"] for row in rows)
    print(f"the faster peer is {peer}; ratio is ours to the bare product")
    print(f"knn ratio={ratio:.2f} ours={median['ours']:.2f} peer={median[peer]:.2f} limit={median['bare product']:.2f} unit=s")


if __name__ == "__main__":
    main()
