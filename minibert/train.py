"""The training loop: a generator of steps. It knows nothing of BERT; it is given a callable.

In:  a module, prepare(places, key) -> what is ready, loss_of(*ready) -> (sum, count), the texts' lengths,
     a Plan, and the State to go on from.
Out: one Step at a time. Logging, validation and saving are the caller's, between the steps.

    state = State.new(model, plan)
    for step in train(model, loss_of, lengths, plan, state):
        log(step)
        if step.ends_epoch: evaluate()

Loss is a sum over a count of the whole step, however it was split into micro-batches and among processes.
The order of the texts is a pure function of (seed, epoch), dropout of (seed, step), and the split of the
lengths: what is measured on a clock never changes a trained number. So weights and State are all that
there is to keep of a training that is to go on later, bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import device, optim
from .errors import OutOfMemory, TrainingError
from .processes import ALONE, World


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
    tokens_per_microbatch: int = 4096
    layer_decay: float = 1.0  # of the rate, a layer downwards
    scaled: bool = False  # losses, as float16 needs

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

    def ends_epoch(self, step: int) -> bool:
        """Whether a step, counted from 0, is an epoch's last."""
        return (step + 1) % self.steps_per_epoch == 0

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
    """How far a training is, beside the model's weights.

    step    updates done
    budget  tokens of a micro-batch: the plan's, or fewer since memory ran out
    scaler  of losses, in float16
    """

    optimizer: optim.AdamW
    step: int
    budget: int
    scaler: optim.Scaler | None = None

    @classmethod
    def new(cls, model: nn.Module, plan: Plan) -> State:
        """The state before the first step."""
        optimizer = optim.AdamW(model, plan.weight_decay, plan.layer_decay)
        scaler = optim.Scaler(optimizer.trained[0][1].device) if plan.scaled else None
        return cls(optimizer, 0, plan.tokens_per_microbatch, scaler)


