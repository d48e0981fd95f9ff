"""Which runtime computes an encoder's features on this machine.

No runtime but torch's own is taken unless its features are torch's within `TOLERANCE`, which is looked at each time.
"""

from __future__ import annotations

import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from selfsight import device as devices
from selfsight.encoders.base import Encoder, digest
from selfsight.encoders.runtimes.base import Runtime, Torch
from selfsight.encoders.runtimes.compiled import Compiled
from selfsight.encoders.runtimes.onnx_session import NotExportedError, OnnxRuntime, export
from selfsight.errors import ConfigError, DiskFullError, nearest
from selfsight.runs import cache_folder, write_json_atomic

RUNTIMES = ("auto", "torch", "onnx", "compile")
TOLERANCE = 1e-4
"""Largest difference from torch's features, as a share of the largest of them, or of 1 where all are smaller."""
WORTH = 30.0
"""Seconds that torch would need for all images, below which nothing else is tried: writing a graph takes some of them."""
_ROUNDS, _SECONDS = 5, 2.0

Say: TypeAlias = Callable[[str], None]


def choose(
    encoder: Encoder,
    pictures: Callable[[], Tensor],
    *,
    count: int,
    batch_size: int = 64,
    device: torch.device | None = None,
    runtime: str = "auto",
    precision: str = "float32",
    say: Say = lambda text: None,
) -> Runtime:
    """The runtime for `count` images like those that `pictures` gives, [b, C, H, W], on which it is checked.

    `auto` is torch's own on a GPU, in another precision and where `count` is small, else torch's own or ONNX Runtime, whichever
    was measured to be faster for this network on this machine. A runtime that was asked for and does not give torch's features
    is not taken, and `say` tells so. `ConfigError` for one that cannot be had here.
    """
    device = device or torch.device("cpu")
    _check(encoder, device, runtime, precision)
    eager = Torch(encoder, device, precision)
    if runtime == "torch" or (runtime == "auto" and (device.type != "cpu" or precision != "float32" or encoder.network is None)):
        return eager
    images = pictures()
    if runtime == "compile":
        return _compiled(encoder, eager, images, batch_size, say)
    if runtime == "onnx":
        return _faithful(lambda: _onnx(encoder, images, say), eager, images, say) or eager
    return _fastest(encoder, eager, images, count, say)


def _check(encoder: Encoder, device: torch.device, runtime: str, precision: str) -> None:
    if runtime not in RUNTIMES:
        raise ConfigError(f"--runtime: no runtime '{runtime}'. {nearest(runtime, RUNTIMES)}")
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision: expected float32 or bfloat16. Got {precision!r}.")
    if runtime in ("auto", "torch"):
        return
    if encoder.network is None:
        raise ConfigError(
            f"--runtime {runtime}: {encoder.spec} is no network of torch and has a runtime of its own; leave it out"
        )
    if device.type != "cpu":
        raise ConfigError(f"--runtime {runtime}: is for the CPU; on {device.type} take torch, or --device cpu")
    if precision != "float32":
        raise ConfigError(f"--runtime {runtime}: computes in float32; take --runtime torch with --precision {precision}")
    if runtime == "compile" and (compiler := devices.missing_compiler(device)):
        raise ConfigError(f"--runtime compile: needs a C++ compiler, and '{compiler}' is not installed; take onnx")


def _fastest(encoder: Encoder, eager: Torch, images: Tensor, count: int, say: Say) -> Runtime:
    """As measured here before, or now."""
    if count / len(images) * _seconds(eager, images) < WORTH:
        return eager
    record = _measured_before(path := _kept(encoder, images.shape[1:], "json"))
    if record.get("runtime") == eager.name:
        return eager
    other = _faithful(lambda: _onnx(encoder, images, say), eager, images, say)
    if other is None:
        _keep(path, {"runtime": eager.name}, say)
        return eager
    if not record:
        rates = _rates([eager, other], images)
        fastest = max(rates, key=lambda name: rates[name])
        _keep(path, {"runtime": fastest, "images_per_second": rates}, say)
        found = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        say(f"{encoder.spec}: runtime {fastest}; measured here, images/s: {found}")
        return other if fastest == other.name else eager
    return other


def _onnx(encoder: Encoder, images: Tensor, say: Say) -> OnnxRuntime:
    """With the graph that was written before, or a new one."""
    shape, graph = images.shape[1:], _kept(encoder, images.shape[1:], "onnx")
    if not graph.is_file():
        say(f"{encoder.spec}: writing its graph for ONNX Runtime, once")
        _exported(encoder, shape, graph)
    try:
        return OnnxRuntime(encoder, graph, shape)
    except NotExportedError:
        _exported(encoder, shape, graph)  # the file may have been damaged
        return OnnxRuntime(encoder, graph, shape)


def _exported(encoder: Encoder, shape: torch.Size, graph: Path) -> None:
    assert encoder.network is not None
    try:
        export(encoder.network, shape, graph)
    except (OSError, DiskFullError) as error:
        raise NotExportedError(f"{graph.parent} cannot be written ({error})") from None


def _compiled(encoder: Encoder, eager: Torch, images: Tensor, batch_size: int, say: Say) -> Runtime:
    assert encoder.network is not None
    network = encoder.network
    say(f"{encoder.spec}: compiling")
    return _faithful(lambda: Compiled(encoder, network, batch_size, images.shape[1:]), eager, images, say) or eager


def _faithful(make: Callable[[], Runtime], eager: Torch, images: Tensor, say: Say) -> Runtime | None:
    """The runtime, or None where there is none or its features are others, which is said."""
    try:
        runtime = make()
        theirs, own = runtime.encode(images), eager.encode(images)
    except NotExportedError as error:
        say(f"{eager.encoder.spec}: runtime torch, {error}")
        return None
    difference = float((theirs - own).abs().max())
    allowed = TOLERANCE * max(1.0, float(own.abs().max()))
    if not difference <= allowed:
        differ = f"the features of {runtime.name} differ by {difference:.2g}, more than {allowed:.2g}"
        say(f"{eager.encoder.spec}: runtime torch, {differ}")
        return None
    return runtime


def _seconds(runtime: Runtime, images: Tensor) -> float:
    """Of one batch, after one that is not counted."""
    runtime.encode(images[:1])
    start = time.perf_counter()
    runtime.encode(images)
    return time.perf_counter() - start


def _rates(runtimes: list[Runtime], images: Tensor) -> dict[str, float]:
    """Images a second of each, in turns, so that whatever else the machine does falls on all."""
    took: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    start = time.perf_counter()
    for done in range(_ROUNDS):
        for runtime in runtimes:
            took[runtime.name].append(_seconds(runtime, images))
        if done >= 2 and time.perf_counter() - start > _SECONDS:
            break
    return {name: round(len(images) / statistics.median(seconds), 1) for name, seconds in took.items()}


def _kept(encoder: Encoder, shape: torch.Size, ending: str) -> Path:
    """Where what is known of a network on this machine is kept, under all that it depends on."""
    versions = [metadata.version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")]
    about = [encoder.fingerprint, str(tuple(shape)), _processor(), str(torch.get_num_threads()), *versions]
    return cache_folder("runtimes") / f"{digest(about, [])}.{ending}"


@functools.cache
def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _measured_before(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a record that is not there or is damaged is made again
        return {}
    return found if isinstance(found, dict) and found.get("runtime") in RUNTIMES else {}


def _keep(path: Path, record: dict[str, object], say: Say) -> None:
    try:
        write_json_atomic(path, record)
    except (OSError, DiskFullError) as error:
        say(f"the choice of a runtime is not kept: {path.parent} cannot be written ({error})")
