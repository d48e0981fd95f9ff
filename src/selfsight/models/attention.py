"""What tokens attend to: the softmax that fused kernels never show, computed again from the queries and keys of a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from timm.layers import Attention, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.errors import ConfigError

_CHUNK = 256
"""Queries whose rows are held at a time where all rows are needed."""


class Entry(NamedTuple):
    """Tokens `x` [B, T, D] on their way into a `block`, and the rotation of its queries and keys, if it has one."""

    x: Tensor
    block: Any
    rope: Tensor | None

    def attention(self, queries: slice = slice(None)) -> Tensor:
        """[B, heads, Q, T]: how much each of the `queries` takes of each token."""
        return probabilities(self.block.attn, self.block.norm1(self.x), self.rope, queries)

    def keys(self) -> Tensor:
        """[B, T, heads * d], before any rotation."""
        return keys(self.block.attn, self.block.norm1(self.x))

    def carried_on(self, weights: Tensor) -> Tensor:
        """Weights [B, T] over what comes out of the block -> over what goes in."""
        return carried_on(self.block.attn, self.block.norm1(self.x), weights, self.rope)


def probabilities(attention: nn.Module, x: Tensor, rope: Tensor | None = None, queries: slice = slice(None)) -> Tensor:
    """Tokens [B, T, D] after the block's first norm -> [B, heads, Q, T]: how much each of the `queries` takes of each token.

    softmax(q k^T / sqrt(d)) as in section 3.2.1 of Vaswani et al. 2017; `rope` turns queries and keys of the patches alone. Only
    the rows that are asked for are computed: of 3,601 tokens all would be 300 MB for six heads, that of CLS is 86 kB.
    """
    known = _known(attention)
    if rope is None:
        q, k = _part(known, x[:, queries], 0), _part(known, x, 1)
    else:
        q, k = (_rotated(_part(known, x, place), rope, known) for place in (0, 1))
        q = q[:, :, queries]
    return _softmax(q * known.scale, k)


def keys(attention: nn.Module, x: Tensor) -> Tensor:
    """Tokens [B, T, D] after the block's first norm -> keys [B, T, heads * d], before any rotation."""
    return _part(_known(attention), x, 1).transpose(1, 2).flatten(2)


def carried_on(attention: nn.Module, x: Tensor, weights: Tensor, rope: Tensor | None = None) -> Tensor:
    """One step of attention rollout (Abnar and Zuidema 2020, section 3): `weights` [B, T] over what comes out of a block -> over
    what goes in, half through the residual and half by the mean of its heads."""
    known = _known(attention)
    q, k = (_part(known, x, place) for place in (0, 1))
    if rope is not None:
        q, k = (_rotated(part, rope, known) for part in (q, k))
    total = torch.zeros_like(weights)
    for rows in _stretches(x.shape[1]):
        mean = _softmax(q[:, :, rows] * known.scale, k).mean(1)
        total += (weights[:, None, rows] @ mean)[:, 0]
    return (weights + total) / 2


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """Scaled queries [B, heads, Q, d] and keys [B, heads, T, d] -> [B, heads, Q, T]."""
    scores: Tensor = q @ k.transpose(-2, -1)
    return scores.softmax(-1)


def _stretches(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, min(start + _CHUNK, count))


def _known(attention: nn.Module) -> Attention | EvaAttention:
    if isinstance(attention, Attention) or (isinstance(attention, EvaAttention) and attention.qkv is not None):
        return attention
    raise ConfigError(f"attention: expected a block with timm's own attention, got {type(attention).__name__}")


def _part(attention: Attention | EvaAttention, x: Tensor, place: int) -> Tensor:
    """Queries (place 0) or keys (1), [B, heads, T, d]."""
    weight = attention.qkv.weight
    rows = slice(place * (len(weight) // 3), (place + 1) * (len(weight) // 3))
    biases = [getattr(attention, name, None) for name in ("q_bias", "k_bias")]
    bias = biases[place] if biases[0] is not None else attention.qkv.bias
    if bias is not None and len(bias) == len(weight):
        bias = bias[rows]
    part = F.linear(x, weight[rows], bias)
    part = part.view(*part.shape[:2], attention.num_heads, -1).transpose(1, 2)
    norm = attention.q_norm if place == 0 else attention.k_norm
    out: Tensor = norm(part)
    return out


def _rotated(part: Tensor, rope: Tensor, attention: EvaAttention) -> Tensor:
    first = attention.num_prefix_tokens
    turned = apply_rot_embed_cat(part[:, :, first:], rope, half=attention.rotate_half)
    return torch.cat([part[:, :, :first], turned], dim=2).type_as(part)
