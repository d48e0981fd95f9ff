"""A training that does not fit into memory ends with the settings to turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from selfsight.errors import TrainingError
from selfsight.runs import RunFolder
from selfsight.ssl.settings import TrainSettings


@contextmanager
def within_memory(settings: TrainSettings, folder: RunFolder) -> Iterator[None]:
    """Turns memory that is not to be had, on a GPU or on the CPU, into a `TrainingError` that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _wants_memory(error):
            raise
        where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        kept = f"the last checkpoint is whole: selfsight train --out {folder.path} --resume --set parts={2 * settings.parts}"
        raise TrainingError(
            f"out of {where} with batch_size {settings.batch_size} in {settings.parts} parts. Raise parts (say to "
            f"{2 * settings.parts}), or lower batch_size, views.local_count or views.global_size, take precision=bfloat16 or a "
            f"smaller backbone; {kept if folder.checkpoints else 'nothing was trained yet'}"
        ) from None


def _wants_memory(error: Exception) -> bool:
    """torch's allocator for the CPU raises a plain `RuntimeError`."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
