"""DINOv2: DINO on views, iBOT on hidden patches, KoLeo (Oquab et al. 2024; `SSLMetaArch` of facebookresearch/dinov2).

    loss = dino_weight  x cross-entropy of each view with the teacher's target for each other global view
         + ibot_weight  x cross-entropy of each hidden patch with the teacher's target for that patch, which it sees
         + koleo_weight x (KoLeo of the first global views + KoLeo of the second ones)

Targets are centred by Sinkhorn-Knopp, or as in DINO by a running mean.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsight.models.heads import DINOHead, HeadSettings
from selfsight.ssl.batch import Batch
from selfsight.ssl.masking import MaskSettings
from selfsight.ssl.network import IMAGE, PATCH, Network, Seen
from selfsight.ssl.objectives.base import ALONE, Loss, Objective, ObjectiveSettings, Ranks
from selfsight.ssl.objectives.center import Center
from selfsight.ssl.objectives.crossentropy import cross_entropies, hidden_patch_loss, mean_over_pairs
from selfsight.ssl.objectives.dino import Temperatures, teacher_signs
from selfsight.ssl.objectives.koleo import koleo
from selfsight.ssl.objectives.sinkhorn import sinkhorn


class PatchSettings(Temperatures, ObjectiveSettings):
    """Weights, centring, heads and masks. Without a `patch_head` of its own, the head of views serves patches too.

    With an `ibot_weight` of 0 nothing is hidden.
    """

    head: HeadSettings = HeadSettings()
    patch_head: HeadSettings | None = None
    centering: Literal["sinkhorn", "softmax"] = "sinkhorn"
    dino_weight: float = Field(1.0, ge=0)
    ibot_weight: float = Field(1.0, ge=0)
    koleo_weight: float = Field(0.1, ge=0)
    koleo_neighbours: int = Field(1, ge=1)
    masks: MaskSettings = MaskSettings()

    @property
    def masking(self) -> MaskSettings | None:
        return self.masks if self.ibot_weight > 0 else None


class DINOv2Settings(PatchSettings):
    """DINOv2: the published weights."""

    name: Literal["dinov2"] = "dinov2"


class Anchor(NamedTuple):
    """Patch features [2B, N, D] over a grid, of a teacher to stay like."""

    patches: Tensor
    grid: tuple[int, int]


class Targets(NamedTuple):
    """Teacher logits of the global views [2B, K] and of the hidden patches [M, K'], whose `weights` [M] are those of `Masks`."""

    logits: Tensor
    hidden_logits: Tensor | None
    weights: Tensor | None
    anchor: Anchor | None = None


C = TypeVar("C", bound=PatchSettings)


class PatchObjective(Objective[C, Targets]):
    """What DINOv2 and DINOv3 have in common. Teacher: global views. Student: all views, the global ones with hidden patches."""

    def __init__(self, settings: C, ranks: Ranks = ALONE) -> None:
        super().__init__(settings, ranks)
        patch_head = settings.patch_head or settings.head
        self.center = Center(settings.head.prototypes, settings.center_momentum, ranks)
        self.patch_center = Center(patch_head.prototypes, settings.center_momentum, ranks)

    def heads(self, width: int) -> nn.ModuleDict:
        heads = {IMAGE: DINOHead(width, self.settings.head)}
        if self.settings.patch_head is not None and self.settings.masking is not None:
            heads[PATCH] = DINOHead(width, self.settings.patch_head)
        return nn.ModuleDict(heads)

    def targets(self, teacher: nn.Module, batch: Batch) -> Targets:
        seen: Seen = teacher(batch.views[:1], batch.masks)
        return Targets(seen.logits, seen.hidden_logits, None if batch.masks is None else batch.masks.weights)

    def predictions(self, student: nn.Module, batch: Batch) -> Seen:
        seen: Seen = student(batch.views, batch.masks, hide=True)
        return seen

    def forward(self, seen: Seen, targets: Targets, progress: float) -> Loss:
        s, parts, signs = self.settings, dict[str, Tensor](), dict[str, Tensor]()
        temperature = s.teacher_at(progress)
        wanted = self._centred(targets.logits, self.center, temperature)
        parts["dino"] = mean_over_pairs(cross_entropies(seen.logits, wanted, s.student_temperature))
        signs |= teacher_signs(wanted)
        if seen.hidden_logits is not None and targets.hidden_logits is not None and targets.weights is not None:
            hidden = self._centred(targets.hidden_logits, self.patch_center, temperature)
            views = len(targets.logits)
            parts["ibot"] = hidden_patch_loss(seen.hidden_logits, hidden, targets.weights, views, s.student_temperature)
            signs |= {f"patch_{name}": value for name, value in teacher_signs(hidden).items()} if len(hidden) else {}
        if s.koleo_weight:
            globals_ = seen.summaries[: len(targets.logits)].chunk(2)
            parts["koleo"] = torch.stack([koleo(view, self.ranks, s.koleo_neighbours) for view in globals_]).sum()
        parts |= self._more(seen, targets)
        weights = self._weights()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return Loss(total, signs | {name: part.detach() for name, part in parts.items()})

    def _weights(self) -> dict[str, float]:
        s = self.settings
        return {"dino": s.dino_weight, "ibot": s.ibot_weight, "koleo": s.koleo_weight}

    def _more(self, seen: Seen, targets: Targets) -> dict[str, Tensor]:
        """Further parts of the loss."""
        return {}

    def _centred(self, logits: Tensor, center: Center, temperature: float) -> Tensor:
        if self.settings.centering == "sinkhorn":
            return sinkhorn(logits, temperature, self.ranks)
        return center.targets(logits, temperature)

    def commit(self, teacher: Network, progress: float, finite: Tensor) -> None:
        self.center.commit(finite)
        self.patch_center.commit(finite)

    def schedule(self, progress: float) -> dict[str, float]:
        return {"teacher_temp": self.settings.teacher_at(progress)}


class DINOv2(PatchObjective[DINOv2Settings]):
    """Oquab et al. 2024."""

    Settings = DINOv2Settings
