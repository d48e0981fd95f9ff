"""Weights that a training starts from, in place of drawn ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from selfsight.errors import WeightsError
from selfsight.ssl.adapters import merged
from selfsight.ssl.network import Network

BACKBONE, HEADS, MASK_TOKEN = "backbone.", "heads.", "mask_token"


def plain(network: Network) -> dict[str, Tensor]:
    """All tensors under the names of `teacher.safetensors`: the adapter's own level of names (`backbone.net.`) left out, as no
    other program knows it, and adapters added to the weights beside which they stand."""
    return {key.replace("backbone.net.", BACKBONE, 1): value for key, value in merged(network).items()}


def heads_that_fit(heads: nn.ModuleDict, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the heads whose every tensor stands in `tensors` with the same shape."""
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    return [
        name
        for name, head in heads.items()
        if all(shapes.get(f"{HEADS}{name}.{key}") == tensor.shape for key, tensor in head.state_dict().items())
    ]


@torch.no_grad()
def begin(student: Network, tensors: Mapping[str, Tensor]) -> None:
    """Put `tensors`, named as in `teacher.safetensors`, into a student: its whole backbone, and of the rest what fits.

    `WeightsError` where a tensor of the backbone is missing or has another shape.
    """
    taken = {f"{HEADS}{name}." for name in heads_that_fit(student.heads, tensors)}
    for name, own in plain(student).items():
        found = tensors.get(name)
        fits = found is not None and found.shape == own.shape
        if name.startswith(BACKBONE) and not fits:
            shape = "is missing" if found is None else f"has shape {tuple(found.shape)}, expected {tuple(own.shape)}"
            raise WeightsError(
                f"init: tensor '{name}' of the weights to start from {shape}; leave the backbone's settings to them"
            )
        if found is not None and fits and (name.startswith((BACKBONE, *taken)) or name == MASK_TOKEN):
            own.copy_(found)
