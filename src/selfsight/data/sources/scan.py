"""A folder tree, listed once by several threads, without a Python object for each of its files.

Names stay bytes, as the file system has them. A folder is known again by the times at which its list of files changed, so that
a later start asks about folders alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from selfsight.data.index import Index
from selfsight.data.sources.contents import IMAGES, VIDEOS, is_safely
from selfsight.data.sources.indexed import SHOWN

S = TypeVar("S")
T = TypeVar("T")

_THREADS = 8  # what waits for a network drive; a local disk keeps fewer busy
_BATCH = 64
_FLUSH = 8192
SETTLED_NS = 2_000_000_000
"""A folder changed so shortly before it was listed may have changed again within one tick of its clock (2 s at most, on FAT)."""

_IMAGES = frozenset(name.encode() for name in IMAGES)
_OTHERS = frozenset(name.encode() for name in VIDEOS) | frozenset(
    b"." + name
    for name in (
        b"txt json jsonl ndjson xml csv tsv yaml yml toml ini cfg conf md rst html htm css js log pdf doc docx xls xlsx ppt pptx "
        b"npy npz pt pth pkl pickle mat h5 hdf5 safetensors onnx ckpt bin parquet arrow feather db sqlite lmdb mdb idx "
        b"zip tar gz tgz bz2 xz zst 7z rar mp3 wav flac ogg srt vtt py ipynb sh c h cpp exe dll so lock md5 sha256 url lnk"
    ).split()
)
# First bytes of the formats of images, for files whose name does not say what they are.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P5", b"P6")


@dataclass
class Listing:
    """What some folders hold: images as (number of the folder, name), folders below, and files that are no images."""

    folders: list[pa.Array] = field(default_factory=list)
    names: list[pa.Array] = field(default_factory=list)
    below: list[bytes] = field(default_factory=list)
    rejected: list[tuple[bytes, str]] = field(default_factory=list)
    rejected_count: int = 0
    others: int = 0

    def reject(self, path: bytes, reason: str) -> None:
        self.rejected_count += 1
        if len(self.rejected) < SHOWN:
            self.rejected.append((path, reason))

    def add(self, other: Listing) -> None:
        for name in ("folders", "names", "below", "rejected"):
            getattr(self, name).extend(getattr(other, name))
        self.rejected = self.rejected[:SHOWN]
        self.rejected_count += other.rejected_count
        self.others += other.others


@dataclass
class Tree:
    """All folders (relative to the root, which is b"") with their times, and what they hold; `started` in ns."""

    started: int = field(default_factory=time.time_ns)
    folders: list[bytes] = field(default_factory=list)
    times: list[tuple[int, int]] = field(default_factory=list)
    listing: Listing = field(default_factory=Listing)


def scan(root: bytes) -> Tree:
    """Every image below `root`, level by level; symbolic links are followed, each real folder once, hidden names left out."""
    tree = Tree()
    seen: set[tuple[int, int]] = set()
    level = [b""]
    with ThreadPoolExecutor(_THREADS) as pool:
        while level:
            accepted = []
            for folder, status in zip(level, _each(pool, lambda folder: _status(root, folder), level), strict=True):
                if isinstance(status, OSError):
                    tree.listing.reject(folder or b".", f"folder cannot be read ({status.strerror})")
                elif (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    accepted.append((len(tree.folders), folder))
                    tree.folders.append(folder)
                    tree.times.append((status.st_mtime_ns, status.st_ctime_ns))
            for listing in pool.map(lambda batch: _listed(root, batch), _batches(accepted)):
                tree.listing.add(listing)
            level, tree.listing.below = sorted(tree.listing.below), []
    return tree


def unchanged(root: bytes, index: Index) -> bool:
    """Whether the folders of an index are as they were, and what was rejected would be rejected again."""
    times = np.stack([index.numbers("modified"), index.numbers("changed")], axis=1)
    if np.any(times[:, 1] >= index.numbers("started")[0] - SETTLED_NS):
        return False
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(times), _FLUSH):
            folders = index["folders"][start : start + _FLUSH].to_pylist()
            for status, before in zip(_each(pool, lambda folder: _status(root, folder), folders), times[start:], strict=False):
                if isinstance(status, OSError) or (status.st_mtime_ns, status.st_ctime_ns) != tuple(before):
                    return False
    return all(no_image(join(root, path)) is not None for path in index["rejected"].to_pylist())


def no_image(path: bytes) -> str | None:
    """Why this is no image, or no folder that can be listed."""
    file = Path(os.fsdecode(path))
    try:
        if file.is_dir():
            os.scandir(path).close()
            return None
    except OSError as error:
        return f"folder cannot be read ({error.strerror})"
    try:
        if file.exists() and not file.is_file():
            return "no regular file"  # opening a pipe would wait for its other end
        if file.suffix.lower() in IMAGES:
            return None
        with file.open("rb") as opened:
            head = opened.read(12)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return None
    return "no image, by its name and first bytes"


def _listed(root: bytes, folders: Sequence[tuple[int, bytes]]) -> Listing:
    listing = Listing()
    names: list[bytes] = []
    numbers: list[int] = []
    for number, folder in folders:
        try:
            with os.scandir(join(root, folder)) as entries:
                for entry in entries:
                    if _is_image(entry, folder, listing):
                        names.append(entry.name)
                        numbers.append(number)
                        if len(names) == _FLUSH:
                            _flush(listing, names, numbers)
        except OSError as error:
            listing.reject(folder or b".", f"folder cannot be read ({error.strerror})")
    _flush(listing, names, numbers)
    return listing


def _is_image(entry: os.DirEntry[bytes], folder: bytes, listing: Listing) -> bool:
    name = entry.name
    if name.startswith(b"."):
        return False
    if is_safely(entry.is_dir):
        listing.below.append(join(folder, name))
        return False
    extension = name[name.rfind(b".") :].lower()
    if extension in _OTHERS:
        listing.others += 1
        return False
    if extension in _IMAGES and is_safely(entry.is_file):
        return True
    reason = no_image(entry.path)
    if reason is not None:
        listing.reject(join(folder, name), reason)
    return reason is None


def _flush(listing: Listing, names: list[bytes], numbers: list[int]) -> None:
    pool = pa.system_memory_pool()  # Arrow's own keeps much in hand for each thread
    listing.names.append(pa.array(names, pa.large_binary(), memory_pool=pool))
    listing.folders.append(pa.array(numbers, pa.int32(), memory_pool=pool))
    names.clear()
    numbers.clear()


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder and name else folder or name


def _status(root: bytes, folder: bytes) -> os.stat_result | OSError:
    try:
        return os.stat(join(root, folder))  # noqa: PTH116 (bytes)
    except OSError as error:
        return error


def _each(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """`work` of each in order. A task for the pool is a batch of them, as it costs more than one call does."""
    for batch in pool.map(lambda batch: [work(item) for item in batch], _batches(items)):
        yield from batch


def _batches(items: Sequence[S]) -> list[Sequence[S]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
