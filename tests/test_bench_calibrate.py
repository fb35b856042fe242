"""That the calibration measures what it says; its numbers are a quiet machine's business."""

from __future__ import annotations

import time

import pytest

from minibert.bench import calibrate
from minibert.bench.calibrate import slowed


def test_a_planted_slowdown_is_as_large_as_it_says(monkeypatch):
    monkeypatch.setattr(calibrate, "SLOWDOWN", 0.5)
    times = []
    for call in (calibrate.spin, slowed(calibrate.spin)):
        found = []
        for _ in range(50):
            start = time.perf_counter_ns()
            call()
            found.append(time.perf_counter_ns() - start)
        times.append(min(found))
    assert times[1] / times[0] == pytest.approx(1.5, abs=0.05)


@pytest.mark.slow
def test_it_counts_what_it_compares_and_says_what_holds(monkeypatch):
    monkeypatch.setattr(calibrate, "ROUNDS", 6)
    monkeypatch.setattr(calibrate, "TOKENS", 32)
    monkeypatch.setattr(calibrate, "SLOWDOWN", 5.0)
    monkeypatch.setattr(
        calibrate, "agreement", lambda kernel, case: {"ratio": 1.2, "ratios": [1.2], "holds": False}
    )
    monkeypatch.setattr(calibrate, "overhead", lambda: {"microseconds": 50, "share": 0.001, "empty_call_us": 0.1,
                                                        "holds": True})  # fmt: skip
    found = calibrate.run("sdpa", comparisons=4)
    assert found["same"]["comparisons"] == 4 and found["planted"]["found"] == 1
    assert found["flops"]["holds"] and found["flops"]["formula"][0] > 0
    told = calibrate.lines(found)
    assert len(told) == 5 and told[3].startswith("MISSED") and told[4].startswith("holds")


@pytest.mark.slow
def test_the_clock_adds_next_to_nothing():
    """The least of some tries: what else runs on a machine only adds."""
    assert min(calibrate.overhead(30)["share"] for _ in range(6)) <= 0.02
