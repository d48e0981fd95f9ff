"""Tokens of several sizes of view through the blocks of a ViT in one pass, and no more of them than are asked for.

Rows of all views lie one below the other, [T, D] with T = sum of B_i * N_i. Norms, projections and MLPs take them together;
attention stays within the views of a size. Where the patches of the last block are not asked for, only their keys and values are
computed, and the rest of the block for the CLS rows alone: nothing else of it reaches a loss that looks at CLS.

Stochastic depth leaves samples out instead of computing and then zeroing them: of B samples, B (1 - p) drawn ones go through the
branch, which is scaled by B over their number (Oquab et al. 2023, section 5, "efficient stochastic depth").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from timm.layers import Attention, DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F


class Group(NamedTuple):
    """Views of one size: so many samples of so many tokens."""

    samples: int
    tokens: int


Layout = tuple[Group, ...]


def is_plain(block: nn.Module) -> bool:
    """Whether a block is timm's own pre-norm block with its own attention, which is what is known here."""
    attention = getattr(block, "attn", None)
    return type(block) in (Block, PackedBlock) and type(attention) is Attention and getattr(attention, "gate", None) is None


def adopt(blocks: nn.Module) -> bool:
    """Let timm's blocks take packed rows as well; False, and nothing is changed, where there are others among them.

    A block stays a module that is called: wrappers of single blocks (sharding, checkpointing, compilation) see every pass.
    """
    modules = list(blocks.children())
    if not modules or not all(is_plain(block) for block in modules):
        return False
    for block in modules:
        block.__class__ = PackedBlock
    return True


def pack(groups: Sequence[Tensor]) -> tuple[Tensor, Layout]:
    """Tokens [B_i, N_i, D] -> rows [T, D] and where they lie."""
    rows = [tokens.flatten(0, 1) for tokens in groups]
    return rows[0] if len(rows) == 1 else torch.cat(rows), tuple(Group(*tokens.shape[:2]) for tokens in groups)


def unpack(rows: Tensor, layout: Layout) -> list[Tensor]:
    """Rows [T, D] -> tokens [B_i, N_i, D]."""
    return [part.view(*group, part.shape[1]) for part, group in zip(_parts(rows, layout), layout, strict=True)]


class PackedBlock(Block):  # type: ignore[misc]
    """timm's block, which without a layout is what it was. Weights and names are the same."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        layout: Layout | None = None,
        first_alone: bool = False,
    ) -> Tensor:
        """Rows [T, D] -> rows [T, D], or with `first_alone` the first token of every sample, [sum of B_i, D]."""
        if layout is None:
            out: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return out
        if not first_alone:
            x = self._residual(x, x, layout, layout, self.drop_path1, self._attend)
            return self._residual(x, x, layout, layout, self.drop_path2, self._transform)
        single = tuple(Group(group.samples, 1) for group in layout)
        first = torch.cat([tokens[:, 0] for tokens in unpack(x, layout)])
        first = self._residual(first, x, single, layout, self.drop_path1, self._attend_first)
        return self._residual(first, first, single, single, self.drop_path2, self._transform)

    def _residual(
        self, to: Tensor, x: Tensor, onto: Layout, layout: Layout, drop: nn.Module, branch: Callable[[Tensor, Layout], Tensor]
    ) -> Tensor:
        """`to` (laid out as `onto`) plus the branch of `x` (as `layout`), on drawn samples where stochastic depth is on."""
        rate = drop.drop_prob if isinstance(drop, DropPath) and self.training else 0.0
        if not rate:
            return to + branch(x, layout)
        kept = [max(1, int(group.samples * (1 - rate))) for group in layout]
        drawn = [torch.randperm(group.samples, device=x.device)[:count] for group, count in zip(layout, kept, strict=True)]
        fewer = tuple(Group(count, group.tokens) for count, group in zip(kept, layout, strict=True))
        out = branch(x.index_select(0, _rows(drawn, layout)), fewer)
        scale = [group.samples / count for count, group in zip(kept, layout, strict=True)]
        smaller = tuple(Group(count, group.tokens) for count, group in zip(kept, onto, strict=True))
        out = torch.cat([part * factor for part, factor in zip(_parts(out, smaller), scale, strict=True)])
        return to.index_add(0, _rows(drawn, onto), out.to(to.dtype))

    def _transform(self, x: Tensor, layout: Layout) -> Tensor:
        out: Tensor = self.ls2(self.mlp(self.norm2(x)))
        return out

    def _attend(self, x: Tensor, layout: Layout) -> Tensor:
        attention = self.attn
        shape = (3, attention.num_heads, attention.head_dim)
        mixed = []
        for tokens in unpack(attention.qkv(self.norm1(x)), layout):
            q, k, v = tokens.view(*tokens.shape[:2], *shape).permute(2, 0, 3, 1, 4).unbind(0)
            mixed.append(self._mix(q, k, v))
        return self._project(mixed)

    def _attend_first(self, x: Tensor, layout: Layout) -> Tensor:
        """Attention of the first token of each sample to all of them: the queries of the others are never made."""
        attention = self.attn
        heads, width = attention.num_heads, attention.attn_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        x = self.norm1(x)
        first = torch.cat([tokens[:, 0] for tokens in unpack(x, layout)])
        queries = F.linear(first, weight[:width], None if bias is None else bias[:width])
        keys = F.linear(x, weight[width:], None if bias is None else bias[width:])
        mixed = []
        single = [group.samples for group in layout]
        for query, tokens in zip(torch.split(queries, single), unpack(keys, layout), strict=True):
            k, v = tokens.view(*tokens.shape[:2], 2, heads, attention.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            mixed.append(self._mix(query.view(len(query), heads, 1, attention.head_dim), k, v))
        return self._project(mixed)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, N, d] of each -> rows [B*N, H*d] of values mixed by attention."""
        attention = self.attn
        drop = attention.attn_drop.p if self.training else 0.0
        # The norms of q and k may be of float32 under autocast, v of half: as timm has it, autocast casts them here.
        mixed = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v, dropout_p=drop)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _project(self, mixed: list[Tensor]) -> Tensor:
        attention = self.attn
        rows = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        out: Tensor = self.ls1(attention.proj_drop(attention.proj(attention.norm(rows))))
        return out


def _parts(rows: Tensor, layout: Layout) -> Sequence[Tensor]:
    """One tensor a group. A split, whose gradient is a single concatenation."""
    return (rows,) if len(layout) == 1 else torch.split(rows, [group.samples * group.tokens for group in layout])


def _rows(drawn: Sequence[Tensor], layout: Layout) -> Tensor:
    """At which rows the tokens of the drawn samples lie."""
    out, start = [], 0
    for samples, group in zip(drawn, layout, strict=True):
        place = torch.arange(group.tokens, device=samples.device)
        out.append((samples[:, None] * group.tokens + place).flatten() + start)
        start += group.samples * group.tokens
    return torch.cat(out)
