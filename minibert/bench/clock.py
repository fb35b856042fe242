"""The harness: contestants run in turn, round by round, each time on fresh inputs, in a random order.

In:  contestants, and a function that makes a round's inputs.   Out: for each, its milliseconds a call by round.

A machine's speed changes from second to second. So nothing is timed for long and then compared: in every
round each contestant is timed for some milliseconds, and what is told is the ratio within rounds
(ratios.py). A coin decides who comes first, so that being first helps nobody. Between a contestant and its
turn lie one call that isn't timed and, if asked for, a sweep through the caches. Calls are timed in
samples long enough that looking at the clock doesn't count. Python's garbage collector rests meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import device as devices
from ..system import last_level_cache

WARM = 0.2  # seconds of calls before anything counts ...
LEAST_WARM = 2  # ... and so many calls at least, the first of which may compile
SAMPLE = 1.0  # ms that a sample lasts at least: reading the clock takes some 0.1 us
SAMPLES = 3  # of a contestant in a round, whose median counts ...
LONG = 10.0  # ... but one where three would last longer than so many ms
ROUNDS = 40  # usually: a difference of 5 % is then found nine times in ten on a small, noisy machine (calibrate.py)
LEAST = 6  # ... at least: with fewer no interval of 95 % exists (ratios.py)
CARD_CACHE = 256 * 2**20  # bytes: more than any card's cache (H100: 50 MB)

Call = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """prepare(inputs) -> what is timed. What it does before it returns isn't."""

    name: str
    prepare: Callable[[Any], Call]


@dataclass
class Timed:
    """What came of a contestant.

    rounds   {round: ms a call}
    first    s of its very first call
    calls    in a sample
    spent    s in all, with what isn't timed
    problem  what it raised, if it did; it then ran no further round
    """

    name: str
    rounds: dict[int, float] = field(default_factory=dict)
    first: float = 0.0
    calls: int = 1
    spent: float = 0.0
    problem: Exception | None = None


def race(
    contestants: Sequence[Contestant],
    make: Callable[[int], Any],
    *,
    device: torch.device | str = "cpu",
    rounds: int = ROUNDS,
    seconds: float = math.inf,
    flush: bool = False,
    warm: float = WARM,
    seed: int = 0,
) -> dict[str, Timed]:
    """Time every contestant in `rounds` rounds, or in fewer (LEAST at least) if `seconds` are over.

    make(round): the inputs of a round, the same for all. flush: the caches are emptied before every timed
    call; else they are warm from the call before.
    """
    device, coin = torch.device(device), random.Random(seed)
    timed = {one.name: Timed(one.name) for one in contestants}
    sweep = sweeper(device) if flush else None
    with quiet():
        inputs = make(0)
        for one in contestants:
            with counted(timed[one.name]):
                warm_up(one.prepare(inputs), timed[one.name], device, warm, flush)
        start = time.perf_counter()
        for number in range(rounds):
            if number >= LEAST and time.perf_counter() - start > seconds:
                break
            inputs = make(number + 1)
            for one in coin.sample(list(contestants), len(contestants)):
                if timed[one.name].problem is None:
                    with counted(timed[one.name]):
                        call = one.prepare(inputs)
                        call()
                        timed[one.name].rounds[number] = measured(call, timed[one.name].calls, device, sweep)
                        del call
            gc.collect(0)  # graphs that hang in circles; the collector rests, so all new objects are young
    return timed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Python's garbage collector."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def counted(timed: Timed) -> Iterator[None]:
    """Add up the seconds, and keep what is raised: the others go on."""
    start = time.perf_counter()
    try:
        yield
    except Exception as problem:
        timed.problem = problem.with_traceback(None)  # its frames would hold the inputs
        devices.free()
    finally:
        timed.spent += time.perf_counter() - start


def warm_up(call: Call, timed: Timed, device: torch.device, warm: float, flush: bool) -> None:
    """Call for `warm` seconds; note how long the first call took and how many the samples need."""
    durations: list[float] = []
    until = time.perf_counter() + warm
    while len(durations) < LEAST_WARM or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        devices.wait(device)
        durations.append(time.perf_counter() - start)
    timed.first = durations[0]
    usual = 1e3 * statistics.median(durations[1:])
    timed.calls = 1 if flush else max(1, math.ceil(SAMPLE / max(usual, 1e-4)))


def measured(call: Call, calls: int, device: torch.device, sweep: Call | None) -> float:
    """ms a call: the median of some samples."""
    clock = card_samples if device.type == "cuda" else host_samples
    first = clock(call, calls, 1, sweep)
    if first[0] * calls * SAMPLES > LONG:
        return first[0]
    return statistics.median(first + clock(call, calls, SAMPLES - 1, sweep))


def host_samples(call: Call, calls: int, samples: int, sweep: Call | None) -> list[float]:
    """ms a call by the processor's clock."""
    found, many = [], range(calls)
    for _ in range(samples):
        if sweep:
            sweep()
        start = time.perf_counter_ns()
        for _ in many:
            call()
        found.append((time.perf_counter_ns() - start) / 1e6 / calls)
    return found


def card_samples(call: Call, calls: int, samples: int, sweep: Call | None) -> list[float]:
    """ms a call by the card's clock, which is read once all is done."""
    marks = [(devices.mark(), devices.mark()) for _ in range(samples)]
    for before, after in marks:
        if sweep:
            sweep()
        before.record()
        for _ in range(calls):
            call()
        after.record()
    devices.wait(torch.device("cuda"))
    return [before.elapsed_time(after) / calls for before, after in marks]


def sweeper(device: torch.device) -> Call:
    """A function that reads and writes so much memory that nothing else is left in the caches."""
    size = CARD_CACHE if device.type == "cuda" else min(2 * last_level_cache(), 2**30)
    buffer: Tensor = torch.zeros(size // 4, device=device)
    return lambda: buffer.add_(1.0)
