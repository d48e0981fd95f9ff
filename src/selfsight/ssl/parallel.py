"""Joining the other ranks, and ending with them.

Whether there are any is said by the environment (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`,
`MASTER_PORT`), as `torchrun` and Slurm launchers set it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from selfsight.errors import ConfigError, ElsewhereError, SelfsightError, TrainingError
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.world import BY_ITSELF, Group, World

_FAILED = "selfsight/failed"


@contextmanager
def joined() -> Iterator[World]:
    """The ranks that this process belongs to, for as long as they work together.

    Where one of them fails, the first to do so raises its error, and all others `ElsewhereError`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield BY_ITSELF
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    store = dist.distributed_c10d._get_default_store()
    world = Group(dist.get_rank(), count, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    try:
        yield world
        world.wait()
    except Exception as error:
        if (cause := _cause(error, store, world.rank)) is error:
            raise
        raise cause from None
    # Divided networks hold their groups, and one another in circles. A group that is left over when the interpreter ends may
    # abort the process, since its threads still run.
    gc.collect()
    dist.destroy_process_group()


def _cause(error: Exception, store: Any, rank: int) -> Exception:
    """Of the errors of all ranks the first is the cause; the others follow from it."""
    try:
        place = store.add(_FAILED, 1)
    except RuntimeError:  # the process that kept the store is gone
        place = 2
    if place > 1:
        return ElsewhereError(error.exit_code if isinstance(error, SelfsightError) else 1)
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        error = TrainingError(
            f"rank {rank}: another rank is gone, killed maybe for want of memory ({str(error).splitlines()[0]}); "
            "go on from the last checkpoint with --resume"
        )
    if isinstance(error, SelfsightError):
        error.alone = True
    return error


def check(settings: TrainSettings, world: World) -> None:
    """`ConfigError` where the global batch cannot be dealt out equally."""
    if settings.batch_size % world.count:
        below = settings.batch_size - settings.batch_size % world.count
        raise ConfigError(
            f"batch_size: is that of all ranks together and must be divisible by their number, {world.count}. "
            f"Got {settings.batch_size}; {below or world.count} or {below + world.count} would be"
        )
