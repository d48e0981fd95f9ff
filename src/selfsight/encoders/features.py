"""Features of a whole source, extracted once and kept under the hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from selfsight.data.sources import BadImage, Source
from selfsight.data.tolerance import Tolerance
from selfsight.data.windows import image_windows
from selfsight.encoders.base import Encoder, digest
from selfsight.encoders.runtimes.base import Runtime, Torch
from selfsight.errors import DataError, SelfsightError
from selfsight.runs import cache_folder, write_atomic

FORMAT = "1"
"""Part of every key: a change of decoding, preprocessing or storage makes all kept features stale."""

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with (samples done, samples in all, remark or "")."""


@dataclass(frozen=True)
class Features:
    """Features of the readable samples of a source.

    `vectors` float32 [n, D], `indices` int64 [n] into the source, ascending; `bad` lists the samples that could not be read.
    `images_per_second` covers reading, decoding and the network; None where the features come from the cache.
    """

    vectors: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    bad: list[BadImage]
    images_per_second: float | None
    cached: bool


class Stretch(NamedTuple):
    """Features of samples `start` to `stop` of a source: `vectors` float32 [n, D] of `indices` [n], ascending, and the `bad`."""

    start: int
    stop: int
    indices: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    bad: list[BadImage]


def stretches(
    encoder: Encoder,
    source: Source,
    runtime: Runtime,
    *,
    batch_size: int = 64,
    workers: int = 0,
    start: int = 0,
    stop: int | None = None,
) -> Generator[Stretch]:
    """Features of samples `start` to `stop`, stretch after stretch: what is held at a time does not grow with the source.

    Raises `SelfsightError` where a feature is not finite.
    """
    pin = runtime.device.type == "cuda"
    windows = image_windows(
        source, encoder.prepare, batch_size=batch_size, workers=workers, read=encoder.read, start=start, stop=stop, pin=pin
    )
    for window in windows:
        indices = np.array([index for part, _ in window.batches for index in part], dtype=np.int64)
        parts = [runtime.encode(images.to(runtime.device, non_blocking=pin)).cpu().numpy() for _, images in window.batches]
        vectors = np.concatenate(parts) if parts else np.empty((0, encoder.feature_width), dtype=np.float32)
        order = np.argsort(indices)
        found = Stretch(window.start, window.stop, indices[order], vectors[order], window.bad)
        yield _finite(found, encoder, source)


def extract(
    encoder: Encoder,
    source: Source,
    *,
    device: torch.device | str,
    batch_size: int = 64,
    workers: int = 0,
    cache: bool = True,
    tolerance: Tolerance | None = None,
    progress: Progress | None = None,
    runtime: Runtime | None = None,
) -> Features:
    """Features of every readable image of `source`, from the cache where they have been computed before.

    They are torch's own in float32 unless another `runtime` is given: a score must not depend on what a machine finds fast.
    A cache that is damaged or cannot be written costs time, never the run: the remark goes to `progress`. Raises `DataError`
    where not one image can be read, `TooManyBadError` where more are bad than `tolerance` bears (all by default), and
    `SelfsightError` where a feature is not finite.
    """
    report = progress or _silent

    def bearable(bad: list[BadImage], tried: int) -> None:
        if tolerance is not None:
            tolerance.check(bad, tried, len(source), source.location)

    runtime = runtime or Torch(encoder, torch.device(device))
    path = cache_folder("features") / f"{key(encoder, source, runtime)}.safetensors" if cache else None
    if path is not None:
        kept = _read(path, encoder.feature_width, len(source), report)
        if kept is not None:
            bearable(kept.bad, len(source))
            report(len(source), len(source), "features from the cache")
            return kept
    features = _computed(encoder.to(device), source, runtime, batch_size, workers, bearable, report)
    if path is not None:
        _keep(path, features, encoder.spec, len(source), report)
    return features


