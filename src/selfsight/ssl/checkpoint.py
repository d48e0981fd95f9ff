"""The state of a training in one safetensors file, so that a rename replaces it whole.

Tensors are `student.*`, `teacher.*`, `objective.*` and `optimizer.<index>.<name>`; counters stand in the metadata. No pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfsight.errors import WeightsError
from selfsight.runs import write_atomic
from selfsight.ssl.network import Network
from selfsight.ssl.start import plain
from selfsight.ssl.step import Learner


def save(path: Path, learner: Learner, elapsed: float) -> None:
    """Write everything that `restore` needs; `elapsed` is the seconds trained so far."""
    tensors: dict[str, Tensor] = {}
    for name, module in _modules(learner).items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    metadata = {"step": str(learner.step), "elapsed": repr(elapsed)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))


def restore(path: Path, learner: Learner) -> float:
    """Put a saved state into `learner`; returns the seconds trained so far. Any missing or unexpected key is an error."""
    tensors, metadata = _read(path)
    for name, module in _modules(learner).items():
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            module.load_state_dict(part)
        except RuntimeError as error:
            raise WeightsError(f"{path}: does not fit this run's config.yaml ({str(error).splitlines()[-1].strip()})") from None
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    learner.optimizer.load_state_dict({"state": state, "param_groups": learner.optimizer.state_dict()["param_groups"]})
    learner.step = int(metadata["step"])
    return float(metadata["elapsed"])


def save_teacher(path: Path, learner: Learner, about: dict[str, Any]) -> None:
    """`teacher.safetensors`: backbone and head of the teacher, ready to be an encoder."""
    save_network(path, learner.teacher, {"step": str(learner.step), "about": json.dumps(about)})


def save_network(path: Path, network: Network, metadata: dict[str, str]) -> None:
    """Backbone and heads under plain names: `teacher.safetensors`, and `init.safetensors` of a run that started from weights."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in plain(network).items()}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_network(path: Path) -> dict[str, Tensor]:
    """The tensors that `save_network` wrote."""
    return _read(path)[0]


def _modules(learner: Learner) -> dict[str, torch.nn.Module]:
    return {"student": learner.student, "teacher": learner.teacher, "objective": learner.objective}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: is no readable checkpoint ({error}); expected one that a training has saved") from None
