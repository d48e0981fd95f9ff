"""An index of features: exact for most sets, compressed (IVF-PQ) for very large ones; kept in a folder and memory mapped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from selfsight import metrics, neighbours
from selfsight.errors import DataError
from selfsight.runs import write_atomic, write_json_atomic

FORMAT = 3
EXACT_BELOW = 1_000_000
"""From so many vectors on they are compressed."""
_PROBES, _CANDIDATES = 64, 10
"""Cells of the inverted file that are looked into; candidates for each neighbour, whose similarity is then computed exactly."""
_BITS, _TRAINING = 8, 256 * 256
_ROWS = 65536
"""Vectors that are read at once."""


@dataclass(frozen=True)
class Contents:
    """What an index holds: `keys` [n], and the name of the class of each where there are classes.

    `fingerprint` is that of the encoder, whose spec is `encoder`; `state` changes when the images at `location` do; `bad` are
    keys and reasons of images that could not be read.
    """

    location: str
    encoder: str
    fingerprint: str
    state: str
    keys: list[str]
    labels: list[str] | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)


class Neighbours(NamedTuple):
    """Of one query: places in the index [k] and cosines [k], falling; fewer than asked where the index has no more."""

    places: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]


class Index:
    """Vectors [n, D] of L2 norm 1, maybe memory mapped. Without an `engine` of FAISS each is compared with every query."""

    def __init__(self, vectors: npt.NDArray[np.float32], contents: Contents, engine: Any = None) -> None:
        self.vectors, self.contents, self.engine = vectors, contents, engine

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def exact(self) -> bool:
        """Whether every vector is compared, rather than those of the nearest cells."""
        return self.engine is None

    @classmethod
    def build(cls, vectors: npt.NDArray[np.floating], contents: Contents, exact_below: int = EXACT_BELOW) -> Index:
        """`vectors` [n, D] of any length. A `DataError` where there are none, or not one for each key."""
        count, keys = len(vectors), len(contents.keys)
        if not count or count != keys:
            raise DataError(f"index: expected one vector for each key and at least one; got {count} for {keys} keys")
        unit = metrics.normalize(vectors)
        if count < exact_below:
            return cls(unit, contents)
        engine = _trained(unit)
        for start in range(0, count, _ROWS):
            engine.add(unit[start : start + _ROWS])
        return cls(unit, contents, engine)

    def save(self, folder: str | Path) -> None:
        """Write `vectors.npy`, `index.faiss` if there is an engine and, last, `index.json` as a whole: until then it says whose
        the folder is, and that it is no index yet."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / "index.json", {"format": FORMAT, "fingerprint": self.contents.fingerprint})
        write_atomic(folder / "vectors.npy", self._write_vectors, self.vectors.nbytes)
        if self.engine is None:
            (folder / "index.faiss").unlink(missing_ok=True)
        else:
            write_atomic(folder / "index.faiss", lambda temporary: faiss.write_index(self.engine, str(temporary)))
        write_json_atomic(folder / "index.json", {"format": FORMAT, "exact": self.exact, **asdict(self.contents)})

    def _write_vectors(self, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, self.vectors)

    @staticmethod
    def stands_in(folder: Path) -> bool:
        """Whether the `index.json` there is one of ours, of whatever version."""
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(about, dict) and {"format", "fingerprint"} <= about.keys()

    @classmethod
    def load(cls, folder: str | Path) -> Index:
        """What `save` wrote, memory mapped. A `DataError` says what is missing or does not fit."""
        folder = Path(folder)
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if about.pop("format") != FORMAT:
                raise ValueError(f"another version, expected {FORMAT}")
            exact = about.pop("exact")
            contents = Contents(**about)
            vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            engine: Any = None if exact else faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{folder}: is no whole index ({reason}); expected index.json, vectors.npy, maybe index.faiss"
            ) from None
        indexed = len(vectors) if engine is None else engine.ntotal
        if not len(contents.keys) == len(vectors) == indexed:
            raise DataError(f"{folder}: is no whole index ({len(contents.keys)} keys, {len(vectors)} vectors, {indexed} indexed)")
        if engine is not None:
            engine.nprobe = min(_PROBES, engine.nlist)
        return cls(vectors, contents, engine)

    def search(self, queries: npt.NDArray[np.floating], k: int) -> list[Neighbours]:
        """The k nearest of each query [m, D], by falling cosine, equal ones by rising place."""
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise DataError(f"search: expected queries of {width} numbers, as in the index; got shape {queries.shape}")
        if k < 1:
            raise DataError(f"--k: expected a whole number from 1, got {k}")
        unit = metrics.normalize(queries)
        if self.engine is None:
            found = neighbours.nearest(self.vectors, unit, k)
            return [Neighbours(*pair) for _, values, places in found for pair in zip(places, values, strict=True)]
        _, candidates = self.engine.search(unit, min(k * _CANDIDATES, len(self)))
        return [self._ranked(query, row[row >= 0], k) for query, row in zip(unit, candidates, strict=True)]

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


def by_key(keys: Sequence[str]) -> dict[str, int]:
    """The place of each key."""
    return {key: place for place, key in enumerate(keys)}
