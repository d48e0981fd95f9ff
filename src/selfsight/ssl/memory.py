"""What fits into memory: the largest batch that does, and a training that does not ends with the settings to turn."""

from __future__ import annotations

import ctypes
import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from selfsight import device
from selfsight.data.sources import Source
from selfsight.errors import ConfigError, TrainingError
from selfsight.runs import RunFolder
from selfsight.ssl.estimate import sample_batch
from selfsight.ssl.learner import make_learner
from selfsight.ssl.objectives import Guide
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.step import rates_at, train_step

_MOST = 4096
_SMALL, _LARGER = 4, 16
_SHARE = 0.8
"""Of the memory that is free; the rest is for workers, the probe and whatever else runs."""
_RESET = Path("/proc/self/clear_refs")


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


def largest_batch(
    settings: TrainSettings,
    source: Source,
    on: torch.device,
    start: Mapping[str, Tensor] | None = None,
    guide: Guide | None = None,
) -> tuple[int, str]:
    """The largest power of two of images whose step fits, and how that was found.

    At most an eighth of the images (an epoch has some steps then), at most 4,096. A GPU is tried with real steps until one does
    not fit. On the CPU, where what does not fit ends the process, two small batches are measured.
    """
    most = min(_MOST, 2 ** int(math.log2(max(1, settings.images // 8))))

    def step(size: int) -> None:
        learner = make_learner(settings, on, start=start, guide=guide)
        _, batch = sample_batch(settings, source, on, size)
        rates = rates_at(0.5, 100, settings.optimizer, settings.teacher_momentum)
        for _ in range(2):  # the first makes the optimiser's state
            train_step(learner, batch, rates, settings.optimizer.clip, settings.precision)
        device.synchronize(on)

    return _tried(step, most, on) if on.type == "cuda" else _measured(step, most, on)


def _tried(step: Callable[[int], None], most: int, on: torch.device) -> tuple[int, str]:
    size, fits = min(_SMALL, most), 0
    while size <= most:
        try:
            step(size)
        except torch.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        size, fits = 2 * size, size
    if not fits:
        raise TrainingError(
            f"--batch-size auto: {size} images do not fit into the GPU's memory; take a smaller backbone or views"
        )
    if fits == most:
        return most, "fits; a larger one would leave an epoch few steps"
    return fits, f"the largest that fits into {device.free_memory_mb(on) / 2**10:.0f} GiB"


def _measured(step: Callable[[int], None], most: int, on: torch.device) -> tuple[int, str]:
    if not _RESET.is_file():
        raise ConfigError("--batch-size auto: measures memory by a file of Linux on the CPU; give a number")
    if most <= _LARGER:
        return most, "an eighth of the images"
    free = device.free_memory_mb(on)
    peaks = []
    for size in (_SMALL, _LARGER):
        _forget()
        step(size)
        peaks.append(device.peak_memory_mb())
    each = max((peaks[1] - peaks[0]) / (_LARGER - _SMALL), 0.01)
    room = 2 ** int(math.log2(max(1.0, _SHARE * free / each)))
    if room >= most:
        return most, f"{each:.1f} MiB an image; a larger one would leave an epoch few steps"
    return room, f"{each:.1f} MiB an image, {free / 2**10:.1f} GiB free"


def _forget() -> None:
    """Give freed memory back, which C libraries keep for later, and have the kernel forget the peak so far."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    _RESET.write_text("5")
