"""`minibert bench calibrate`: whether the clock and the intervals can be trusted on this machine.

    same       a kernel against itself: 5 % of the 95 % intervals should exclude 1
    planted    against itself made 5 % slower: nearly all should
    overhead   what the clock adds to a call of 50 microseconds
    agreement  with torch.utils.benchmark on the same kernel
    flops      the formula against torch's counter

In:  a kernel's name.   Out: what calibrate.json holds: each with its goal, and whether it holds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer

from .. import __version__, kernels
from .. import device as devices
from . import conditions, work
from .case import Case, Inputs, prepared
from .clock import ROUNDS, Contestant, race
from .lengths import drawn
from .ratios import speedup

COMPARISONS = 1000
SLOWDOWN = 0.05
SECONDS = 1200  # of the comparisons at most; fewer are made where it isn't enough
WORDS, TOKENS = "zipf:128", 256  # small enough for a thousand comparisons
MICROSECONDS = 50


def run(
    name: str = "sdpa",
    device: str = "cpu",
    comparisons: int = COMPARISONS,
    seconds: float = SECONDS,
    threads: int = 0,
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """All of it; some minutes."""
    place = devices.pick(device)
    torch.set_num_threads(threads or torch.get_num_threads())
    kernel = kernels.choose(name, device=place.type, gradients=True)
    case = Case(drawn(WORDS, TOKENS), 12, 32, "float32", 0.0, "forward", str(place))
    for warning in conditions.check_idle(place):
        tell(warning)
    watch = conditions.Watch(place)
    tell(f"{comparisons:,} comparisons of {name} with itself")
    found = against_itself(
        Contestant(name, prepared(kernel, case, case.layout())), case, comparisons, seconds
    )
    tell("the clock")
    if place.type == "cpu":  # the other clock, and what is counted, are the processor's
        found |= {"overhead": overhead(), "agreement": agreement(kernel, case), "flops": flops(case)}
    return {
        "minibert": __version__,
        "verb": "calibrate",
        "settings": {
            "kernel": name,
            "comparisons": comparisons,
            "rounds": ROUNDS,
            "lengths": WORDS,
            "tokens": TOKENS,
        },
        "conditions": {**conditions.machine(place), **watch.ended()},
        **found,
    }


def against_itself(one: Contestant, case: Case, comparisons: int, seconds: float) -> dict[str, Any]:
    """One long race of a kernel, itself again and itself slowed down, cut into comparisons of ROUNDS rounds."""
    again, slow = (
        Contestant("again", one.prepare),
        Contestant("slow", lambda inputs: slowed(one.prepare(inputs))),
    )
    timed = race(
        [one, again, slow], case.inputs, device=case.device, rounds=comparisons * ROUNDS, seconds=seconds
    )
    for each in timed.values():
        if each.problem:
            raise each.problem
    made = len(timed[one.name].rounds) // ROUNDS
    shares = {}
    for other in ("again", "slow"):
        differ = []
        for number in range(made):
            span = range(number * ROUNDS, (number + 1) * ROUNDS)
            ours, theirs = ({n: timed[x].rounds[n] for n in span} for x in (other, one.name))
            ratio = speedup(ours, theirs)
            differ.append(bool(ratio and (ratio.high < 1 if other == "slow" else ratio.differs)))
        shares[other] = sum(differ) / max(1, made)
    same, planted = shares["again"], shares["slow"]
    return {
        "same": {
            "comparisons": made,
            "excluded": same,
            "goal": [0.035, 0.065],
            "holds": 0.035 <= same <= 0.065,
        },
        "planted": {"slowdown": SLOWDOWN, "found": planted, "goal": 0.9, "holds": planted >= 0.9},
    }


def slowed(call: Callable[[], object]) -> Callable[[], object]:
    """The same, and then idle for SLOWDOWN of the time that it took."""

    def slow() -> object:
        start = time.perf_counter_ns()
        result = call()
        now = time.perf_counter_ns()
        until = now + SLOWDOWN * (now - start)
        while now < until:
            now = time.perf_counter_ns()
        return result

    return slow


def spin() -> None:
    """MICROSECONDS, whatever the machine's speed."""
    until = time.perf_counter_ns() + 1000 * MICROSECONDS
    while time.perf_counter_ns() < until:
        pass


