"""torch's flash attention on the pack itself: one launch for all texts, and not a token of padding.

What is different: the kernel reads in cu_seqlens where each text begins, so that nothing is sorted, padded
or masked. FlashAttention-2 (Dao 2023), on cards from Ampere on, in bfloat16 and float16; it has no dropout.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import importlib.util
import inspect

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import device
from ..batch import Layout
from ..errors import ConfigError
from . import Dropout, register

WIDEST = 256  # of a head, for the kernel


def missing(really: bool = False) -> str:
    """'' if this torch and this machine's cards have the kernel, or why not."""
    if why := device.no_flash():
        return why
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return "needs a newer torch"
    from torch.nn.attention.varlen import varlen_attn

    return "" if "window_size" in inspect.signature(varlen_attn).parameters else "needs a newer torch"


@register(
    "varlen",
    devices=("cuda",),
    dtypes=(torch.bfloat16, torch.float16),
    dropout="",
    gradients=True,
    window=True,
    build=missing,
)
def varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: Dropout | None = None,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    from torch.nn.attention.varlen import varlen_attn

    if not layout.lengths:
        return q.clone()
    width = q.shape[-1]
    if width > WIDEST:
        raise ConfigError(f"kernel 'varlen' takes heads up to {WIDEST} wide, not {width}", "Take 'padded'.")
    if (
        width % 8
    ):  # which the kernel wants; zeros behind q and k change no score, behind v nothing that is kept
        q, k, v = (F.pad(x, (0, -width % 8)) for x in (q, k, v))
    ends, longest = layout.cu_seqlens, layout.max_seqlen  # int32 on the card; on the host, so nothing waits
    out = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scale, window_size=window or (-1, -1)
    )  # (N, H, K)  # fmt: skip
    return out[..., :width]
