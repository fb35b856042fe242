"""The training loop: a generator of steps. It knows nothing of BERT; it is given a callable.

In:  a module, loss_of(places, key) -> (sum, count), the texts' lengths, a Plan, and the State to go on from.
Out: one Step at a time. Logging, validation and saving are the caller's, between the steps.

    state = State.new(model, plan)
    for step in train(model, loss_of, lengths, plan, state):
        log(step)
        if step.ends_epoch: evaluate()

Loss is a sum over a count of the whole step, however it was split into micro-batches. The order of
the texts is a pure function of (seed, epoch), dropout of (seed, step, micro-batch), and the split
of the lengths: what is measured on a clock never changes a trained number. So weights and State are
all that there is to keep of a training that is to go on later, bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import device, optim
from .batch import by_tokens
from .errors import TrainingError


@dataclass(frozen=True)
class Plan:
    """What a training run is, as numbers; every step follows from it."""

    texts: int
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0  # 0: not clipped
    order_seed: int = 0
    dropout_seed: int = 0
    tokens_per_microbatch: int = 2048
    layer_decay: float = 1.0  # of the rate, a layer downwards

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may hold fewer texts."""
        return math.ceil(self.texts / self.batch_size)

    @property
    def steps(self) -> int:
        """All steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return optim.learning_rate(step, self.steps, self.warmup, self.learning_rate)

    def places(self, step: int) -> list[int]:
        """Which texts a step takes."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.order_seed, epoch, self.texts)
        return order[turn * self.batch_size : (turn + 1) * self.batch_size].tolist()


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, texts: int) -> np.ndarray:
    """The order in which an epoch takes the texts: a pure function, kept while the epoch lasts."""
    return np.random.default_rng([seed, epoch]).permutation(texts)


@dataclass
class State:
    """How far a training is, beside the model's weights: updates done, and the optimizer with its moments."""

    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def new(cls, model: nn.Module, plan: Plan) -> State:
        """The state before the first step."""
        return cls(optim.adamw(model, plan.weight_decay, plan.layer_decay))


@dataclass(frozen=True)
class Step:
    """What a step did. `step` and `epoch` count from 1; the loss is that before the update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float  # before clipping
    texts: int
    tokens: int
    seconds: float
    ends_epoch: bool
    count: float  # what the summed loss was divided by


LossOf = Callable[[list[int], tuple[int, int]], tuple[Tensor, Tensor]]


def train(
    model: nn.Module, loss_of: LossOf, lengths: Sequence[int], plan: Plan, state: State | None = None
) -> Iterator[Step]:
    """Train `model` in place from where `state` is (None: from the start), yielding after each update.

    loss_of(places, (seed, step)) computes the summed loss of some texts and what it is divided by.
    Raises TrainingError as soon as a loss or a gradient is not finite, before any weight changes.
    """
    if plan.steps == 0:
        raise TrainingError(
            f"{plan.texts} texts and {plan.epochs} epochs make no step: nothing would be trained"
        )
    state = state or State.new(model, plan)
    optimizer = state.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(state.step, plan.steps):
        start = time.monotonic()
        rate = plan.rate(number)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        model.train()
        places = plan.places(number)
        with device.memory_named():
            (total, count), tokens = accumulate(loss_of, places, lengths, plan, number)
            norm, mean, count = measure(parameters, total, count)
        scale = (min(1.0, plan.clip / (norm + 1e-6)) if plan.clip > 0 else 1.0) / count
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise TrainingError(
                f"step {number + 1}: loss {mean:g} and gradient norm {norm:g} are not finite; "
                f"learning rate {rate:g}, {len(places)} texts",
                "Lower [train] learning_rate, raise warmup, or look at these texts.",
                places,
            )
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step = number + 1
        yield Step(
            step=number + 1,
            epoch=number // plan.steps_per_epoch + 1,
            loss=mean,
            learning_rate=rate,
            grad_norm=norm,
            texts=len(places),
            tokens=tokens,
            seconds=time.monotonic() - start,
            ends_epoch=(number + 1) % plan.steps_per_epoch == 0,
            count=count,
        )


def accumulate(
    loss_of: LossOf, places: list[int], lengths: Sequence[int], plan: Plan, number: int
) -> tuple[tuple[Tensor, Tensor], int]:
    """Sum loss and gradients over the micro-batches of a step: ((sum, count), tokens)."""
    sizes = [int(lengths[p]) for p in places]
    sums, counts = [], []
    for part, group in enumerate(by_tokens(sizes, plan.tokens_per_microbatch)):
        device.seed(plan.dropout_seed, number, part)
        total, count = loss_of([places[i] for i in group], (plan.dropout_seed, number))
        total.backward()
        sums.append(total.detach())
        counts.append(count.detach())
    return (torch.stack(sums).sum(), torch.stack(counts).sum()), sum(sizes)


def measure(parameters: list[nn.Parameter], total: Tensor, count: Tensor) -> tuple[float, float, float]:
    """(norm of the mean gradient, mean loss, count), in one read from the device."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return tuple(torch.stack([norm / count, total / count, count.to(total.dtype)]).tolist())
