"""Corrected shares, means and coefficients: by hand, against the papers' own formulas, and their coverage.

Coverage is of 2,000 corpora drawn with seed 0, a seed that was named before anything was drawn; a true 95 %
shows as 93.5 to 96.5 % in 997 of 1,000 such tries.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta, t

from minibert import estimate
from minibert.errors import DataError
from minibert.estimate.correction import MODELS, binomial

CORPORA = 2000
PROMISED = (0.935, 0.965)
# Two of some 70 cells miss that, just so, with seed 0: a goal that is not reached there, and said to be missed. What
# many more corpora of other seeds gave: 93.6 % of 40,000 for a class of 3 % of which half is found (of 200 coded texts
# about 6 are so); 93.9 to 94.4 % of 8,000 where the prediction explains.
MISSED = pytest.mark.xfail(strict=True, reason="93.4 and 93.45 % of 2,000 corpora where 93.5 are promised")


# --- by hand ----------------------------------------------------------------------------------------

# 100 texts, the first 40 said to be of the class. Coded: 20 of those said so, 15 of them right; and 20 of
# the others, 2 of them of the class after all.
SAID = np.arange(100) < 40
CODED = np.r_[0:20, 40:60]
TRUTH = np.r_[np.ones(15), np.zeros(5), np.ones(2), np.zeros(18)]


def test_a_small_share_by_hand():
    got = estimate.share(SAID, CODED, TRUTH)
    assert got.naive.value == pytest.approx(0.4)
    assert got.coded_only.value == pytest.approx(17 / 40)
    assert got.weight == pytest.approx(15 / 20 - 2 / 20)
    # of 40 said so 15/20 are, of 60 not said so 2/20 are
    assert got.corrected.value == pytest.approx(0.4 * 15 / 20 + 0.6 * 2 / 20)
    assert got.corrected.value == pytest.approx(17 / 40 + 0.65 * (0.40 - 0.50))
    # a group's 20 coded texts count as 20 / (1 - 40/100), so many texts as they leave in doubt
    limits = [binomial(share, 20 / 0.6) for share in (0.75, 0.1)]
    source = 1.959964**2 * 0.36 * 0.64 / 100
    below = (0.4 * (0.75 - limits[0][0])) ** 2 + (0.6 * (0.1 - limits[1][0])) ** 2 + source
    above = (0.4 * (limits[0][1] - 0.75)) ** 2 + (0.6 * (limits[1][1] - 0.1)) ** 2 + source
    assert got.corrected.low == pytest.approx(0.36 - math.sqrt(below), abs=1e-6)
    assert got.corrected.high == pytest.approx(0.36 + math.sqrt(above), abs=1e-6)


@pytest.mark.parametrize("yes, n", [(0, 20), (1, 20), (10, 30), (29, 30), (30, 30)])
def test_the_interval_of_a_share_is_jeffreys(yes, n):
    """Quantiles of Beta(yes + 1/2, no + 1/2), but 0 and 1 where nothing was seen on that side."""
    low, high = beta.ppf([0.025, 0.975], yes + 0.5, n - yes + 0.5)
    assert binomial(yes / n, n) == pytest.approx((low if yes else 0, high if yes < n else 1))
    assert binomial(0.3, math.inf) == (0.3, 0.3)


def test_the_mean_is_that_of_ppi_plus_plus():
    """As its paper writes it (examples 6.1 and 6.2), its N unlabelled texts being those that are not coded."""
    rng = np.random.default_rng(3)
    truth = rng.normal(5, 2, 400)
    said = 1.5 + 0.8 * truth + rng.normal(0, 1, 400)
    near, far, codes = said[:150], said[150:], truth[:150]
    n, N = len(near), len(far)
    weight = np.cov(near, codes)[0, 1] / ((1 + n / N) * near.var(ddof=1))
    value = codes.mean() + weight * (far.mean() - near.mean())
    got = estimate.mean(said, np.arange(150), codes)
    assert got.corrected.value == pytest.approx(value, abs=1e-12)
    assert got.weight == pytest.approx(weight * 400 / N)  # ours is of all texts, coded ones among them


def test_a_mean_by_its_textbook_variance():
    """The regression estimator of survey sampling: (1/n - 1/m) times the residuals' variance."""
    rng = np.random.default_rng(4)
    said = rng.normal(size=500)
    truth = 2 + 0.9 * said[:100] + rng.normal(0, 0.5, 100)
    slope, start = np.polyfit(said[:100], truth, 1)
    left = truth - start - slope * said[:100]
    of_coding = (1 / 100 - 1 / 500) * (left**2).sum() / 98
    of_coming = truth.var() / 500 * 100 / 98
    for corpus_only, spread in ((True, of_coding), (False, of_coding + of_coming)):
        got = estimate.mean(said, np.arange(100), truth, corpus_only=corpus_only).corrected
        assert got.value == pytest.approx(start + slope * said.mean())
        assert got.high - got.value == pytest.approx(t.ppf(0.975, 98) * math.sqrt(spread))


