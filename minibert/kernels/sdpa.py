"""torch's fused attention without padding: texts of equal length are computed together.

What is different: texts are grouped by length, so each group is a rectangle without padding, no
mask is built, and torch takes its fused kernel, which never stores the (n, n) probabilities.
Why that is faster: no arithmetic on padding, and memory that grows with n instead of n * n.
With dropout on a CPU, torch falls back to its textbook path; the groups still save the padding.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..batch import Layout
from . import ALL, Dropout, register
from .reference import added_to


@register("sdpa", **ALL)
def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
    by: SDPBackend | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K). by: with this backend of torch, or not at all (backends.py)."""
    groups, order, back = plan(layout, q.device)
    if order is not None:
        q, k, v = (x.index_select(0, order) for x in (q, k, v))  # texts of equal length side by side
    outputs, start = [], 0
    for count, length in groups:
        end = start + count * length
        q_g, k_g, v_g = (x[start:end].unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
        added = added_to(layout, length, window, bias, q)  # None in BERT, and then no mask is built
        context = fused(q_g, k_g, v_g, added, dropout, scale, by)  # (count, H, length, K)
        outputs.append(context.transpose(1, 2).flatten(0, 1))  # (count * length, H, K)
        start = end
    if not outputs:
        return q.clone()
    joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]  # (N, H, K)
    return joined if back is None else joined.index_select(0, back)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: Dropout | None,
    scale: float,
    by: SDPBackend | None = None,
) -> Tensor:
    """torch's attention on rectangles (B, H, T, K); mask: bool, True where a query may look, or added numbers.

    by: the backend; None leaves it to torch. On a card then never by cuDNN, which torch prefers on an H100: from torch 2.11 to 2.13 its backward pass with a
    mask gives NaN where T is 64 more than a multiple of 128 (pytorch #196678), and without one there are
    others (cudnn-frontend #160, #1072). Without a mask torch then takes flash attention, with one its
    memory-efficient kernel. The switch is the whole process's, in torch, and is put back.
    """
    share = dropout.p if dropout else 0.0
    if mask is not None and mask.dim() == 3:  # on a CPU a fused kernel takes four axes only
        mask = mask[None]  # (1, H, T, T)
    may = [by] if by else NOT_CUDNN if q.is_cuda else None
    with sdpa_kernel(may) if may else contextlib.nullcontext():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=share, scale=scale)


NOT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

Plan = tuple[list[tuple[int, int]], Tensor | None, Tensor | None]


def plan(layout: Layout, device: torch.device) -> Plan:
    """Groups (texts, length), the token order that puts them side by side, and the way back.

    Worked out once a batch and kept in the layout; no order is needed where equal lengths already
    stand together, as token-budget batches have them.
    """
    return layout.keep("sdpa", lambda: worked_out(layout.lengths, device))


def worked_out(lengths: tuple[int, ...], device: torch.device) -> Plan:
    """`plan`, made anew."""
    texts = sorted(range(len(lengths)), key=lambda i: lengths[i])  # stable: ties keep their order
    if groups_together(lengths):
        texts = list(range(len(lengths)))
    groups: list[tuple[int, int]] = []
    for i in texts:
        if groups and groups[-1][1] == lengths[i]:
            groups[-1] = (groups[-1][0] + 1, lengths[i])
        else:
            groups.append((1, lengths[i]))
    order = back = None
    if texts != list(range(len(lengths))):
        spans = torch.arange(sum(lengths)).split(lengths)
        order = torch.cat([spans[i] for i in texts])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        order, back = order.to(device, non_blocking=True), back.to(device, non_blocking=True)
    return groups, order, back


def groups_together(lengths: tuple[int, ...]) -> bool:
    """Whether each length occurs in one run only: (3, 3, 7, 5) yes, (3, 7, 3) no."""
    runs = [n for i, n in enumerate(lengths) if i == 0 or lengths[i - 1] != n]
    return len(runs) == len(set(runs))
