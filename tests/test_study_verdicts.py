"""verdicts.py and changes.py: each planted fault is caught by the check meant for it, and by no other."""

import json
import re

import numpy as np
import pytest

from minibert.answers import class_numbers
from minibert.study.changes import two_digits, what_would_change
from minibert.study.honesty import copies, label_shares, shared_groups
from minibert.study.levels import chance, subgroups
from minibert.study.sureness import calibration, noise_suspects
from minibert.study.verdicts import verdicts

from .study_parts import answered, three

LABELS = "abc"


def facts(parts, probabilities=None, seed=0):
    """All checks on three parts and on answers to the test texts, 0.8 of them right unless given."""
    rng, test = np.random.default_rng(seed), parts[2]
    truth = class_numbers(test.targets, LABELS)
    probabilities = answered(rng, truth) if probabilities is None else probabilities
    answers = probabilities.argmax(axis=1)
    train = class_numbers(parts[0].targets, LABELS)
    return {
        "copies": copies(parts),
        "groups": shared_groups(parts, "author"),
        "labels": label_shares("classification", parts, 199),
        "chance": chance("classification", ["accuracy", "macro_f1"], truth, answers, train, 3, 199),
        "calibration": calibration(probabilities, truth, resamples=400),
        "subgroups": {
            "half": subgroups(
                "classification", "accuracy", truth, answers, ["1"] * 100 + ["2"] * 100, 3, resamples=500
            )
        },
        "suspects": noise_suspects([probabilities], truth, test.rows),
        "cut": {part.name: {"texts": 3, "share_of_texts": 0.01, "share_of_tokens": 0.001} for part in parts},
    }


def checks(found):
    """What was said, by check."""
    said = verdicts(found)
    for one in said:
        assert re.fullmatch(r"[A-Z\d].*[.?]", one["sentence"]) and one["severity"] in ("warning", "info")
        assert "None" not in one["sentence"] and "nan" not in one["sentence"]
    json.dumps([said, found], allow_nan=False)
    return {one["check"] for one in said}


@pytest.mark.parametrize("seed", range(3))
def test_sound_data_and_answers_give_no_verdict(seed):
    assert checks(facts(three(seed), seed=seed)) == set()
    assert verdicts({}) == []


def leaked(train, validation, test):
    """A twentieth of test stands in train."""
    test.texts[:10] = train.texts[50:60]


def copied(train, validation, test):
    test.texts[17] = train.texts[4]


def copied_nearly(train, validation, test):
    test.texts[17] = train.texts[4].replace(" ", ", ", 1) + " indeed"


def same_author(train, validation, test):
    test.table.frame.loc[5:8, "author"] = train.table.frame["author"][0]


