"""Rectangles with padding and a mask, as other BERTs have, but a few of them: texts of like length together.

What is different: the texts are spread over rectangles (B, T), T the longest of each, and a mask keeps real
tokens from looking at padding. In one rectangle for all, a long text among short ones makes most of it
padding; in one for each length, as in sdpa.py, a card starts as many small kernels as there are lengths.
Here it is at most BUCKETS rectangles, and padding under WASTE where so many can do that.
Where all texts of a rectangle are equally long there is no mask, so that torch takes flash attention. Of the
kernels that `auto` takes the only one with a mask.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..batch import Layout
from . import ALL, Dropout, register
from .reference import added_to
from .sdpa import fused

WASTE = 0.1  # of a rectangle's cells: padding
BUCKETS = 8  # rectangles of a pack


class Rectangle(NamedTuple):
    """Texts that are computed together: their cells among those of all rectangles, and T."""

    cells: slice
    length: int
    mask: Tensor | None  # (B, 1, 1, T), True on real tokens; None: there is no padding


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
    by: SDPBackend | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K). by: with this backend of torch, or not at all (backends.py)."""
    if not layout.lengths:
        return q.clone()
    rectangles, cells = layout.keep("padded", lambda: spread(layout.lengths, q.device))
    total = rectangles[-1].cells.stop
    q, k, v = (x.new_zeros(total, *x.shape[1:]).index_copy(0, cells, x) for x in (q, k, v))
    outputs = [
        attended(*(x[one.cells] for x in (q, k, v)), one, added_to(layout, one.length, window, bias, q), dropout, scale, by)
        for one in rectangles
    ]  # fmt: skip
    return torch.cat(outputs).index_select(0, cells)  # (N, H, K)


def attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    one: Rectangle,
    added: Tensor | None,
    dropout: Dropout | None,
    scale: float,
    by: SDPBackend | None,
) -> Tensor:
    """Attention of one rectangle's texts. (B * T, H, K) x 3 -> (B * T, H, K)."""
    q, k, v = (x.unflatten(0, (-1, one.length)).transpose(1, 2) for x in (q, k, v))  # (B, H, T, K)
    mask = one.mask
    if added is not None:
        mask = added if mask is None else added.where(mask, float("-inf"))
    context = fused(q, k, v, mask, dropout, scale, by)  # (B, H, T, K)
    return context.transpose(1, 2).flatten(0, 1)


def spread(lengths: Sequence[int], device: torch.device) -> tuple[list[Rectangle], Tensor]:
    """The rectangles of a pack, and each token's cell in them, (N,) int64. Once a batch."""
    firsts, spans, total = [0] * len(lengths), [], 0  # each text's first cell; (cells, T, padded?)
    for texts in buckets(lengths):
        T, real = lengths[texts[-1]], sum(lengths[i] for i in texts)
        for row, i in enumerate(texts):
            firsts[i] = total + row * T
        spans.append((slice(total, total + len(texts) * T), T, real < len(texts) * T))
        total += len(texts) * T
    cells = torch.cat([torch.arange(first, first + n) for first, n in zip(firsts, lengths)])
    cells = cells.to(device, non_blocking=True)
    tokens = torch.zeros(total, dtype=torch.bool, device=device).index_fill(0, cells, True)
    masks = (tokens[some].unflatten(0, (-1, T))[:, None, None] if gaps else None for some, T, gaps in spans)
    return [Rectangle(some, T, mask) for (some, T, _), mask in zip(spans, masks)], cells


def buckets(lengths: Sequence[int], waste: float = WASTE) -> list[list[int]]:
    """Texts, by their places, in groups of like length, from short to long: a pure function of the lengths.

    A group takes the next longer text while its padding stays within `waste`. If that makes more than BUCKETS
    groups, they are made anew with more padding.
    """
    groups: list[list[int]] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not groups or real + lengths[i] < (1 - waste) * (len(groups[-1]) + 1) * lengths[i]:
            groups.append([])
            real = 0
        groups[-1].append(i)
        real += lengths[i]
    return groups if len(groups) <= BUCKETS else buckets(lengths, 1.25 * waste)
