"""More than one process on one training: who does what, and how their sums become one.

In:  what torchrun tells each process.   Out: a World, which the loop asks.
ALONE is the world of a single process, where every sum is what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class World:
    """The processes of a training, as one of them sees them."""

    rank: int = 0
    size: int = 1

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Which of a step's texts, given by their tokens, this process takes."""
        return list(range(len(sizes)))

    def summing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a micro-batch: gradients are summed over the processes with the last of a step."""
        return contextlib.nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """A small tensor, summed over the processes."""
        return tensor

    def norms(self, gradients: list[Tensor]) -> list[Tensor]:
        """The norm of each gradient, (), of all of it."""
        return list(torch._foreach_norm(gradients))


ALONE = World()