def sorted_and_cut(train, validation, test):
    test.targets[: len(test) // 2] = "c"


PLANTED = {leaked: "duplicates", copied: "duplicates", copied_nearly: "near_duplicates", same_author: "groups",
           sorted_and_cut: "labels"}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_a_fault_of_the_data_is_caught_by_its_check(plant):
    parts = three(1)
    plant(*parts)
    found = facts(parts)
    assert checks(found) == {PLANTED[plant]}
    grave = {one["severity"] for one in verdicts(found)}
    assert grave == ({"info"} if plant in (copied, copied_nearly) else {"warning"})


def sure_of(answers, by=0.9):
    """Probabilities of given answers."""
    out = np.full((len(answers), 3), (1 - by) / 2)
    out[np.arange(len(answers)), answers] = by
    return out


def test_answers_are_caught_by_their_check():
    parts, rng = three(2), np.random.default_rng(3)
    truth = class_numbers(parts[2].targets, LABELS)
    shares = np.bincount(truth) / 200
    # what was learned from shuffled labels: nothing of the text
    shuffled = 1 / 3 + 0.01 * rng.random((200, 3))
    shuffled[np.arange(200), rng.choice(3, p=shares, size=200)] += 0.04
    shuffled /= shuffled.sum(axis=1, keepdims=True)
    assert checks(facts(parts, shuffled)) == {"chance"}
    # always the same
    constant = np.tile(shares, (200, 1))
    assert checks(facts(parts, constant)) == {"constant"}
    # far too sure: as often right as before
    sharp = answered(rng, truth) ** 3
    sharp /= sharp.sum(axis=1, keepdims=True)
    assert "calibration" in checks(facts(parts, sharp)) <= {"calibration", "suspects"}
    # the second half of the texts is harder
    uneven = np.where(
        np.arange(200)[:, None] < 100, answered(rng, truth, right=0.95), answered(rng, truth, right=0.5)
    )
    found = facts(parts, uneven)
    assert "subgroups" in checks(found) <= {"subgroups", "suspects"}
    assert [one["sentence"].count("“2”") for one in verdicts(found) if one["check"] == "subgroups"] == [1]


def test_wrong_labels_are_caught():
    parts, rng = three(4), np.random.default_rng(5)
    truth = class_numbers(parts[2].targets, LABELS)
    probabilities = answered(rng, truth, right=0.97)
    wrong = rng.choice(200, size=3, replace=False)
    probabilities[wrong] = sure_of((truth[wrong] + 1) % 3, 0.95)
    said = checks(facts(parts, probabilities))
    assert "suspects" in said <= {"suspects", "calibration"}, "sure and wrong is ill calibrated, too"


def test_worse_than_the_commonest_answer():
    truth = np.r_[np.zeros(150, int), np.ones(50, int)]
    answers = truth.copy()
    answers[:60] = 1
    found = {"chance": chance("classification", ["accuracy"], truth, answers, truth, 2)}
    assert checks(found) == {"majority"} and "0.750" in verdicts(found)[0]["sentence"]


def test_values_that_do_not_move_are_constant():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    found = {"chance": chance("regression", ["pearson", "rmse"], truth, np.full(50, 0.1), truth)}
    assert checks(found) == {"constant"}


def test_many_cut_texts_are_said():
    cut = {"test": {"texts": 70, "share_of_texts": 0.35, "share_of_tokens": 0.12}}
    assert checks({"cut": cut}) == {"cut"} and "35 %" in verdicts({"cut": cut})[0]["sentence"]
    assert "35 %" in what_would_change({"cut": cut})[0]


# What would change it -----------------------------------------------------------------------------


def only(**facts):
    (sentence,) = what_would_change({"metric": "macro_f1", **facts})
    assert sentence.endswith(".")
    return sentence


def test_how_many_texts_a_difference_needs():
    """The number by which a z test of 80 % power finds it, checked by simulation."""
    d = {"value": 0.02, "low": -0.02, "high": 0.06, "n": 500, "rival": "TF-IDF"}
    said = only(difference=d)
    assert "TF-IDF" in said and "4,100 test texts instead of 500" in said
    error = 0.04 / 1.96 * np.sqrt(500 / 4100)
    draws = np.random.default_rng(0).normal(0.02, error, size=4000)
    assert np.mean(draws - 1.96 * error > 0) == pytest.approx(0.8, abs=0.02)
    assert "any number" in only(difference={**d, "value": 0.001}) and "any number" in only(
        difference={**d, "value": 0.0}
    )
    assert what_would_change({"metric": "macro_f1", "difference": {**d, "low": 0.01}}) == []
    assert what_would_change({"metric": "macro_f1", "difference": dict.fromkeys(d)}) == []
    assert [two_digits(n) for n in (7.2, 99.5, 101, 3271)] == [8, 100, 110, 3300]


def test_over_splits_no_number_of_test_texts_is_named():
    d = {"value": 0.03, "low": -0.01, "high": 0.07, "n": 1000, "rival": "ridge", "splits": 5}
    assert "more divisions of the data than 5" in only(difference=d)


def test_a_curve_that_rises_asks_for_labels():
    curve = [
        {"examples": n, "value": v, "low": v - 0.02, "high": v + 0.02} for n, v in ((1000, 0.7), (500, 0.6))
    ]
    assert "500 to 1,000" in only(curve=curve) and "more labelled texts would" in only(curve=curve)
    flat = [*curve, {"examples": 2000, "value": 0.71, "low": 0.69, "high": 0.73}]
    assert "change little" in only(curve=flat)
    fallen = [*curve, {"examples": 2000, "value": 0.6, "low": 0.58, "high": 0.62}]
    assert "worse" in only(curve=fallen)
    falling = what_would_change({"metric": "rmse", "curve": curve})
    assert "worse" in falling[0], "a rising error is no gain"
    assert what_would_change({"metric": "macro_f1", "curve": curve[:1]}) == []


def test_seeds_that_differ_as_much_as_the_lead():
    d = {"value": 0.03, "low": 0.01, "high": 0.05, "n": 500}
    assert "0.700 to 0.740" in only(difference=d, seeds=[0.7, 0.74, 0.72])
    assert what_would_change({"metric": "macro_f1", "difference": d, "seeds": [0.7, 0.71]}) == []


def test_copies_ceiling_and_suspects():
    score = {"value": 0.8, "low": 0.78, "high": 0.82}
    assert "0.760 instead of 0.800" in only(score=score, clean={"value": 0.76, "texts": 12})
    assert (
        what_would_change({"metric": "macro_f1", "score": score, "clean": {"value": 0.8, "texts": 0}}) == []
    )
    assert "one rater" in only(score=score, ceiling={"value": 0.81, "what": "one rater"})
    assert (
        what_would_change({"metric": "macro_f1", "score": score, "ceiling": {"value": 0.9, "what": "-"}})
        == []
    )
    assert "0.020 higher" in only(suspects={"count": 4, "n": 200})
    assert what_would_change({"suspects": {"count": 0, "n": 0}}) == [] == what_would_change({})
