"""Attention as the textbook writes it, one text at a time. What is different here: nothing.

    softmax(Q K^T / sqrt(K)) V            Vaswani et al. 2017, section 3.2.1, equation 1

A text sees only itself because it is cut out of the pack, so there is no mask to explain.
Slow: every text is its own handful of small matrix products. It is what the others are held to.

In:  q, k, v (N, H, K).   Out: (N, H, K).   Read next: encoder.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import Layout
from . import FLOATS, Dropout, register


@register("reference", devices=("cpu", "cuda", "mps"), dtypes=FLOATS, dropout="generator", gradients=True)
def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    outputs = []
    for q_text, k_text, v_text in zip(*(x.split(layout.lengths) for x in (q, k, v))):
        probs = probabilities(scores(q_text, k_text, scale))  # (H, n, n)
        if dropout:
            # On the probabilities, as in BERT: whole looks from one token to another go missing.
            probs = F.dropout(probs, dropout.p)
        context = probs @ v_text.transpose(0, 1)  # (H, n, n) x (H, n, K) -> (H, n, K)
        outputs.append(context.transpose(0, 1))  # (n, H, K)
    return torch.cat(outputs) if outputs else torch.empty_like(q)


def scores(q_text: Tensor, k_text: Tensor, scale: float) -> Tensor:
    """How much each token of one text looks at each other, before softmax. (n, H, K) x 2 -> (H, n, n).

    Without the scale the sum of K products grows with sqrt(K) and softmax saturates.
    """
    return q_text.transpose(0, 1) @ k_text.permute(1, 2, 0) * scale  # (H, n, K) x (H, K, n) -> (H, n, n)


def probabilities(scores_text: Tensor) -> Tensor:
    """Softmax over the keys: each row sums to 1. (H, n, n) -> (H, n, n)."""
    return scores_text.softmax(-1)  # (H, n, n)
