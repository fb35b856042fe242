"""The rectangle that other BERTs use, for comparison: padded texts and a mask.

What is different: the pack is spread over (B, T) with T the longest text, and a mask keeps real
tokens from looking at padding. It computes B*T*T scores where the texts hold fewer; how much is
wasted is the share of padding. The only kernel with a mask.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..batch import Layout, pad, unpad
from . import ALL, Dropout, register
from .reference import added_to


@register("padded", **ALL)
def padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    if not layout.lengths:
        return q.clone()
    rectangles = [pad(x, layout) for x in (q, k, v)]
    mask = rectangles[0][1][:, None, None, :]  # (B, 1, 1, T)
    added = added_to(layout, layout.max_seqlen, window, bias, q)
    if added is not None:
        mask = added.where(mask, float("-inf"))
    q_pad, k_pad, v_pad = (x.transpose(1, 2) for x, _ in rectangles)  # (B, H, T, K)
    context = F.scaled_dot_product_attention(
        q_pad,
        k_pad,
        v_pad,
        attn_mask=mask,
        dropout_p=dropout.p if dropout else 0.0,
        scale=scale,
    )  # (B, H, T, K)
    return unpad(context.transpose(1, 2), layout)  # (N, H, K)
