"""The harness: who is timed, on what, in which order, and what comes of those that fail."""

from __future__ import annotations

import gc
import math
import time

import pytest
import torch

from minibert.bench import clock
from minibert.bench.clock import LEAST, Contestant, race


def spin(ms):
    """A call that lasts so long, whatever the machine's speed."""

    def call():
        until = time.perf_counter_ns() + ms * 1e6
        while time.perf_counter_ns() < until:
            pass

    return call


def test_all_get_fresh_inputs_each_round_and_a_random_order():
    seen = []

    def contestant(name):
        def prepare(inputs):
            seen.append((inputs, name))
            return spin(0.2)

        return Contestant(name, prepare)

    timed = race([contestant("a"), contestant("b")], lambda number: number, rounds=12, warm=0)
    assert seen[:2] == [(0, "a"), (0, "b")]  # the warm-up
    orders = [tuple(name for inputs, name in seen if inputs == number) for number in range(1, 13)]
    assert set(orders) == {("a", "b"), ("b", "a")}
    assert all(list(one.rounds) == list(range(12)) and one.problem is None for one in timed.values())


def test_what_is_told_is_ms_a_call():
    def prepare(inputs):
        time.sleep(0.002)  # isn't timed
        return spin(0.25)

    timed = race([Contestant("a", prepare)], lambda number: None, rounds=6, warm=0.01)["a"]
    assert timed.calls in (3, 4, 5)
    assert min(timed.rounds.values()) == pytest.approx(0.25, rel=0.02)
    assert timed.spent > 6 * 0.002


def test_one_that_fails_is_kept_with_its_problem_and_the_others_go_on():
    def prepare(inputs):
        if inputs == 3:
            raise ValueError("round 3")
        return spin(0.1)

    timed = race(
        [Contestant("bad", prepare), Contestant("good", lambda inputs: spin(0.1))],
        lambda number: number,
        rounds=6,
        warm=0,
    )
    assert str(timed["bad"].problem) == "round 3" and list(timed["bad"].rounds) == [0, 1]
    assert timed["good"].problem is None and len(timed["good"].rounds) == 6


def test_time_ends_it_but_not_before_an_interval_exists():
    one = Contestant("a", lambda inputs: spin(5))
    assert len(race([one], lambda number: None, rounds=50, seconds=0, warm=0)["a"].rounds) == LEAST


def test_the_first_call_and_the_collector():
    told = []

    def prepare(inputs):
        calls = iter([20])

        def call():
            told.append(gc.isenabled())
            spin(next(calls, 0.1))()

        return call

    timed = race([Contestant("a", prepare)], lambda number: None, rounds=6, warm=0)["a"]
    assert timed.first >= 0.02 and not any(told) and gc.isenabled()


def test_a_flush_goes_before_every_timed_call(monkeypatch):
    happened = []
    monkeypatch.setattr(clock, "sweeper", lambda device: lambda: happened.append("flush"))
    one = Contestant("a", lambda inputs: lambda: happened.append("call"))
    race([one], lambda number: None, rounds=6, warm=0, flush=True)
    after_warming = happened[
        happened.index("flush") - 1 :
    ]  # each round: one call that isn't timed, then samples
    assert after_warming == ["call", *["flush", "call"] * clock.SAMPLES] * 6


def test_the_sweep_is_larger_than_the_cache(monkeypatch):
    monkeypatch.setattr(clock, "last_level_cache", lambda: 2**20)
    buffer = clock.sweeper(torch.device("cpu"))()
    assert buffer.numel() * buffer.element_size() == 2 * 2**20


@pytest.mark.gpu
def test_a_cards_clock():
    x = torch.ones(2**22, device="cuda")
    one = Contestant("a", lambda inputs: lambda: x.add_(1))
    timed = race([one], lambda number: None, device="cuda", rounds=6)["a"]
    assert timed.problem is None and all(0 < ms < 100 and math.isfinite(ms) for ms in timed.rounds.values())
