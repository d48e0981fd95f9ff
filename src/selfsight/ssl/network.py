"""Student and teacher: two copies of backbone and heads, one trained by gradients, one the running mean of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfsight.models.backbones import Backbone
from selfsight.ssl.batch import Masks
from selfsight.ssl.sharded import local

IMAGE, PATCH = "image", "patch"
"""Names of the heads: one on the summary of a view, one on its patches."""


class Seen(NamedTuple):
    """What a network makes of the views of a batch, V views in all.

    `summaries` [V*B, D] of the backbone (CLS token, or what a CNN pools) and `logits` [V*B, K] of the image head on them, in the
    order of the views; `patches` [2B, N, D] of the global views over `grid` (N = 0 where they were not asked for);
    `hidden_logits` [M, K'] of the patch head on the masked ones, or on all.
    """

    summaries: Tensor
    logits: Tensor
    patches: Tensor
    grid: tuple[int, int]
    hidden_logits: Tensor | None = None


class Network(nn.Module):
    """Backbone and heads; takes views of several sizes (`MultiCropWrapper` of the published code).

    Without a head of its own for patches, the image head serves both. With `hides`, it learns a token for hidden patches.
    """

    def __init__(self, backbone: Backbone, heads: nn.ModuleDict, *, hides: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.width)) if hides else None

    def forward(
        self,
        views: Sequence[Tensor],
        masks: Masks | None = None,
        hide: bool = False,
        *,
        patches: bool = True,
        every_patch: bool = False,
    ) -> Seen:
        """Batches of images, one a size, global views first. The teacher is told which patches are masked, and sees them; from
        the student they are hidden. An objective that needs no patches says so: their way through the last block is saved. With
        `every_patch` the patch head answers for all of them."""
        hidden = masks.hidden if masks is not None and hide else None
        tokens = self.backbone.views(views, hidden, self.mask_token, patches=patches or masks is not None)
        summaries = torch.cat([each.summary for each in tokens])
        hidden_logits = None
        if masks is not None or every_patch:
            head = self.heads[PATCH] if PATCH in self.heads else self.heads[IMAGE]
            rows = tokens[0].patches.flatten(0, 1)
            hidden_logits = head(rows if masks is None else rows.index_select(0, masks.places))
        return Seen(summaries, self.heads[IMAGE](summaries), tokens[0].patches, tokens[0].grid, hidden_logits)

    def embed(self, images: Tensor) -> Tensor:
        """Summaries [B, D] of images [B, C, H, W], without the heads."""
        summary: Tensor = self.backbone(images).summary
        return summary

    def statistics(self) -> Iterator[Tensor]:
        """What batch norm changes by looking at a batch."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                yield from module.buffers(recurse=False)

    def last_layers(self) -> Iterator[nn.Parameter]:
        """The prototypes of all heads."""
        for head in self.heads.values():
            if isinstance(last := getattr(head, "last_layer", None), nn.Module):
                yield from last.parameters()


def make_teacher(student: Network, teacher: Network) -> Network:
    """`teacher`, built like the student but without stochastic depth, starts as the student and takes no gradient."""
    teacher.load_state_dict(student.state_dict())
    return teacher.requires_grad_(False)


@torch.no_grad()
def update_teacher(
    teacher: Network, student: Network, momentum: float, *, buffers: bool = False, finite: Tensor | None = None
) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student; unchanged where `finite` (0-d bool) is False.

    Parameters only, as published: a teacher that looks at the views has batch-norm statistics of its own. Where it does not look,
    `buffers` hands it those of the student.
    """
    ours, theirs = local(teacher.parameters()), local(student.parameters())
    if finite is None or finite.device.type == "cpu":
        if finite is None or bool(finite):
            torch._foreach_lerp_(ours, theirs, 1 - momentum)
    else:  # asking it would wait for the device
        _lerp_by(ours, theirs, finite * (1 - momentum))
    if buffers:
        for our, their in zip(teacher.buffers(), student.buffers(), strict=True):
            our.copy_(their)


def _lerp_by(ours: list[Tensor], theirs: list[Tensor], weight: Tensor) -> None:
    """ours <- ours + weight * (theirs - ours) with a weight (0-d) that only the device knows."""
    moves = list(torch._foreach_sub(theirs, ours))
    torch._foreach_mul_(moves, weight)
    torch._foreach_add_(ours, moves)
