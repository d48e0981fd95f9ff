"""Reading somebody else's checkpoint without running a line of it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfsight.errors import WeightsError

EXPECTS = "a .safetensors, .pt, .pth or .ckpt file of weights"
_CONTAINERS = ("state_dict_ema", "model_ema", "ema", "teacher", "state_dict", "model_state_dict", "model", "student", "module")
"""Where trainers put the weights, the averaged ones first."""


class _Inert:
    """Stands for argparse.Namespace, in which the published trainings keep their arguments: it holds them, and does nothing."""


# What torch.load and the unpickler in it let through on damaged files.
_DAMAGE = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, UnicodeDecodeError)


def read_safetensors(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; `WeightsError`, beginning with `where`, for one that is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{where}: '{path}' is no whole safetensors file ({error}); copy or write it again") from None


def read_tensors(path: Path, where: str, first: str = "teacher") -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in a checkpoint, and notes on what surrounded it; of a student and a teacher the one that is `first`.

    Pickles are read with `weights_only=True`: a file that needs code to be unpickled is refused, and nothing of it is run.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path, where)[0], []
    order = _CONTAINERS if first == "teacher" else (first, *_CONTAINERS)
    tensors, notes = _innermost(_unpickled(path, where), [], order)
    if not tensors:
        raise WeightsError(
            f"{where}: '{path}' holds no tensors by name; expected a state dict, as torch.save(model.state_dict(), ...)"
        )
    return tensors, notes


def _unpickled(path: Path, where: str) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(2)
        if head not in (b"PK",) and head[:1] != b"\x80":
            raise WeightsError(f"{where}: '{path}' is no PyTorch checkpoint; expected {EXPECTS}")
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Inert, "argparse.Namespace")]):
            warnings.simplefilter("ignore")  # torch remarks on the pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{where}: {_refusal(path, str(error))}") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{where}: '{path}' is damaged or cut off ({reason}); copy or write it again") from None


def _refusal(path: Path, message: str) -> str:
    if "nsupported" not in message:
        return f"'{path}' is damaged or cut off (its pickle ends or changes midway); copy or write it again"
    return (
        f"'{path}' needs code to be run to be read and is refused; where you trust it, save its weights alone: "
        "torch.save(model.state_dict(), 'weights.pt')"
    )


def _innermost(found: Any, notes: list[str], order: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by name in `found` or in the first container within it that has any."""
    if not isinstance(found, Mapping):
        return {}, notes
    for name in order:
        inner, inner_notes = _innermost(found.get(name), [], order)
        if inner:
            others = [str(key) for key in found if key != name]
            beside = f"; beside it, unused: {', '.join(others[:8])}" if others else ""
            return inner, [*notes, f"weights taken from '{name}'{beside}", *inner_notes]
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    others = [str(key) for key in found if str(key) not in tensors]
    if tensors and others:
        notes = [*notes, f"no tensors, unused: {', '.join(others[:8])}"]
    return tensors, notes
