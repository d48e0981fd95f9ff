"""A training of milliseconds a step, in this process or as the program in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from selfsight import api, config

BACKBONE = "vit_w32_d1_p8"
SMALL: dict[str, Any] = {
    "views": {"global_size": 16, "local_size": 8, "local_count": 1, "blur": [0.0, 0.0, 0.0]},
    "backbone": {"image_size": 16, "drop_path": 0.1},
    "objective": {
        "head": {"prototypes": 16, "hidden": 16, "bottleneck": 8},
        "teacher_temperature": 0.02,
        "warmup_teacher_temperature": 0.02,
        "center_momentum": 0.9,
    },
    "optimizer": {"learning_rate": 1e-4},
    "teacher_momentum": 0.98,
    "batch_size": 8,
    "precision": "float32",
    "threads": 1,
    "workers": 0,
    "log_every": 1,
}


def train(data: Path, out: Path, *, over: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return api.train(data, out, set=config.merge(SMALL, over or {}), **({"backbone": BACKBONE, "device": "cpu"} | options))


def words(data: Path, out: Path, epochs: float, *more: str) -> list[str]:
    """The arguments of the same training for the program."""
    pairs = [f"{a}.{b}={v}" for a, inner in SMALL.items() if isinstance(inner, dict) for b, v in inner.items()]
    pairs += [f"{key}={value}" for key, value in SMALL.items() if not isinstance(value, dict)]
    sets = [word for pair in [*pairs, *more] for word in ("--set", pair)]
    return ["train", str(data), "--out", str(out), "--backbone", BACKBONE, "--epochs", str(epochs), "--device", "cpu", *sets]


def start(arguments: list[str], first: str = "") -> subprocess.Popen[str]:
    """The program in a process of its own; `first` is Python that runs before it."""
    code = f"{first}\nfrom selfsight.cli import main; main()"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def differing(a: Path, b: Path) -> list[str]:
    """Names of the tensors of checkpoint and teacher that are not the same, bit by bit."""
    out = []
    for name in ("checkpoint/latest.safetensors", "teacher.safetensors"):
        ours, theirs = load_file(a / name), load_file(b / name)
        out += [f"{name}: {key}" for key in ours.keys() | theirs.keys() if key not in ours or key not in theirs]
        out += [f"{name}: {key}" for key in ours.keys() & theirs.keys() if not torch.equal(ours[key], theirs[key])]
    return out