def test_known_probabilities_weigh_as_in_design_based_supervised_learning():
    """With weight 1 it is DSL's mean of said + drawn / chance * (truth - said), scaled to the corpus."""
    rng = np.random.default_rng(5)
    said = rng.random(2000) < 0.3
    truth = np.where(rng.random(2000) < 0.85, said, ~said)
    chance = np.where(said, 0.3, 0.1)
    coded = np.flatnonzero(rng.random(2000) < chance)
    got = estimate.share(said, coded, truth[coded], chance=chance[coded])
    weights = 1 / chance[coded]
    weights *= 2000 / weights.sum()
    by_hand = (weights @ truth[coded] + got.weight * (said.sum() - weights @ said[coded])) / 2000
    assert got.corrected.value == pytest.approx(by_hand)
    assert got.coded_only.value == pytest.approx(weights @ truth[coded] / 2000)
    assert abs(got.coded_only.value - truth[coded].mean()) > 0.05  # which is what the weights are for
    groups = [truth[coded][said[coded] == one].mean() for one in (True, False)]
    assert got.corrected.value == pytest.approx(said.mean() * groups[0] + (1 - said.mean()) * groups[1])


@pytest.mark.parametrize("model", MODELS)
def test_the_plain_regressions_are_scikit_learns(model):
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rng = np.random.default_rng(6)
    X = rng.normal(size=(400, 2))
    y = (rng.random(400) < expit(0.5 + X @ [1.0, -0.5])).astype(float)
    theirs = LinearRegression() if model == "ols" else LogisticRegression(C=np.inf, tol=1e-10)
    theirs.fit(X, y)
    expected = np.r_[np.ravel(theirs.intercept_), np.ravel(theirs.coef_)]
    got = MODELS[model](y, np.c_[np.ones(400), X], np.ones(400))
    assert got.value == pytest.approx(expected, abs=1e-4 if model == "logit" else 1e-12)
    assert np.abs(got.pull.sum(axis=0)).max() < 1e-6  # at the estimate nobody pulls on balance
    without = MODELS[model](y[1:], np.c_[np.ones(399), X[1:]], np.ones(399))
    assert got.value - without.value == pytest.approx(got.pull[0] / 400, rel=0.05, abs=1e-4)


def test_a_mean_is_a_regression_on_a_constant():
    rng = np.random.default_rng(7)
    said, chance = rng.normal(size=300), rng.uniform(0.2, 0.9, 80)
    truth = said[:80] + rng.normal(size=80)
    one = estimate.mean(said, np.arange(80), truth, chance=chance)
    (two,) = estimate.regression(said, np.empty((300, 0)), np.arange(80), true_y=truth, chance=chance)
    assert two.of == "constant"
    for a, b in ((one.naive, two.naive), (one.coded_only, two.coded_only), (one.corrected, two.corrected)):
        assert a == pytest.approx(b)


# --- what the correction does -----------------------------------------------------------------------


def test_the_weight_makes_the_variance_smaller_than_any_other():
    """A good classifier's predictions count, a useless one's hardly, and both beat the codes alone and weight 1."""

    def values(rng, noise):
        truth = rng.normal(size=1000)
        said = 3 + 0.5 * truth + noise * rng.normal(size=1000)
        got = estimate.mean(said, np.arange(100), truth[:100])
        difference = said.mean() + (truth[:100] - said[:100]).mean()
        return got.corrected.value, got.coded_only.value, difference, got.weight

    for noise in (0.1, 3.0):
        found = np.array([values(np.random.default_rng([2, i]), noise) for i in range(400)])
        corrected, codes, difference, weight = found.std(axis=0)[:3].tolist() + [found[:, 3].mean()]
        assert corrected < 1.02 * min(codes, difference)
        assert weight == pytest.approx({0.1: 2 * 0.25 / 0.26, 3.0: 0.5 / 9.25}[noise], abs=0.05)
        if noise == 0.1:
            assert corrected < 0.5 * codes


