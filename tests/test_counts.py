"""counts.py and the metrics made of it: scikit-learn on labels, hand-counted entities, resampled sentences."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as theirs

from minibert import metrics
from minibert.counts import spans

LABELS = list("abcde")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("", []),
        ("O O", []),
        ("B-a I-a O", [(0, 2, "a")]),
        ("B-a B-a", [(0, 1, "a"), (1, 2, "a")]),
        ("B-a I-b I-b", [(0, 1, "a"), (1, 3, "b")]),  # another type begins another entity
        ("O I-a I-a O I-a", [(1, 3, "a"), (4, 5, "a")]),  # I after O begins one: conlleval
        ("B-a O I-a", [(0, 1, "a"), (2, 3, "a")]),
        ("I-a B-a I-a", [(0, 1, "a"), (1, 3, "a")]),
        ("B-creative-work I-creative-work", [(0, 2, "creative-work")]),
        ("NOUN B I X-a", []),
    ],
)
def test_entities_are_read_as_the_conll_script_reads_them(tags, found):
    assert spans(tags.split()) == found


def score(truth, said):
    pair = [[tuple(line.split()) for line in text] for text in (truth, said)]
    return {name: one.value for name, one in metrics.score("tokens", *pair, resamples=10).items()}


def test_entity_scores_counted_by_hand():
    # Three true entities, four marked; right is the second only: the first has a border, the third a type wrong.
    truth = ["B-per I-per O B-loc", "O B-org"]
    said = ["B-per O O B-loc", "B-org B-loc"]
    got = score(truth, said)
    assert got["entity_precision"] == pytest.approx(1 / 4) and got["entity_recall"] == pytest.approx(1 / 3)
    assert got["entity_f1"] == pytest.approx(2 / 7)
    assert got["accuracy"] == pytest.approx(3 / 6)


def test_known_cases_of_the_conll_score():
    # the example of the seqeval package's own page: F1 0.50, precision and recall alike
    truth = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    said = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    got = score(truth, said)
    assert (got["entity_f1"], got["entity_precision"], got["entity_recall"]) == (0.5, 0.5, 0.5)
    assert got["accuracy"] == pytest.approx(0.8)
    assert (
        score(truth, truth)["entity_f1"] == 1 and score(truth, ["O O O O O O O", "O O O"])["entity_f1"] == 0
    )
    # nothing to find and nothing marked: no division, and 0 by convention
    assert score(["O O"], ["O O"])["entity_f1"] == 0


def random_tags(rng, n, right=0.7):
    names = np.array(["O", "O", "B-a", "I-a", "B-b", "I-b"])
    truth = [tuple(rng.choice(names, rng.integers(1, 12))) for _ in range(n)]
    said = [tuple(np.where(rng.random(len(t)) < right, t, rng.choice(names, len(t)))) for t in truth]
    return truth, said


def plain(truth, said):
    """The scores by other means: sets over all sentences, and scikit-learn over all words."""
    marked = [{(i, *one) for i, tags in enumerate(texts) for one in spans(tags)} for texts in (truth, said)]
    right = len(marked[0] & marked[1])
    flat = [[tag for tags in texts for tag in tags] for texts in (truth, said)]
    return {
        "entity_f1": 2 * right / (len(marked[0]) + len(marked[1])),
        "entity_precision": right / len(marked[1]),
        "entity_recall": right / len(marked[0]),
        "accuracy": theirs.accuracy_score(*flat),
        "macro_f1": theirs.f1_score(*flat, average="macro", zero_division=0),
    }


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_words_equal_the_reference(seed):
    pair = random_tags(np.random.default_rng(seed), 40)
    for name, value in plain(*pair).items():
        assert metrics.value(name, *pair, kind="tokens") == pytest.approx(value, abs=1e-12), name


def test_a_resample_is_of_sentences():
    """Each metric as a function of weights is the score of the sentences drawn, whole and as often as drawn."""
    truth, said = random_tags(np.random.default_rng(1), 30)
    (weights,) = metrics.draws(30, 15, seed=4)
    for name, metric in metrics.METRICS["tokens"].items():
        for row, got in zip(weights.astype(int), metric(truth, said)(weights)):
            drawn = [
                [tags for tags, times in zip(texts, row) for _ in range(times)] for texts in (truth, said)
            ]
            assert got == pytest.approx(plain(*drawn)[name], abs=1e-12), name


def test_words_of_one_sentence_are_no_independent_draws():
    """Sentences all right or all wrong: the interval is that of 20 draws, not of 20 x 50 words."""
    truth = [("B-a",) * 50] * 20
    said = [("B-a",) * 50 if i % 2 else ("O",) * 50 for i in range(20)]
    one = metrics.score("tokens", truth, said)["accuracy"]
    assert one.value == 0.5 and one.high - one.low > 0.35  # of 1,000 words it would be 0.06
    assert one.n == 20


def random_labels(rng, n, right=0.8):
    truth = rng.random((n, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]
    return truth, np.where(rng.random((n, 5)) < right, truth, ~truth)


REFERENCE = {
    "micro_f1": lambda t, p: theirs.f1_score(t, p, average="micro", zero_division=0),
    "macro_f1": lambda t, p: theirs.f1_score(t, p, average="macro", zero_division=0),
    "exact": theirs.accuracy_score,
}


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_scores_of_several_labels_equal_the_reference(n):
    for seed in range(10):
        pair = random_labels(np.random.default_rng(seed), n)
        for name, reference in REFERENCE.items():
            got = metrics.value(name, *pair, kind="multilabel")
            assert got == pytest.approx(reference(*pair), abs=1e-12), name


def test_a_resample_of_several_labels_scores_as_the_texts_it_drew():
    truth, said = random_labels(np.random.default_rng(3), 40)
    (weights,) = metrics.draws(40, 15, seed=9)
    for name, metric in metrics.METRICS["multilabel"].items():
        for row, got in zip(weights.astype(int), metric(truth, said)(weights)):
            drawn = np.repeat(truth, row, axis=0), np.repeat(said, row, axis=0)
            assert got == pytest.approx(REFERENCE[name](*drawn), abs=1e-12), name


def test_no_label_at_all_counts_as_zero_but_is_exactly_right():
    none = np.zeros((3, 2), bool)
    got = {name: one.value for name, one in metrics.score("multilabel", none, none).items()}
    assert got == {"micro_f1": 0, "macro_f1": 0, "exact": 1}


def test_the_table_by_label_equals_the_reference_and_has_intervals():
    truth, said = random_labels(np.random.default_rng(0), 200)
    table = metrics.per_label("multilabel", truth, said, LABELS)
    precision, recall, f1, n = theirs.precision_recall_fscore_support(truth, said, zero_division=0)
    for i, row in enumerate(table):
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
        assert (
            row["n"] == n[i]
            and row["said"] == said[:, i].sum()
            and row["label"] == LABELS[i]
            and row["low"] < row["f1"] < row["high"]
        )
    widths = [row["high"] - row["low"] for row in table]
    assert widths[4] > widths[0]  # the rare label's is wider


def test_the_table_by_type_counts_entities_and_the_one_by_tag_words():
    truth = [("B-a", "I-a", "O", "B-b"), ("I-b", "O")]
    said = [("B-a", "I-a", "B-b", "O"), ("B-b", "O")]
    by_type = metrics.per_label("entities", truth, said, ["a", "b", "c"], resamples=50)
    assert [(r["n"], r["precision"], r["recall"], r["f1"]) for r in by_type] == [
        (1, 1, 1, 1), (2, 0.5, 0.5, 0.5), (0, 0, 0, 0),
    ]  # fmt: skip
    by_tag = {r["label"]: r for r in metrics.per_label("tags", truth, said, ["O", "B-b"], resamples=50)}
    assert by_tag["O"]["n"] == 2 and by_tag["O"]["f1"] == pytest.approx(0.5)
    assert by_tag["B-b"] | {"low": 0, "high": 0} == {"label": "B-b", "precision": 0.0, "recall": 0.0, "f1": 0.0,
                                                      "n": 1, "said": 2, "low": 0, "high": 0}  # fmt: skip


def test_a_paired_difference_is_of_the_same_sentences():
    truth, said = random_tags(np.random.default_rng(5), 60)
    better = [t if i < 10 else s for i, (t, s) in enumerate(zip(truth, said))]
    gain = metrics.difference("tokens", truth, better, said)
    alone = metrics.score("tokens", truth, said)
    for name, one in gain.items():
        assert 0 <= one["low"] <= one["value"] <= one["high"]
        assert one["high"] - one["low"] < 1.6 * (alone[name].high - alone[name].low)


def test_shapes_that_cannot_be_are_errors():
    with pytest.raises(ValueError, match="a tag for each"):
        metrics.score("tokens", [("O", "O")], [("O",)])
    with pytest.raises(ValueError, match="shape"):
        metrics.score("multilabel", np.zeros((2, 3), bool), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="true or false"):
        metrics.score("multilabel", np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="none of micro_f1"):
        metrics.value("accuracy", np.zeros((2, 3), bool), np.zeros((2, 3), bool), kind="multilabel")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["I-"], [(0, 1, "")]),
        (["B-x", "O", "I-"], [(0, 1, "x"), (2, 3, "")]),
        (["B-", "I-", "O"], [(0, 2, "")]),
    ],
)
def test_a_type_without_a_name_is_a_type(tags, expected):
    assert spans(tags) == expected
