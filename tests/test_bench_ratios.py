"""Intervals that hold what they promise: on made rounds with the noise that machines have."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.bench.ratios import change, interval, speedup


def rounds(generator, n, slowdown=1.0):
    """Two contestants on a noisy machine: a drift that both share, a penalty for who is first, and stolen time."""
    drift = np.exp(np.cumsum(generator.normal(0, 0.03, n)))
    first = generator.random(n) < 0.5
    sides = []
    for side in (0, 1):
        noise = np.exp(generator.normal(0, 0.02, n)) + (generator.random(n) < 0.1) * generator.exponential(
            0.5, n
        )
        penalty = 1 + 0.03 * (first if side else ~first)
        sides.append(dict(enumerate(drift * noise * penalty * (slowdown if side else 1))))
    return sides


@pytest.mark.parametrize("n", [6, 15, 21, 30])
def test_of_equal_contestants_five_percent_seem_to_differ(n):
    generator = np.random.default_rng(n)
    found = sum(speedup(*rounds(generator, n)).differs for _ in range(4000))
    assert 0.035 <= found / 4000 <= 0.065


def test_a_planted_slowdown_is_found():
    generator = np.random.default_rng(1)
    found = [speedup(b, a) for a, b in (rounds(generator, 30, 1.05) for _ in range(500))]
    assert sum(one.high < 1 for one in found) / 500 >= 0.9
    assert np.median([one.value for one in found]) == pytest.approx(1 / 1.05, rel=0.01)


def test_only_rounds_that_both_ran_count_and_few_say_nothing():
    base = dict.fromkeys(range(10), 2.0)
    assert speedup({n: 1.0 for n in range(4, 20)}, base).value == 2.0
    assert speedup({n: 1.0 for n in range(5, 20)}, base) is None
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_the_ends_lie_between_ordered_values():
    # of 20 coins fewer than 6 fall on one side in 4.1 % (of 7: 11.5 %): the ends lie between the 6th and the 7th
    low, high = interval(list(range(1, 21)))
    assert 6 < low < 7 and low + high == pytest.approx(21)


def test_two_runs_are_compared_without_pairs():
    generator = np.random.default_rng(0)
    old, slow, same = (x * np.exp(generator.normal(0, 0.02, 30)) for x in (1.0, 1.1, 1.0))
    ratio, sure = change(slow, old)
    assert ratio.low > 1.05 and ratio.high < 1.15 and sure == 1
    ratio, sure = change(same, old)
    assert ratio.low < 1 < ratio.high and 0.02 < sure < 0.98