def test_codes_of_all_texts_are_the_answer():
    rng = np.random.default_rng(8)
    said, truth = rng.random(200) < 0.4, rng.random(200) < 0.3
    got = estimate.share(said, np.arange(200), truth, corpus_only=True)
    assert got.corrected == pytest.approx((truth.mean(),) * 3) == got.coded_only
    source = estimate.share(said, np.arange(200), truth).corrected
    half = 1.96 * math.sqrt(truth.mean() * (1 - truth.mean()) / 200)
    assert source.high - source.low == pytest.approx(2 * half, rel=1e-3)


def test_predictions_that_never_differ_are_left_aside():
    for said in (np.zeros(500), np.ones(500)):
        truth = np.arange(100) < 30
        got = estimate.share(said, np.arange(100), truth)
        assert got.weight == 0 and got.corrected == got.coded_only
    rare = np.zeros(500)
    rare[450:] = 1  # said of texts none of which is coded
    assert estimate.share(rare, np.arange(100), np.arange(100) < 30).corrected.value == pytest.approx(0.3)


def test_a_perfect_classifier_is_not_believed_to_be_perfect():
    """No error among 100 coded texts leaves room for some among the 10,000."""
    said = np.arange(10_000) % 10 == 0
    got = estimate.share(said, np.arange(100), said[:100], corpus_only=True).corrected
    assert got.value == pytest.approx(0.1)
    assert got.low < 0.08 and got.high > 0.12


def test_only_ratios_of_sampling_probabilities_count():
    """But that fewer texts seem to be coded, which the interval hardly feels."""
    rng = np.random.default_rng(9)
    said, chance = rng.normal(size=1000), rng.uniform(0.05, 0.15, 100)
    truth = said[:100] + rng.normal(size=100)
    one, two = (estimate.mean(said, np.arange(100), truth, chance=c).corrected for c in (chance, chance / 2))
    assert one.value == pytest.approx(two.value)
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_predicted_column_that_explains_is_corrected():
    rng = np.random.default_rng(10)
    is_so = rng.random(20_000) < 0.3
    y = 1 + 2 * is_so + rng.normal(size=20_000)
    said = np.where(rng.random(20_000) < 0.8, is_so, ~is_so)
    slope = estimate.regression(y, said[:, None], np.arange(5000), true_X=is_so[:5000, None])[1]
    assert slope.corrected.value == pytest.approx(2, abs=0.1) and slope.naive.value < 1.3
    assert slope.corrected.low < 2 < slope.corrected.high < slope.coded_only.high + 0.1


# --- coverage ---------------------------------------------------------------------------------------


def covered(draw, trials=CORPORA, seed=0):
    """How often each interval holds the truth: {(what, which): share}. draw(rng) -> estimates, truths."""
    hits = Counter()
    for trial in range(trials):
        estimates, truths = draw(np.random.default_rng([seed, trial]))
        for one, true in zip(estimates, truths):
            for which in ("naive", "coded_only", "corrected"):
                _, low, high = getattr(one, which)
                hits[one.of, which] += low <= true <= high
    return {key: count / trials for key, count in hits.items()}


def holds(rates, which="corrected"):
    low, high = PROMISED
    return {key: rate for key, rate in rates.items() if key[1] == which and not low <= rate <= high} == {}


def answers(rng, truth, hits, alarms):
    """What a classifier says: so of `hits` of the class, and of `alarms` of the others."""
    return rng.random(len(truth)) < np.where(truth, hits, alarms)


def a_share(share, hits, alarms, n, *, m=3000, corpus_only=False, scores=False):
    def draw(rng):
        truth = rng.random(m) < share
        said = answers(rng, truth, hits, alarms)
        if scores:  # a probability that is not calibrated, but rises with the truth
            said = expit(rng.normal(np.where(truth, 1.0, -2.0), 1.5))
        got = estimate.share(said, np.arange(n), truth[:n], corpus_only=corpus_only)
        return [got], [truth.mean() if corpus_only else share]

    return draw


