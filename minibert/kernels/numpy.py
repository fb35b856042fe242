"""Attention by tiles in NumPy: the algorithm of tiled.py with nothing around it. Made to be read.

What is different: of a text's (n, n) scores only one tile exists at a time, QUERIES rows and KEYS columns.
Softmax needs the sum over a whole row before it can divide, and the largest score of the row before it can
take exponentials; so both run along, tile by tile (Milakov and Gimelshein 2018; FlashAttention, Dao et al.
2022):

    most    the row's largest score so far
    total   Σ exp(score - most) so far
    sums    Σ exp(score - most) v so far

When a tile brings a larger score, what was summed under the old one is multiplied by exp(old - new). In the
end the output is sums / total; with it is kept lse = most + log(total), the log of the row's sum. That is
enough for the backward pass: a tile's probabilities are exp(score - lse), at once, and of the rows it needs
only Σ_j P_ij dP_ij = Σ_k dO_ik O_ik (oracle.py derives it). Dropout's mask is drawn again, too (counter.py).
Why that is slower here: a tile is some NumPy calls, each of which writes its tile to memory and takes
microseconds to begin. The same tiles in C++ (native.py) or on a card (FlashAttention) never leave the cache.
Its memory grows with n, as theirs does.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..batch import Layout
from . import FLOATS, Dropout, register
from .counter import dropped, query_keys
from .tiled import wide

QUERIES, KEYS = 64, 128  # rows and columns of a tile

Array = np.ndarray


@register("numpy", devices=("cpu",), dtypes=FLOATS, dropout="counter", gradients=True)
def numpy(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    draws = query_keys(layout, q.shape[1], dropout) if dropout else None  # (2, N, H)
    return Tiles.apply(q, k, v, draws, layout.lengths, scale, dropout.p if dropout else 0.0)


class Tiles(torch.autograd.Function):
    """`forward` and `backward` below as one step of autograd: tensors to arrays and back, text by text."""

    @staticmethod
    def forward(ctx, q, k, v, draws, lengths, scale, p):  # noqa: D102
        arrays = [x.detach().to(wide(x.dtype)).numpy() for x in (q, k, v)]
        out, lse = np.empty_like(arrays[0]), np.empty(q.shape[:2], arrays[0].dtype)  # (N, H, K), (N, H)
        for text, head in each(lengths, q.shape[1]):
            one = draws[:, text, head] if p else None  # (2, n)
            out[text, head], lse[text, head] = forward(*(x[text, head] for x in arrays), scale, p, one)
        ctx.save_for_backward(q, k, v, draws, torch.from_numpy(out), torch.from_numpy(lse))
        ctx.rest = lengths, scale, p
        return torch.from_numpy(out).to(q.dtype, copy=True)  # (N, H, K)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        q, k, v, draws, out, lse = ctx.saved_tensors
        lengths, scale, p = ctx.rest
        arrays = [x.detach().to(wide(x.dtype)).numpy() for x in (q, k, v, out, lse, grad)]
        found = [np.empty_like(x) for x in arrays[:3]]  # dq, dk, dv
        for text, head in each(lengths, q.shape[1]):
            one = draws[:, text, head] if p else None  # (2, n)
            parts = backward(*(x[text, head] for x in arrays), scale, p, one)
            for whole, part in zip(found, parts):
                whole[text, head] = part
        return *(torch.from_numpy(x).to(q.dtype) for x in found), None, None, None, None


def forward(
    q: Array, k: Array, v: Array, scale: float, p: float, draws: Tensor | None
) -> tuple[Array, Array]:
    """One head of one text: q, k, v (n, K) -> output (n, K) and lse (n,). p: the share dropped."""
    out, lse = np.empty_like(q), np.empty(len(q), q.dtype)
    for rows in tiles(len(q), QUERIES):
        most = np.full((len(q[rows]), 1), -np.inf, q.dtype)  # (rows, 1)
        total, sums = np.zeros_like(most), np.zeros_like(q[rows])  # (rows, 1), (rows, K)
        for keys in tiles(len(k), KEYS):
            scores = scale * q[rows] @ k[keys].T  # (rows, keys)
            larger = np.maximum(most, scores.max(1, keepdims=True))  # (rows, 1)
            shrink = np.exp(most - larger)  # (rows, 1): 1 where no score was larger, 0 at the first tile
            probs = np.exp(scores - larger)  # (rows, keys): not yet divided
            total = shrink * total + probs.sum(1, keepdims=True)  # (rows, 1): dropout comes after softmax
            sums = shrink * sums + (probs * kept(draws, rows, keys, p, q.dtype)) @ v[keys]  # (rows, K)
            most = larger
        out[rows] = sums / total
        lse[rows] = (most + np.log(total))[:, 0]
    return out, lse


def backward(
    q: Array, k: Array, v: Array, out: Array, lse: Array, dout: Array,
    scale: float, p: float, draws: Tensor | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """One head of one text: what forward had and gave, and the output's gradient (n, K) -> dq, dk, dv."""
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    mean = (out * dout).sum(1, keepdims=True)  # (n, 1): of each row of dprobs, weighted by probs
    for rows in tiles(len(q), QUERIES):
        for keys in tiles(len(k), KEYS):
            scores = scale * q[rows] @ k[keys].T  # (rows, keys)
            probs = np.exp(scores - lse[rows, None])  # (rows, keys): each row of all tiles sums to 1
            mask = kept(draws, rows, keys, p, q.dtype)  # (rows, keys)
            dv[keys] += (probs * mask).T @ dout[rows]
            dprobs = mask * (dout[rows] @ v[keys].T)  # (rows, keys)
            dscores = probs * (dprobs - mean[rows])  # (rows, keys)
            dq[rows] += scale * dscores @ k[keys]
            dk[keys] += scale * dscores.T @ q[rows]
    return dq, dk, dv


def kept(draws: Tensor | None, rows: slice, keys: slice, p: float, dtype: np.dtype) -> Array:
    """What dropout multiplies a tile's probabilities by, (rows, keys): 0 or 1 / (1 - p); 1 without it, (1, 1)."""
    if draws is None:
        return np.ones((1, 1), dtype)
    gone = dropped(draws[:, rows], keys.start, keys.stop, p).numpy()  # (rows, keys)
    return (~gone / (1 - p)).astype(dtype)  # (rows, keys)


def tiles(length: int, size: int) -> Iterator[slice]:
    """`size` at a time."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def each(lengths: tuple[int, ...], heads: int) -> Iterator[tuple[slice, int]]:
    """Every head of every text: (the text's tokens, the head)."""
    start = 0
    for n in lengths:
        for head in range(heads):
            yield slice(start, start + n), head
        start += n
