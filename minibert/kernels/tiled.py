"""Attention a block of keys at a time, in plain torch: the (n, n) probabilities never exist.

What is different: softmax runs along. For each query the largest score so far and the sum so far are
kept, and what was summed under an older largest score is scaled down (Milakov and Gimelshein 2018,
"Online normalizer calculation for softmax"; FlashAttention, Dao et al. 2022, on a GPU). Only the output
and the log of each sum are kept; the backward pass computes each block's probabilities again from them,
and draws counter.py's mask again.
Why that is faster: a block's scores stay in the cache, so that drawing them and the mask twice costs no
more than torch's textbook path, to which it falls back with dropout on a CPU, pays for writing and reading
(n, n); and memory grows with n instead of n * n, also with dropout. native.py is the same in C++.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..batch import Layout
from . import FLOATS, Dropout, register
from .counter import dropped, query_keys
from .sdpa import plan

KEYS = 128  # in a block
CELLS = {
    "cpu": 2**18,
    "cuda": 2**24,
}  # scores at once, where several texts fit: a CPU's cache, a card's breadth


LEAST = -1e30  # a query's largest score before it has seen a key: no -inf, as -inf less -inf is no number


@register(
    "tiled", devices=("cpu", "cuda"), dtypes=FLOATS, dropout="counter", gradients=True, window=True, bias=True
)
def tiled(
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
    if not len(q):
        return q.clone()
    groups, order, back = plan(layout, q.device)
    queries = query_keys(layout, q.shape[1], dropout) if dropout else None  # (2, N, H)
    if order is not None:
        q, k, v = (x.index_select(0, order) for x in (q, k, v))  # texts of equal length side by side
        queries = queries.index_select(1, order) if dropout else None
    p = dropout.p if dropout else 0.0
    out = Tiled.apply(q, k, v, bias, queries, groups, scale, p, window)  # (N, H, K)
    return out if back is None else out.index_select(0, back)


class Tiled(torch.autograd.Function):
    """The blocks as one step of autograd, on texts that lie in groups of equal length."""

    @staticmethod
    def forward(ctx, q, k, v, bias, queries, groups, scale, p, window):  # noqa: D102
        # In the dtype of sums, also the output: rounded, it would spoil the backward pass's mean.
        out, lse = (q.new_empty(shape, dtype=wide(q.dtype)) for shape in (q.shape, q.shape[:2]))
        for tokens, length in chunks(groups, q):
            q_c, k_c, v_c = (rectangle(x[tokens], length) for x in (q, k, v))  # each (B, H, n, K)
            q_c = q_c * scale
            draws = queries[:, tokens].unflatten(1, (-1, length)).mT if p else None  # (2, B, H, n)
            most = q_c.new_full(q_c.shape[:3], LEAST)[..., None]  # (B, H, n, 1)
            total, sums = torch.zeros_like(most), torch.zeros_like(q_c)  # (B, H, n, 1), (B, H, n, K)
            for keys in blocks(length):
                who = seers(keys, length, window)
                scores = q_c[:, :, who] @ k_c[:, :, keys].mT  # (B, H, queries, keys)
                add_between(scores, who, keys, window, bias)
                larger = torch.maximum(most[:, :, who], scores.amax(-1, keepdim=True))
                shrink = (most[:, :, who] - larger).exp()
                probs = scores.sub_(larger).exp_()
                total[:, :, who] = total[:, :, who] * shrink + probs.sum(-1, keepdim=True)
                if p:
                    probs.masked_fill_(dropped(draws[..., who], keys.start, keys.stop, p), 0)
                sums[:, :, who] = sums[:, :, who] * shrink + probs @ v_c[:, :, keys]
                most[:, :, who] = larger
            out[tokens] = (sums / (total * (1 - p))).transpose(1, 2).flatten(0, 1)
            lse[tokens] = (most + total.log())[..., 0].transpose(1, 2).flatten(0, 1)
        ctx.save_for_backward(q, k, v, out, lse, queries, bias)
        ctx.rest = groups, scale, p, window
        return out.to(q.dtype)  # (N, H, K)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        q, k, v, out, lse, queries, bias = ctx.saved_tensors
        groups, scale, p, window = ctx.rest
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        dbias = None if bias is None else bias.new_zeros(bias.shape, dtype=wide(q.dtype))  # (H, 2T - 1)
        for tokens, length in chunks(groups, q):
            q_c, k_c, v_c, out_c, grad_c = (rectangle(x[tokens], length) for x in (q, k, v, out, grad))
            q_c, grad_kept = q_c * scale, grad_c / (1 - p)
            lse_c = rectangle(lse[tokens, :, None], length)  # (B, H, n, 1)
            draws = queries[:, tokens].unflatten(1, (-1, length)).mT if p else None  # (2, B, H, n)
            # The sum over the keys of p * dp is out * grad: softmax's backward needs no second pass.
            mean = (out_c * grad_c).sum(-1, keepdim=True)  # (B, H, n, 1)
            dq_c, dk_c, dv_c = (torch.zeros_like(q_c) for _ in range(3))
            for keys in blocks(length):
                k_b, v_b, who = k_c[:, :, keys], v_c[:, :, keys], seers(keys, length, window)
                q_b, grad_b = q_c[:, :, who], grad_kept[:, :, who]
                scores = q_b @ k_b.mT  # (B, H, queries, keys)
                add_between(scores, who, keys, window, bias)
                probs = scores.sub_(lse_c[:, :, who]).exp_()
                left, dprobs = probs, grad_b @ v_b.mT  # what dropout left of them, and its gradient
                if p:
                    gone = dropped(draws[..., who], keys.start, keys.stop, p)
                    left, dprobs = probs.masked_fill(gone, 0), dprobs.masked_fill_(gone, 0)
                dv_c[:, :, keys] = left.mT @ grad_b
                dscores = dprobs.sub_(mean[:, :, who]).mul_(probs)
                dk_c[:, :, keys] = dscores.mT @ q_b
                dq_c[:, :, who] += dscores @ k_b
                if bias is not None:
                    places = distances(who, keys, bias).flatten()  # (queries * keys,)
                    dbias.index_add_(1, places, dscores.sum(0).flatten(1))
            for whole, part in ((dq, dq_c * scale), (dk, dk_c), (dv, dv_c)):
                whole[tokens] = part.transpose(1, 2).flatten(0, 1).to(whole.dtype)
        return dq, dk, dv, None if bias is None else dbias.to(bias.dtype), None, None, None, None, None


def seers(keys: slice, length: int, window: tuple[int, int] | None) -> slice:
    """The queries of a text that see any of these keys."""
    left, right = window or (length, length)
    return slice(max(0, keys.start - right), min(length, keys.stop + left))


def distances(queries: slice, keys: slice, bias: Tensor) -> Tensor:
    """(queries, keys) int64: the column of bias (H, 2T - 1) that holds for each pair."""
    i, j = (torch.arange(x.start, x.stop, device=bias.device) for x in (queries, keys))
    return j[None, :] - i[:, None] + bias.shape[1] // 2


def add_between(
    scores: Tensor, queries: slice, keys: slice, window: tuple[int, int] | None, bias: Tensor | None
) -> None:
    """Add to (B, H, queries, keys) what other families add (reference.between)."""
    if bias is not None:
        scores += bias.to(scores.dtype)[:, distances(queries, keys, bias)]
    if window is not None:
        i, j = (torch.arange(x.start, x.stop, device=scores.device) for x in (queries, keys))
        ahead = j[None, :] - i[:, None]
        scores.masked_fill_((ahead < -window[0]) | (ahead > window[1]), -torch.inf)


def chunks(groups: list[tuple[int, int]], q: Tensor) -> Iterator[tuple[slice, int]]:
    """As many texts of one length as fit: (their tokens, the length)."""
    start = 0
    for count, length in groups:
        end = start + count * length
        most = length * max(1, CELLS[q.device.type] // (q.shape[1] * length * min(length, KEYS)))
        for first in range(start, end, most):
            yield slice(first, min(first + most, end)), length
        start = end


def blocks(length: int) -> Iterator[slice]:
    """KEYS keys at a time."""
    return (slice(start, min(start + KEYS, length)) for start in range(0, length, KEYS))


def rectangle(x: Tensor, length: int) -> Tensor:
    """(B * n, H, K) -> (B, H, n, K), in the dtype that sums are made in."""
    return x.unflatten(0, (-1, length)).transpose(1, 2).to(wide(x.dtype))


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to sum in: float32, and float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
