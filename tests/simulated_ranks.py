"""Ranks of one process: a thread each, which wait for each other at every reduction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from selfsight.ssl.objectives.base import Ranks

T = TypeVar("T")


class _Table:
    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=30)
        self.rows: list[Tensor | None] = [None] * count

    def exchange(self, rank: int, x: Tensor) -> list[Tensor]:
        self.rows[rank] = x
        self.barrier.wait()
        found = [row for row in self.rows if row is not None]
        self.barrier.wait()
        return found


class Simulated(Ranks):
    """One of several. Rows gathered are the other ranks' own, so that a sum of the ranks' losses reaches them all."""

    def __init__(self, table: _Table, rank: int, count: int) -> None:
        self.table, self.rank, self.count = table, rank, count

    def sum(self, x: Tensor) -> Tensor:
        return torch.stack([row.detach() for row in self.table.exchange(self.rank, x)]).sum(0)

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.count

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        rows = self.table.exchange(self.rank, x)
        return torch.cat(rows), sum(len(row) for row in rows[: self.rank])


def on_ranks(count: int, work: Callable[[Ranks, int], T]) -> list[T]:
    """What `work(ranks, rank)` returns on each rank. Gradient follows through."""
    table = _Table(count)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, Simulated(table, rank, count), rank) for rank in range(count)]
        return [future.result() for future in futures]