@dataclass(frozen=True)
class Step:
    """What a step did. `step` and `epoch` count from 1; the loss is that before the update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float  # before clipping
    layer_norms: dict[str, float]  # the same by layer
    texts: int
    tokens: int
    seconds: float
    ends_epoch: bool
    count: float  # what the summed loss was divided by
    tokens_per_microbatch: int
    loss_scale: float | None = None  # of float16
    skipped: bool = False  # gradients overflowed float16, so no weight changed


READ_EVERY = 10  # steps on a card before its numbers are read

Prepare = Callable[[list[int], tuple[int, int]], tuple[Any, ...]]
LossOf = Callable[..., tuple[Tensor, Tensor]]
Ready = list[tuple[bool, tuple[Any, ...]]]  # a step's micro-batches, and whether each counts


def as_they_are(places: list[int], key: tuple[int, int]) -> tuple[Any, ...]:
    """Nothing to prepare: loss_of takes places and (seed, step) themselves."""
    return places, key


def train(
    model: nn.Module,
    loss_of: LossOf,
    lengths: Sequence[int],
    plan: Plan,
    state: State | None = None,
    *,
    prepare: Prepare = as_they_are,
    world: World = ALONE,
    read_every: int = READ_EVERY,
) -> Iterator[Step]:
    """Train `model` in place from where `state` is (None: from the start), yielding after each update.

    prepare(places, (seed, step)) makes a micro-batch ready, in a thread, one step ahead of
    loss_of(*ready), which computes its summed loss and what that is divided by. A card is asked for its
    numbers every `read_every` steps, which then come together; a processor has them at once.
    Raises TrainingError as soon as a loss or a gradient is not finite; no weight changes then.
    """
    if plan.steps == 0:
        raise TrainingError(
            f"{plan.texts} texts and {plan.epochs} epochs make no step: nothing would be trained"
        )
    state = state or State.new(model, plan)
    unread: list[tuple[int, float, Tensor]] = []  # steps whose numbers are still on the device
    with Ahead(prepare, lengths, plan, world) as ahead:
        start = time.monotonic()
        for number in range(state.step, plan.steps):
            model.train()
            rate = plan.rate(number)
            total, count = whole_step(loss_of, ahead, number, state, world)
            facts = state.optimizer.update(rate, total, count, plan.clip, world, state.scaler)
            unread.append((number, rate, facts))
            state.step = number + 1
            if total.is_cuda and not (state.step % read_every == 0 or plan.ends_epoch(number)):
                continue  # reading would make the host wait for the card
            read = torch.stack([facts for *_, facts in unread]).tolist()
            seconds = (time.monotonic() - start) / len(unread)
            for (at, its_rate, _), numbers in zip(unread, read):
                yield step_of(plan, state, lengths, at, its_rate, seconds, *numbers)
            unread.clear()
            start = time.monotonic()


def step_of(
    plan: Plan,
    state: State,
    lengths: Sequence[int],
    number: int,
    rate: float,
    seconds: float,
    loss: float,
    norm: float,
    count: float,
    *norms: float,
) -> Step:
    """What a step did, or TrainingError if it did nothing because a number was not finite.

    In float16 a gradient that is not finite is a step that is left out: the scale was too large.
    """
    places, scale = plan.places(number), norms[-1] if state.scaler else None
    skipped = scale is not None and math.isfinite(loss) and not math.isfinite(norm)
    if skipped and scale <= optim.Scaler.LEAST:
        raise TrainingError(
            f"step {number + 1}: gradients overflow float16 however small the loss scale is ({scale:g})",
            'Lower [train] learning_rate, or train with dtype = "float32".',
            places,
        )
    if not (math.isfinite(loss) and math.isfinite(norm) or skipped):
        state.step = number  # it is still to be done
        raise TrainingError(
            f"step {number + 1}: loss {loss:g} and gradient norm {norm:g} are not finite; "
            f"learning rate {rate:g}, {len(places)} texts",
            "Lower [train] learning_rate, raise warmup, or look at these texts.",
            places,
        )
    return Step(
        step=number + 1,
        epoch=number // plan.steps_per_epoch + 1,
        loss=loss,
        learning_rate=rate,
        grad_norm=norm,
        layer_norms=dict(zip(state.optimizer.layers, norms)),
        texts=len(places),
        tokens=sum(int(lengths[place]) for place in places),
        seconds=seconds,
        ends_epoch=plan.ends_epoch(number),
        count=count,
        tokens_per_microbatch=state.budget,
        loss_scale=scale,
        skipped=skipped,
    )


class Ahead:
    """Makes micro-batches ready in a thread, while the step before is computed."""

    def __init__(self, prepare: Prepare, lengths: Sequence[int], plan: Plan, world: World):
        self.prepare, self.lengths, self.plan, self.world = prepare, lengths, plan, world
        self.thread = ThreadPoolExecutor(1, "minibert-ahead")
        self.next: tuple[tuple[int, int], Future[Ready]] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)

    def step(self, number: int, budget: int) -> Ready:
        """What this process has to do in a step; the step after it is begun."""
        wanted, found = self.next or (None, None)
        ready = found.result() if wanted == (number, budget) else self.make(number, budget)
        if number + 1 < self.plan.steps:
            self.next = (number + 1, budget), self.thread.submit(self.make, number + 1, budget)
        return ready

    def make(self, number: int, budget: int) -> Ready:
        """The micro-batches of a step: a pure function of the lengths."""
        places, key = self.plan.places(number), (self.plan.dropout_seed, number)
        return micro_batches(self.prepare, places, self.lengths, budget, key, self.world)


def micro_batches(
    prepare: Prepare,
    places: Sequence[int],
    lengths: Sequence[int],
    budget: int,
    key: tuple[int, int],
    world: World = ALONE,
) -> Ready:
    """What of some texts of the step `key` a process does: groups of at most `budget` tokens, made ready."""
    groups = world.groups([int(lengths[place]) for place in places], budget)
    return [(counts, prepare([places[i] for i in group], key)) for group, counts in groups]


def whole_step(
    loss_of: LossOf, ahead: Ahead, number: int, state: State, world: World
) -> tuple[Tensor, Tensor]:
    """Summed loss and count of a step, its gradients summed in the parameters.

    Where memory runs out the step is begun again with micro-batches of half as many tokens, down to the
    longest text alone; the sums stay the same. Raises OutOfMemory where that isn't enough.
    """
    while True:
        ready = ahead.step(number, state.budget)
        try:
            with device.memory_named():
                return accumulate(loss_of, ready, ahead.plan.dropout_seed, number, world, state.scaler)
        except OutOfMemory as problem:
            short = problem.message, problem.fix
        state.optimizer.zero_grad()  # out here, where the traceback no longer holds what failed
        device.free()
        sizes = [int(ahead.lengths[place]) for place in ahead.plan.places(number)]
        if state.budget <= max(sizes) or world.size > 1:  # the other processes wait for this one's sums
            raise OutOfMemory(*short)
        state.budget = max(min(state.budget, sum(sizes)) // 2, max(sizes))


def accumulate(
    loss_of: LossOf, ready: Ready, seed: int, number: int, world: World, scaler: optim.Scaler | None
) -> tuple[Tensor, Tensor]:
    """Loss and count summed over the micro-batches of a step, and over all processes."""
    sums = []
    for part, (counts, arguments) in enumerate(ready):
        device.seed(seed, number, part * world.size + world.rank)
        with world.summing(last=part == len(ready) - 1):
            total, count = loss_of(*arguments)
            if not counts:  # computed for company
                total, count = total * 0, count * 0
            (total if scaler is None else total * scaler.scale).backward()
        sums.append(torch.stack([total.detach(), count.detach().to(total)]))
    total, count = world.sum(torch.stack(sums).sum(0))
    return total, count
