"""levels.py: what needs no reading, and the scores of subgroups."""

import json
import math

import numpy as np
import pytest

from minibert import metrics
from minibert.study.compare import Replicate, mean_score
from minibert.study.levels import chance, subgroups


def test_the_commonest_answer_counted_by_hand():
    truth, answers = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    got = chance("classification", ["accuracy"], truth, answers, np.array([1, 1, 1, 0]), 3)
    assert got["metrics"]["accuracy"]["majority"] == 0.25 and got["metrics"]["accuracy"]["value"] == 0.75
    assert (got["alike"], got["most"], got["n"], got["constant"]) == (0.5, 0.5, 4, False)
    got = chance(
        "regression", ["rmse", "r2"], np.array([1.0, 3.0]), np.array([1.0, 2.0]), np.array([2.0, 4.0])
    )
    assert got["metrics"]["rmse"]["majority"] == pytest.approx(math.sqrt((2**2 + 0) / 2))
    many = np.array([[True, False], [True, True]])
    got = chance("multilabel", ["exact"], many, many, np.array([[True, False], [True, True], [False, False]]))
    assert got["metrics"]["exact"]["majority"] == 0.5
    tags = [("O", "B-a"), ("O",)]
    got = chance("tokens", ["accuracy"], tags, tags, [("O", "O", "B-a")])
    assert got["metrics"]["accuracy"]["majority"] == pytest.approx(2 / 3)


def test_shuffled_answers_reach_what_chance_should():
    """Of independent answers accuracy is the sum of the products of shares."""
    rng = np.random.default_rng(0)
    truth, answers = rng.integers(4, size=400), rng.integers(2, size=400)
    got = chance("classification", ["accuracy", "macro_f1"], truth, answers, truth, 4)["metrics"]["accuracy"]
    shares = [np.bincount(x, minlength=4) / 400 for x in (truth, answers)]
    assert got["chance"] == pytest.approx(shares[0] @ shares[1], abs=0.003)
    assert got["low"] < got["chance"] < got["high"]


def test_a_network_that_learned_shuffled_labels_is_at_chance():
    """Its interval covers chance, and its p value is below 0.05 in 1 of 20."""
    rng, covered, found, trials = np.random.default_rng(1), 0, 0, 100
    for trial in range(trials):
        truth, answers = rng.integers(3, size=150), rng.integers(3, size=150)
        got = chance("classification", ["accuracy"], truth, answers, truth, 3, 199, trial)["metrics"][
            "accuracy"
        ]
        mine = mean_score("classification", "accuracy", [Replicate(truth, answers)], 3, 300, trial)
        covered += mine["low"] <= got["chance"] <= mine["high"]
        found += got["p"] <= 0.05
    assert covered >= 0.88 * trials and found <= 0.12 * trials


@pytest.mark.parametrize("kind", metrics.METRICS)
def test_what_was_learned_is_no_chance(kind):
    rng = np.random.default_rng(2)
    truth = {
        "classification": rng.integers(3, size=40),
        "regression": rng.normal(size=40),
        "multilabel": rng.random((40, 3)) < 0.5,
        "tokens": [tuple(rng.choice(["O", "B-a", "B-b"], size=5)) for _ in range(40)],
    }[kind]
    got = chance(kind, list(metrics.METRICS[kind]), truth, truth, truth, shuffles=99)
    assert {one["p"] for one in got["metrics"].values()} == {0.01} and not got["constant"]
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("kind", metrics.METRICS)
def test_a_constant_answer_is_seen(kind):
    rng = np.random.default_rng(3)
    n = 60
    truth, answers = {
        "classification": (rng.integers(3, size=n), np.zeros(n, int)),
        "regression": (rng.normal(size=n), 0.5 + 1e-4 * rng.normal(size=n)),
        "multilabel": (rng.random((n, 3)) < 0.5, np.zeros((n, 3), bool)),
        "tokens": ([tuple(rng.choice(["O", "N"], size=4)) for _ in range(n)], [("O",) * 4] * n),
    }[kind]
    assert chance(kind, [], truth, answers, truth)["constant"]
    assert not chance(kind, [], truth, truth, truth)["constant"]


def test_the_same_truth_for_all_makes_the_same_answer_right():
    zeros = np.zeros(30, int)
    assert not chance("classification", ["accuracy"], zeros, zeros, zeros)["constant"]
    assert not chance("regression", ["rmse"], np.zeros(30), np.zeros(30), np.zeros(30))["constant"]
    rare = np.r_[np.zeros(95, int), np.ones(5, int)]
    almost = rare.copy()
    almost[95:98] = 0  # 98 % alike, where 95 % of the truth is
    assert not chance("classification", ["accuracy"], rare, almost, rare)["constant"]


def test_undefined_metrics_are_null():
    got = chance("regression", ["pearson"], np.arange(9.0), np.ones(9), np.arange(9.0), shuffles=20)
    assert set(got["metrics"]["pearson"].values()) == {None}


def test_a_subgroup_that_is_worse_is_found_and_others_are_not():
    rng = np.random.default_rng(4)
    truth = rng.integers(3, size=600)
    values = rng.choice(["north", "south", "east", ""], size=600)
    right = rng.random(600) < np.where(values == "south", 0.55, 0.85)
    answers = np.where(right, truth, (truth + 1) % 3)
    got = subgroups("classification", "accuracy", truth, answers, values, 3)
    worse = [row for row in got["groups"] if row["p"] < 0.05 and row["difference"]["value"] < 0]
    assert [row["value"] for row in worse] == ["south"], "to which the others are compared, too"
    assert worse[0]["p"] == pytest.approx(4 * 2 / 2001), "no difference is larger, and there are four groups"
    for row in got["groups"]:
        mine = values == row["value"]
        assert row["n"] == mine.sum() == row["score"]["n"]
        points = np.mean(right[mine]), np.mean(right[~mine])
        assert row["score"]["value"] == pytest.approx(points[0])
        assert row["difference"]["value"] == pytest.approx(points[0] - points[1])
        assert row["difference"]["low"] < row["difference"]["value"] < row["difference"]["high"]
    assert got["merged"] is None and got["score"]["value"] == pytest.approx(right.mean())
    json.dumps(got, allow_nan=False)


def test_small_subgroups_are_one():
    values = ["big"] * 50 + [f"small {i // 2}" for i in range(10)]
    truth = np.arange(60.0)
    got = subgroups("regression", "mae", truth, truth + 1, values, resamples=50)
    assert [(row["value"], row["n"]) for row in got["groups"]] == [("big", 50), (None, 10)]
    assert got["merged"] == {"groups": 5, "n": 10}
    many = subgroups(
        "regression", "mae", truth, truth, [str(i // 2) for i in range(60)], least=2, resamples=5
    )
    assert len(many["groups"]) == 21 and many["merged"] == {"groups": 10, "n": 20}
    with pytest.raises(ValueError, match="60 texts and 3 cells"):
        subgroups("regression", "mae", truth, truth, ["a"] * 3)


def test_one_group_of_all_texts_has_no_other_to_differ_from():
    tags = [("O", "B-a")] * 30
    got = subgroups("tokens", "entity_f1", tags, tags, ["one"] * 30, resamples=20)
    (row,) = got["groups"]
    assert row["score"]["value"] == 1 and row["p"] is None and row["difference"]["value"] is None
