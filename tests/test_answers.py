"""answers.py: numbers to labels and back, for every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minibert import answers, heads
from tests.helpers import toy_config

LABELS = ("a", "b", "c")


def tuples(*items):
    return answers.rows(items)


def test_what_a_head_learns_from():
    assert answers.wanted("classification", np.array(["b", "x"], object), LABELS).tolist() == [1, -1]
    assert answers.wanted("regression", np.array([1.5]), ()).tolist() == [1.5]
    found = answers.wanted("multilabel", tuples(("a", "c"), (), ("x",)), LABELS)
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]] and found.dtype == np.float64
    found = answers.wanted("tokens", tuples(("a", "x"), ("c", "b")), LABELS)  # of equal length: no rectangle
    assert found.shape == (2,) and [x.tolist() for x in found] == [[0, -1], [2, 1]]


def test_what_a_head_says():
    some = np.array([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    assert answers.said("classification", some, LABELS).tolist() == ["b", "a"]
    assert answers.said("multilabel", some, LABELS).tolist() == [("b",), ("a",)]
    assert answers.said("multilabel", some * 0.1, LABELS).tolist() == [(), ()]
    assert answers.said("tokens", some, LABELS, np.array([0, 2])).tolist() == [(), ("b", "a")]
    assert answers.said("tokens", some[:0], LABELS, np.zeros(0, int)).tolist() == []
    assert answers.said("regression", np.array([2.0]), ()).tolist() == [2.0]


def test_cells_and_columns():
    assert answers.written("multilabel", tuples(("a", "b"), ()), ";").tolist() == ["a;b", ""]
    assert answers.written("tokens", tuples(("B-a", "O"))).tolist() == ["B-a O"]
    some = np.array([[0.2, 0.7, 0.6]])
    found = answers.columns("multilabel", some, LABELS, None, "|")
    assert {k: v.tolist() for k, v in found.items()} == {
        "label": ["b|c"], "probability_a": [0.2], "probability_b": [0.7], "probability_c": [0.6],
    }  # fmt: skip
    found = answers.columns("tokens", np.eye(3), LABELS, np.array([2, 1]))
    assert {k: v.tolist() for k, v in found.items()} == {"label": ["a b", "c"], "words": [2, 1]}


def test_labels_that_only_the_test_part_has_are_columns_of_their_own():
    truth = tuples(("a", "z"), ("y",))
    known = answers.all_labels("multilabel", LABELS, truth)
    assert known == ("a", "b", "c", "y", "z")
    assert answers.scored("multilabel", truth, known).astype(int).tolist() == [
        [1, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
    ]
    assert answers.types(["B-x", "I-x", "O", "I-y"]) == ("x", "y")


@pytest.mark.parametrize("kind", ["classification", "multilabel", "tokens"])
def test_the_loss_of_predictions_is_the_heads_own(kind):
    """What history.jsonl calls validation loss is what training minimises, mean over the same things."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(6, 3)))
    targets = {
        "classification": np.array(list("abcabc"), object),
        "multilabel": tuples(("a",), (), ("a", "c"), ("b",), ("b", "c"), ("a", "b", "c")),
        "tokens": tuples(("a", "b"), ("c",), ("c", "b", "a")),
    }[kind]
    head = heads.HEADS[kind](toy_config(), 3)
    wanted = answers.wanted(kind, targets, LABELS)
    wanted = torch.tensor(np.concatenate(wanted) if wanted.dtype == object else wanted)
    total, count = head.loss(logits, wanted)
    found = head.predict(logits).numpy()
    assert answers.loss(kind, found, targets, LABELS) == pytest.approx(float(total / count), rel=1e-9)
