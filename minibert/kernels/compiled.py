"""The textbook on padded rectangles, given to torch.compile: what a compiler makes of it.

What is different: q k^T, softmax and the product with v are written down as in the paper, with a mask, as
most BERTs have them, and inductor turns that into code, forward and backward. Two things can come of it, and
`made_of` says which: inductor knows the textbook by sight and may put torch's fused attention in its place
(on a CPU, with torch 2.13, where nothing is padded, dropped or learnt), or it writes a loop of its own for
scale, mask, softmax and dropout between two ordinary matrix products. `compiled_own` forbids the first.
Why its own code is faster than the textbook: (n, n) is read and written once and not five times. Why it is
slower than fused attention: it is still written, and kept for the backward pass; and padding is computed.
Compiling takes from some seconds to a minute, for each dtype, H and K, and again for a B or T of 1.

In:  q, k, v (N, H, K).   Out: (N, H, K).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import Layout, pad, unpad
from ..errors import EnvironmentProblem
from . import FLOATS, Dropout, register
from .native import find_compiler

GRAPHS = 64  # of one function: torch gives up at 8, in silence, and runs it uncompiled


def missing(really: bool = False) -> str:
    """'' if torch.compile can make code for this machine's processor, or why not."""
    return "" if find_compiler() else "needs a C++ compiler (g++ or clang++), and none was found"


CAN = {
    "devices": ("cpu", "cuda"),
    "dtypes": FLOATS,
    "dropout": "generator",  # inductor's own draws, seeded by torch's generator
    "gradients": True,
    "build": missing,
    "elsewhere": {"cuda": {"needs": "triton", "build": lambda really: ""}},
}


@register("compiled", **CAN)
def compiled(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    return over_rectangle("compiled", True, q, k, v, layout, scale, dropout)


@register("compiled_own", **CAN)
def compiled_own(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, dropout: Dropout | None = None
) -> Tensor:
    """(N, H, K) x 3 -> (N, H, K)."""
    return over_rectangle("compiled_own", False, q, k, v, layout, scale, dropout)


def over_rectangle(
    name: str, by_sight: bool, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float,
    dropout: Dropout | None,
) -> Tensor:  # fmt: skip
    """The compiled textbook on all texts, padded to the longest. (N, H, K) x 3 -> (N, H, K)."""
    if not layout.lengths:
        return q.clone()
    hidden = layout.keep(("compiled", q.dtype), lambda: hiding(layout, q))
    q, k, v = (pad(x, layout)[0].transpose(1, 2) for x in (q, k, v))  # each (B, H, T, K)
    with named(name):
        for x in (q, k, v):
            torch._dynamo.mark_static(x, (1, 3))  # a model has one H and one K; B and T are symbols
        context = code(by_sight)(q, k, v, hidden, scale, dropout.p if dropout else 0.0)  # (B, H, T, K)
    return unpad(context.transpose(1, 2), layout)  # (N, H, K)


@functools.cache
def code(by_sight: bool) -> Callable[..., Tensor]:
    """`textbook`, compiled at the first call. by_sight: inductor may replace what it recognises."""
    return torch.compile(textbook, dynamic=True, options={"pattern_matcher": by_sight})


def textbook(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, scale: float, p: float) -> Tensor:
    """(B, H, T, K) x 3, and `hiding` -> (B, H, T, K)."""
    scores = q @ k.transpose(-2, -1) * scale  # (B, H, T, T)
    probs = (scores if hidden is None else scores + hidden).softmax(-1)  # (B, H, T, T)
    return (F.dropout(probs, p) if p else probs) @ v  # (B, H, T, K)


def hiding(layout: Layout, like: Tensor) -> Tensor | None:
    """What is added to scores: (B, 1, 1, T), 0 on real tokens, -inf on padding; None without padding."""
    if set(layout.lengths) == {layout.max_seqlen}:
        return None
    _, real = pad(like, layout)  # (B, T)
    return torch.zeros_like(real, dtype=like.dtype).masked_fill(~real, -torch.inf)[:, None, None]


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Around compiled code: what the compiler raises becomes a problem with a name, and nothing falls back."""
    import torch._dynamo  # takes a second

    settings = {
        "recompile_limit": GRAPHS,
        "fail_on_recompile_limit_hit": True,
        "specialize_float": True,  # scale stands in the code: inductor knows no textbook whose scale may change
    }
    try:
        with torch._dynamo.config.patch(settings):
            yield
    except Exception as problem:
        if not type(problem).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = str(problem).strip().splitlines() or [type(problem).__name__]
        raise EnvironmentProblem(f"kernel {name} could not be compiled: {said[0]}") from problem


def made_of(call: Callable[[], object]) -> str:
    """What inductor made of the textbook for this call of one of these kernels: torch's profiler looks on."""
    call()  # compiles
    with torch.profiler.profile() as profile:
        call()
    fused = any("scaled_dot_product" in one.key for one in profile.key_averages())
    return "pattern-matched into SDPA" if fused else "fused softmax, own code"


compiled.label = compiled_own.label = made_of  # for the bench
