"""The contract of an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from selfsight.config import Settings

C = TypeVar("C", bound=Settings)
Reduce = Callable[[Tensor], Tensor]


def no_ranks(x: Tensor) -> Tensor:
    """The mean over one rank."""
    return x


class Loss(NamedTuple):
    """`value` (nats, differentiable) and diagnostics (0-d tensors without gradient, on the device: reading one waits for it)."""

    value: Tensor
    diagnostics: dict[str, Tensor]


class Objective(nn.Module, Generic[C]):
    """`forward(student, teacher, progress)`: logits [views * B, K] and [2 * B, K], view-major; `progress` in [0, 1]."""

    settings: C

    def forward(self, student: Tensor, teacher: Tensor, progress: float) -> Loss:
        raise TypeError(f"{type(self).__name__} does not define forward()")

    def schedule(self, progress: float) -> dict[str, float]:
        """Values that change over the run, for the log."""
        return {}
