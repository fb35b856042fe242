"""compare.py: against answers that are swapped by hand, its error rates under the null, order."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from minibert import metrics
from minibert.study import compare
from minibert.study.compare import Replicate, corrected_interval, holm, mean_score, paired

TAGS = np.array(["O", "O", "B-a", "I-a", "B-b"], object)


def drawn(kind, rng, n, right=0.7):
    """(truth, answers) of n texts."""
    if kind == "classification":
        truth = rng.integers(4, size=n)
        return truth, np.where(rng.random(n) < right, truth, rng.integers(4, size=n))
    if kind == "regression":
        truth = rng.normal(size=n).round(1)
        return truth, (truth + rng.normal(size=n)).round(1)
    if kind == "multilabel":
        truth = rng.random((n, 3)) < 0.4
        return truth, np.where(rng.random((n, 3)) < right, truth, rng.random((n, 3)) < 0.4)
    truth = [tuple(rng.choice(TAGS, size=rng.integers(1, 6))) for _ in range(n)]
    return truth, [tuple(tag if rng.random() < right else rng.choice(TAGS) for tag in text) for text in truth]


def answered(kind, rng, truth, right=0.7):
    """Other answers to the same texts."""
    if kind == "tokens":
        return [tuple(tag if rng.random() < right else rng.choice(TAGS) for tag in text) for text in truth]
    if kind == "regression":
        return (truth + rng.normal(size=len(truth))).round(1)
    other = drawn(kind, rng, len(truth))[0]
    return np.where(rng.random(truth.shape) < right, truth, other)


def swapped(one, two, coins):
    """The answers of both where those whose coin is 1 changed sides."""
    if isinstance(one, list):
        pairs = [(b, a) if coin else (a, b) for a, b, coin in zip(one, two, coins)]
        return [a for a, _ in pairs], [b for _, b in pairs]
    coins = coins.astype(bool).reshape(-1, *[1] * (one.ndim - 1))
    return np.where(coins, two, one), np.where(coins, one, two)


EVERY = [(kind, name) for kind, table in metrics.METRICS.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_weights_swap_answers_as_hands_do(kind, name):
    """All 2^7 ways to swap: each difference, and the p value that sampling them comes to."""
    rng = np.random.default_rng(3)
    truth, one = drawn(kind, rng, 7)
    two = answered(kind, rng, truth, right=0.4)
    ways = (np.arange(2**7)[:, None] >> np.arange(7)) & 1  # (128, 7)
    groups = {0: (truth, [one])}, {0: (truth, [two])}
    both = {0: list(compare._both(kind, name, truth, [one], [two]))}
    mine = compare._swapped(both, {0: ways.astype(float)})
    hand = []
    for coins in ways:
        a, b = swapped(one, two, coins)
        hand.append(metrics.value(name, truth, a, kind=kind) - metrics.value(name, truth, b, kind=kind))
    assert mine == pytest.approx(hand, abs=1e-12, nan_ok=True)
    exact = np.mean(np.abs(hand) >= abs(hand[0]) - 1e-9)
    got = compare._randomised(kind, name, *groups, 4000, 0)
    assert got == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_one_split_and_one_seed_is_the_bootstrap_of_metrics(kind, name):
    rng = np.random.default_rng(0)
    truth, one = drawn(kind, rng, 120)
    two = answered(kind, rng, truth)
    mine, theirs = [Replicate(truth, one)], [Replicate(truth, two)]
    got = mean_score(kind, name, mine, resamples=800)
    whole = metrics.score(kind, truth, one, names=[name], resamples=800)[name]
    assert (got["n"], got["replicates"]) == (120, 1)
    tolerance = 0.2 * (whole.high - whole.low)
    assert got["value"] == pytest.approx(whole.value, abs=1e-12)
    assert (got["low"], got["high"]) == pytest.approx((whole.low, whole.high), abs=tolerance)
    apart = metrics.difference(kind, truth, one, two, names=[name], resamples=800)[name]
    got = paired(kind, name, mine, theirs, resamples=800, swaps=200)
    tolerance = 0.2 * (apart["high"] - apart["low"])
    assert got["value"] == pytest.approx(apart["value"], abs=1e-12)
    assert (got["low"], got["high"]) == pytest.approx((apart["low"], apart["high"]), abs=tolerance)


def test_the_interval_of_a_mean_is_that_of_its_texts_and_seeds():
    """Seeds that answer alike add nothing; seeds that differ widen the interval as their spread says."""
    rng = np.random.default_rng(1)
    truth, answers = drawn("classification", rng, 400)
    alike = mean_score("classification", "accuracy", [Replicate(truth, answers)] * 5)
    one = mean_score("classification", "accuracy", [Replicate(truth, answers)])
    assert alike["value"] == pytest.approx(one["value"])
    assert alike["high"] - alike["low"] == pytest.approx(one["high"] - one["low"], rel=0.1)
    several = []
    for right in (0.5, 0.6, 0.7, 0.8, 0.9):
        several.append(np.where(np.arange(400) < 400 * right, truth, (truth + 1) % 4))
    got = mean_score("classification", "accuracy", [Replicate(truth, one) for one in several])
    spread = stats.t.ppf(0.975, 4) * np.std([0.5, 0.6, 0.7, 0.8, 0.9], ddof=1) / math.sqrt(5)
    texts = 1.96 * np.mean([np.equal(one, truth) for one in several], axis=0).std() / 20
    half = math.hypot(spread, texts)
    assert got["value"] == pytest.approx(0.7)
    assert (got["high"] - got["low"]) / 2 == pytest.approx(half, rel=0.15)


def test_splits_are_drawn_too():
    rng = np.random.default_rng(2)
    groups = []
    for group, right in enumerate((0.5, 0.9, 0.5, 0.9, 0.7, 0.7)):
        truth = rng.integers(4, size=200 + group)
        groups.append(
            Replicate(truth, np.where(rng.random(len(truth)) < right, truth, (truth + 1) % 4), group)
        )
    got = mean_score("classification", "accuracy", groups)
    points = [float(np.mean(one.truth == one.answers)) for one in groups]
    assert got["value"] == pytest.approx(np.mean(points)) and got["n"] == sum(range(200, 206))
    texts = [p * (1 - p) / 200 for p in points]
    beyond = np.var(points, ddof=1) - np.mean(texts)
    half = math.hypot(stats.t.ppf(0.975, 5) * math.sqrt(beyond / 6), 1.96 * math.sqrt(np.mean(texts) / 6))
    assert (got["high"] - got["low"]) / 2 == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize(
    ("test", "splits", "seeds"),
    [("p_bootstrap", 1, 1), ("p_bootstrap", 1, 3), ("p_bootstrap", 4, 2), ("p_randomisation", 1, 1),
     ("p_randomisation", 1, 2)],
)  # fmt: skip
def test_of_equal_contestants_one_in_twenty_differs(test, splits, seeds):
    """Answers that are right as often, some texts being hard for both: both tests keep to their level."""
    rng, hits, trials = np.random.default_rng(11), 0, 300
    rounds = {"resamples": 200, "swaps": 1} if test == "p_bootstrap" else {"resamples": 1, "swaps": 200}
    for trial in range(trials):
        sides = [], []
        for group in range(splits):
            truth, hard = rng.integers(3, size=80), rng.random(80)
            for side in sides * seeds:
                right = rng.random(80) < 0.4 + 0.5 * hard
                side.append(Replicate(truth, np.where(right, truth, (truth + 1) % 3), group))
        p = paired("classification", "accuracy", *sides, seed=trial, **rounds)[test]
        hits += p <= 0.05
    # 5 % and 3 standard errors of 1.3 %; accuracies come in steps, and ties count against a difference
    assert 0.01 <= hits / trials <= 0.088


def test_seeds_that_differ_are_counted_by_the_bootstrap_alone():
    """Each seed is better or worse at all texts: the randomisation test is about these seeds, the interval is not."""
    rng, hits, trials = np.random.default_rng(12), np.zeros(2), 150
    for trial in range(trials):
        truth = rng.integers(3, size=200)
        skills = rng.normal(0.7, 0.08, size=10)
        answers = [np.where(rng.random(200) < skill, truth, (truth + 1) % 3) for skill in skills]
        sides = [[Replicate(truth, one) for one in answers[i : i + 5]] for i in (0, 5)]
        got = paired("classification", "accuracy", *sides, resamples=150, swaps=150, seed=trial)
        hits += [got["p_bootstrap"] <= 0.05, got["p_randomisation"] <= 0.05]
    assert hits[0] / trials <= 0.12 and hits[1] / trials > 0.3


def test_a_difference_is_found():
    rng = np.random.default_rng(5)
    truth, ours = drawn("classification", rng, 500, right=0.9)
    theirs = answered("classification", rng, truth, right=0.75)
    for name in metrics.METRICS["classification"]:
        sides, few = ([Replicate(truth, ours)], [Replicate(truth, theirs)]), {"resamples": 500, "swaps": 500}
        got, back = (
            paired("classification", name, *sides, **few),
            paired("classification", name, *sides[::-1], **few),
        )
        assert got["low"] > 0 and got["p_bootstrap"] == 2 / 501 and got["p_randomisation"] == 1 / 501
        assert back["value"] == -got["value"] and back["low"] == pytest.approx(-got["high"])


def test_the_same_answers_do_not_differ():
    rng = np.random.default_rng(6)
    for kind, name in EVERY:
        truth, one = drawn(kind, rng, 30)
        got = paired(kind, name, [Replicate(truth, one)], [Replicate(truth, one)], resamples=50, swaps=50)
        assert (got["value"], got["low"], got["high"]) == (0, 0, 0)
        assert got["p_bootstrap"] == got["p_randomisation"] == 1


def test_order_changes_nothing():
    rng = np.random.default_rng(7)
    mine, theirs = [], []
    for group in range(3):
        truth, _ = drawn("regression", rng, 80)
        for _ in range(2):
            mine.append(Replicate(truth, answered("regression", rng, truth), group))
            theirs.append(Replicate(truth, answered("regression", rng, truth), group))
    order = rng.permutation(80)

    def turned(side):
        return [Replicate(one.truth[order], one.answers[order], one.group) for one in reversed(side)]

    got = paired("regression", "pearson", mine, theirs)
    again = paired("regression", "pearson", turned(mine), turned(theirs))
    assert again["value"] == pytest.approx(got["value"], abs=1e-12)
    wide = got["high"] - got["low"]
    for name, near in {
        "low": 0.1 * wide,
        "high": 0.1 * wide,
        "p_bootstrap": 0.06,
        "p_randomisation": 0.04,
    }.items():
        assert again[name] == pytest.approx(got[name], abs=near), name


def test_one_of_theirs_stands_for_all_seeds():
    rng = np.random.default_rng(8)
    truth, _ = drawn("classification", rng, 200)
    ours = [Replicate(truth, answered("classification", rng, truth)) for _ in range(3)]
    other = Replicate(truth, answered("classification", rng, truth))
    once, thrice = (
        paired("classification", "macro_f1", ours, [other] * k, resamples=99, swaps=99) for k in (1, 3)
    )
    assert once == pytest.approx(thrice, abs=1e-12)


def test_what_is_undefined_is_null():
    truth, flat = np.arange(20.0), np.full(20, 0.5)
    for name, other in (("pearson", flat), ("rmse", np.full(20, np.nan))):
        got = paired(
            "regression", name, [Replicate(truth, truth)], [Replicate(truth, other)], resamples=50, swaps=50
        )
        assert {key for key, one in got.items() if one is None} == set(got) - {"n"}
        got = mean_score("regression", name, [Replicate(truth, other)], resamples=50)
        assert got["value"] is got["low"] is got["high"] is None
        json.dumps(got, allow_nan=False)
    one = Replicate(np.array([1]), np.array([1]))
    got = paired("classification", "accuracy", [one], [one])
    assert got["value"] == 0 and got["low"] is got["p_bootstrap"] is got["p_randomisation"] is None


def test_what_does_not_fit_is_refused():
    a, b = np.array([0, 1, 1]), np.array([0, 1, 0])
    with pytest.raises(ValueError, match="no replicate"):
        mean_score("classification", "accuracy", [])
    with pytest.raises(ValueError, match="group 0 were not tested on the same texts"):
        mean_score("classification", "accuracy", [Replicate(a, a), Replicate(b, a)])
    with pytest.raises(ValueError, match="groups differ"):
        paired("classification", "accuracy", [Replicate(a, a)], [Replicate(a, a, 1)])
    with pytest.raises(ValueError, match="the two were not tested on the same texts"):
        paired("classification", "accuracy", [Replicate(a, a)], [Replicate(b, a)])
    with pytest.raises(ValueError, match="3 replicates of ours and 2 of theirs"):
        paired("classification", "accuracy", [Replicate(a, a)] * 3, [Replicate(a, a)] * 2)
    with pytest.raises(ValueError, match="2 classes"):
        mean_score("classification", "accuracy", [Replicate(a, a + 1)], num_classes=2)


def test_holm_adjusts_as_he_says():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, None, 0.5]) == [0.04, None, 0.5]
    assert holm([]) == [] and holm([None]) == [None] and holm([0.7, 0.8]) == [1, 1]


def test_holm_keeps_families_to_their_level():
    """Ten true nulls: without correction 40 % of the families find something."""
    families = np.random.default_rng(0).random((4000, 10))
    found = np.mean([min(holm(family)) <= 0.05 for family in families])
    assert 0.04 <= found <= 0.06 and np.mean(families.min(axis=1) <= 0.05) > 0.35


def test_repeated_splits_take_the_corrected_interval():
    differences, share = [0.02, 0.05, -0.01, 0.04, 0.03], 0.25
    got = corrected_interval(differences, share)
    error = np.std(differences, ddof=1) * math.sqrt(1 / 5 + 1 / 3)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(differences), scale=error)
    assert (got["value"], got["low"], got["high"]) == pytest.approx((np.mean(differences), low, high))
    assert got["p"] == pytest.approx(2 * stats.t.sf(np.mean(differences) / error, 4))
    assert got["low"] < stats.t.interval(0.95, 4, np.mean(differences), stats.sem(differences))[0]
    assert corrected_interval([0.1], share) == {"value": 0.1, "low": None, "high": None, "p": None}
    assert corrected_interval([0.1, 0.1], share)["p"] == 0 and corrected_interval([0, 0], share)["p"] == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        corrected_interval(differences, 25)


def test_splits_that_share_texts_keep_to_their_level():
    """Equal contestants, five divisions that test a quarter each; whether an answer is right lies mostly in its text."""
    rng, hits, trials = np.random.default_rng(4), 0, 600
    for _ in range(trials):
        sides, gaps = rng.random((2, 400)) < 0.75, []
        for _ in range(5):
            again = np.where(rng.random((2, 400)) < 0.1, rng.random((2, 400)) < 0.75, sides)
            ours, theirs = again[:, rng.permutation(400)[:100]].mean(axis=1)
            gaps.append(ours - theirs)
        hits += corrected_interval(gaps, 0.25)["p"] <= 0.05
    assert 0.02 <= hits / trials <= 0.08


def test_texts_can_be_left_out():
    truth, answers = np.array([0, 1, 2, 2]), np.array([0, 0, 0, 2])
    (left,) = compare.without([Replicate(truth, answers, "a")], [1, 2])
    assert left.truth.tolist() == left.answers.tolist() == [0, 2] and left.group == "a"
    (left,) = compare.without([Replicate([("O",), ("B-a",)], [("O",), ("O",)])], {1})
    assert left.truth == left.answers == [("O",)]
