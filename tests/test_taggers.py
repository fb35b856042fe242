"""taggers.py: what it knows of a word, and that it learns tags from it."""

from __future__ import annotations

from minibert import taggers

TEXTS = [["Anna", "sees", "Berlin"], ["Otto", "sees", "Paris", "2019"], ["in", "Rome", "Anna", "sleeps"]] * 3
TAGS = [("B-per", "O", "B-loc"), ("B-per", "O", "B-loc", "O"), ("O", "B-loc", "B-per", "O")] * 3


def test_shapes():
    assert taggers.shape("McDonald's2") == "XxXxx'xd" and taggers.shape("USA-2019") == "XX-dd"


def test_features_tell_words_ends_neighbours_and_place():
    first, _, last = taggers.features(["Anna", "sees", "Berlin"])
    assert {"word Anna", "low anna", "shape Xxx", "starts ann", "ends na", "1 sees", "place 0"} <= set(first)
    assert {"-1 sees", "-2 anna", "place 2", "-1 ends ees", "pair sees berlin"} <= set(last)
    assert any(one.startswith("1 ") and taggers.EDGE in one for one in last)
    assert list(taggers.features([])) == []


def test_it_learns_what_it_was_shown_and_judges_new_words_by_their_looks():
    for facts, tag in taggers.attempts(TEXTS, TAGS, seed=0):
        assert tag(TEXTS) == TAGS, facts
        assert tag([[], ["Anna"]]) == [(), ("B-per",)] and tag([[]]) == [()]
    facts, tag = next(taggers.attempts(TEXTS, TAGS, seed=0))
    assert tag([["Emma", "sees", "Madrid"]]) == [("B-per", "O", "B-loc")]
    assert facts["model"] == "linear SVM" and facts["features"] > 50


def test_the_most_frequent_tag():
    tag = taggers.most_frequent([["a", "b", "a"], ["a", "c", "c"]], [("X", "Y", "Z"), ("X", "Y", "Y")])
    assert tag([["a", "b", "new"], []]) == [("X", "Y", "Y"), ()]
    assert taggers.first(taggers.Counter(["b", "a"])) == "a"