def overhead(rounds: int = 200) -> dict[str, Any]:
    """What the clock says of a call that ends when 50 microseconds are over, beyond these."""
    calls = [Contestant("spin", lambda inputs: spin), Contestant("nothing", lambda inputs: lambda: None)]
    timed = race(calls, lambda number: None, rounds=rounds)
    usual = {name: 1e3 * statistics.median(one.rounds.values()) for name, one in timed.items()}
    share = usual["spin"] / MICROSECONDS - 1
    return {
        "microseconds": MICROSECONDS,
        "share": share,
        "empty_call_us": usual["nothing"],
        "goal": 0.02,
        "holds": share <= 0.02,
    }


def agreement(kernel: kernels.Kernel, case: Case, times: int = 30) -> dict[str, Any]:
    """Our median over that of torch.utils.benchmark, in turn many times and each briefly, as a machine's speed
    changes from second to second; the median of that."""
    inputs: Inputs = case.inputs(0)
    prepare, found = prepared(kernel, case, case.layout()), []
    for number in range(times):
        timer = Timer("call()", globals={"call": prepare(inputs)}, num_threads=torch.get_num_threads())
        pair = {}
        for which in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            if which == "ours":
                timed = race([Contestant("it", prepare)], lambda number: inputs, rounds=25, warm=0.02)["it"]
                pair[which] = statistics.median(timed.rounds.values())
            else:
                pair[which] = 1e3 * timer.blocked_autorange(min_run_time=0.1).median
        found.append(pair["ours"] / pair["theirs"])
    ratio = statistics.median(found)
    return {"ratio": ratio, "ratios": found, "goal": 0.03, "holds": abs(ratio - 1) <= 0.03}


def flops(case: Case) -> dict[str, Any]:
    """Operations of sdpa, forward and both: by torch's counter and by formula."""
    inputs = case.inputs(0)
    counter = work.counter()
    leaves = [x.requires_grad_() for x in inputs[:3]]
    with counter:
        output = kernels.KERNELS["sdpa"].fn(*leaves, case.layout(), scale=case.width**-0.5)
        counted = [counter.get_total_flops()]
        torch.autograd.grad(output, leaves, inputs.grad)
    counted.append(counter.get_total_flops())
    formula = [work.flops(case.lengths.texts, case.heads, case.width, word) for word in ("forward", "both")]
    return {"counted": counted, "formula": formula, "holds": counted == formula}


def lines(document: dict[str, Any]) -> list[str]:
    """The findings in words."""
    same, planted = document["same"], document["planted"]
    told = [
        (same, f"of {same['comparisons']:,} intervals of a kernel over itself {same['excluded']:.1%} exclude 1 "
               "(goal: 3.5 to 6.5 %)"),
        (planted, f"{planted['found']:.1%} of slowdowns by {planted['slowdown']:.0%} are found (goal: 90 % or more)"),
    ]  # fmt: skip
    if one := document.get("overhead"):
        words = (
            f"the clock adds {one['share']:+.2%} to a call of {one['microseconds']} us (goal: 2 % at most)"
        )
        told.append((one, f"{words}; an empty call reads {1000 * one['empty_call_us']:.0f} ns"))
    if one := document.get("agreement"):
        told.append((one, f"{one['ratio']:.3f} times what torch.utils.benchmark says (goal: within 3 %)"))
    if one := document.get("flops"):
        told.append(
            (one, f"operations by formula {one['formula'][1]:,}, by torch's counter {one['counted'][1]:,}")
        )
    return [("holds   " if one["holds"] else "MISSED  ") + words for one, words in told]
