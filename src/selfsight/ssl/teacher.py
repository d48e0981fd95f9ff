"""Student and teacher: two copies of backbone and head, one trained by gradients, one the running mean of the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsight.models.backbones import Backbone
from selfsight.models.heads import DINOHead


class Network(nn.Module):
    """Backbone and head; takes views of several sizes (`MultiCropWrapper` of the published code)."""

    def __init__(self, backbone: Backbone, head: DINOHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Batches of images, one a size, to logits in the same order [sum of the batches, prototypes]."""
        return torch.cat([self.head(self.backbone(batch).summary) for batch in views])


def make_teacher(student: Network, backbone: Backbone) -> Network:
    """A teacher that starts as the student and takes no gradient; `backbone` is one built without stochastic depth."""
    teacher = Network(backbone, copy.deepcopy(student.head))
    teacher.load_state_dict(student.state_dict())
    return teacher.requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: Network, student: Network, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameters only, as published: batch-norm statistics stay own."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
