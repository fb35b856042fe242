"""From rounds to a speed-up: the median of the ratios within rounds, and an interval of 95 %.

In:  two contestants' milliseconds by round.   Out: Ratio(value, low, high).

In each round a coin decides who runs first, so two equal contestants are as likely to be the faster one in
any round, whatever the machine does meanwhile: each ratio lies above or below 1 like a coin. The interval is made
of that and of nothing else: between the k-th smallest and the k-th largest ratio lies the median unless
fewer than k of n coins fell on one side. Between two k the ends are interpolated (Hettmansperger and Sheather
1986, "Confidence intervals based on interpolated order statistics"), which keeps to 95 % for any n from 6 on. A bootstrap
of the median was tried and misses 5 to 9 % where 5 are due, with 6 to 40 rounds: it knows n points only, too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """So many times as fast, from `low` to `high` with a confidence of 95 %."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low > 1 or self.high < 1


def speedup(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """How many times as fast as the baseline, over the rounds that both ran; None if these are too few."""
    logs = [math.log(baseline[number] / ours[number]) for number in ours if number in baseline]
    ends = interval(logs)
    return Ratio(*(math.exp(x) for x in (statistics.median(logs), *ends))) if ends else None


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Where the median of what these were drawn from lies; None where so few can't say (95 %: below 6)."""
    x, n = sorted(values), len(values)
    outside = np.cumsum([math.comb(n, i) for i in range(n // 2 + 1)], dtype=float) / 2.0**n
    holds = (
        1 - 2 * outside
    )  # holds[k - 1]: how surely the median lies between the k-th from below and from above
    enough = int((holds >= level).sum())
    if not enough:
        return None
    k = enough
    if k == n // 2:
        return x[k - 1], x[n - k]
    part = (holds[k - 1] - level) / (holds[k - 1] - holds[k])
    inward = (n - k) * part / (k + (n - 2 * k) * part)
    return (1 - inward) * x[k - 1] + inward * x[k], (1 - inward) * x[n - k] + inward * x[n - k - 1]


def change(
    new: Sequence[float], old: Sequence[float], draws: int = 4000, seed: int = 0
) -> tuple[Ratio, float]:
    """new / old of two runs that no round pairs, by bootstrapping both medians; and how surely it is above 1.

    The interval is about these rounds: what changed in the machine from one run to the other is not in it.
    """
    generator = np.random.default_rng(seed)
    medians = [
        np.median(generator.choice(np.asarray(side), (draws, len(side))), axis=1) for side in (new, old)
    ]
    drawn = medians[0] / medians[1]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = statistics.median(new) / statistics.median(old)
    return Ratio(value, float(low), float(high)), float((drawn > 1).mean() + (drawn == 1).mean() / 2)
