"""The processes that train together, as each of them sees the others.

`torchrun` starts one process a device and says in the environment which of how many it is. All of them run the same program: each
takes its part of every batch, and whatever is decided is decided for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from selfsight import device as devices
from selfsight.data.loader import Share
from selfsight.errors import ConfigError
from selfsight.ssl.objectives.base import Ranks

T = TypeVar("T")


class World(Ranks):
    """One process by itself: it leads, agrees with itself, and its part is the whole."""

    rank = 0
    local_rank = 0
    local_count = 1
    control: Any = None
    """The process group of decisions; None: the one of tensors, which is of the CPU already."""

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        return Share(self.rank, self.count)

    @property
    def cores(self) -> int:
        """Cores for each of the ranks on this machine."""
        return max(1, devices.cores() // self.local_count)

    def threads(self, wanted: int | None) -> int:
        """Threads of the network: those wanted, but no more than this rank's cores where it shares a machine."""
        return (wanted or self.cores) if self.local_count == 1 else min(wanted or self.cores, self.cores)

    def device(self, name: str) -> torch.device:
        """The device of this rank: the CUDA device of its number on the machine, or the CPU."""
        return devices.resolve(name)

    def highest(self, *values: float) -> list[float]:
        """The largest of each value over all ranks."""
        return list(values)

    def said(self, value: float) -> float:
        """The value of the first rank."""
        return value

    def collect(self, value: T) -> list[T]:
        """What each rank gives, in the order of ranks."""
        return [value]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first rank, which alone does it."""
        return work()

    def in_turn(self, work: Callable[[], T]) -> T:
        """`work` on every rank, on one of each machine before the others there: it may leave files that those then find."""
        return work()

    def wait(self) -> None:
        """Until all ranks are here."""


BY_ITSELF = World()


class Group(World):
    """One of several ranks over `torch.distributed`: tensors go through NCCL between GPUs and gloo between CPUs, decisions always
    through gloo, so that no GPU waits for them."""

    def __init__(self, rank: int, count: int, local_rank: int, local_count: int) -> None:
        self.rank, self.count = rank, count
        self.local_rank, self.local_count = local_rank, local_count
        self.control = dist.new_group(backend="gloo") if torch.cuda.is_available() else None

    def device(self, name: str) -> torch.device:
        found = devices.resolve(name)
        if found.type != "cuda":
            return found
        if name not in ("auto", "cuda"):
            raise ConfigError(f"--device {name!r}: each of the {self.count} ranks takes a device of its own; use cuda or auto")
        if self.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"--nproc-per-node {self.local_count}: this machine has {torch.cuda.device_count()} CUDA devices; "
                "start one process for each"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.count

    @torch.no_grad()
    def sum(self, x: Tensor) -> Tensor:
        total = x.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        # Ranks may hold different numbers of rows: an image that cannot be read is left out, masks differ.
        counts = self.collect(len(x))
        rows: Tensor = _Gather.apply(x, counts, self.rank)
        return rows, sum(counts[: self.rank])

    def highest(self, *values: float) -> list[float]:
        all_values = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(all_values, dist.ReduceOp.MAX, group=self.control)
        found: list[float] = all_values.tolist()
        return found

    def said(self, value: float) -> float:
        return self.highest(value if self.leads else -float("inf"))[0]

    def collect(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.control)
        return found

    def first(self, work: Callable[[], T]) -> T:
        # Where it fails there the others find out in the broadcast that never comes.
        found: list[Any] = [work() if self.leads else None]
        dist.broadcast_object_list(found, src=0, group=self.control)
        made: T = found[0]
        return made

    def in_turn(self, work: Callable[[], T]) -> T:
        if self.local_rank:
            self.wait()
            return work()
        done = work()
        self.wait()
        return done

    def wait(self) -> None:
        dist.barrier(group=self.control)


class _Gather(torch.autograd.Function):
    """Rows of all ranks. Each rank's loss depends on them, so the gradient of a row is the sum over ranks of what each passes
    back: when the gradients of the ranks are then averaged, that is the gradient of the mean of their losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        rows = max(counts)
        padded = x.new_zeros(rows, *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.clone().contiguous()
        dist.all_reduce(total)
        start = sum(ctx.counts[: ctx.rank])
        return total[start : start + ctx.counts[ctx.rank]], None, None
