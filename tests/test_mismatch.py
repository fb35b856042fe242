"""mismatch.py: the two tests against scipy's, draws of one population stay silent, and each difference is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from minibert.mismatch import UNUSUAL, Side, differences, new_shares, p_numbers, p_shares

LABELS = list("abcdefgh")


def side(n, seed, mean=40, chances=None):
    """A part of n texts, drawn."""
    rng = np.random.default_rng(seed)
    tokens = rng.poisson(mean, n) + 3
    return Side(
        tokens=tokens,
        cut=tokens > 50,
        new=rng.binomial(30, 0.05, n) / 30,
        shared=rng.random(n) < 0.02,
        unknown=0.001,
        answers=[{label} for label in rng.choice(LABELS, n, p=chances)],
    )


def test_the_tests_are_the_usual_ones():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.1, 0.4):
        one, other = rng.normal(0, 1, 150), rng.normal(shift, 1, 400)
        far = stats.ks_2samp(one, other).statistic * np.sqrt(150 * 400 / 550)
        exact = stats.kstwobign.sf(far)  # ours is the first term of its series, never less
        assert (
            p_numbers(one, other) == pytest.approx(exact, rel=0.01)
            if exact < 0.3
            else p_numbers(one, other) >= exact
        )
        yes, no = one > 0.5, other > 0.5
        table = [[yes.sum(), (~yes).sum()], [no.sum(), (~no).sum()]]
        assert p_shares(yes, no) == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert p_shares(np.zeros(5, bool), np.zeros(9, bool)) == 1.0


def test_draws_of_one_population_are_alike_and_say_so():
    told = [differences(side(60, 2 * i), side(300, 2 * i + 1)) for i in range(200)]
    silent = sum("look at the labels themselves" in some[0] for some in told)
    assert silent >= 196, "1 in 100 may be told a difference"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tokens": np.full(300, 90)}, "a median of 44 tokens on validation, 90 on test"),
        ({"cut": np.ones(300, bool)}, "on validation, 100 % on test"),
        ({"new": np.full(300, 0.4)}, "and 40 % on test stand in no training text"),
        ({"unknown": 0.05}, "does not know 5.0 % of the tokens on test, 0.1 % on validation"),
        ({"answers": [{"a"}] * 300}, "“a” "),
    ],
)
def test_each_difference_is_named_and_nothing_else(change, said):
    (told,) = differences(side(60, 0), replace(side(300, 1), **change))
    assert said in told


def test_what_would_not_explain_a_lower_score_is_passed_over():
    """Fewer new words on test, or unknown ones on both; more texts of train there, and fewer cuts."""
    leaky, whole = (
        replace(side(300, 1), shared=np.arange(300) < 150),
        replace(side(60, 0), cut=np.ones(60, bool)),
    )
    assert "alike" in differences(side(60, 0), leaky)[0] and "alike" in differences(whole, side(300, 1))[0]
    known, strange = replace(side(60, 0), new=np.full(60, 0.4)), replace(side(60, 0), unknown=0.05)
    assert "alike" in differences(known, side(300, 1))[0]
    assert "alike" in differences(strange, replace(side(300, 1), unknown=0.06))[0]


def test_of_very_many_texts_a_small_difference_is_no_cause():
    one, other = side(20_000, 0, mean=40), side(20_000, 1, mean=42)
    assert p_numbers(one.tokens, other.tokens) < 1e-9
    alike = {"cut": one.cut, "shared": one.shared, "answers": one.answers}
    assert "alike" in differences(one, replace(other, new=one.new + 0.005, **alike))[0]


def test_a_leak_is_named():
    leaky = replace(side(60, 0), shared=np.arange(60) < 30)
    assert differences(leaky, side(300, 1)) == [
        "Texts that stand in train, too: 50 % on validation, 1.3 % on test."
    ]


def test_values_are_compared_too():
    rng = np.random.default_rng(3)
    one, other = (
        replace(side(80, 0), answers=rng.normal(5, 1, 80)),
        replace(side(300, 1), answers=rng.normal(7, 1, 300)),
    )
    assert differences(one, other)[0].startswith("Values differ: a median of ")
    assert "alike" in differences(one, replace(other, answers=rng.normal(5, 1, 300)))[0]


def test_rare_labels_are_not_many_chances_to_be_wrong():
    """One label of eight at p just below the limit for a single comparison is no finding."""
    rest = [{label} for label in "bcdefgh"]
    a, b = [{"a"}] * 11 + rest * 8, [{"a"}] * 15 + rest * 43
    p = p_shares(*(np.array(["a" in one for one in part]) for part in (a, b)))
    assert UNUSUAL / 8 < p < UNUSUAL
    assert "alike" in differences(replace(side(67, 0), answers=a), replace(side(316, 1), answers=b))[0]


def test_new_words_are_counted_by_text():
    assert new_shares([[1, 2, 3, 9], [9], []], {1, 2, 3}).tolist() == [0.25, 1.0, 0.0]
