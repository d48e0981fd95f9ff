"""Which device, which precision, how many threads, which seed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from selfsight.errors import ConfigError

_CGROUPS = tuple(
    (Path(f"/sys/fs/cgroup/{limit}"), Path(f"/sys/fs/cgroup/{used}"))
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
)
"""Where a container's limit stands and what is used of it, in either version of control groups."""


def resolve(name: str = "auto") -> torch.device:
    """`auto` takes the first CUDA device, then Apple's, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name!r}: expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"--device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device 'mps': not available on this machine; use cpu or auto")
    return device


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (cuda)"
    return f"{device.type}, {torch.get_num_threads()} threads"


def cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def missing_compiler(device: torch.device) -> str | None:
    """The C++ compiler that torch.compile would call on a CPU, where it is not installed."""
    compiler = os.environ.get("CXX", "g++")
    return compiler if device.type == "cpu" and shutil.which(compiler) is None else None


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Where forward passes run in half precision."""
    dtype = half(device, precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def half(device: torch.device, precision: str) -> torch.dtype | None:
    """The half precision that `precision` (`float32`, `bfloat16`, `float16` or `auto`) means on this device, if any.

    `auto` is bfloat16 on a GPU that has it and float32 on a CPU: there, small networks train no faster in bfloat16 even with
    hardware for it.
    """
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return torch.float16 if precision == "float16" else None


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_gflops(device: torch.device, size: int = 1024, repeats: int = 8) -> float:
    """Measured float32 matrix-product rate: the yardstick of every estimate."""
    a = torch.randn(size, size, device=device)
    a @ a
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        a @ a
    synchronize(device)
    return repeats * 2 * size**3 / (time.perf_counter() - start) / 1e9


def peak_memory_mb(on: torch.device | None = None) -> float:
    """The most memory so far in MiB: what torch took of a CUDA device, or what this process held.

    Linux starts `ru_maxrss` at the parent's, so there the kernel's own mark is read.
    """
    if on is not None and on.type == "cuda":
        return torch.cuda.max_memory_allocated(on) / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # not on Windows

    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def free_memory_mb(on: torch.device) -> float:
    """Memory in MiB that a process may still take: of a CUDA device, or of this machine within the limit of its container."""
    if on.type == "cuda":
        return torch.cuda.mem_get_info(on)[0] / 2**20
    left = [psutil.virtual_memory().available]
    for limit, used in _CGROUPS:
        if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
            left.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(left)) / 2**20
