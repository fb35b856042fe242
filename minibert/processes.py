"""More than one process on one training: what the run, the loop and the evaluation ask of it.

In:  tokens of texts, sums.   Out: a World. ALONE is that of a single process, where every sum is what it was;
several.py has the others. Several processes share the texts of a step by their tokens; losses, counts and
gradients are sums, so that a step is the one that a single process does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batch import by_tokens

if TYPE_CHECKING:
    from .system import Stop

Groups = list[tuple[list[int], bool]]


class World:
    """The processes of a training as one of them sees them; this is the single one.

    rank, size   which it is, and how many there are
    shards       whether each holds but a share of every tensor
    """

    rank, size, shards = 0, 1, False

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def groups(self, sizes: Sequence[int], budget: int) -> Groups:
        """What this process computes of texts, given by their tokens: groups of at most `budget` tokens, and
        whether a group counts. One that doesn't keeps the others company, who have one more to compute."""
        return [(group, True) for group in by_tokens(sizes, budget)]

    def join(self, learner: nn.Module, model: nn.Module, parts: Sequence[nn.Module]) -> Callable[..., Any]:
        """What the loop calls for the loss, in place of `learner`. `parts` of `model` are computed in turn."""
        return learner

    def summing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a micro-batch: gradients are summed over the processes with the last of a step."""
        return contextlib.nullcontext()

    def calling(self) -> contextlib.AbstractContextManager[None]:
        """Around what talks with the others: a connection that breaks is an error with a reason."""
        return contextlib.nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """A tensor, summed over the processes."""
        return tensor

    def as_first(self, numbers: dict[str, float]) -> dict[str, float]:
        """Numbers as the first process has them."""
        return numbers

    def norms(self, gradients: list[Tensor]) -> list[Tensor]:
        """The norm of each gradient, (), of all of it."""
        return list(torch._foreach_norm(gradients))

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """All of each tensor, in the first process; the others get none."""
        return tensors

    def part(self, whole: Tensor, like: Tensor | None) -> Tensor:
        """What this process holds of a whole tensor that is to stand in the place of `like`."""
        return whole

    def saving(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Inside, the first process has the whole model."""
        return contextlib.nullcontext()

    def agreed(self, stop: Stop) -> Stop:
        """A Stop that all processes hear of at the same point."""
        return stop

    def wait(self, **facts: int) -> None:
        """Until all are here. ConfigError where they don't agree on `facts`."""

    def tell(self, problem: BaseException) -> None:
        """Let the others know what this process ends for."""

    def facts(self) -> dict[str, Any]:
        """What environment.json says."""
        return {"processes": self.size}


ALONE = World()


def share(sizes: Sequence[int], processes: int) -> list[list[int]]:
    """Which texts, given by their tokens, each process takes: from long to short, each to whoever has least.

    A pure function; of equals the first text comes first, and the first process takes it.
    """
    mine, loads = [[] for _ in range(processes)], [0] * processes
    for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        least = loads.index(min(loads))
        mine[least].append(place)
        loads[least] += sizes[place]
    return [sorted(places) for places in mine]
