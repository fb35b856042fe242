"""The whole pack as one row, and a mask (N, N) that keeps each text to itself. Here to show why masks lose.

What is different: nothing is cut or padded; all N tokens are one text of which most looks are forbidden.
Why that is slower: every score is computed, N^2 of them, and thrown away where it joins two texts; of B equal
texts 1 in B counts. The mask itself is N^2 bytes, read again by every head of every layer, forward and backward
(16,384 tokens: 268 MB). What skips forbidden blocks instead is flex.py.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..batch import Layout
from . import ALL, Dropout, register
from .sdpa import fused


@register("blockmask", **{**ALL, "window": False, "bias": False})
def blockmask(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    if not layout.lengths:
        return q.clone()
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # each (1, H, N, K)
    mask = layout.keep("blockmask", lambda: same_text(layout))  # (N, N)
    context = fused(q, k, v, mask[None, None], dropout, scale)  # (1, H, N, K)
    return context[0].transpose(0, 1)  # (N, H, K)


def same_text(layout: Layout) -> Tensor:
    """(N, N) bool: whether two tokens are of one text. Once a batch."""
    text = text_of(layout)  # (N,)
    return text[:, None] == text[None, :]  # (N, N)


def text_of(layout: Layout) -> Tensor:
    """(N,): the number of each token's text, counted from 0; the filler is one, too."""
    numbers = torch.arange(len(layout.lengths), device=layout.cu_seqlens.device)
    counts = layout.cu_seqlens.diff()  # (B,)
    return numbers.repeat_interleave(counts, output_size=sum(layout.lengths))  # (N,)