def a_regression(model, n, *, m=2000, numeric=False):
    """The classifier errs more where x2 is 1, so that taking its word for it bends every coefficient."""
    slopes = np.array([-0.5, 0.8, 0.6])

    def draw(rng):
        X = np.c_[rng.normal(size=m), rng.random(m) < 0.4]
        line = slopes[0] + X @ slopes[1:]
        if numeric:
            truth = line + rng.normal(size=m) * np.where(X[:, 1] == 1, 1.5, 0.8)
            said = 0.5 + 0.6 * truth + 0.7 * X[:, 1] + rng.normal(size=m)
        else:
            truth = rng.random(m) < expit(line)
            said = answers(rng, truth, np.where(X[:, 1] == 1, 0.65, 0.9), np.where(X[:, 1] == 1, 0.05, 0.15))
        options = {"true_y": truth[:n], "model": model, "names": ("x1", "x2")}
        return estimate.regression(said, X, np.arange(n), **options), slopes

    return draw


@pytest.mark.slow
def test_intervals_of_a_share_hold_what_they_promise_and_naive_ones_do_not():
    rates = covered(a_share(0.2, 0.7, 0.02, 200, m=1000))
    assert holds(rates) and holds(rates, "coded_only")
    assert rates["the class", "naive"] < 0.1


@pytest.mark.slow
def test_intervals_of_coefficients_hold_what_they_promise_and_naive_ones_do_not():
    rates = covered(a_regression("ols", 200, m=600, numeric=True))
    assert holds(rates) and holds(rates, "coded_only")
    assert max(rates[name, "naive"] for name in ("constant", "x1", "x2")) < 0.5


CLASSIFIERS = {"good": (0.9, 0.03), "biased": (0.7, 0.1), "shy": (0.5, 0.01)}


CELLS = [*itertools.product([0.03, 0.1, 0.3, 0.5], CLASSIFIERS, [200, 500], [False, True])]
HARDEST = (0.03, "shy", 200, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "share, classifier, n, corpus_only",
    [pytest.param(*cell, marks=MISSED if cell == HARDEST else ()) for cell in CELLS],
)
def test_coverage_of_shares(share, classifier, n, corpus_only):
    rates = covered(a_share(share, *CLASSIFIERS[classifier], n, corpus_only=corpus_only))
    assert holds(rates), rates


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_coverage_of_shares_by_probabilities(share, n):
    rates = covered(a_share(share, 0, 0, n, scores=True))
    assert holds(rates), rates


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500])
@pytest.mark.parametrize("corpus_only", [False, True])
def test_coverage_of_a_mean(n, corpus_only):
    def draw(rng):
        truth = rng.gamma(2.0, 1.0, 2000)  # skewed, as ratings are
        said = 0.4 + 0.7 * truth + rng.normal(size=2000)
        got = estimate.mean(said, np.arange(n), truth[:n], corpus_only=corpus_only)
        return [got], [truth.mean() if corpus_only else 2.0]

    rates = covered(draw)
    assert holds(rates), rates


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("fixed", [False, True])
def test_coverage_where_some_texts_were_likelier_to_be_coded(share, fixed):
    """Texts said to be of the class are coded more often; each by itself, or a fixed number of each."""

    def draw(rng):
        truth = rng.random(3000) < share
        said = answers(rng, truth, 0.7, 0.05)
        parts = {True: 120, False: 120}
        chance = np.where(said, *(parts[x] / (said == x).sum() for x in (True, False)))
        drawn = rng.random(3000) < chance
        if fixed:
            drawn = np.concatenate([rng.permutation(np.flatnonzero(said == x))[: parts[x]] for x in parts])
        coded = np.asarray(drawn) if fixed else np.flatnonzero(drawn)
        return [estimate.share(said, coded, truth[coded], chance=chance[coded])], [share]

    rates = covered(draw)
    assert holds(rates), rates


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500])
@pytest.mark.parametrize("model, numeric", [("ols", True), ("logit", False)])
def test_coverage_of_coefficients(model, numeric, n):
    rates = covered(a_regression(model, n, numeric=numeric))
    assert holds(rates), rates
    assert min(rate for (_, which), rate in rates.items() if which == "naive") < 0.5


@pytest.mark.slow
def test_coverage_of_coefficients_with_sampling_probabilities():
    """Texts far out on x1 are coded more often."""
    slopes = [1.0, 0.5]

    def draw(rng):
        x = rng.normal(size=2000)
        truth = slopes[0] + slopes[1] * x + rng.normal(size=2000)
        said = 0.3 * x + 0.5 * truth + rng.normal(0, 0.7, 2000)
        chance = np.where(np.abs(x) > 1, 0.25, 0.1)
        coded = np.flatnonzero(rng.random(2000) < chance)
        options = {"true_y": truth[coded], "chance": chance[coded]}
        return estimate.regression(said, x[:, None], coded, **options), slopes

    rates = covered(draw)
    assert holds(rates), rates


