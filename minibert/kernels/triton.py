"""Attention for a card, in Triton: the pack as it is, texts of any length, with dropout, forward and backward.

What is different: one program takes a tile of one text's queries in one head and walks along its keys; the
list of tiles is made once a pack, on the host, so that none is empty. Softmax runs along as in tiled.py; the
output and the log of each sum are kept. The backward pass is two walks, one for dq, one for dk and dv, each
number summed by one program, in one order; both draw counter.py's mask again.
Why that is faster: scores never leave the chip, nothing is padded, and three launches do for a pack. Unlike
varlen.py it has dropout, at a dozen whole-number operations a score, and float32.

In:  q, k, v (N, H, K), K at most 128.   Out: (N, H, K).

triton_code.py is what the card runs. Set TRITON_INTERPRET=1 before Python starts, and Triton's interpreter
runs it on a CPU: slowly, to see that it is right.
"""

from __future__ import annotations

import functools
import math
import os

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import device
from ..batch import Layout
from ..errors import ConfigError
from . import Dropout, register
from .counter import M32, halves, philox, rows_of, threshold

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WIDEST = 128  # of a head, for the tiles to fit into a card's shared memory


def missing(really: bool = False) -> str:
    """'' if this torch and this machine's cards can run what Triton makes, or why not."""
    return "" if INTERPRETED else device.no_triton()


def sizes(program: str, width: int, dtype: torch.dtype, longest: int, dropout: bool) -> dict[str, int]:
    """A program's tile, the steps it walks in, its warps, how many steps ahead are fetched, registers a thread.

    Half precision, heads up to 64: the fastest or within 5 % of it, at widths 32 and 64, of some 20 choices a
    program that were tried on an H100 (512 tokens a text). Several programs share a multiprocessor then: while
    one has the tensor cores another has its softmax. What is fetched ahead takes at most 66 kB of shared memory,
    which every card from Ampere on has; heads of 128 take half the step for that.
    float32 has no tensor cores, and each thread holds its operands' whole width: 64 x 32 would spill kilobytes
    a thread. No tile is larger than the longest text asks for.
    """
    registers = None  # as many as the compiler likes
    if dtype == torch.float32:
        tile, step, warps, stages = 32, 32, 8, 2
    elif width > 64:
        tile, step, warps, stages = 64, 32, 4, 2
    elif program != "backward_keys":
        tile, step, warps, stages = 64, 64, 4, 3
    elif dropout:
        tile, step, warps, stages, registers = 64, 32, 4, 1, 128
    else:
        tile, step, warps, stages = 128, 32, 4, 3
    fits = max(16, 1 << (longest - 1).bit_length())  # the least that a product of Triton's takes is 16
    warps = warps if fits >= tile else 4
    chosen = {"TILE": min(fits, tile), "STEP": min(fits, step), "num_warps": warps, "num_stages": stages}
    return chosen | ({"maxnreg": registers} if registers else {})


def tiles(layout: Layout, tile: int) -> Tensor:
    """(M, 4) int32 on the device: text's first token and length, tile's first token in it, which text.

    Long texts first: a card that is nearly done has only short ones left.
    """

    def make() -> Tensor:
        lengths = torch.tensor(layout.lengths)  # (B,)
        starts = lengths.cumsum(0) - lengths
        order = lengths.argsort(descending=True, stable=True)
        counts = (lengths[order] + tile - 1) // tile
        text = order.repeat_interleave(counts)  # (M,)
        first = torch.cat([torch.arange(0, n, tile) for n in lengths[order].tolist()])  # (M,)
        table = torch.stack([starts[text], lengths[text], first, text], 1)  # (M, 4)
        return table.int().to(layout.cu_seqlens.device, non_blocking=True)

    return layout.keep(("triton tiles", tile), make)


class Attention(torch.autograd.Function):
    """The programs as one step of autograd."""

    @staticmethod
    def forward(ctx, q, k, v, *rest):  # noqa: D102
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out = q.new_empty(q.shape)  # (N, H, K)
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)  # (H, N)
        launch("forward", (q, k, v, out, lse), *rest)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.rest = rest
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: D102
        q, k, v, out, lse = ctx.saved_tensors
        grad, delta = grad.contiguous(), torch.empty_like(lse)
        _, _, dropout, *_ = ctx.rest
        words = lse.new_empty((2, *lse.shape) if dropout else 0, dtype=torch.int32)  # (2, H, N)
        dq, dk, dv = (q.new_empty(q.shape) for _ in range(3))  # (N, H, K)
        launch("backward_queries", (q, k, v, out, grad, lse, delta, words, dq), *ctx.rest)
        launch("backward_keys", (q, k, v, grad, lse, delta, words, dk, dv), *ctx.rest)
        return dq, dk, dv, *(None for _ in ctx.rest)


def launch(
    program: str,
    tensors: tuple[Tensor, ...],
    layout: Layout,
    scale: float,
    dropout: Dropout | None,
    window: tuple[int, int] | None,
    precision: str,
) -> None:
    """One program of triton_code.py for each tile and head."""
    from . import triton_code as code

    q, k, v = tensors[:3]
    tokens, heads, width = q.shape
    p = dropout.p if dropout else 0.0
    chosen = sizes(program, width, q.dtype, layout.max_seqlen, dropout is not None)
    table = tiles(layout, chosen["TILE"])
    draws = (
        layout.keep("rows", lambda: rows_of(layout)),
        *(first_words(dropout) if dropout else (0, 0, 0, 0)),
    )
    strides = [x.stride(axis) for x in (q, k, v) for axis in (0, 1)]
    shares = (1 - p,) if program == "forward" else (scale, 1 - p)
    reach = [min(side, layout.max_seqlen) for side in window or (0, 0)]
    with device.current(q):
        getattr(code, program)[(len(table), heads)](
            *tensors, table, *(() if program == "backward_keys" else draws), *strides, tokens,
            scale * math.log2(math.e), *shares, threshold(p), *reach,
            DROPOUT=dropout is not None, WINDOW=window is not None, WIDTH=width,
            COLUMNS=max(16, 1 << (width - 1).bit_length()), PRECISION=precision, **chosen,
        )  # fmt: skip


@functools.lru_cache(maxsize=64)  # three programs ask
def first_words(dropout: Dropout) -> tuple[int, ...]:
    """The first of counter.py's three lines, which is alike for all texts, as signed numbers of 32 bits."""
    seed, step, layer = dropout.key
    words = philox((*halves(seed), *halves(step)), (layer & M32, 0))
    return tuple(word - (word >> 31 << 32) for word in words)


@register(
    "triton",
    devices=("cuda", "cpu") if INTERPRETED else ("cuda",),
    dtypes=(torch.float32, torch.bfloat16, torch.float16),
    dropout="counter",
    gradients=True,
    window=True,
    needs="triton",
    build=missing,
)
def triton(
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
    if not len(q):
        return q.clone()
    if q.shape[-1] > WIDEST:
        raise ConfigError(
            f"kernel 'triton' takes heads up to {WIDEST} wide, not {q.shape[-1]}", "Take 'padded'."
        )
    if scale < 0:  # the program takes the largest score before it scales ...
        q, scale = -q, -scale
    scale = max(scale, 1e-30)  # ... and what isn't seen has a score of -inf, which times 0 would be no number
    precision = "tf32" if device.in_tf32() else "ieee"  # of float32's products; Triton's own choice is tf32
    return Attention.apply(q, k, v, layout, scale, dropout, window, precision)
