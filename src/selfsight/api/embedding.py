"""`embed`: images in, a Parquet file of features out."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsight import device as devices
from selfsight.api.filling import Filling
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.data.loader import read_picture
from selfsight.data.sources import BadImage, Source, absolute, first, open_source
from selfsight.data.tolerance import listed
from selfsight.encoders import Encoder, load_encoder
from selfsight.encoders.feature_file import DTYPES, Parts, manifest_of
from selfsight.encoders.features import none_readable
from selfsight.encoders.runtimes import Runtime, choose
from selfsight.errors import ConfigError, InputError, nearest
from selfsight.ray_cluster import check_engine
from selfsight.runs import alone, append_jsonl, bad_list_of, environment, place_for_file, remove_folder

_LOOKED_AT = 8
"""Images on which a runtime is checked and measured."""
_FEW = 2
"""Batches for which it is not worth while to start workers."""


def embed(
    encoder: str,
    data: str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    dtype: str = "float32",
    runtime: str = "auto",
    precision: str = "float32",
    engine: str = "local",
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Write `out` with columns key, label (if any) and vector (fixed-size list of `dtype`), one row a readable image.

    Rows stand in the order of the source. The encoder's provenance is in the schema metadata under `selfsight`; files that are no
    images are listed beside it in `out.bad_images.jsonl`. More unreadable images than `max_bad` percent stop the work, with
    `strict` the first one does. What is held in memory does not grow with the number of images.

    Until it is whole, the file is a folder `out.parts`. The same call goes on from there after an interruption of any kind; it
    raises `InputError` where encoder, data, `dtype` or runtime have changed. `runtime` is torch, onnx, compile or auto (see
    `selfsight.encoders.runtimes.choose`); `precision` may be bfloat16 with torch. With `engine` ray `workers` actors do the work.

    Returns a summary: images, feature_width, images_per_second (None where nothing was left to do), resumed (images of earlier
    calls), bad_images, runtime. Raises `Interrupted` on Ctrl-C and SIGTERM, once what is done is written.
    """
    watch = watch or Silent()
    path = _checked(place_for_file(out), dtype)
    bearing = tolerance(strict, max_bad)
    runtime, device = _of_engine(engine, runtime, precision, device)
    loaded = _loaded(encoder, max_pixels, watch)
    source = first(open_source(data), limit)
    computing = choose(
        loaded,
        lambda: _some(loaded, source),
        count=len(source),
        batch_size=batch_size,
        device=devices.resolve(device),
        runtime=_as_begun(runtime, manifest_of(path), loaded),
        precision=precision,
        say=watch.say,
    )
    with alone(path):
        parts = Parts(path, _manifest(loaded, source, computing, dtype), len(source))
        if parts.found:
            watch.say(f"{out}: goes on after {parts.samples} of {len(source)} images")
        resumed, start = parts.rows, time.perf_counter()
        processes = max(1, workers or devices.cores()) if engine == "ray" else _workers(workers, computing, source, batch_size)
        filling = Filling(loaded, source, computing, parts, dtype, batch_size, processes)
        with listed(bad_list_of(path)):
            filling.run_on_ray(bearing, watch, limit) if engine == "ray" else filling.run(bearing, watch)
        summary = _summary(parts, source, loaded, computing, resumed)
        _finish(parts, source, _about(loaded, source, computing, dtype))
    return summary | {"images_per_second": (summary["images"] - resumed) / (time.perf_counter() - start) or None}


def _summary(parts: Parts, source: Source, encoder: Encoder, runtime: Runtime, resumed: int) -> dict[str, Any]:
    return {
        "images": parts.rows,
        "feature_width": encoder.feature_width,
        "resumed": resumed,
        "bad_images": len(source.rejected) + len(parts.bad),
        "runtime": runtime.about,
    }


def _loaded(spec: str, max_pixels: int | None, watch: Watch) -> Encoder:
    encoder = load_encoder(spec)
    for note in encoder.notes:
        watch.say(f"{spec}: {note}")
    if max_pixels is not None:
        encoder.read = encoder.read.model_copy(update={"max_pixels": max_pixels})
    return encoder


