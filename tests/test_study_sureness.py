"""sureness.py: calibration, surest answers, doubtful labels."""

import json

import numpy as np
import pytest

from minibert.study.sureness import calibration, calibration_line, noise_suspects, selective

from .study_parts import answered


def test_the_calibration_error_counted_by_hand():
    """Two bins: 4 answers of 0.6 of which 3 are right, 4 of 0.9 of which 2 are right."""
    probabilities = np.array([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 4)
    truth = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    got = calibration(probabilities, truth, bins=2)
    assert [(b["n"], b["confidence"], b["accuracy"]) for b in got["bins"]] == [
        (4, pytest.approx(0.6), 0.75), (4, pytest.approx(0.9), 0.5)]  # fmt: skip
    assert got["ece"]["value"] == pytest.approx((0.15 + 0.4) / 2) and got["ece"]["n"] == 8
    assert got["surplus"] == pytest.approx(0.75 - 5 / 8)
    assert got["binning"] == "equal mass"
    json.dumps(got, allow_nan=False)


def test_of_true_probabilities_one_in_twenty_errors_is_above_chance():
    rng, above, trials = np.random.default_rng(0), 0, 100
    for seed in range(trials):
        truth = rng.integers(3, size=300)
        got = calibration(answered(rng, truth), truth, resamples=400, seed=seed)
        above += got["ece"]["value"] > got["by_chance"]["high"]
        assert len(got["bins"]) == 10 and {b["n"] for b in got["bins"]} == {30}
    assert above <= 12


def test_too_sure_answers_are_seen():
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=500)
    probabilities = answered(rng, truth) ** 4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    got = calibration(probabilities, truth)
    assert got["ece"]["low"] > got["by_chance"]["high"] and got["surplus"] > 0.1
    assert got["ece"]["low"] <= got["ece"]["value"] <= got["ece"]["high"]


def test_several_labels_are_each_an_answer_and_texts_are_drawn():
    rng = np.random.default_rng(2)
    probabilities = np.repeat(rng.random((50, 1)), 4, axis=1)
    truth = np.repeat(rng.random((50, 1)) < probabilities[:, :1], 4, axis=1)
    got = calibration(probabilities, truth)
    assert got["ece"]["n"] == 50 and sum(b["n"] for b in got["bins"]) == 200
    once = calibration(np.c_[probabilities[:, :1]], truth[:, :1])
    assert got["ece"] == pytest.approx(once["ece"]), "four copies of a column are no more texts"


def test_the_same_sureness_for_all_is_one_bin():
    got = calibration(np.tile([0.7, 0.3], (10, 1)), np.zeros(10, int))
    assert len(got["bins"]) == 1 and got["bins"][0]["from"] == got["bins"][0]["to"] == 0.7
    empty = calibration(np.zeros((0, 3)), np.zeros(0, int))
    assert empty["bins"] == [] and empty["ece"]["value"] is None
    with pytest.raises(ValueError, match="must be"):
        calibration(np.zeros((3, 2)), np.zeros(4, int))


def test_order_changes_nothing():
    rng = np.random.default_rng(3)
    truth = rng.integers(3, size=200)
    probabilities = answered(rng, truth).round(2)  # with ties
    order = rng.permutation(200)
    one, two = (calibration(probabilities[i], truth[i]) for i in (slice(None), order))
    assert one["ece"]["value"] == pytest.approx(two["ece"]["value"])
    assert [b["n"] for b in one["bins"]] == [b["n"] for b in two["bins"]]
    one, two = (selective(probabilities[i], truth[i]) for i in (slice(None), order))
    assert one["area"] == pytest.approx(two["area"])
    assert [p["accuracy"] for p in one["curve"]] == pytest.approx([p["accuracy"] for p in two["curve"]])


def test_the_line_of_values():
    rng = np.random.default_rng(4)
    truth = rng.normal(5, 1, size=400)
    got = calibration_line(truth, 5 + 2 * (truth - 5) + 0.01 * rng.normal(size=400))
    assert got["slope"]["value"] == pytest.approx(0.5, abs=0.01) and got["n"] == 400
    assert got["intercept"]["value"] == pytest.approx(2.5, abs=0.05)
    slope, intercept = np.polyfit(truth**2, truth, 1)
    got = calibration_line(truth, truth**2)
    assert (got["slope"]["value"], got["intercept"]["value"]) == pytest.approx((slope, intercept))
    assert got["slope"]["low"] < slope < got["slope"]["high"]
    assert calibration_line(truth, np.ones(400))["slope"] == {"value": None, "low": None, "high": None}
    assert calibration_line(np.zeros(0), np.zeros(0))["intercept"]["value"] is None


def test_the_surest_answers_first():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
    got = selective(probabilities, np.array([0, 1, 1, 0]))
    assert [(p["coverage"], p["accuracy"], p["least"]) for p in got["curve"]] == [
        (0.25, 1, 0.9), (0.5, 1, 0.8), (0.75, pytest.approx(2 / 3), 0.7), (1, 0.75, 0.6)]  # fmt: skip
    assert got["area"] == pytest.approx(np.mean([1, 1, 2 / 3, 0.75])) and got["accuracy"] == 0.75
    flat = selective(np.tile([0.7, 0.3], (200, 1)), np.arange(200) % 2)
    assert {p["accuracy"] for p in flat["curve"]} == {0.5} and len(flat["curve"]) == 50
    assert selective(np.zeros((0, 2)), np.zeros(0, int))["area"] is None


def test_labels_that_all_seeds_contradict():
    rng = np.random.default_rng(5)
    truth = rng.integers(3, size=300)
    seeds = []
    for _ in range(3):
        found = np.full((300, 3), 0.02)
        found[np.arange(300), truth] = 0.96 - 0.01 * rng.random(300)
        seeds.append(found)
    labels = truth.copy()
    wrong = rng.choice(300, size=15, replace=False)
    labels[wrong] = (truth[wrong] + 1) % 3
    labels[wrong[0]] = -1  # a label that train lacks
    seeds[1][wrong[1]] = [0.34, 0.33, 0.33]  # one seed is in doubt
    got = noise_suspects(seeds, labels, 1000 + np.arange(300))
    assert {one["place"] for one in got["texts"]} == set(wrong[2:].tolist())
    assert (got["count"], got["seeds"], got["n"]) == (13, 3, 300)
    sure = [one["probability"] for one in got["texts"]]
    assert sure == sorted(sure, reverse=True)
    assert all(
        one["row"] == 1000 + one["place"] and one["said"] == truth[one["place"]] for one in got["texts"]
    )
    json.dumps(got, allow_nan=False)
    assert noise_suspects(seeds, truth, np.arange(300))["count"] == 0
    with pytest.raises(ValueError, match="do not fit"):
        noise_suspects(seeds, truth[:4], np.arange(4))
