"""Worker processes that may die or hang without the work being lost.

Items are numbered, and an item is the same whoever makes it, so what a dead worker held can be made again by another. The
sample that it was reading is named and left out from then on.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from selfsight.errors import SelfsightError

Item = TypeVar("Item")

PATIENCE = 1800.0
"""Seconds after which a worker that is still at one sample is taken for hung and killed."""
_DEATHS = 4
_PID, _SAMPLE, _SINCE = range(3)
_NONE = -1


class Work(Dataset[Item], ABC, Generic[Item]):
    """What workers do: item `number` from samples of which each is announced by `holding` while it is read."""

    def __init__(self) -> None:
        self.avoid: dict[int, str] = {}
        """Samples on which a worker died, and how."""
        self.held = _nobody(1)

    @abstractmethod
    def __getitem__(self, number: int) -> Item: ...

    @contextmanager
    def holding(self, sample: int) -> Iterator[None]:
        info = get_worker_info()
        if info is None:
            yield
            return
        row = self.held[info.id]
        row[_SINCE] = time.monotonic_ns()
        row[_SAMPLE] = sample
        yield
        row[_SAMPLE] = _NONE


class Crew(Generic[Item]):
    """Items in order from a number of workers, 0 for this very process. `workers` may be changed on the way."""

    def __init__(self, work: Work[Item], workers: int, *, pin: bool = False, patience: float = PATIENCE) -> None:
        self.work, self.workers, self.pin, self.patience = work, workers, pin, patience

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """Items `start` to `stop`. `SelfsightError` where workers die again and again over the same item."""
        at, deaths = start, 0
        while at < stop:
            workers = self.workers
            loader = self._loader(range(at, stop))
            with self._watched(workers):
                source = iter(loader)
                _leave_child_signals_alone()
                try:
                    for item in source:
                        at, deaths = at + 1, 0
                        yield item
                        if self.workers != workers:
                            break
                except (RuntimeError, OSError, EOFError) as error:
                    deaths += 1
                    self._bury(error, _dead(source), deaths)
                finally:
                    # Without this the workers live on for as long as someone holds the traceback of an error.
                    getattr(source, "_shutdown_workers", _nothing)()
                    for worker in getattr(source, "_workers", ()):
                        worker.kill()  # one that hangs in an image ignores a SIGTERM

    def _loader(self, numbers: range) -> DataLoader[Item]:
        self.work.held = _nobody(max(1, self.workers))
        return DataLoader(
            self.work,
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_Start(self.work.held) if self.workers else None,
            prefetch_factor=4 if self.workers else None,
            pin_memory=self.pin,
        )

    def _bury(self, error: Exception, dead: set[int], deaths: int) -> None:
        """Find out what the `dead` held; raises where it was no death, or one too many."""
        found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
        # One that dies while it hands over what it has read breaks the connection, which torch does not tell from other errors.
        pids = {int(pid) for pid in found[1].split(",")} if found else dead
        if not pids:
            raise error
        held = [int(row[_SAMPLE]) for row in self.work.held if int(row[_PID]) in pids and row[_SAMPLE] != _NONE]
        how = next((self._signals[pid] for pid in pids if pid in self._signals), "killed, maybe for want of memory,")
        for sample in held:
            self.work.avoid[sample] = f"a data worker was {how} while it read this image"
        if deaths >= _DEATHS:
            raise SelfsightError(
                f"{deaths} data workers were {how} one after another"
                + (f", the last while it read sample {held[0]}" if held else " between two images")
                + "; is memory short? Fewer workers, or a smaller limit of pixels an image, need less"
            ) from None

    @contextmanager
    def _watched(self, workers: int) -> Iterator[None]:
        """A thread that kills workers which are at one sample for too long; their death is then seen like any other."""
        self._signals: dict[int, str] = {}
        done = threading.Event()

        def look() -> None:
            while not done.wait(min(5.0, self.patience / 4)):
                for pid, sample, since in self.work.held.tolist():
                    if sample != _NONE and time.monotonic_ns() - since > self.patience * 1e9:
                        self._signals[pid] = f"stopped after {self.patience:.0f} seconds"
                        os.kill(pid, signal.SIGKILL)

        if not workers:
            yield
            return
        thread = threading.Thread(target=look, name="selfsight-workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _dead(source: Any) -> set[int]:
    """Processes of workers that have died, or do in this second."""
    workers = getattr(source, "_workers", ())
    wait([worker.sentinel for worker in workers], timeout=1)
    return {worker.pid for worker in workers if worker.exitcode}


class _Start:
    """What a worker does first. Ctrl-C, and often a SIGTERM, reaches the whole process group; the main process alone decides what
    to do about it. A worker that died of it would leave an image out of a batch that is still trained on."""

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        torch.set_num_threads(1)
        self.held[worker, _PID] = os.getpid()


def _nobody(workers: int) -> Tensor:
    """A row (process, sample, since when in nanoseconds) for each worker, in memory that all processes share."""
    return torch.full((workers, 3), _NONE, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]


def _leave_child_signals_alone() -> None:
    """Torch raises the death of a worker out of a signal, in the midst of whatever runs; waiting for an item finds it too."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _nothing() -> None:
    """What there is to shut down where no worker was started."""


def _as_it_is(item: Item) -> Item:
    return item
