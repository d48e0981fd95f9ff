"""Gram anchoring: how the patches of a view resemble each other stays as an earlier teacher had it (Siméoni et al. 2025, DINOv3,
section 4; `GramLoss` of facebookresearch/dinov3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gram_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    per_image: bool = True,
    remove_negative: bool = False,
    remove_teacher_negative: bool = False,
) -> Tensor:
    """Patch features [V, N, D] of both -> mean squared difference of their cosine similarities (0-d).

    Similarities are those within a view, or with `per_image` False those of all patches of all views. `remove_negative` sets
    negative ones to 0 on both sides, `remove_teacher_negative` on the teacher's. The released 7B model does neither.
    """
    ours, theirs = (F.normalize(x.float() if per_image else x.float().flatten(0, 1)[None], dim=-1) for x in (student, teacher))
    ours, theirs = ours @ ours.transpose(1, 2), theirs @ theirs.transpose(1, 2)
    if remove_negative or remove_teacher_negative:
        theirs = theirs.clamp_min(0)
    if remove_negative:
        ours = ours.clamp_min(0)
    return F.mse_loss(ours, theirs)


def on_grid(patches: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Patch features [V, N, D] of one grid on another, bicubic and without antialiasing, as published."""
    if grid == wanted:
        return patches
    maps = patches.float().transpose(1, 2).reshape(len(patches), -1, *grid)
    return F.interpolate(maps, wanted, mode="bicubic", align_corners=False, antialias=False).flatten(2).transpose(1, 2)
