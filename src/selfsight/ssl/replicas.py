"""Each rank with a whole copy of student and teacher; the gradients of the student are averaged (`DistributedDataParallel`)."""

from __future__ import annotations

from inspect import signature
from typing import Any

from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from selfsight.ssl.network import Network


def replicated(student: Network) -> DistributedDataParallel:
    """The student as it is called on one of several ranks.

    Gradients lie in the buckets in which they travel. Buffers stay as they are: those of batch norm are the same on all GPUs
    (`with_common_norm`). On the CPU, where torch has no batch norm over ranks, each rank norms by its own part of the batch, and
    takes the first rank's running statistics for its own.
    """
    own = any(isinstance(each, _BatchNorm) and not isinstance(each, nn.SyncBatchNorm) for each in student.modules())
    named = signature(DistributedDataParallel.__init__).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"  # before torch 2.15
    settings: dict[str, Any] = {"gradient_as_bucket_view": True, option: own}
    return DistributedDataParallel(student, **settings)


def with_common_norm(network: Network) -> Network:
    """Batch norm over the whole batch of all ranks, in student and teacher alike, as published for DINO (`main_dino.py`)."""
    converted: Network = convert_sync_batchnorm(network)
    return converted
