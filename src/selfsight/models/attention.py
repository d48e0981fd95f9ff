"""What tokens attend to: the softmax that fused kernels never show, computed again from the queries and keys of a block."""

from __future__ import annotations

import torch
from timm.layers import Attention, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.nn import functional as F

from selfsight.errors import ConfigError


def probabilities(attention: nn.Module, x: Tensor, rope: Tensor | None = None) -> Tensor:
    """Tokens [B, T, D] after the block's first norm -> [B, heads, T, T]: how much each (row) takes of each (column).

    softmax(q k^T / sqrt(d)) as in section 3.2.1 of Vaswani et al. 2017; `rope` turns queries and keys of the patches alone.
    """
    if isinstance(attention, Attention):
        q, k = _split(attention, F.linear(x, attention.qkv.weight, attention.qkv.bias))
    elif isinstance(attention, EvaAttention) and attention.qkv is not None:
        bias = None
        if attention.q_bias is not None:
            bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
        elif attention.qkv.bias is not None:
            bias = attention.qkv.bias
        q, k = _split(attention, F.linear(x, attention.qkv.weight, bias))
        if rope is not None:
            q, k = (_rotated(part, rope, attention) for part in (q, k))
    else:
        raise ConfigError(f"attention: expected a block with timm's own attention, got {type(attention).__name__}")
    scores: Tensor = (q * attention.scale) @ k.transpose(-2, -1)
    return scores.softmax(-1)


def _split(attention: Attention | EvaAttention, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys [B, heads, T, d]."""
    samples, tokens, _ = qkv.shape
    q, k, _ = qkv.view(samples, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return attention.q_norm(q), attention.k_norm(k)


def _rotated(part: Tensor, rope: Tensor, attention: EvaAttention) -> Tensor:
    first = attention.num_prefix_tokens
    turned = apply_rot_embed_cat(part[:, :, first:], rope, half=attention.rotate_half)
    return torch.cat([part[:, :, :first], turned], dim=2).type_as(part)
