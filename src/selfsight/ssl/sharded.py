"""Student and teacher divided between ranks: each holds its part of every tensor (FSDP2, Zhao et al. 2023; ZeRO stage 3).

Each block is whole only while it is at work: its weights are gathered before it is called, forward and backward, and given up
after. The mean of the ranks' gradients goes straight into the parts. The optimiser, the running mean and the checkpoint see parts
alone, as `DTensor`s; what is done to a tensor element by element is done to the part (`local`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: nn.Module, blocks: Iterable[nn.Module], mesh: DeviceMesh, half: torch.dtype | None) -> None:
    """Divide a network in place, each of its `blocks` by itself and the rest together; it moves to the device of the `mesh`.

    Under autocast to `half` precision blocks travel and are kept for the backward pass in it: a copy that autocast made would
    outlive the gathered block, and hold the whole network. Their norms, and what lies around the blocks, stay in float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        if half and (norms := [each for each in block.modules() if hasattr(each, "normalized_shape")]):
            fully_shard(norms, mesh=mesh)
        fully_shard(block, mesh=mesh, mp_policy=policy if half else MixedPrecisionPolicy())
    # Nothing is done in place to what a network returns.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    # The outermost part of a student stays whole until its backward pass, which begins there. A teacher has none, and would
    # answer with what it once was.
    learns = any(parameter.requires_grad for parameter in module.parameters())
    fully_shard(module, mesh=mesh, reshard_after_forward=not learns)
    if hasattr(module, "embed"):
        register_fsdp_forward_method(module, "embed")


def is_sharded(module: nn.Module) -> bool:
    return isinstance(module, FSDPModule)


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This rank's part of each tensor, sharing its memory; a tensor that is not divided as it is."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def like(target: Tensor, value: Tensor) -> Tensor:
    """A whole `value` divided as `target` is. Every rank has it, so that nothing is sent."""
    if not isinstance(target, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def whole(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor put together on the CPU, one after the other. All ranks must ask for all of them."""
    for name, tensor in tensors.items():
        yield name, (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
