"""Attention as the textbook writes it, one text at a time. What is different here: nothing.

    softmax(Q K^T / sqrt(K)) V            Vaswani et al. 2017, section 3.2.1, equation 1

A text sees only itself because it is cut out of the pack, so there is no mask to explain.
Slow: every text is its own handful of small matrix products. It is what the others are held to.

In:  q, k, v (N, H, K).   Out: (N, H, K).   Read next: encoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import Layout
from . import ALL, Dropout, register


@register("reference", **ALL)
def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
    kept: Sequence[Tensor] | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K). kept, of the gate: what to multiply each text's probabilities by."""
    outputs = []
    for i, (q_text, k_text, v_text) in enumerate(zip(*(x.split(layout.lengths) for x in (q, k, v)))):
        probs = probabilities(scores(q_text, k_text, scale, window, bias))  # (H, n, n)
        if kept:
            probs = probs * kept[i].to(probs.dtype)  # (H, n, n)
        elif dropout:
            # On the probabilities, as in BERT: whole looks from one token to another go missing.
            probs = F.dropout(probs, dropout.p)
        context = probs @ v_text.transpose(0, 1)  # (H, n, n) x (H, n, K) -> (H, n, K)
        outputs.append(context.transpose(0, 1))  # (n, H, K)
    return torch.cat(outputs) if outputs else torch.empty_like(q)


def scores(
    q_text: Tensor,
    k_text: Tensor,
    scale: float,
    window: tuple[int, int] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """How much each token of one text looks at each other, before softmax. (n, H, K) x 2 -> (H, n, n).

    Without the scale the sum of K products grows with sqrt(K) and softmax saturates.
    """
    found = q_text.transpose(0, 1) @ k_text.permute(1, 2, 0) * scale  # (H, n, K) x (H, K, n) -> (H, n, n)
    added = between(len(q_text), window, bias, found)
    return found if added is None else found + added


def added_to(
    layout: Layout, length: int, window: tuple[int, int] | None, bias: Tensor | None, like: Tensor
) -> Tensor | None:
    """`between` for a fused kernel: what windows alone make is made once a batch, not once a layer."""
    if window is None or bias is not None:
        return between(length, window, bias, like)
    name = ("window", length, window, like.dtype)
    return layout.keep(name, lambda: between(length, window, None, like.new_zeros(())))


def between(length: int, window: tuple[int, int] | None, bias: Tensor | None, like: Tensor) -> Tensor | None:
    """What other families add to a text's scores: (H, n, n), (1, n, n), or None as in BERT.

    window (left, right): -inf where a key stands farther off, so that softmax gives it nothing.
    bias (H, 2T - 1), T >= n: a number for each distance; its middle column is a token and itself.
    """
    if window is None and bias is None:
        return None
    places = torch.arange(length, device=like.device)
    ahead = places[None, :] - places[:, None]  # (n, n): key - query
    added = like.new_zeros(1, length, length)
    if bias is not None:
        added = bias.to(like.dtype)[:, ahead + bias.shape[1] // 2]  # (H, n, n)
    if window is not None:
        far = (ahead < -window[0]) | (ahead > window[1])
        added = added.masked_fill(far, float("-inf"))
    return added


def probabilities(scores_text: Tensor) -> Tensor:
    """Softmax over the keys: each row sums to 1. (H, n, n) -> (H, n, n)."""
    return scores_text.softmax(-1)  # (H, n, n)
