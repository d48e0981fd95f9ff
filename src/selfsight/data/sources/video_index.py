"""The chosen frames of many videos as one index, kept from one start to the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from selfsight.data.draws import Floats, Indices
from selfsight.data.index import Columns, Index
from selfsight.data.sources.indexed import rejections
from selfsight.data.sources.video_frames import Frames, Sampling, list_frames

_THREADS = 4


def versions(root: Path, files: Sequence[str]) -> list[str]:
    """Size and time of the last change of each file; empty where it cannot be had."""
    return [_version(root / file) for file in files]


def is_fresh(index: Index, files: Sequence[str], now: Sequence[str]) -> bool:
    return _paths(index, "file") == list(files) and index["version"].to_pylist() == list(now)


def path_of(index: Index, video: int) -> str:
    return os.fsdecode(index["video"][video].as_py())


def frames_at(index: Index, video: int) -> tuple[Frames, int]:
    """(frames, number of the first sample) of a video."""
    starts = index.numbers("first")
    begin = int(starts[video])
    end = int(starts[video + 1]) if video + 1 < len(starts) else len(index["pts"])
    pts, keyframe, seek = (index.numbers(name)[begin:end] for name in ("pts", "keyframe", "seek"))
    second = index["second"].to_numpy(zero_copy_only=True)[begin:end]
    return Frames(pts, keyframe, seek, second, bool(index["counted"][video].as_py())), begin


def columns(root: Path, files: Sequence[str], now: Sequence[str], sampling: Sampling, before: Index | None) -> Columns:
    """The index of the frames that `sampling` takes of each video; of those that did not change, from the index `before`."""
    known = _known(before) if before else {}

    def listed(number: int) -> Frames | str:
        try:
            return known.get((files[number], now[number])) or _listed(root / files[number], sampling)
        except OSError as error:
            return str(error.strerror or error)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(listed, range(len(files))))
    good = [(file, item) for file, item in zip(files, found, strict=True) if isinstance(item, Frames)]
    bad = [(file, item) for file, item in zip(files, found, strict=True) if isinstance(item, str)]
    counts = [len(item.pts) for _, item in good]
    labels, classes = _labels([file for file, _ in good])
    return {
        "file": _names(files),
        "version": pa.array(now, pa.large_string()),
        "video": _names([file for file, _ in good]),
        "first": pa.array(np.cumsum([0, *counts])[:-1].astype(np.int64)),
        "counted": pa.array([int(item.counted) for _, item in good], pa.int64()),
        "digits": pa.array([_digits(item.second) for _, item in good], pa.int64()),
        "pts": _joined([item.pts for _, item in good], np.int64),
        "keyframe": _joined([item.keyframe for _, item in good], np.int64),
        "seek": _joined([item.seek for _, item in good], np.int64),
        "second": _joined([item.second for _, item in good], np.float64),
        "label": pa.array(np.repeat(labels, counts) if classes else labels),
        "class": _names(classes),
        **rejections([(os.fsencode(file), reason) for file, reason in bad], len(bad), "videos"),
    }


def _names(texts: Sequence[str]) -> pa.Array:
    """As the file system has them: bytes."""
    return pa.array([os.fsencode(text) for text in texts], pa.large_binary())


def _paths(index: Index, name: str) -> list[str]:
    return [os.fsdecode(path) for path in index[name].to_pylist()]


def _known(index: Index) -> dict[tuple[str, str], Frames]:
    version = dict(zip(_paths(index, "file"), index["version"].to_pylist(), strict=True))
    return {(video, version[video]): frames_at(index, number)[0] for number, video in enumerate(_paths(index, "video"))}


def _listed(path: Path, sampling: Sampling) -> Frames:
    if not path.is_file():
        raise OSError("is no file")
    if path.stat().st_size == 0:
        raise OSError("is empty")
    return list_frames(str(path), sampling)


def _version(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _digits(second: Floats) -> int:
    """As many decimals as tell the frames of a video apart, at least three."""
    least = float(np.diff(second).min()) if len(second) > 1 else 1.0
    return next((digits for digits in range(3, 9) if least > 1.01 * 10.0**-digits), 9)


def _joined(parts: Sequence[Indices] | Sequence[Floats], kind: type[np.int64] | type[np.float64]) -> pa.Array:
    return pa.array(np.concatenate([np.empty(0, dtype=kind), *parts]).astype(kind))


def _labels(files: Sequence[str]) -> tuple[Indices, list[str]]:
    """(class of each video, classes), both empty where the first folders of their paths are no classes."""
    tops = [file.split("/", 1)[0] if "/" in file else "" for file in files]
    classes = sorted(set(tops))
    if len(classes) < 2 or "" in classes:
        return np.empty(0, dtype=np.int64), []
    return np.searchsorted(np.array(classes, dtype=object), np.array(tops, dtype=object)).astype(np.int64), classes
