"""One thing to time: which texts, how wide, in what numbers, in which direction - and how a kernel is called on it.

In:  a Case and a kernel.   Out: inputs of a round, and a function that the clock calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import device as devices
from ..batch import Layout, pack
from ..errors import ConfigError, EnvironmentProblem, OutOfMemory
from ..kernels import Dropout, Kernel
from .lengths import Lengths

DIRECTIONS = ("forward", "backward", "both")
REFUSALS = ("No available kernel",)  # how torch says that a backend can't do what is asked


@dataclass(frozen=True)
class Case:
    """H heads of width K over texts of these lengths; `dropout` is the share dropped, 0 for none."""

    lengths: Lengths
    heads: int
    width: int
    dtype: str
    dropout: float
    direction: str
    device: str = "cpu"

    @property
    def gradients(self) -> bool:
        """Whether a kernel must be able to learn."""
        return self.direction != "forward"

    def why_not(self, kernel: Kernel) -> str:
        """'' if the kernel can be timed on this, or why not."""
        return kernel.why_not(
            device=torch.device(self.device).type,
            dtype=devices.number(self.dtype),
            dropout=self.dropout > 0,
            gradients=self.gradients,
        )

    def layout(self) -> Layout:
        """Where the texts lie; their row numbers are 0, 1, ..."""
        texts = self.lengths.texts
        return pack([[0] * n for n in texts], rows=range(len(texts))).layout.to(self.device)

    def inputs(self, number: int) -> Inputs:
        """Fresh ones for a round: q, k, v and the output's gradient, each (N, H, K), and what is dropped."""
        device, dtype = torch.device(self.device), devices.number(self.dtype)
        generator = torch.Generator(device).manual_seed(number)
        shape = (4, self.lengths.tokens, self.heads, self.width)
        numbers = torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)
        dropout = Dropout(self.dropout, (0, number, 0)) if self.dropout else None
        return Inputs(*numbers, dropout)


class Inputs(NamedTuple):
    """What a round gives to every kernel."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor
    dropout: Dropout | None


def prepared(kernel: Kernel, case: Case, layout: Layout) -> Callable[[Inputs], Callable[[], object]]:
    """inputs -> what is timed. Of "backward" the forward pass is done before, and its graph kept for every call:
    the backward pass is timed itself, never as both less forward."""
    scale = case.width**-0.5

    def prepare(inputs: Inputs) -> Callable[[], object]:
        qkv, grad, dropout = inputs[:3], inputs.grad, inputs.dropout
        if case.direction == "forward":

            def forward() -> Tensor:
                with torch.no_grad():
                    return kernel.fn(*qkv, layout, scale=scale, dropout=dropout)

            return forward
        leaves = [x.detach().requires_grad_() for x in qkv]
        if case.direction == "both":
            return lambda: torch.autograd.grad(
                kernel.fn(*leaves, layout, scale=scale, dropout=dropout), leaves, grad
            )
        output = kernel.fn(*leaves, layout, scale=scale, dropout=dropout)
        return lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True)

    return prepare


def outcome(problem: Exception) -> tuple[str, str]:
    """What a problem is called in a row, unsupported, out_of_memory or error, and why."""
    try:
        with devices.memory_named():
            raise problem
    except OutOfMemory as full:
        return "out_of_memory", full.message
    except (ConfigError, EnvironmentProblem, NotImplementedError) as wish:
        return "unsupported", str(wish).splitlines()[0] if str(wish) else type(wish).__name__
    except Exception as other:
        words = f"{type(other).__name__}: {other}".strip().splitlines()[0]
        return "unsupported" if any(word in str(other) for word in REFUSALS) else "error", words
