"""Distillation without labels: a student learns to see what a frozen encoder, its guide, sees in the same views.

    loss = mean over views of  1 - cos(summary head, guide's summary)
         + patch_weight x mean over patches of  1 - cos(patch head, guide's patch feature)

Guide and student look at the very same pixels, which is what makes long distillation work ("consistent teaching", Beyer et al.
2022, section 3). Summaries and patches are matched by heads of their own, as in AM-RADIO (Ranzinger et al. 2024, section 3.2).
The guide's features are standardised first: what a CNN pools is positive, so that the cosine of any two of its vectors is near 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.ssl.batch import Batch
from selfsight.ssl.network import IMAGE, PATCH, Network, Seen
from selfsight.ssl.objectives.base import ALONE, Look, Loss, Objective, ObjectiveSettings, Ranks
from selfsight.ssl.objectives.gram import on_grid
from selfsight.ssl.objectives.standardize import Standardize


class DistillSettings(ObjectiveSettings):
    """`width` and `patch_width` are the lengths of the guide's summaries and patch features (0: it has none); `fingerprint` says
    which guide it was, so that a run goes on with no other. `momentum` is that of the moments for standardising."""

    name: Literal["distill"] = "distill"
    width: int = Field(ge=1)
    patch_width: int = Field(0, ge=0)
    patch_weight: float = Field(1.0, ge=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    fingerprint: str = ""

    @property
    def guided(self) -> bool:
        return True

    @property
    def widths(self) -> dict[str, int]:
        """Of what the heads answer."""
        return {IMAGE: self.width} | ({PATCH: self.patch_width} if self.patch_width and self.patch_weight else {})


class Guided(NamedTuple):
    """Standardised features of the guide: summaries [2B, G], patches [2B, N, G'] over `grid`, None where they are not matched."""

    summaries: Tensor
    patches: Tensor | None
    grid: tuple[int, int]


class Distill(Objective[DistillSettings, Guided]):
    """The running mean of the student is the encoder that the run leaves."""

    Settings = DistillSettings
    teacher_looks = False

    def __init__(self, settings: DistillSettings, ranks: Ranks = ALONE) -> None:
        super().__init__(settings, ranks)
        self.standard = nn.ModuleDict(
            {name: Standardize(width, settings.momentum, ranks) for name, width in settings.widths.items()}
        )

    def heads(self, width: int) -> nn.ModuleDict:
        """A hidden layer each: what the guide knows need not be linear in the student's features."""
        return nn.ModuleDict({name: _head(width, out) for name, out in self.settings.widths.items()})

    def targets(self, teacher: nn.Module, batch: Batch) -> Guided:
        if self.guide is None:
            raise TypeError("objective distill: no guide was handed in")
        look: Look = self.guide(batch.views[0])
        patches = None
        if PATCH in self.standard:
            patches = self.standard[PATCH](look.patches.flatten(0, 1)).view(look.patches.shape)
        return Guided(self.standard[IMAGE](look.summaries), patches, look.grid)

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views[:1], patches=PATCH in self.standard, every_patch=PATCH in self.standard)
        return seen

    def forward(self, seen: Seen, targets: Guided, progress: float) -> Loss:
        summaries = apart(seen.logits, targets.summaries)
        if targets.patches is None or seen.hidden_logits is None:
            return Loss(summaries, {"summary_loss": summaries.detach()})
        theirs = on_grid(targets.patches, targets.grid, seen.grid)
        patches = apart(seen.hidden_logits, theirs.flatten(0, 1))
        return Loss(
            summaries + self.settings.patch_weight * patches,
            {"summary_loss": summaries.detach(), "patch_loss": patches.detach()},
        )

    @torch.no_grad()
    def commit(self, teacher: Network, progress: float, finite: Tensor) -> None:
        for standard in self.standard.values():
            if isinstance(standard, Standardize):
                standard.commit(finite)

    @property
    def chance(self) -> float:
        """Who knows nothing stands at right angles."""
        return 1.0 + self.settings.patch_weight * (PATCH in self.standard)


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """Rows [n, D] of both -> mean of 1 - cosine (0-d)."""
    return (1 - F.cosine_similarity(ours.float(), theirs.float(), dim=-1)).mean()


def _head(width: int, out: int) -> nn.Module:
    hidden = max(width, out)
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
