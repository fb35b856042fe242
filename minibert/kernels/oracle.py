"""What is right, to float64's last digits: the textbook in float64, and its derivatives derived by hand.

What is different: all is computed in float64, whatever comes in, a text at a time, and the backward pass is
written out instead of being left to autograd. Why that is slower: twice the bytes of float32, no two texts
together, and every (n, n) goes to memory. The gate judges every kernel by it.

Of one head of one text, with scores S, probabilities P, and M what dropout multiplies them by, 0 or 1 / (1 - p)
(all (n, n); ∘ is a product of numbers in the same place, E the loss, dX stands for dE/dX):

    S = scale Q K^T + A        A: what a window or a bias by distance adds, 0 in BERT
    P_ij = exp(S_ij) / Σ_l exp(S_il)
    O = (P∘M) V

    V_jk moves each output O_ik by (P∘M)_ij:             dV = (P∘M)^T dO
    (P∘M)_ij moves O_ik by V_jk:                         dP = M ∘ (dO V^T)
    S_ij moves all of row i, ∂P_il/∂S_ij = P_il (1[l=j] - P_ij), so
        dS_ij = Σ_l dP_il ∂P_il/∂S_ij                  = P_ij (dP_ij - Σ_l P_il dP_il)
    and the sum needs no P:  Σ_l P_il dP_il = Σ_l (P∘M)_il Σ_k dO_ik V_lk = Σ_k dO_ik O_ik
                                                         dS = P ∘ (dP - rowsum(dO∘O))
    Q_ik moves S_ij by scale K_jk, K_jk by scale Q_ik:   dQ = scale dS K,   dK = scale dS^T Q
    a bias moves the S_ij of its distance j - i, by 1:   dbias = Σ of dS along each diagonal

So a backward pass needs of each row of P one number beside O: the log of its sum. tiled.py lives on that.

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
from .reference import between

CELLS = 2**24  # scores at once, 134 MB: what is right at 8,192 tokens is worth knowing, too


@register(
    "oracle",
    devices=("cpu", "cuda"),
    dtypes=FLOATS,
    dropout="counter",
    gradients=True,
    window=True,
    bias=True,
)
def oracle(
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
    """(N, H, K) x 3 -> (N, H, K), rounded to the dtype of q."""
    return Oracle.apply(q, k, v, bias, layout, scale, dropout, window)


class Oracle(torch.autograd.Function):
    """The formulas above as one step of autograd; in here the head comes first, (H, N, K)."""

    @staticmethod
    def forward(ctx, q, k, v, bias, layout, scale, dropout, window):  # noqa: D102
        wide = [x.double().transpose(0, 1) for x in (q, k, v)]
        out = torch.empty_like(wide[2])  # (H, N, K)
        for at, probs, kept in looks(*wide[:2], bias, layout, scale, dropout, window):
            out[at] = (probs * kept) @ wide[2][at]
        ctx.save_for_backward(q, k, v, bias, out)
        ctx.rest = layout, scale, dropout, window
        return out.transpose(0, 1).to(q.dtype)  # (N, H, K)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        *inputs, bias, out = ctx.saved_tensors
        layout, scale, *rest = ctx.rest
        q, k, v, grad = (x.double().transpose(0, 1) for x in (*inputs, grad))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        dbias = None if bias is None else torch.zeros_like(bias, dtype=torch.float64)  # (H, 2T - 1)
        mean = (out * grad).sum(-1, keepdim=True)  # (H, N, 1)
        for at, probs, kept in looks(q, k, bias, layout, scale, *rest):
            dv[at] = (probs * kept).mT @ grad[at]  # (h, n, n) x (h, n, K) -> (h, n, K)
            dprobs = kept * (grad[at] @ v[at].mT)  # (h, n, n)
            dscores = probs * (dprobs - mean[at])  # (h, n, n)
            dq[at] = scale * dscores @ k[at]
            dk[at] = scale * dscores.mT @ q[at]
            if bias is not None:
                dbias[at[0]].index_add_(1, distances(probs.shape[1], bias), dscores.flatten(1))
        dq, dk, dv = (x.transpose(0, 1).to(given.dtype) for x, given in zip((dq, dk, dv), inputs))
        return dq, dk, dv, None if bias is None else dbias.to(bias.dtype), None, None, None, None


def looks(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    layout: Layout,
    scale: float,
    dropout: Dropout | None,
    window: tuple[int, int] | None,
) -> Iterator[tuple[tuple[slice, slice], Tensor, Tensor]]:
    """A text at a time, and h of its heads, as many as CELLS allow: (where they lie in (H, N), P, M)."""
    draws = query_keys(layout, len(q), dropout).mT if dropout else None  # (2, H, N)
    start = 0
    for n in layout.lengths:
        tokens, start = slice(start, start + n), start + n
        most = max(1, CELLS // n**2)
        for heads in (slice(first, first + most) for first in range(0, len(q), most)):
            at = heads, tokens
            scores = scale * q[at] @ k[at].mT  # (h, n, n)
            added = between(n, window, None if bias is None else bias[heads], scores)
            probs = (scores if added is None else scores + added).softmax(-1)  # (h, n, n)
            kept = torch.ones_like(probs[:1, :1, :1])  # (1, 1, 1)
            if draws is not None:
                gone = dropped(draws[:, *at], 0, n, dropout.p)  # (h, n, n)
                kept = (~gone).double() / (1 - dropout.p)  # (h, n, n)
            yield at, probs, kept


def distances(n: int, bias: Tensor) -> Tensor:
    """(n * n,) int64: which column of bias (H, 2T - 1) each score takes."""
    places = torch.arange(n, device=bias.device)
    return (places[None, :] - places[:, None] + bias.shape[1] // 2).flatten()
