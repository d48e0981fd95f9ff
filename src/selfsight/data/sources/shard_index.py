"""The samples of many tar shards as one index, kept from one start to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.draws import Indices
from selfsight.data.index import Columns, Index
from selfsight.data.sources.base import BadImage
from selfsight.data.sources.indexed import SHOWN, rejections
from selfsight.data.sources.labels import labels_of
from selfsight.data.sources.remote import RemoteFile
from selfsight.data.sources.shard_list import Shard
from selfsight.data.sources.tar_index import Samples


def is_fresh(index: Index, shards: Sequence[Shard]) -> bool:
    """Whether these are the shards of the index, unchanged, and none of them failed while it was read."""
    same = len(index["shard"]) == len(shards) and all(
        (shard.name, shard.file) == shard_at(index, number)[:2] for number, shard in enumerate(shards)
    )
    return same and not np.any(index.numbers("unread"))


def shard_at(index: Index, number: int) -> Shard:
    address, size, version, name = (index[column][number].as_py() for column in ("address", "length", "version", "shard"))
    return Shard(name, RemoteFile(address, size, version))


def samples_before(index: Index) -> dict[Shard, Samples]:
    """What an older index says of its shards; nothing if it does not list all that it rejected."""
    if int(index.numbers("rejected_count")[0]) > SHOWN:
        return {}
    starts = [*index.numbers("start").tolist(), len(index["key"])]
    owners = index.numbers("rejected_shard")
    names = index["rejected"].cast(pa.large_string())
    found = {}
    for number in np.flatnonzero(index.numbers("unread") == 0).tolist():
        shard = shard_at(index, number)
        rows = slice(starts[number], starts[number + 1])
        front = len(shard.name) + 1
        bad = [BadImage(names[row].as_py()[front:], index["reason"][row].as_py()) for row in np.flatnonzero(owners == number)]
        found[shard] = Samples(
            index["key"][rows],
            index.numbers("offset")[rows],
            index.numbers("size")[rows],
            index["text"][rows],
            bad,
        )
    return found


def columns(location: str, shards: Sequence[Shard], scanned: list[Samples | str]) -> Columns:
    """The index of shards and what a scan found in each (keys with the shard's name before them), or why it was not scanned.

    `scanned` is emptied on the way, and so is each list of parts once it is joined: millions of samples lie in memory once.
    """
    unread = [isinstance(item, str) and not shard.fault for shard, item in zip(shards, scanned, strict=True)]
    read = [item if isinstance(item, Samples) else _nothing(item) for item in scanned]
    scanned.clear()
    starts = np.cumsum([0, *(len(item.keys) for item in read)])[:-1]
    bad = [(number, shard.name, item) for number, shard in enumerate(shards) for item in read[number].rejected]
    tops = _top_folders(list(zip(shards, read, strict=True))) if not any(_labelled(item) for item in read) else None
    keys, offsets, sizes, texts = ([getattr(item, name) for item in read] for name in ("keys", "offsets", "sizes", "labels"))
    read.clear()
    text = _joined(texts)
    labels, classes = _labels(location, text if tops is None else tops)
    return {
        "key": _joined(keys),
        "offset": _joined(offsets),
        "size": _joined(sizes),
        "text": text,
        "label": pa.array(labels),
        "class": pa.array(classes, pa.large_string()),
        "shard": pa.array([shard.name for shard in shards], pa.large_string()),
        "address": pa.array([shard.file.address for shard in shards], pa.large_string()),
        "length": pa.array([shard.file.size for shard in shards], pa.int64()),
        "version": pa.array([shard.file.version for shard in shards], pa.large_string()),
        "unread": pa.array(unread).cast(pa.int64()),
        "start": pa.array(starts),
        "rejected_shard": pa.array([number for number, _, _ in bad[:SHOWN]], pa.int64()),
        **rejections([(_key(name, item), item.reason) for _, name, item in bad], len(bad), "members"),
    }


def _joined(parts: list[Any]) -> pa.Array:
    whole = pa.concat_arrays([part if isinstance(part, pa.Array) else pa.array(part, pa.int64()) for part in parts])
    parts.clear()
    return whole


def _labelled(samples: Samples) -> bool:
    return bool(samples.labels.null_count < len(samples.labels))


def _nothing(reason: str) -> Samples:
    none, empty = pa.array([], pa.large_string()), np.empty(0, dtype=np.int64)
    return Samples(none, empty, empty, none, [BadImage("", reason)])


def named(shard: Shard, samples: Samples) -> Samples:
    """The samples with the name of their shard before each key, as it stands in the index."""
    name, nothing = pa.scalar(f"{shard.name}/", pa.large_string()), pa.scalar("", pa.large_string())
    return samples._replace(keys=pc.binary_join_element_wise(name, samples.keys, nothing))


def _key(name: str, item: BadImage) -> bytes:
    """What is said of the shard itself has an empty key."""
    return f"{name}/{item.key}".rstrip("/").encode("utf-8", "backslashreplace")


def _labels(location: str, text: pa.Array) -> tuple[Indices, list[str]]:
    """(class of each sample, class names), both empty where a sample has none."""
    if text.null_count or not len(text):
        return np.empty(0, dtype=np.int64), []
    if pc.all(pc.match_substring_regex(text, r"^\d{1,18}$")).as_py():
        text = text.cast(pa.int64())
    return labels_of(pa.chunked_array([text]), location, "label")


def _top_folders(pairs: Sequence[tuple[Shard, Samples]]) -> pa.Array:
    """The first folder of each key; none at all where there is but one, or a sample outside."""
    keys = pa.concat_arrays([pc.utf8_slice_codeunits(item.keys, len(shard.name) + 1) for shard, item in pairs])
    tops = pc.extract_regex(keys, "^(?P<top>[^/]+)/").flatten()[0]
    return tops if not tops.null_count and len(tops.unique()) > 1 else pa.array([], pa.large_string())
