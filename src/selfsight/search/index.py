"""An index of features: exact for most sets, compressed (IVF-PQ) for very large ones; kept in a folder and memory mapped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from selfsight import metrics
from selfsight.errors import DataError
from selfsight.runs import write_atomic, write_json_atomic

FORMAT = 1
EXACT_BELOW = 1_000_000
"""From so many vectors on they are compressed."""
_PROBES, _CANDIDATES = 64, 10
"""Cells of the inverted file that are looked into; candidates for each neighbour, whose similarity is then computed exactly."""
_BITS, _TRAINING = 8, 256 * 256
_ROWS = 65536
"""Vectors that are read at once."""


class Neighbours(NamedTuple):
    """Of one query: places in the index [k] and cosines [k], falling; fewer than asked where the index has no more."""

    places: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]


class Index:
    """Vectors [n, D] of L2 norm 1 under their keys, so that the inner product is the cosine.

    `fingerprint` is that of the encoder whose features they are. `vectors` may be memory mapped.
    """

    def __init__(self, engine: Any, vectors: npt.NDArray[np.float32], keys: Sequence[str], fingerprint: str) -> None:
        self.engine, self.vectors, self.keys, self.fingerprint = engine, vectors, keys, fingerprint

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def exact(self) -> bool:
        """Whether every vector is compared, rather than those of the nearest cells."""
        return isinstance(self.engine, faiss.IndexFlat)

    @classmethod
    def build(
        cls, vectors: npt.NDArray[np.floating], keys: Sequence[str], fingerprint: str, exact_below: int = EXACT_BELOW
    ) -> Index:
        """`vectors` [n, D] of any length under `keys` [n]. A `DataError` where there are none, or not one for each key."""
        if not len(vectors) or len(vectors) != len(keys):
            raise DataError(f"index: expected one vector for each key and at least one; got {len(vectors)} for {len(keys)} keys")
        unit = metrics.normalize(vectors)
        engine = faiss.IndexFlatIP(unit.shape[1]) if len(unit) < exact_below else _trained(unit)
        for start in range(0, len(unit), _ROWS):
            engine.add(unit[start : start + _ROWS])
        return cls(engine, unit, keys, fingerprint)

    def save(self, folder: str | Path) -> None:
        """Write `index.faiss`, `vectors.npy` and, last, `index.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "index.faiss", lambda temporary: faiss.write_index(self.engine, str(temporary)))
        write_atomic(folder / "vectors.npy", self._write_vectors)
        about = {"format": FORMAT, "metric": "cosine", "fingerprint": self.fingerprint, "keys": list(self.keys)}
        write_json_atomic(folder / "index.json", about)

    def _write_vectors(self, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, self.vectors)

    @classmethod
    def load(cls, folder: str | Path) -> Index:
        """What `save` wrote, memory mapped. A `DataError` says what is missing or does not fit."""
        folder = Path(folder)
        try:
            about = json.loads((folder / "index.json").read_text())
            keys, fingerprint = about["keys"], about["fingerprint"]
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, expected {FORMAT}")
            vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            engine: Any = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{folder}: is no whole index ({reason}); expected index.json, index.faiss and vectors.npy") from None
        if not len(keys) == len(vectors) == engine.ntotal:
            raise DataError(f"{folder}: {len(keys)} keys, {len(vectors)} vectors, {engine.ntotal} indexed; build it again")
        if not isinstance(engine, faiss.IndexFlat):
            engine.nprobe = min(_PROBES, engine.nlist)
        return cls(engine, vectors, keys, fingerprint)

    def search(self, queries: npt.NDArray[np.floating], k: int) -> list[Neighbours]:
        """The k nearest of each query [m, D], by falling cosine, equal ones by rising place."""
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise DataError(f"search: expected queries of {width} numbers, as in the index; got shape {queries.shape}")
        if k < 1:
            raise DataError(f"--k: expected a whole number from 1, got {k}")
        unit = metrics.normalize(queries)
        asked = min(k if self.exact else k * _CANDIDATES, len(self))
        _, places = self.engine.search(unit, asked)
        return [self._ranked(query, row[row >= 0], k) for query, row in zip(unit, places, strict=True)]

    def _ranked(self, query: npt.NDArray[np.float32], places: npt.NDArray[np.int64], k: int) -> Neighbours:
        """The best k of the candidates by their exact cosines; faiss's -1 for no neighbour has been dropped."""
        similarity = self.vectors[places] @ query
        order = np.lexsort((places, -similarity))[:k]
        return Neighbours(places[order], similarity[order])


def _trained(unit: npt.NDArray[np.float32]) -> Any:
    """An inverted file of product codes (Jegou et al. 2011), trained on a sample drawn evenly; still empty.

    4 sqrt(n) cells as faiss advises, but 39 vectors or more to learn each. A code of one byte stands for 4 to 8 numbers.
    """
    count, width = unit.shape
    sample = np.ascontiguousarray(unit[:: max(1, count // _TRAINING)])
    cells = max(1, min(int(4 * math.sqrt(count)), len(sample) // 39))
    pieces = next((size for size in (4, 5, 6, 8, 3, 2) if width % size == 0), 1)
    bits = min(_BITS, int(math.log2(max(2, len(sample)))))
    engine = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, cells, width // pieces, bits, faiss.METRIC_INNER_PRODUCT)
    engine.cp.min_points_per_centroid = 1  # small sets are allowed, and no reason for a warning
    engine.pq.cp.min_points_per_centroid = 1
    engine.train(sample)
    engine.nprobe = min(_PROBES, cells)
    return engine
