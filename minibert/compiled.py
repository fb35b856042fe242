"""torch.compile for training: all of a block but attention, compiled once for packs of any size.

In:  an Encoder, and which way: "default", or "reduce-overhead", which adds CUDA graphs.
Out: the same Encoder, whose blocks run compiled while they train; evaluation runs them as they are.

A pack's lengths, its step and its layer are numbers that change from batch to batch: a graph that held them would
be compiled anew each time. What looks at them is one method, SelfAttention.meet, so that one stays outside, with
the kernel it calls. What is left sees tensors of N tokens, N as a symbol: projections, the linear layers, GELU,
dropout, sums and norms, which is where a compiler can fuse. All blocks of one form share these graphs.

Dropout in them is drawn by the compiler's own generator: other draws than uncompiled, and as reproducible.
Nothing falls back in silence: what can't be compiled ends the run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .batch import Layout
from .errors import ConfigError, EnvironmentProblem

WAYS = ("none", "default", "reduce-overhead")
# A pack is filled up to a multiple of this share of tokens_per_microbatch where CUDA graphs are captured: one for
# each size, so at most so many.
SIZES = 8


def why_not(way: str, device: str, recompute: bool, several: str = "") -> str:
    """'' if training can be compiled this way, or why not. several: "ddp", "fsdp", or "" for one process."""
    if way == "none":
        return ""
    if device not in ("cpu", "cuda"):
        return f"it was never tried on {device}"
    if way == "reduce-overhead" and device != "cuda":
        return "CUDA graphs need a CUDA card"
    if way == "reduce-overhead" and recompute:
        return "with recompute the backward pass would run graphs whose memory it still needs"
    if several == "fsdp" or (several and way == "reduce-overhead"):
        return f"it was never tried with several processes ({several})"
    return ""


def compile_blocks(
    encoder: nn.Module, way: str, device: str, recompute: bool = False, several: str = ""
) -> None:
    """Compile every block's training from now on. ConfigError where that does not hold."""
    if why := why_not(way, device, recompute, several):
        raise ConfigError(f'[train] compile = "{way}" can\'t be used: {why}', 'Use compile = "none".')
    if way == "none":
        return
    for block in encoder.layers:
        plain = block.forward
        block.attn.meet = torch.compiler.disable(functools.partial(in_line, block.attn.meet))
        # dynamic: N is a symbol from the first pack on
        block.forward = functools.partial(run, block, plain, torch.compile(plain, mode=way, dynamic=True))
    if way == "reduce-overhead":
        encoder.register_forward_pre_hook(begin)
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(own)


def run(block: nn.Module, plain: Callable, fast: Callable, hidden: Tensor, layout: Layout) -> Tensor:
    """A block's forward pass: compiled in training, as it is in evaluation. (N, D) -> (N, D)."""
    return (fast if block.training else plain)(hidden, layout)


def in_line(meet: Callable[..., Tensor], *words: object) -> Tensor:
    """What the kernel gives, (N, H, K), laid out one way: another layout in memory would be another graph."""
    return meet(*words).contiguous()


def begin(encoder: nn.Module, _: object) -> None:
    """Before a micro-batch: the memory of the graphs that ran in the one before is free."""
    from torch._dynamo.utils import counters

    if counters["inductor"]["cudagraph_skips"]:  # the compiler only warns
        raise ConfigError(
            '[train] compile = "reduce-overhead": CUDA graphs could not be captured here', 'Use "default".'
        )
    if encoder.training:
        torch.compiler.cudagraph_mark_step_begin()


def own(parameter: Tensor) -> None:
    """Move a gradient out of the graphs' memory, which the next micro-batch writes over."""
    parameter.grad = parameter.grad.clone()


def size(tokens: int, budget: int) -> int:
    """How many tokens a pack is filled up to, so that packs have few sizes: of at most `budget` tokens, SIZES."""
    step = -(-budget // SIZES)
    return -(-tokens // step) * step


@contextlib.contextmanager
def problems_named(way: str) -> Iterator[None]:
    """Around training: turn what the compiler raises into a problem with a name and a way out.

    Also where it would only warn: a block that is compiled again and again is run uncompiled in the end.
    """
    if way == "none":
        yield
        return
    import torch._dynamo  # takes a second

    try:
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            yield
    except Exception as problem:
        if not type(problem).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = str(problem).strip().splitlines() or [type(problem).__name__]
        raise EnvironmentProblem(
            f'[train] compile = "{way}" failed: {said[0]}',
            'Use compile = "none"; a compiler for C++ (or, on a card, triton) may be missing.',
        ) from problem
