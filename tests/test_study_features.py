"""study/features.py: each text is computed once, vectors are the model's own, looks say what they should."""

import numpy as np
import pytest

import minibert
from minibert.study import features
from minibert.study.features import Rows, Vectors, looks, spread, unit

from .helpers import write_model

TEXTS = ["the cat sat", "a dog ran fast", "the cat sat", "it is on the mat ."]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("toy")))


def test_each_distinct_text_is_computed_once():
    asked = []
    rows = Rows(lambda texts: asked.append(texts) or np.array([[len(text), 1.0] for text in texts]))
    assert rows(["aa", "b", "aa"]).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert rows(["ccc", "aa"]).tolist() == [[3, 1], [2, 1]]
    assert asked == [["aa", "b"], ["ccc"]]
    assert rows.of(["b"], ["ccc"]).tolist() == [[1, 1, 3, 1]]
    assert rows.cost(["aa", "aa"]) == rows.seconds["aa"] > 0
    assert rows.cost(["aa", "b", "ccc"]) == pytest.approx(sum(rows.seconds.values()))


def test_vectors_are_the_models_own(toy):
    vectors, model = Vectors(toy, device="cpu"), minibert.load(toy, head=None, device="cpu")
    found = vectors(TEXTS)
    assert found.shape == (4, 24) and found.dtype == np.float32
    assert found == pytest.approx(model.embed(TEXTS, pooling="mean"), abs=1e-5)
    assert vectors.settings == {
        "weights": toy, "pooling": "mean", "max_tokens": 53, "truncation": "head"
    }  # fmt: skip


def test_pairs_stand_beside_their_difference_and_product(toy):
    vectors = Vectors(toy, device="cpu")
    u, v = vectors(TEXTS[:2]), vectors(TEXTS[2:])
    found = vectors.of(TEXTS[:2], TEXTS[2:])
    assert (found == np.hstack([u, v, abs(u - v), u * v])).all()
    assert (vectors.of(TEXTS[:2]) == u).all()


def test_texts_are_cut_as_asked(toy):
    long = "the cat sat on a mat . the dog ran fast"
    own, head, tail = (
        Vectors(toy, device="cpu", **how)([long])
        for how in ({}, {"max_tokens": 5}, {"max_tokens": 5, "truncation": "tail"})
    )
    assert head == pytest.approx(Vectors(toy, device="cpu")(["the cat sat"]), abs=1e-5)
    assert tail == pytest.approx(Vectors(toy, device="cpu")(["dog ran fast"]), abs=1e-5)
    assert abs(own - head).max() > 0.01
    windows = Vectors(toy, device="cpu", max_tokens=5, truncation="window")
    assert (windows([long]) == head).all() and windows.settings["truncation"] == "head"
    assert Vectors(toy, device="cpu", max_tokens=999).settings["max_tokens"] == 53


def test_cosines(toy):
    vectors = Vectors(toy, device="cpu")
    found = vectors.cosines(TEXTS[:2], TEXTS[:3])
    assert found.shape == (2, 3) and found[0, 0] == pytest.approx(1) and found[0, 1] < 0.999
    assert (unit(np.zeros((1, 3))) == 0).all()


def test_published_vectors_are_pooled_as_their_files_say(minilm):
    vectors = Vectors("all-MiniLM-L6-v2", device="cpu", max_tokens=128)
    assert np.linalg.norm(vectors(["a text"])) == pytest.approx(1, abs=1e-5)
    assert vectors.settings["pooling"] == "as published" and vectors.settings["max_tokens"] == 128


def test_how_a_text_is_spread():
    found = spread("Oh NO! We won 12 games, didn't we? We did...")
    names = (
        "characters",
        "words",
        "sentences",
        "letters a word",
        "words a sentence",
        "distinct",
        "capitals",
        "digits",
    )
    seen = dict(zip((*names, *features.MARKS), found))
    assert np.expm1([seen["characters"], seen["words"], seen["sentences"]]) == pytest.approx([44, 10, 3])
    assert seen["letters a word"] == pytest.approx(27 / 10) and seen["words a sentence"] == pytest.approx(
        10 / 3
    )
    assert seen["distinct"] == 0.8 and seen["capitals"] == 5 / 44 and seen["digits"] == 2 / 44
    assert np.expm1([seen[mark] for mark in features.MARKS]) == pytest.approx([1, 1, 1, 1, 0])
    assert np.isfinite(spread("")).all() and len(spread("")) == len(found)


def test_looks_without_vader(monkeypatch):
    monkeypatch.setattr(features, "vader", lambda: None)
    assert looks(["a text", ""]).shape == (2, len(spread("")))


def test_looks_with_vader():
    pytest.importorskip("vaderSentiment", reason="the extra vader is not installed")
    found = looks(["This is a wonderful, happy day!", "This is a horrible, sad day!"])[:, -4:]
    assert found[0, 3] > 0.5 > -0.5 > found[1, 3]  # compound
    assert found[:, :3].sum(1) == pytest.approx([1, 1], abs=0.01)  # shares of negative, neutral, positive
