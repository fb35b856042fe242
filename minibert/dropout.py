"""Dropout of hidden states, drawn by a counter as that of attention is (kernels/counter.py).

In:  hidden (N, D).   Out: (N, D), in training a share of it 0 and the rest larger.

What is dropped is a pure function of (seed, step, layer, place, the text's row, position, column): alike in
any pack, micro-batch and process, and drawn again by the backward pass, which keeps no mask. torch draws such
masks one number after the other on a CPU (4,096 x 384 numbers in 24 ms, here in 7). On other devices, and where blocks are compiled, torch's generator draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import kernels
from .batch import Layout
from .kernels import counter, native

# Where in a layer; (layer, place) makes a number below 0, which no layer of attention has.
EMBEDDINGS, ATTENTION, FEED_FORWARD = range(3)


class Dropout(nn.Dropout):
    """nn.Dropout that knows which tokens it is given.

    In:  hidden (N, w), the layout; w is D, or E in embeddings
    Out: (N, w)
    """

    def __init__(self, p: float, place: int):
        super().__init__(p)
        self.place = place

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D)."""
        if not (self.training and self.p > 0):
            return hidden
        if hidden.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(hidden, self.p)
        key = (*layout.key, -1 - (3 * layout.layer + self.place))
        return Dropped.apply(hidden, layout, kernels.Dropout(self.p, key))


class Dropped(torch.autograd.Function):
    """The same product forward and backward: only the key is kept."""

    @staticmethod
    def forward(ctx, hidden, layout, dropout):  # noqa: D102
        ctx.rest = layout, dropout
        return drop(hidden, layout, dropout)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        return drop(grad, *ctx.rest), None, None


def drop(x: Tensor, layout: Layout, dropout: kernels.Dropout) -> Tensor:
    """(N, D) -> (N, D), in C++ where a compiler is, in torch where not: the same bits."""
    if not len(x):
        return x.clone()
    fast = x.dtype in native.FUNCTIONS and not native.build(True)
    return (native if fast else counter).drop_hidden(x.contiguous(), layout, dropout)