def _checked(out: Path, dtype: str) -> Path:
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: expected a file that ends in .parquet")
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype: no type '{dtype}'. {nearest(dtype, DTYPES)}")
    return out


def _of_engine(engine: str, runtime: str, precision: str, device: str) -> tuple[str, str]:
    """Runtime and device, as far as the engine leaves a choice."""
    check_engine(engine)
    if engine == "local":
        return runtime, device
    if runtime not in ("auto", "torch") or precision != "float32" or device not in ("auto", "cpu"):
        raise ConfigError(
            "--engine ray: its actors take runtime torch in float32 on the CPU; leave --runtime, --precision and --device out"
        )
    return "torch", "cpu"


def _as_begun(runtime: str, manifest: Mapping[str, Any] | None, encoder: Encoder) -> str:
    """`auto` stays what it was when the file was begun."""
    if runtime == "auto" and manifest is not None and manifest.get("fingerprint") == encoder.fingerprint:
        return str(manifest.get("runtime", "auto")).partition(" ")[0]
    return runtime


def _some(encoder: Encoder, source: Source) -> Tensor:
    """The first readable images, as far as they have one shape, or noise where none of them can be read."""
    images: list[Tensor] = []
    for index in range(min(_LOOKED_AT, len(source))):
        picture = read_picture(source, index, encoder.read)
        if not isinstance(picture, BadImage):
            images.append(encoder.prepare(picture))
    if not images:
        return torch.randn(_LOOKED_AT, encoder.read.channels, *encoder.prepare.shape)
    return torch.stack([image for image in images if image.shape == images[0].shape])


def _workers(asked: int | None, runtime: Runtime, source: Source, batch_size: int) -> int:
    if asked is not None:
        return asked
    if len(source) <= _FEW * batch_size:
        return 0
    cores = devices.cores()
    return max(1, cores // 2) if runtime.device.type == "cpu" else min(12, max(1, cores - 1))


def _manifest(encoder: Encoder, source: Source, runtime: Runtime, dtype: str) -> dict[str, Any]:
    """What must stay as it is while a file is being made."""
    keys = hashlib.blake2b(digest_size=20)
    for name in source.keys:
        keys.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return {
        "encoder": encoder.spec,
        "fingerprint": encoder.fingerprint,
        "data": absolute(source.location),
        "images": len(source),
        "keys": keys.hexdigest(),
        "dtype": dtype,
        "runtime": runtime.about,
        "read": encoder.read.model_dump(mode="json"),
    }


def _about(encoder: Encoder, source: Source, runtime: Runtime, dtype: str) -> dict[str, Any]:
    """Where the features come from, in full."""
    return {
        "encoder": encoder.spec,
        "kind": encoder.kind,
        "weights": encoder.weights,
        "pool": encoder.pool,
        "input_size": encoder.input_size,
        "feature_width": encoder.feature_width,
        "feature_shape": list(encoder.feature_shape),
        "scores_of": list(encoder.classes),
        "preprocessing": dataclasses.asdict(encoder.prepare),
        "read": encoder.read.model_dump(mode="json"),
        "fingerprint": encoder.fingerprint,
        "dtype": dtype,
        "runtime": runtime.about,
        "device": devices.describe(runtime.device),
        "data": absolute(source.location),
        "classes": list(source.classes),
        "environment": environment(("torch", "torchvision", "timm", "onnxruntime", "numpy", "pillow", "pyarrow")),
    }


def _finish(parts: Parts, source: Source, about: dict[str, Any]) -> None:
    """Join the parts, and list what could not be read."""
    if not parts.rows:
        remove_folder(parts.folder)
        raise none_readable(source, parts.bad)
    bad = [*source.rejected, *parts.bad]
    listing = bad_list_of(parts.out)
    parts.join(about)
    listing.unlink(missing_ok=True)
    if bad:
        append_jsonl(listing, [{"key": b.key, "reason": b.reason} for b in bad])
