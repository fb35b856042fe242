"""torch's FlexAttention: the pack as one row, and a mask made of blocks, of which empty ones are skipped.

What is different: who may look at whom is a function of two places in the pack, "both of one text", from which
torch.compile writes a kernel. The mask is kept as a list of blocks of 128 x 128 that hold an allowed look, and
only those are computed. Why that is faster than blockmask.py: most of (N, N) is never touched; than padded.py:
no padding, but for the last block of each text. Why it is slower than kernels made for packs: a text that
begins inside a block pays for all of it; and the block mask is made anew for each batch (`mask_of`, once a
batch and not once a layer): every pair of tokens is looked at once, which can cost more than the attention.

On a CPU it has no backward pass, and needs AVX2. Compiling takes from some seconds to a minute, for each dtype,
H and K, and for each number of tokens, since code for any number fails to compile on a CPU (torch 2.13 takes one
size's name for the beginning of another's). So packs are filled up to few sizes: powers of two, and their halfways.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import Layout
from . import Dropout, compiled, register
from .blockmask import text_of

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # tokens
FEWEST = 256  # tokens


def missing(really: bool = False) -> str:
    """'' if it can be compiled for this machine's processor, or why not."""
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        return "needs a processor with AVX2"
    return compiled.missing()


@register(
    "flex",
    devices=("cpu", "cuda"),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    dropout="",
    gradients=True,
    elsewhere={"cpu": {"gradients": False, "build": missing}, "cuda": {"needs": "triton"}},
)
def flex(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    if not layout.lengths:
        return q.clone()
    N, mask = len(q), mask_of(layout)
    fill = mask.seq_lengths[0] - N
    q, k, v = (F.pad(x, (0, 0, 0, 0, 0, fill)) if fill else x for x in (q, k, v))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # each (1, H, N or more, K)
    with compiled.named("flex"):
        context = code()(q, k, v, block_mask=mask, scale=scale)  # (1, H, N or more, K)
    return context[0, :, :N].transpose(0, 1)  # (N, H, K)


def mask_of(layout: Layout) -> BlockMask:
    """Which blocks hold looks within a text; made at the first call for a layout, and kept in it."""
    return layout.keep("flex", lambda: blocks(layout))


def blocks(layout: Layout) -> BlockMask:
    """`mask_of`, made anew."""
    from torch.nn.attention.flex_attention import create_block_mask

    text = text_of(layout)  # (N,)
    alone = torch.arange(filled(len(text)) - len(text), device=text.device)  # what fills up sees but itself
    text = torch.cat([text, -1 - alone])  # (N or more,)

    def same_text(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return text[query] == text[key]

    return create_block_mask(same_text, None, None, len(text), len(text), text.device, BLOCK)


def filled(tokens: int) -> int:
    """How many tokens a pack is filled up to: 256, 384, 512, 768, 1,024, ..."""
    size = FEWEST
    while size < tokens:
        size *= 2
    return size * 3 // 4 if size > FEWEST and tokens <= size * 3 // 4 else size


@functools.cache
def code() -> Callable[..., Tensor]:
    """flex_attention, compiled at the first call of each shape."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
