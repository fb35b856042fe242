"""Pooling: a text's token vectors become one. Every way of sentence-transformers, and what may follow.

In:  hidden (N, D) and the layout.   Out: (B, D), a vector a text; Embedding adds a dense layer and the norm.
Read next: heads.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Layout
from .errors import ConfigError, nearest


def cls_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The first token of each text, [CLS] or <s>. (N, D) -> (B, D)."""
    return hidden.index_select(0, layout.starts)


def last_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The last token of each text, [SEP] or </s>. (N, D) -> (B, D)."""
    return hidden.index_select(0, layout.cu_seqlens[1 : layout.num_texts + 1].long() - 1)


def mean_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The mean of each text's tokens, special ones included. (N, D) -> (B, D)."""
    sums, counts = summed(hidden, layout)
    return (sums / counts).to(hidden.dtype)


def root_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The sum of each text's tokens over the root of their number. (N, D) -> (B, D)."""
    sums, counts = summed(hidden, layout)
    return (sums / counts.sqrt()).to(hidden.dtype)


def weighted_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The mean of each text's tokens, the i-th counted i times. (N, D) -> (B, D)."""
    weights = layout.positions[:, None] + 1  # (N, 1)
    sums, counts = summed(hidden, layout, weights)
    return (sums / (counts * (counts + 1) / 2)).to(hidden.dtype)


def max_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The largest value of each feature among a text's tokens. (N, D) -> (B, D)."""
    real = hidden[: len(layout.owner)]
    out = real.new_full((layout.num_texts, hidden.shape[-1]), float("-inf"))
    return out.scatter_reduce(0, layout.owner[:, None].expand_as(real), real, "amax")


def summed(hidden: Tensor, layout: Layout, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum (B, D) and number (B, 1) of each text's tokens, at least in float32: bfloat16 can't count beyond 256."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    real = hidden[: len(layout.owner)].to(wide)
    real = real if weights is None else real * weights[: len(real)]
    sums = real.new_zeros(layout.num_texts, hidden.shape[-1]).index_add(0, layout.owner, real)
    counts = layout.cu_seqlens.diff()[: layout.num_texts].to(wide)
    return sums, counts[:, None]


POOLING: dict[str, Callable[[Tensor, Layout], Tensor]] = {
    "cls": cls_pooling,
    "mean": mean_pooling,
    "max": max_pooling,
    "mean_sqrt_len_tokens": root_pooling,
    "weightedmean": weighted_pooling,
    "lasttoken": last_pooling,
}


def known_pooling(word: str) -> str:
    """A kind of pooling that there is."""
    if word not in POOLING:
        raise ConfigError(f"pooling {word!r} is none of {', '.join(POOLING)}{nearest(word, POOLING)}")
    return word


def pool_pieces(logits: Tensor, pieces: Tensor, texts: int) -> Tensor:
    """The mean over a text's windows. logits (pieces, ...), pieces (pieces,) text numbers -> (texts, ...)."""
    sums = logits.new_zeros(texts, *logits.shape[1:]).index_add(0, pieces, logits)
    counts = logits.new_zeros(texts).index_add(0, pieces, logits.new_ones(len(pieces)))
    return sums / counts.view(-1, *[1] * (logits.dim() - 1))


class Embedding(nn.Module):
    """One vector for each text, as sentence-transformers makes it: pooled, perhaps projected and normalised.

    In:  hidden (N, D)
    Out: (B, width)

    pooling: a name in POOLING, or several, whose vectors stand side by side. dense: a linear layer
    and an activation behind it. prompt: stands in front of every text. Nothing here is trained (see loading.py).
    """

    kind = "embedding"

    def __init__(
        self,
        pooling: str | Sequence[str],
        normalise: bool,
        dense: nn.Linear | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        prompt: str = "",
    ):
        super().__init__()
        self.pooling = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        self.normalise, self.dense, self.activation, self.prompt = normalise, dense, activation, prompt

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B, width), of length 1 if normalised."""
        pooled = torch.cat([POOLING[name](hidden, layout) for name in self.pooling], -1)
        if self.dense is not None:
            pooled = self.dense(pooled)
            pooled = pooled if self.activation is None else self.activation(pooled)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled

    def width(self, hidden: int) -> int:
        """How many numbers a text's vector has, of hidden states so wide."""
        return self.dense.out_features if self.dense is not None else hidden * len(self.pooling)
