"""Tar shards in the WebDataset layout, on local disks or at remote addresses, with random access to every sample.

The shards are scanned once into an index of where each image lies. A remote shard is kept whole in a cache on the local disk
while its samples are in use. So any sample can be had at any time, and which ones a step of training takes does not depend on
how many workers and ranks share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from selfsight.data.draws import Indices
from selfsight.data.index import Columns, Index, open_or_build
from selfsight.data.sources.base import Source, Subset
from selfsight.data.sources.fair import one_of_each
from selfsight.data.sources.indexed import IndexedSource, rejected
from selfsight.data.sources.location import is_remote
from selfsight.data.sources.shard_cache import shard_cache
from selfsight.data.sources.shard_index import columns, is_fresh, named, samples_before, shard_at
from selfsight.data.sources.shard_list import Shard, find_shards, is_shards
from selfsight.data.sources.tar_index import Samples, scan
from selfsight.errors import DataError

WINDOW = 16
_DOWNLOADS, _SCANS = 8, 2  # threads: more help where bytes are waited for, and each keeps memory of its own


class ShardSource(IndexedSource):
    """Samples of tar shards, in the order of the shards; the key is `shard.tar/member` without the member's extension.

    Members with the same name up to its first dot are one sample. Its image is the member with an image's extension (JPEG
    before PNG before WebP, or `image`, such as `img.jpg`). Its label is the text of the `.cls` member, else `cls` or `label` of
    the `.json` one; without any, the first folder of its name, if at least two such folders hold samples and none lies outside.
    Links, names that lead out of the archive and what follows the cut of a half-written shard are rejected, each with its reason.

    `window` shards are mixed at a time. `cache_gb` limits the local copies of remote shards, together with those of other sets.
    """

    def __init__(self, location: str, image: str | None = None, window: int = WINDOW, cache_gb: float | None = None) -> None:
        self.window = window
        remote = is_remote(location)
        self._cache = shard_cache(cache_gb) if remote else None
        shards = find_shards(location, self._cache.remote if self._cache else None)
        before: list[Index] = []

        def fresh(index: Index) -> bool:
            before.append(index)
            return is_fresh(index, shards)

        subject = ["shards", "1", location if remote else str(Path(location).absolute()), image or ""]
        index = open_or_build(subject, fresh, lambda: self._scanned(location, shards, image, before))
        if not len(index["key"]):
            bad = rejected(index)
            raise DataError(f"{location}: no shard holds an image" + (f"; first: {bad[0].key} {bad[0].reason}" if bad else ""))
        super().__init__(location, index)

    def _use(self, index: Index) -> None:
        super()._use(index)
        starts = index.numbers("start")
        # A shard without a sample is no block.
        self._filled = np.flatnonzero(np.diff(starts, append=len(index["key"])))
        self.blocks = self._starts = starts[self._filled]

    def _shard_of(self, indices: int | Indices) -> npt.NDArray[np.int64]:
        return self._filled[np.searchsorted(self._starts, indices, side="right") - 1]

    def image_bytes(self, index: int) -> bytes:
        offset, size = (int(self.index.numbers(name)[index]) for name in ("offset", "size"))
        with self._opened(shard_at(self.index, int(self._shard_of(index)))) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError("its shard was shortened since it was indexed")
        return data

    def mark(self, index: int) -> bytes:
        """Of the shard in which it stands, as it was when this was opened."""
        return f"{index} {shard_at(self.index, int(self._shard_of(index))).file}".encode()

    def head(self, limit: int) -> Source:
        """One sample of each class in turn: archives of class folders hold one class after the other."""
        return super().head(limit) if self.labels is None else Subset(self, one_of_each(self.labels, limit))

    def expect(self, indices: Indices) -> None:
        if self._cache:
            self._cache.expect([shard_at(self.index, int(number)).file for number in np.unique(self._shard_of(indices))])

    def columns(self) -> tuple[str, ...]:
        return ("shard", "folder")

    def column(self, name: str) -> npt.NDArray[np.str_]:
        counts = np.diff(self.index.numbers("start"), append=len(self))
        shards = np.repeat(np.array(self.index["shard"].to_pylist()), counts)
        if name == "shard":
            return shards
        return np.array([key[len(shard) + 1 :].rpartition("/")[0] for key, shard in zip(self.keys, shards, strict=True)])

    def _opened(self, shard: Shard) -> IO[bytes]:
        if self._cache:
            return self._cache.open(shard.file)
        return open(shard.file.address, "rb", buffering=0)  # noqa: PTH123 (for every sample; a Path would be wasted)

    def _scanned(self, location: str, shards: Sequence[Shard], image: str | None, before: Sequence[Index]) -> Columns:
        known = samples_before(before[-1]) if before else {}

        def scanned(shard: Shard) -> Samples | str:
            if shard in known or shard.fault:
                return shard.fault or known[shard]
            try:
                with self._opened(shard) as file:
                    found = named(shard, scan(file, shard.file.size, image))
                pa.default_memory_pool().release_unused()  # else each thread keeps what a scan needed
                return found
            except OSError as error:
                return f"cannot be read ({error.strerror or error})"

        with ThreadPoolExecutor(_DOWNLOADS if self._cache else _SCANS) as pool:
            return columns(location, shards, list(pool.map(scanned, shards)))


def matches(location: str) -> bool:
    return is_shards(location)


def extension(text: str) -> str:
    """The option `image`."""
    name = text.lower().lstrip(".")
    if not name:
        raise ValueError("expected the extension of the image member, such as jpg or img.jpg")
    return name
