"""The state of a divided training as a folder: each rank writes its parts, and any number of ranks reads them
(`torch.distributed.checkpoint`, in its safetensors form).

Tensors have the names that they have in a checkpoint of one file, so that either is taken up by a training of either kind.
`state.json` holds the counters and a checksum of each file; it is written last, and the folder gets its name after that.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Size, Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as read
from torch.distributed.checkpoint.state_dict_saver import save as write

from selfsight.errors import WeightsError
from selfsight.runs import remove_folder, room_for, write_json_atomic
from selfsight.ssl.world import BY_ITSELF, World

_STATE = "state.json"
_PIECE = 1 << 24


class DamagedError(WeightsError):
    """A file or folder that is no whole checkpoint."""


def save(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, str], world: World, previous: Path | None) -> None:
    """Write divided `tensors` and `words` to the folder `path`; called by all ranks. What was there goes to `previous`."""
    temporary = path.with_name(f".{path.name}.writing")
    if world.leads:
        remove_folder(temporary)
        temporary.mkdir(parents=True)
    world.wait()
    with room_for(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())):
        try:
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            write(_lists(tensors), storage_writer=writer, process_group=world.control)
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from None
    world.wait()
    sums = _sums(temporary, sorted(file.name for file in temporary.glob("*.safetensors")), world)
    if world.leads:
        write_json_atomic(temporary / _STATE, {**words, "files": sums})
        if previous is not None and path.exists():
            remove_folder(previous)
            path.rename(previous)
        remove_folder(path)
        temporary.rename(path)
    world.wait()


def words_of(path: Path) -> dict[str, Any]:
    """What was saved beside the tensors. `DamagedError` where that cannot be read."""
    try:
        found: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
    except PermissionError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path}: is no readable checkpoint ({_STATE}: {error})") from None
    return found


def check(path: Path, world: World = BY_ITSELF) -> None:
    """`DamagedError`, on all ranks, where a file is missing or is not what was written."""
    written = words_of(path)["files"]
    found = _sums(path, [name for name in sorted(written) if (path / name).is_file()], world)
    for name, checksum in written.items():
        if name not in found:
            raise DamagedError(f"{path}: is no readable checkpoint ({name} is missing)")
        if found[name] != checksum:
            raise DamagedError(f"{path}: is no readable checkpoint ({name} does not have the checksum that it was written with)")


def sizes(path: Path) -> dict[str, Size]:
    """The whole size of each tensor; of a number that of a list of one."""
    stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: each.size for name, each in stored.items() if isinstance(each, TensorStorageMetadata)}


def load(path: Path, into: Mapping[str, Tensor]) -> None:
    """Read tensors in place: a divided one takes its own part alone, whichever files that lies in. No rank waits for another."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        read(_lists(into), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


def _lists(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Views in which numbers are lists of one: parts of tensors without dimensions are not provided for."""
    return {name: tensor.detach() if tensor.ndim else tensor.detach().reshape(1) for name, tensor in tensors.items()}


def _sums(folder: Path, names: list[str], world: World) -> dict[str, int]:
    """CRC-32 of each file, shared out among the ranks."""
    own = {name: _crc(folder / name) for name in names[world.rank :: world.count]}
    return {name: value for part in world.collect(own) for name, value in part.items()}


def _crc(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found
