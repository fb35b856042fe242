"""Contestants from other packages, where they are installed: flash_attn (flash-attn) and xformers.

What is different: nothing of ours. Both take the pack as it is, (N, H, K) and where texts begin, and keep
tiles of (n, n) on the chip, forward and backward, with dropout (tiled.py says how). Why that is faster than
padded.py: one launch for all texts, no padding, no mask in memory; varlen.py is the first of them as torch
has it, without dropout. Written by their documentation, and never run by us: neither installs without a card.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..batch import Layout
from ..errors import ConfigError
from . import Dropout, register

HALVES = (torch.bfloat16, torch.float16)
WIDEST = 256  # of a head, for flash-attn


@register(
    "flash_attn",
    devices=("cuda",),
    dtypes=HALVES,
    dropout="generator",
    gradients=True,
    window=True,
    needs="flash_attn",
)
def flash_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    from flash_attn import flash_attn_varlen_func

    if not layout.lengths:
        return q.clone()
    if q.shape[-1] > WIDEST:
        raise ConfigError(f"kernel 'flash_attn' takes heads up to {WIDEST} wide, not {q.shape[-1]}")
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=layout.cu_seqlens,
        cu_seqlens_k=layout.cu_seqlens,
        max_seqlen_q=layout.max_seqlen,
        max_seqlen_k=layout.max_seqlen,
        dropout_p=dropout.p if dropout else 0.0,
        softmax_scale=scale,
        window_size=window or (-1, -1),
    )  # (N, H, K)


@register(
    "xformers",
    devices=("cuda",),
    dtypes=(torch.float32, *HALVES),
    dropout="generator",
    gradients=True,
    needs="xformers",
)
def xformers(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    if not layout.lengths:
        return q.clone()
    blocks = layout.keep(
        "xformers", lambda: BlockDiagonalMask.from_seqlens(list(layout.lengths), device=q.device)
    )
    share = dropout.p if dropout else 0.0
    row = memory_efficient_attention(
        q[None], k[None], v[None], attn_bias=blocks, p=share, scale=scale
    )  # (1, N, H, K)
    return row[0]
