"""near.py: the same pairs as comparing all with all, and what is alike."""

import time
import tracemalloc

import numpy as np
import pytest

from minibert.study.near import LOOKED_AT, near_duplicates

WORDS = [f"w{i}x{i * 7919 % 1000}" for i in range(3000)]


def texts(rng, n, words=40):
    """Made of words as common as in a language."""
    shares = 1 / np.arange(1, len(WORDS) + 1)
    return [" ".join(rng.choice(WORDS, size=words, p=shares / shares.sum())) for _ in range(n)]


def alike(one, two):
    """By sets of stretches, as it is defined."""
    a, b = ({text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (one.ljust(5), two.ljust(5)))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_finds_what_comparing_all_with_all_finds(threshold):
    """Texts of many lengths, each test text a training text with a share of its words changed."""
    rng = np.random.default_rng(0)
    train = [text for words in (1, 2, 5, 20, 60) for text in texts(rng, 12, words)]
    test = []
    for place, text in enumerate(train):
        parts = text.split()
        for i in range(len(parts)):
            if rng.random() < place % 12 / 24:
                parts[i] = rng.choice(WORDS)
        test.append(" ".join(parts))
    found = near_duplicates(train, test, threshold)
    got = {pair["test"]: pair for pair in found["pairs"]}
    for i, text in enumerate(test):
        best = max(alike(text, other) for other in train)
        assert (i in got) == (best >= threshold), (text, best)
        if i in got:
            assert got[i]["similarity"] == pytest.approx(best)
            assert alike(text, train[got[i]["train"]]) == pytest.approx(best)
    assert found["exact"] == sum(text in train for text in test) > 0
    assert found["near"] == len(got) - found["exact"]
    if threshold < 0.95:
        assert found["near"] >= 3


def test_case_spaces_and_unicode_form_make_no_other_text():
    found = near_duplicates(
        ["Ça va bien,  merci", "another"], ["c\u0327a VA bien, merci ", "none of these at all"]
    )
    assert found["pairs"] == [{"test": 0, "train": 0, "similarity": 1.0}]
    assert (found["exact"], found["near"], found["texts"]) == (1, 0, 2)


def test_every_script_and_every_length():
    train = ["", "a", "北京是中华人民共和国的首都和政治文化中心", "\ud800 odd", "x" * 500]
    test = ["b", "", "北京是中华人民共和国的首都和政治文化的中心", "\ud800 odd!", "x" * 400, "y" * 500]
    found = near_duplicates(train, test, threshold=0.5)
    assert {(p["test"], p["train"]) for p in found["pairs"]} == {(1, 0), (2, 2), (3, 3), (4, 4)}
    assert near_duplicates([], ["a"])["pairs"] == near_duplicates(["a"], [])["pairs"] == []
    with pytest.raises(ValueError, match="threshold 80"):
        near_duplicates(["a"], ["a"], threshold=80)


def test_hundreds_of_texts_from_one_form_take_no_time_of_all_with_all():
    form = "Dear Sir or Madam, your parcel number {} could not be delivered to the address that you gave us."
    found = near_duplicates(
        [form.format(i) for i in range(3000)], [form.format(i) for i in range(5000, 5040)]
    )
    assert found["near"] == 40 and min(pair["similarity"] for pair in found["pairs"]) > 0.8
    assert LOOKED_AT < 100  # of 3,000


def test_order_changes_nothing():
    rng = np.random.default_rng(2)
    train = texts(rng, 60)
    test = [text.replace("w0x0", "zero", 1) for text in train[:30]] + texts(rng, 30)
    order = rng.permutation(60)
    found, turned = near_duplicates(train, test), near_duplicates([train[i] for i in order], test)
    pairs = {(p["test"], p["train"], p["similarity"]) for p in found["pairs"]}
    assert pairs == {(p["test"], int(order[p["train"]]), p["similarity"]) for p in turned["pairs"]} and pairs


@pytest.mark.slow
def test_thousands_of_long_texts_take_little_time_and_memory():
    """A third of a collection of newsgroups, which took 15 s in all: 11,293 and 7,528 texts of 1,460 characters."""
    rng = np.random.default_rng(1)
    train, test = texts(rng, 3_700, 200), texts(rng, 2_500, 200)
    test[100] = train[7].replace("w1x919", "one", 1)
    start = time.process_time()
    tracemalloc.start()
    found = near_duplicates(train, test)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(p["test"], p["train"]) for p in found["pairs"]] == [(100, 7)]
    assert time.process_time() - start < 60 and most < 150e6
