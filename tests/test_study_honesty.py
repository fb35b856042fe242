"""honesty.py: copies, authors in two parts, labels that are distributed differently."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from minibert.data.parts import Part
from minibert.errors import DataError
from minibert.study.honesty import copies, label_shares, shared_groups

from .study_parts import part, three


def test_copies_are_counted_in_every_pair_of_parts():
    train, validation, test = three()
    test.texts[3] = train.texts[7].upper()
    test.texts[4] = train.texts[8].replace("river", "rivers") + "."
    validation.texts[0] = train.texts[1]
    test.texts[9] = validation.texts[5]
    found = {(row["part"], row["of"]): row for row in copies([train, validation, test])}
    counts = {key: (row["exact"], row["near"], row["texts"]) for key, row in found.items()}
    assert counts == {("validation", "train"): (1, 0, 60), ("test", "train"): (1, 1, 200),
                      ("test", "validation"): (1, 0, 200)}  # fmt: skip
    pairs = found["test", "train"]["pairs"]
    assert [(pair["row"], pair["other_row"]) for pair in pairs] == [(3, 7), (4, 8)]
    assert pairs[0]["similarity"] == 1 > pairs[1]["similarity"] > 0.8
    json.dumps(list(found.values()), allow_nan=False)


def test_rows_are_those_of_the_table_and_pairs_belong_to_their_text():
    rng = np.random.default_rng(0)
    train, test = part("train", rng, 5), part("test", rng, 5)
    texts, pairs = ["same words here"] * 2, ["and a question of its own", "quite another matter"]
    train = Part("train", texts, pairs, train.targets[:2], np.array([4, 2]), train.table)
    test = Part("test", texts, pairs[::-1], test.targets[:2], np.array([3, 1]), test.table)
    (found,) = copies([train, test])
    assert [(p["place"], p["row"], p["other_row"]) for p in found["pairs"]] == [(0, 3, 2), (1, 1, 4)]
    test = dataclasses.replace(test, pairs=["something else altogether", "nothing like the first"])
    assert copies([train, test])[0]["exact"] == 0


def test_authors_in_two_parts():
    rng = np.random.default_rng(0)
    train = part("train", rng, 6, authors=["ann", "ann", "bob", "", "cy", "di"])
    validation = part("validation", rng, 3, authors=["eve", "cy", " "])
    test = part("test", rng, 5, authors=["ann", "eve", "fay", "", "cy"])
    found = shared_groups([train, validation, test], "author")
    assert found["count"] == 3 and found["rows"] == {"validation": 1, "test": 3}
    assert found["groups"][:2] == [
        {"group": "ann", "rows": {"train": 2, "test": 1}},
        {"group": "cy", "rows": {"train": 1, "validation": 1, "test": 1}},
    ]
    assert found["texts"] == {"train": 6, "validation": 3, "test": 5}
    with pytest.raises(DataError, match='no column "auther"'):
        shared_groups([train, test], "auther")


def test_shares_and_distances_of_labels():
    rng = np.random.default_rng(0)
    train = part("train", rng, 120, targets=np.array(["a", "b"] * 60, object))
    test = part("test", rng, 120, targets=np.array(["a", "b", "a", "c"] * 30, object))
    found = label_shares("classification", [train, test])
    assert [row["label"] for row in found["labels"]] == ["a", "b", "c"]
    assert found["labels"][1] == {
        "label": "b", "counts": {"train": 60, "test": 30}, "shares": {"train": 0.5, "test": 0.25}
    }  # fmt: skip
    (row,) = found["distances"]
    assert (row["part"], row["of"], row["distance"]) == ("test", "train", 0.25)
    assert row["p"] < 0.01 and 0 < row["by_chance"] < 0.15


def test_parts_of_one_source_differ_by_chance_alone():
    """The p values of 60 sound pairs are spread evenly: none of them is systematically small."""
    rng, ps = np.random.default_rng(0), []
    for _ in range(60):
        parts = [part(name, rng, n, texts=[""] * n) for name, n in (("train", 90), ("test", 60))]
        ps.append(label_shares("classification", parts, 99)["distances"][0]["p"])
    assert np.mean(np.array(ps) <= 0.1) < 0.25 and stats.kstest(ps, "uniform").pvalue > 0.001


def test_values_are_compared_by_tenths():
    train, _, test = three(kind="regression")
    found = label_shares("regression", [train, test], 99)
    assert len(found["labels"]) == 10 and found["distances"][0]["p"] > 0.01
    assert sum(row["shares"]["train"] for row in found["labels"]) == pytest.approx(1)
    assert found["labels"][0]["label"].startswith("up to") and found["labels"][-1]["label"].startswith(
        "above"
    )
    moved = dataclasses.replace(test, targets=test.targets + 0.7)
    assert label_shares("regression", [train, moved], 99)["distances"][0]["p"] == 0.01


@pytest.mark.parametrize("kind", ["multilabel", "tokens"])
def test_labels_of_one_text_stay_together(kind):
    """Sentences of one tag each: the words are many, the draws few, and chance knows it."""
    rng = np.random.default_rng(1)

    def made(name, n):
        targets = np.fromiter([(tag,) * 50 for tag in rng.choice(["A", "B"], size=n)], object, n)
        if kind == "multilabel":
            targets = np.fromiter([tuple({"A", "B", "C"} - set(tags)) for tags in targets], object, n)
        return part(name, rng, n, targets=targets)

    ps = [
        label_shares(kind, [made("train", 30), made("test", 20)], 99)["distances"][0]["p"] for _ in range(20)
    ]
    assert np.median(ps) > 0.15


def test_a_part_without_labels_has_no_distance():
    rng = np.random.default_rng(0)
    none = part("test", rng, 2, targets=np.fromiter([(), ()], object, 2))
    some = part("train", rng, 2, targets=np.fromiter([("a",), ("b",)], object, 2))
    assert label_shares("multilabel", [some, none], 9)["distances"][0]["distance"] is None
