"""torch's fused attention, one text at a time, on slices of the pack: variable length in three lines.

What is different: each text is a rectangle of its own, cut out of the pack, so that nothing is padded,
sorted or masked. Why that is slower than sdpa.py: as many calls as there are texts, each of which takes
torch some ten microseconds to begin, forward and backward, and its threads share one text's heads. Where
texts are long that doesn't count, and it is as fast.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..batch import Layout
from . import ALL, Dropout, register
from .reference import added_to
from .sdpa import fused


@register("loop", **ALL)
def loop(
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
    outputs = []
    for text in zip(*(x.split(layout.lengths) for x in (q, k, v))):
        q_text, k_text, v_text = (x.transpose(0, 1)[None] for x in text)  # each (1, H, n, K)
        added = added_to(layout, q_text.shape[2], window, bias, q)  # None in BERT
        context = fused(q_text, k_text, v_text, added, dropout, scale)  # (1, H, n, K)
        outputs.append(context[0].transpose(0, 1))  # (n, H, K)
    return torch.cat(outputs) if outputs else q.clone()
