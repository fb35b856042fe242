"""linear.py: what a fit says of itself, probabilities, and words that are counted once."""

import dataclasses

import numpy as np
import pytest

from minibert import baseline, linear

from .test_baseline import FRUIT, TOOLS, part, words


def features(texts):
    """A toy's rows: how often apple and hammer stand in a text."""
    of = lambda texts, pairs=None: np.array([[t.count("apple"), t.count("hammer")] for t in texts], float)  # noqa: E731
    return linear.Features(of(texts, None), None, of, {"features": 2})


def test_a_fit_that_ran_into_its_limit_is_said(monkeypatch):
    slow = linear.LogisticRegression
    monkeypatch.setitem(linear.MODELS, "logistic regression", lambda c, seed: slow(C=c, max_iter=1))
    settings = baseline.fit("tfidf", "classification", words(), words(), metric="accuracy").settings
    assert {one["model"] for one in settings["tried"] if one.get("converged") is False} == {
        "logistic regression"
    }


def test_two_texts_of_a_pair_are_joined_by_a_word_of_its_own():
    assert linear.joined(["a b"], ["c"]) == ["a b xxpairxx c"] and linear.joined(["a b"], None) == ["a b"]


def test_facts_name_the_strength_and_the_features():
    found = features(FRUIT + TOOLS)
    for name, key in (("ridge classifier", "alpha"), ("linear SVM", "C"), ("naive Bayes", "alpha")):
        ((facts, answer, guess),) = linear.attempts(name, (0.5,), found, words().targets, "classification", 0)
        assert facts == {"model": name, key: 0.5, "features": 2} and guess.shape == (0,)
        assert answer(["an apple", "a hammer"]).tolist() == ["fruit", "tool"]


def test_probabilities_where_a_model_has_them():
    train, found = words(), features(FRUIT + TOOLS)
    ((_, answer, _),) = linear.attempts(
        "logistic regression", (1.0,), found, train.targets, "classification", 0
    )
    p = answer.probabilities(["an apple", "a hammer", "nothing"])
    assert p.dtype == np.float64 and p.sum(1) == pytest.approx([1, 1, 1])
    assert p[0, 0] > 0.6 and p[1, 1] > 0.6  # columns in sorted order: fruit, tool
    assert answer.probabilities([]).shape == (0, 2)
    ((_, answer, _),) = linear.attempts("linear SVM", (1.0,), found, train.targets, "classification", 0)
    assert answer.probabilities(["an apple"]) is None


@pytest.mark.parametrize("labels", [("fruit",), ("fruit", "tool")])
def test_probabilities_of_several_labels_have_a_column_each(labels):
    """... also of a lone label, of which scikit-learn gives two."""
    targets = [("fruit",)] * 6 + [labels[1:]] * 6
    found = features(FRUIT + TOOLS)
    ((_, answer, _),) = linear.attempts(
        "logistic regression a label", (10.0,), found, np.fromiter(targets, object, 12), "multilabel", 0
    )
    p = answer.probabilities(["an apple", "a hammer"])
    assert p.shape == (2, len(labels)) and p[0, 0] > 0.8 > 0.2 > p[1, 0]
    assert answer(["an apple", "a hammer"]).tolist() == [("fruit",), labels[1:]]
    assert answer.probabilities([]).shape == (0, len(labels))


def test_words_are_counted_once_and_only_those_of_training():
    validation = part(["plum apple"], ["fruit"], name="validation")
    counted = linear.Counted(words(), validation)
    found = counted.features(2)
    assert counted.features(2) is found and set(counted.seconds) == {2} and counted.seconds[2] > 0
    assert found.known.shape[0] == 12 and found.unseen.nnz == 1  # plum is no word of training
    assert counted.features(100) is None  # no word stands in so many texts
    nothing = dataclasses.replace(validation, texts=[], targets=validation.targets[:0])
    assert linear.Counted(words(), nothing).features(1).unseen is None
