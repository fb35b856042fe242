"""What an encoder without packs computes: texts filled up to one length, and a mask. Only the bench does it.

Our encoder takes packs, so a rectangle is one whose texts are all T long, padding included. Of its two kernels
one is the textbook, the other torch's fused attention; both read the mask in the layout's memo. They are
registered only while the bench runs, since no other pack has that mask.

In:  lists of token ids.   Out: a PackedBatch of B T tokens, and which of them are real.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .. import kernels
from ..batch import Layout, PackedBatch, pack
from ..kernels import Dropout
from ..kernels.padded import Rectangle, attended
from ..kernels.reference import added_to

# No windows: where a window holds padding alone, softmax gives NaN, which later layers spread.
CAN = {"devices": ("cpu",), "dtypes": (torch.float32,), "dropout": "", "gradients": False, "bias": True}


def rectangle(ids: Sequence[list[int]], pad: int) -> tuple[PackedBatch, Tensor]:
    """Texts filled up to the longest with the token `pad`; and (B T,) bool, True for real tokens."""
    T = max(map(len, ids))
    batch = pack([text + [pad] * (T - len(text)) for text in ids])
    real = torch.arange(T) < torch.tensor([len(text) for text in ids])[:, None]  # (B, T)
    batch.layout.memo["real"] = real[:, None, None]  # (B, 1, 1, T)
    return batch, real.flatten()


def textbook(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Product, mask, softmax, product, each written out: (B T, H, K) x 3 -> (B T, H, K)."""
    T = layout.max_seqlen
    q, k, v = (x.unflatten(0, (-1, T)).transpose(1, 2) for x in (q, k, v))  # (B, H, T, K)
    scores = q @ k.transpose(-1, -2) * scale  # (B, H, T, T)
    added = added_to(layout, T, None, bias, q)
    scores = scores if added is None else scores + added
    probs = scores.masked_fill(~layout.memo["real"], float("-inf")).softmax(-1)  # (B, H, T, T)
    return (probs @ v).transpose(1, 2).flatten(0, 1)  # (B T, H, K)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """torch's own attention with the mask: (B T, H, K) x 3 -> (B T, H, K)."""
    T = layout.max_seqlen
    one = Rectangle(slice(0, len(q)), T, layout.memo["real"])
    return attended(q, k, v, one, added_to(layout, T, None, bias, q), None, scale, None)


KERNELS: dict[str, Callable[..., Tensor]] = {"bench textbook": textbook, "bench fused": fused}


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Inside, an encoder can use them."""
    for name, kernel in KERNELS.items():
        kernels.register(name, **CAN)(kernel)
    try:
        yield
    finally:
        for name in KERNELS:
            del kernels.KERNELS[name]
        kernels.choose_cached.clear()