@functools.cache
def where_the_prediction_explains(n):
    """An outcome that is known of all texts, on a class that is predicted: errors bend the slope towards 0."""
    truths = [1.0, 2.0, -0.5]

    def draw(rng):
        is_so = rng.random(2000) < 0.3
        x = rng.normal(size=2000) + is_so
        y = truths[0] + truths[1] * is_so + truths[2] * x + rng.normal(size=2000)
        said = answers(rng, is_so, 0.75, 0.1)
        true_X = np.c_[is_so, x][:n]
        names = ("class", "x")
        return estimate.regression(y, np.c_[said, x], np.arange(n), true_X=true_X, names=names), truths

    return covered(draw)


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500])
def test_coverage_of_slopes_where_the_prediction_explains(n):
    rates = where_the_prediction_explains(n)
    assert holds({key: rate for key, rate in rates.items() if key[0] != "constant"}), rates
    assert rates["class", "naive"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("n", [pytest.param(200, marks=MISSED), 500])
def test_coverage_of_the_constant_where_the_prediction_explains(n):
    rates = where_the_prediction_explains(n)
    assert holds({key: rate for key, rate in rates.items() if key[0] == "constant"}), rates


# --- what is refused or told ------------------------------------------------------------------------


def test_what_can_not_be_corrected_is_refused():
    said, coded, truth = np.arange(100) % 2 == 0, np.arange(30), np.arange(30) % 3 == 0
    with pytest.raises(DataError, match="19 coded texts are too few"):
        estimate.share(said, coded[:19], truth[:19])
    with pytest.raises(DataError, match="no spread"):
        estimate.mean(said, coded, np.ones(30))
    with pytest.raises(DataError, match="finite"):
        estimate.mean(np.where(said, np.nan, 1), coded, truth)
    for chance in (np.zeros(30), np.full(30, 1.5), np.full(29, 0.5)):
        with pytest.raises(DataError, match="sampling probability"):
            estimate.share(said, coded, truth, chance=chance)
    for wrong in (np.r_[coded[:-1], 0], np.r_[coded[:-1], 100], coded - 1):
        with pytest.raises(ValueError, match="places from 0"):
            estimate.share(said, wrong, truth)
    for wrong in (truth[:29], truth[:, None], np.arange(30)):
        with pytest.raises(ValueError):
            estimate.share(said, coded, wrong)


def test_regressions_without_an_answer_are_refused():
    rng = np.random.default_rng(0)
    X, coded = rng.normal(size=(200, 2)), np.arange(40)
    said = X[:, 0] + rng.normal(size=200) > 0
    truth = said[:40]
    flat = X.copy()
    flat[:40, 1] = 1
    with pytest.raises(DataError, match="by the codes, x2 is the same"):
        estimate.regression(said, flat, coded, true_y=truth)
    with pytest.raises(DataError, match="nothing to explain"):
        estimate.regression(said, X, coded, true_y=np.ones(40))
    with pytest.raises(DataError, match="no finite answer"):
        estimate.regression(said, X, coded, true_y=X[:40, 0] > 0, model="logit")
    with pytest.raises(DataError, match="45 are the least"):
        estimate.regression(said, rng.normal(size=(200, 8)), coded, true_y=truth)
    with pytest.raises(DataError, match="not between 0 and 1"):
        estimate.regression(X[:, 0], X, coded, true_y=truth, model="logit")


def test_few_codes_and_odd_samples_are_told():
    said = np.arange(1000) < 300
    truth = np.zeros(100, bool)
    truth[:4] = True
    (few, *odd) = estimate.share(said, np.arange(100), truth).notes
    assert "only 4 of 100 coded texts are so" in few
    assert "too far apart for texts drawn at random" in odd[0]  # all 100 are from the 300 said so
    assert estimate.share(said, np.arange(0, 1000, 10), np.arange(100) < 40).notes == ()
    odd = estimate.share(said, np.arange(0, 1000, 10), np.arange(100) < 40, chance=np.full(100, 0.01)).notes
    assert "stand for 10,000 texts, and there are 1,000" in odd[0]
    logit = estimate.regression(
        np.arange(100) % 2,
        np.arange(100)[:, None] % 7,
        np.arange(40),
        true_y=np.arange(40) % 10 == 0,
        model="logit",
    )
    assert "rarer outcome stands in 4 coded texts" in logit[0].notes[0]
