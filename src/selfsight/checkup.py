"""The doctor: what this machine has, what is missing, and how fast it is."""

from __future__ import annotations

import io
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil
import torch
from PIL import Image, features

from selfsight import device
from selfsight.data.decode import decode
from selfsight.encoders import load_encoder
from selfsight.errors import SelfsightError
from selfsight.models.backbones import BackboneSettings, build_backbone

Level = Literal["good", "note", "bad"]


class Finding(NamedTuple):
    """One line of the doctor; `bad` ones keep selfsight from working and say what to do."""

    level: Level
    what: str
    text: str


def doctor(compiling: bool = False) -> list[Finding]:
    """Look at everything; nothing is changed. The list is in the order shown.

    `compiling` measures what torch.compile gains, too, which takes a minute or more on a CPU.
    """
    return [finding for look in [*_LOOKS, *([_compiling] if compiling else [])] for finding in look()]


def _python() -> Iterator[Finding]:
    right = sys.version_info >= (3, 11)
    yield Finding("good" if right else "bad", "Python", sys.version.split()[0] + ("" if right else "; needs 3.11 or newer"))


def _packages() -> Iterator[Finding]:
    names = ("selfsight", "torch", "torchvision", "timm", "pyarrow", "pillow", "onnxruntime")
    yield Finding("good", "packages", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def _device() -> Iterator[Finding]:
    on = device.resolve("auto")
    yield Finding("good", "device", device.describe(on) + ("" if on.type != "cpu" else f", {device.cores()} cores"))
    speed = device.matmul_gflops(on)
    yield Finding("good", "float32", f"{speed:.0f} GFLOP/s of 1024 x 1024 matrix products")
    if on.type == "cpu":
        yield Finding("note", "no GPU", "small images and networks train here; photographs take days")


def _small_vit(on: torch.device, compiled: bool = False) -> Callable[[str], float]:
    """Forward and backward of a small ViT in a precision, timed."""
    net = build_backbone(BackboneSettings(name="vit_w192_d2_p4", image_size=32)).to(on)
    if compiled:
        net.compile_blocks()
    images = torch.randn(32, 3, 32, 32, device=on)

    def seconds(precision: str) -> float:
        start = time.perf_counter()
        with device.autocast(on, precision):
            summary = net.views([images], patches=False)[0].summary
        summary.float().square().mean().backward()  # type: ignore[no-untyped-call]
        device.synchronize(on)
        return time.perf_counter() - start

    return seconds


def _precision() -> Iterator[Finding]:
    """Both precisions, in turn."""
    seconds = _small_vit(device.resolve("auto"))
    turns = [(seconds("float32"), seconds("bfloat16")) for _ in range(6)][1:]
    gain = statistics.median(full / half for full, half in turns)
    advice = "train with --set precision=bfloat16" if gain > 1.1 else "float32 is as good here"
    yield Finding("good", "bfloat16", f"{gain:.1f} times the rate of float32 in a step of a small ViT; {advice}")


def _compiling() -> Iterator[Finding]:
    """Blocks as they are and compiled, in turn."""
    on = device.resolve("auto")
    if missing := device.missing_compiler(on):
        yield Finding("note", "compiling", f"{missing} is not installed, so nothing can be compiled")
        return
    plain, compiled = _small_vit(on), _small_vit(on, compiled=True)
    took = compiled("float32")
    turns = [(plain("float32"), compiled("float32")) for _ in range(9)][1:]
    gain = statistics.median(eager / fast for eager, fast in turns)
    advice = "train with --set compile=true" if gain > 1.1 else "it does not pay here"
    yield Finding("good", "compiling", f"{gain:.2f} times the rate in a step of a small ViT, after {took:.0f} s; {advice}")


def _decoding() -> Iterator[Finding]:
    noise = np.random.default_rng(0).integers(0, 255, (47, 63, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((500, 375)).save(data, "JPEG", quality=90)
    start, count = time.perf_counter(), 40
    for _ in range(count):
        decode(data.getvalue())
    turbo = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    yield Finding(
        "good", "decoding", f"{count / (time.perf_counter() - start):.0f} JPEGs (500 x 375) a second on one core, {turbo}"
    )


def _memory_and_disk() -> Iterator[Finding]:
    free = psutil.virtual_memory().available / 2**30
    yield Finding("good" if free > 4 else "note", "memory", f"{free:.1f} GiB free" + ("" if free > 4 else "; 4 are advised"))
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("good" if disk > 5 else "note", "disk", f"{disk:.0f} GiB free in {Path.cwd()}")
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            yield Finding("good", "writing", "this folder can be written")
    except OSError as error:
        yield Finding("note", "writing", f"this folder cannot be written ({error.strerror}); give --out elsewhere")


def _weights() -> Iterator[Finding]:
    try:
        encoder = load_encoder("efficientnet-lite0")
    except SelfsightError as error:
        yield Finding("bad", "weights", f"{error}; reinstall selfsight")
        return
    finite = bool(torch.isfinite(encoder.encode(torch.zeros(1, 3, 224, 224))).all())
    yield Finding("good" if finite else "bad", "weights", f"{encoder.spec}: {encoder.weights}" + ("" if finite else "; damaged"))


_LOOKS: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _device, _precision, _decoding, _memory_and_disk, _weights]