def key(encoder: Encoder, source: Source, runtime: Runtime | None = None) -> str:
    """Hex digest of the encoder, of a runtime other than torch's own, and of the keys and bytes of every sample in order."""
    other = f" {runtime.about}" if runtime is not None and runtime.about != Torch.name else ""
    total = hashlib.blake2b(f"{FORMAT} {encoder.fingerprint} {encoder.read!r}{other}".encode(), digest_size=20)
    for index, name in enumerate(source.keys):
        try:
            content = hashlib.blake2b(source.image_bytes(index), digest_size=20).digest()
        except OSError:
            content = b"unreadable"
        total.update(json.dumps(name).encode() + b"\0" + content)
    return total.hexdigest()


def _computed(
    encoder: Encoder,
    source: Source,
    runtime: Runtime,
    batch_size: int,
    workers: int,
    bearable: Callable[[list[BadImage], int], None],
    report: Progress,
) -> Features:
    found: list[Stretch] = []
    bad: list[BadImage] = []
    begin = time.perf_counter()
    for stretch in stretches(encoder, source, runtime, batch_size=batch_size, workers=workers):
        bad += stretch.bad
        bearable(bad, stretch.stop)
        found.append(stretch)
        report(stretch.stop, len(source), "")
    indices = np.concatenate([stretch.indices for stretch in found]) if found else np.empty(0, dtype=np.int64)
    if not len(indices):
        raise none_readable(source, bad)
    rate = len(indices) / (time.perf_counter() - begin)
    return Features(np.concatenate([stretch.vectors for stretch in found]), indices, bad, rate, cached=False)


def none_readable(source: Source, bad: list[BadImage]) -> DataError:
    """What to raise where a source has images and none of them can be read."""
    first = f"; first: {bad[0].key}: {bad[0].reason}" if bad else ""
    return DataError(f"{source.location}: not one of {len(source)} images can be read{first}")


def _finite(stretch: Stretch, encoder: Encoder, source: Source) -> Stretch:
    finite = np.isfinite(stretch.vectors)
    wrong = np.flatnonzero(~finite.all(axis=tuple(range(1, finite.ndim))))
    if len(wrong):
        name = source.keys[int(stretch.indices[wrong[0]])]
        raise SelfsightError(
            f"{encoder.spec}: features of '{name}' are not finite numbers; are its weights whole, and mean and std right?"
        )
    return stretch


def _keep(path: Path, features: Features, spec: str, total: int, report: Progress) -> None:
    bad = json.dumps([[image.key, image.reason] for image in features.bad])
    tensors: dict[str, npt.NDArray[Any]] = {"vectors": np.ascontiguousarray(features.vectors), "indices": features.indices}
    metadata = {"format": FORMAT, "encoder": spec, "bad": bad, "digest": _checksum(features.vectors, features.indices, bad)}
    try:
        write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))
    except (OSError, SafetensorError) as error:
        report(total, total, f"features not kept: {path.parent} cannot be written ({error})")


def _read(path: Path, width: int, total: int, report: Progress) -> Features | None:
    """The features in a cache file, or None: where there is none, and with a remark where it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            vectors, indices = file.get_tensor("vectors"), file.get_tensor("indices")
            metadata = file.metadata() or {}
        if _checksum(vectors, indices, metadata["bad"]) != metadata["digest"]:
            raise ValueError("its bytes have changed")
        bad = [BadImage(name, reason) for name, reason in json.loads(metadata["bad"])]
        if vectors.shape != (len(indices), width) or len(indices) + len(bad) != total:
            raise ValueError(f"shape {vectors.shape}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        report(0, total, f"kept features are damaged and made again: {path} ({error})")
        return None
    return Features(vectors, indices, bad, None, cached=True)


def _checksum(vectors: npt.NDArray[Any], indices: npt.NDArray[Any], bad: str) -> str:
    texts = [bad, str(vectors.shape)]
    return digest(texts, [("vectors", torch.from_numpy(vectors)), ("indices", torch.from_numpy(indices))])


def _silent(done: int, total: int, remark: str) -> None:
    """For callers that want no progress."""
