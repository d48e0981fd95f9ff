"""DINOv3: DINOv2's losses, and late in the run Gram anchoring (Siméoni et al. 2025; `SSLMetaArch` of facebookresearch/dinov3).

In long trainings patches lose their likeness to their neighbours while summaries still get better. From `gram.start` on, how the
student's patches of a view resemble each other is to stay as a frozen earlier teacher had it:

    loss = DINOv2's + gram.weight x mean squared difference of cosine similarities between patches

The Gram teacher is a copy of the running mean's backbone. It is taken when the stage starts, and again `max_refreshes` times.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.config import Settings
from selfsight.models.backbones import Backbone
from selfsight.ssl.batch import Batch
from selfsight.ssl.network import Network, Seen
from selfsight.ssl.objectives.base import ALONE, Ranks
from selfsight.ssl.objectives.dinov2 import Anchor, PatchObjective, PatchSettings, Targets
from selfsight.ssl.objectives.gram import gram_loss, on_grid


class GramSettings(Settings):
    """`start` and `refresh_every` are shares of the run; with a start of 0 the Gram teacher is what the run starts from.

    The 7B model was refreshed after 1.01 million steps and twice more, 10,000 steps apart, with the weight and the options that
    are the defaults here. Its shares would be too small for a short run.
    """

    weight: float = Field(2.0, gt=0)
    start: float = Field(0.8, ge=0, le=1)
    refresh_every: float = Field(0.05, gt=0)
    max_refreshes: int = Field(3, ge=0)
    per_image: bool = True
    remove_negative: bool = False
    remove_teacher_negative: bool = False

    def taken_by(self, progress: float) -> int:
        """How often the Gram teacher has been taken at this share of the run."""
        if progress < self.start:
            return 0
        return 1 + min(self.max_refreshes, int((progress - self.start) / self.refresh_every + 1e-9))


class DINOv3Settings(PatchSettings):
    """DINOv3: the published weights; `gram: null` leaves the second stage out."""

    name: Literal["dinov3"] = "dinov3"
    gram: GramSettings | None = GramSettings()


class GramTeacher(nn.Module):
    """A frozen backbone, and how often it was taken, which is part of its state."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.taken = 0

    @torch.no_grad()
    def take(self, backbone: Backbone, times: int) -> None:
        if times > self.taken:
            self.backbone.load_state_dict(backbone.state_dict())
            self.taken = times

    def forward(self, views: Tensor) -> Anchor:
        tokens = self.backbone(views)
        return Anchor(tokens.patches, tokens.grid)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.taken)

    def set_extra_state(self, state: Tensor) -> None:
        self.taken = int(state)


class DINOv3(PatchObjective[DINOv3Settings]):
    """Siméoni et al. 2025. The Gram teacher looks at the detailed views where a batch has them."""

    Settings = DINOv3Settings
    gram: GramTeacher | None

    def __init__(self, settings: DINOv3Settings, ranks: Ranks = ALONE) -> None:
        super().__init__(settings, ranks)
        self.gram = None

    def begin(self, teacher: Network) -> None:
        if self.settings.gram is not None:
            self.gram = GramTeacher(teacher.backbone)
            if self.settings.gram.start == 0:
                self.gram.take(teacher.backbone, 1)

    @property
    def anchors(self) -> bool:
        """Whether the second stage has begun."""
        return self.gram is not None and self.gram.taken > 0

    def targets(self, teacher: nn.Module, batch: Batch) -> Targets:
        targets = super().targets(teacher, batch)
        if self.gram is None or not self.anchors:
            return targets
        anchor: Anchor = self.gram(batch.views[0] if batch.detail is None else batch.detail)
        return targets._replace(anchor=anchor)

    def _weights(self) -> dict[str, float]:
        return super()._weights() | ({} if self.settings.gram is None else {"gram": self.settings.gram.weight})

    def _more(self, seen: Seen, targets: Targets) -> dict[str, Tensor]:
        s, anchor = self.settings.gram, targets.anchor
        if s is None or anchor is None:
            return {}
        loss = gram_loss(
            seen.patches,
            on_grid(anchor.patches, anchor.grid, seen.grid),
            per_image=s.per_image,
            remove_negative=s.remove_negative,
            remove_teacher_negative=s.remove_teacher_negative,
        )
        return {"gram": loss}

    def commit(self, teacher: Network, progress: float, finite: Tensor) -> None:
        super().commit(teacher, progress, finite)
        if self.gram is not None and self.settings.gram is not None:
            self.gram.take(teacher.backbone, self.settings.gram.taken_by(progress))

    def schedule(self, progress: float) -> dict[str, float]:
        taken = {} if self.gram is None else {"gram_teachers": float(self.gram.taken)}
        return super().schedule(progress) | taken
