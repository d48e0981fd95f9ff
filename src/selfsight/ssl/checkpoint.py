"""The state of a training in one safetensors file, so that a rename replaces it whole.

Tensors are `student.*`, `teacher.*`, `objective.*` and `optimizer.<index>.<name>`; counters and a checksum of
all of it stand in the metadata. No pickle.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfsight.errors import WeightsError
from selfsight.runs import write_atomic
from selfsight.ssl import sharded_checkpoint
from selfsight.ssl.network import Network
from selfsight.ssl.sharded import is_sharded, like, whole
from selfsight.ssl.sharded_checkpoint import DamagedError
from selfsight.ssl.start import plain
from selfsight.ssl.step import Learner, Setbacks
from selfsight.ssl.world import BY_ITSELF, World

_CHECKSUM = "checksum"


def save(path: Path, learner: Learner, elapsed: float, previous: Path | None = None) -> None:
    """Write everything that `restore` needs; `elapsed` is the seconds trained so far. What was at `path` goes to `previous`."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in _tensors(learner).items()}
    metadata = _words(learner, elapsed)
    metadata[_CHECKSUM] = str(checksum(tensors, metadata))
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata), _bytes(tensors), previous)


def save_sharded(path: Path, learner: Learner, elapsed: float, world: World, previous: Path | None = None) -> None:
    """The same for a divided learner, as a folder to which all ranks write."""
    sharded_checkpoint.save(path, _tensors(learner), _words(learner, elapsed), world, previous)


def restore(path: Path, learner: Learner, world: World = BY_ITSELF) -> float:
    """Put a saved state, file or folder, into `learner`, divided or not; returns the seconds trained so far.

    `DamagedError`, with `learner` left as it was, where it is not whole; any missing or unexpected key is a `WeightsError`.
    """
    try:
        tensors, metadata = _read_sharded(path, learner, world) if path.is_dir() else _read(path)
        for name, module in _modules(learner).items():
            own = module.state_dict()
            part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            module.load_state_dict({key: like(own[key], value) if key in own else value for key, value in part.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit this run's config.yaml ({str(error).splitlines()[-1].strip()})") from None
    state: dict[int, dict[str, Any]] = {}
    parameters = _parameters(learner.optimizer)
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = like(parameters[int(index)], value) if value.ndim else value
    learner.optimizer.load_state_dict({"state": state, "param_groups": learner.optimizer.state_dict()["param_groups"]})
    if learner.scaler is not None and "scaler" in metadata:
        learner.scaler.load_state_dict(json.loads(metadata["scaler"]))
    learner.setbacks = Setbacks(**json.loads(metadata["setbacks"]))
    learner.step = int(metadata["step"])
    return float(metadata["elapsed"])


def step_of(path: Path) -> int:
    """The step of a checkpoint, without reading its tensors."""
    if path.is_dir():
        return int(sharded_checkpoint.words_of(path)["step"])
    try:
        with safe_open(path, framework="pt") as file:
            return int((file.metadata() or {}).get("step", -1))
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path}: is no readable checkpoint ({error})") from None


def save_teacher(path: Path, learner: Learner, about: dict[str, Any], world: World = BY_ITSELF) -> None:
    """`teacher.safetensors`: backbone and head of the teacher, ready to be an encoder."""
    save_network(path, learner.teacher, {"step": str(learner.step), "about": json.dumps(about)}, world)


def save_network(path: Path, network: Network, metadata: dict[str, str], world: World = BY_ITSELF) -> None:
    """Backbone and heads under plain names: `teacher.safetensors`, and `init.safetensors` of a run that started from weights.

    All ranks call it, since a divided network has to be put together; the first one writes.
    """
    if not world.leads and not is_sharded(network):
        return
    tensors = {key: value.contiguous().clone() for key, value in whole(plain(network)) if world.leads}
    if not world.leads:
        return
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata), _bytes(tensors))


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """CRC-32 over names, types, shapes and bytes of tensors on the CPU and over the metadata: it finds what a disk or a copy did
    to a file, at a gigabyte a second or so."""
    words = {key: value for key, value in metadata.items() if key != _CHECKSUM}
    shapes = {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in sorted(tensors.items())}
    found = zlib.crc32(json.dumps([words, shapes], sort_keys=True).encode())
    for _, tensor in sorted(tensors.items()):
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return found


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def read_network(path: Path) -> dict[str, Tensor]:
    """The tensors that `save_network` wrote."""
    return _read(path, summed=False)[0]


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """The state itself, not a copy of it."""
    tensors: dict[str, Tensor] = {}
    for name, module in _modules(learner).items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for index, state in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return tensors


def _words(learner: Learner, elapsed: float) -> dict[str, str]:
    words = {"step": str(learner.step), "elapsed": repr(elapsed), "setbacks": json.dumps(asdict(learner.setbacks))}
    return words if learner.scaler is None else words | {"scaler": json.dumps(learner.scaler.state_dict())}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """In the order of their numbers in its state dict."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _read_sharded(path: Path, learner: Learner, world: World) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors divided as the learner's are. Its own ones are read in place; moments it may not have yet are made."""
    sharded_checkpoint.check(path, world)
    stored, parameters = sharded_checkpoint.sizes(path), _parameters(learner.optimizer)
    tensors = {key: value for key, value in _tensors(learner).items() if not key.startswith("optimizer.")}
    for key in stored:
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            tensors[key] = torch.zeros(()) if name == "step" else torch.zeros_like(parameters[int(index)])
    for key in sorted(tensors.keys() | stored.keys()):
        if key not in tensors or stored.get(key) != (tensors[key].shape or (1,)):
            found = "is missing" if key not in stored else f"is of size {tuple(stored[key])}"
            raise WeightsError(f"{path}: does not fit this run's config.yaml ({key} {found})")
    sharded_checkpoint.load(path, tensors)
    return tensors, sharded_checkpoint.words_of(path)


def _modules(learner: Learner) -> dict[str, torch.nn.Module]:
    return {"student": learner.student, "teacher": learner.teacher, "objective": learner.objective}


def _read(path: Path, *, summed: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        if isinstance(error, PermissionError):
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
        raise DamagedError(f"{path}: is no readable checkpoint ({error})") from None
    if summed and metadata.get(_CHECKSUM) != str(checksum(tensors, metadata)):
        raise DamagedError(f"{path}: is no readable checkpoint (its content does not have the checksum that it was written with)")
    return tensors, metadata
