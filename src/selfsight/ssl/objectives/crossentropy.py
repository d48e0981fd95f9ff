"""Cross-entropy between views, and between hidden patches and what the teacher sees there.

`DINOLoss.forward` of facebookresearch/dinov2 and dinov3 (dino_clstoken_loss.py) and `iBOTPatchLoss.forward_masked` (Zhou et al.
2022, iBOT; ibot_patch_loss.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropies(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Student logits [S*B, K] and targets [T*B, K], view-major -> [T, S] means over the images (nats)."""
    prototypes = student.shape[1]
    answers = F.log_softmax(student.float() / temperature, dim=-1)
    batch = len(targets) // 2
    return -torch.einsum("tbk,sbk->ts", targets.view(2, batch, prototypes), answers.view(-1, batch, prototypes)) / batch


def mean_over_pairs(crosses: Tensor) -> Tensor:
    """Mean over the pairs of different views, from `cross_entropies` [2, V] of all views, the global ones first.

    DINOv2 adds up all pairs of a global view with a local one and the two of global views (the second one's target comes first),
    and divides by their number, 2 + 2L; DINOv3 weighs the mean over the one kind and the mean over the other (without the
    diagonal) by their numbers. Both are this mean, and DINO's.
    """
    # Chosen by weights: an index would make a GPU wait.
    pairs = ~torch.eye(*crosses.shape, dtype=torch.bool, device=crosses.device)
    return (crosses * pairs).sum() / (crosses.numel() - 2)


def hidden_patch_loss(student: Tensor, targets: Tensor, weights: Tensor, views: int, temperature: float) -> Tensor:
    """Logits and targets [M, K] of the hidden patches, `weights` [M] of one over the hidden patches of the same view.

    The sum over patches is divided by the number of *all* `views`, with hidden patches or without, as published.
    """
    cross = -(targets * F.log_softmax(student.float() / temperature, dim=-1)).sum(-1)
    return (cross * weights).sum() / views
