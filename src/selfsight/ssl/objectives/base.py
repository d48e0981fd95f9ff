"""The contract of an objective."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.ssl.batch import Batch
from selfsight.ssl.masking import MaskSettings
from selfsight.ssl.mixing import Mixing
from selfsight.ssl.network import Network, Seen


class ObjectiveSettings(Settings):
    """Settings of an objective; each has a `name` that is its key in the registry."""

    name: str

    @property
    def masking(self) -> MaskSettings | None:
        """How patches are hidden from the student, for objectives that hide some."""
        return None

    @property
    def mixing(self) -> Mixing | None:
        """How images are mixed with others, for objectives that mix some."""
        return None

    @property
    def guided(self) -> bool:
        """Whether it follows a frozen encoder that is handed to it."""
        return False


class Look(NamedTuple):
    """What a guide sees in views: summaries [V, G], patches [V, N, G'] over `grid` (N = 0 where it has none)."""

    summaries: Tensor
    patches: Tensor
    grid: tuple[int, int]


class Guide(Protocol):
    """A frozen encoder that a student follows."""

    def __call__(self, views: Tensor) -> Look:
        """Views [V, C, H, W] in the normalisation of the training, on its device."""


C = TypeVar("C", bound=ObjectiveSettings)
T = TypeVar("T")


class Ranks:
    """How tensors are reduced over all ranks that share a batch; this one is alone."""

    count = 1

    def mean(self, x: Tensor) -> Tensor:
        """The mean of `x` over ranks, without gradient."""
        return x

    def sum(self, x: Tensor) -> Tensor:
        """The sum of `x` over ranks, without gradient."""
        return x

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """The rows of all ranks, with gradient, and at which row those of this rank begin."""
        return x, 0


ALONE = Ranks()


class Loss(NamedTuple):
    """`value` (nats, differentiable) and diagnostics (0-d tensors without gradient, on the device: reading one waits for it)."""

    value: Tensor
    diagnostics: dict[str, Tensor]
    finite: Tensor | None = None
    """Of a step: whether it was made (0-d bool, on the device)."""

    def also(self, diagnostics: dict[str, Tensor]) -> Loss:
        """With more diagnostics."""
        return self._replace(diagnostics=self.diagnostics | diagnostics)


class Objective(nn.Module, Generic[C, T]):
    """Two networks look at a batch, and a loss says how far the student is from its target.

    `targets` is what the student is to match (called without gradient), `predictions` what it sees, `forward` the loss of the
    two. State that follows the batches, such as a centre, changes in `commit` alone: once a step, after all of its parts.
    Parameters of its own (there are none in the published objectives) would be trained with the student's.
    """

    Settings: ClassVar[type[ObjectiveSettings]]
    settings: C
    teacher_looks: ClassVar[bool] = True
    """Whether the running mean of the student makes the targets. If not, it only is the encoder that the run leaves."""
    uses_labels: ClassVar[bool] = False
    guide: Guide | None = None
    """Handed in where `settings.guided`; no part of the state."""

    def __init__(self, settings: C, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.settings = settings
        self.ranks = ranks

    def heads(self, width: int) -> nn.ModuleDict:
        """What student and teacher carry on a backbone of this width, under the names in `ssl.network`."""
        raise TypeError(f"{type(self).__name__} does not define heads()")

    def begin(self, teacher: Network) -> None:
        """Called once, with the teacher that the run starts from, before a saved state is loaded: make what is made of it."""
        return

    def targets(self, teacher: nn.Module, batch: Batch) -> T:
        raise TypeError(f"{type(self).__name__} does not define targets()")

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views)
        return seen

    def forward(self, seen: Seen, targets: T, progress: float) -> Loss:
        """`progress` in [0, 1] is the share of the training that is over."""
        raise TypeError(f"{type(self).__name__} does not define forward()")

    @torch.no_grad()
    def commit(self, teacher: Network, progress: float, finite: Tensor) -> None:
        """The step is made, the teacher updated: take the new state. Where `finite` (0-d bool on the device) is False the step
        was skipped: nothing may change, and what was noted of the batch is forgotten."""
        return

    def schedule(self, progress: float) -> dict[str, float]:
        """Values that change over the run, for the log."""
        return {}

    @property
    def chance(self) -> float | None:
        """The loss of one who knows nothing (nats), where that is one number."""
        return None


AnyObjective = Objective[Any, Any]
