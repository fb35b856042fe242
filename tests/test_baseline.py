"""baseline.py: good on real texts, the same for the same seed, and calm on texts without words."""

import dataclasses
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minibert import baseline, metrics
from minibert.data import Part, Table, read_table
from minibert.errors import ConfigError, DataError

FRUIT = ["ripe apple", "sweet apple pie", "an apple tree", "green apple", "apple juice", "red apple"]
TOOLS = ["iron hammer", "a hammer blow", "hammer and nail", "steel hammer", "the hammer", "old hammer"]


def part(texts, targets, pairs=None, name="train"):
    kind = object if not len(targets) or isinstance(targets[0], str) else float
    table = Table(pd.DataFrame({"text": texts}), "texts.csv", "")
    return Part(name, list(texts), pairs, np.array(targets, kind), np.arange(len(texts)), table)


def words(labels=("fruit", "tool")):
    return part(FRUIT + TOOLS, [labels[0]] * 6 + [labels[1]] * 6)


def real(folder, file, **options):
    if "MINIBERT_DATA" not in os.environ:
        pytest.skip("real texts are read from the folder MINIBERT_DATA, which is not set")
    path = Path(os.environ["MINIBERT_DATA"]) / folder / file
    return pd.read_csv(path, dtype=str, keep_default_na=False, **options).sample(frac=1, random_state=0)


def thirds(texts, targets, train, validation):
    texts, targets = list(texts), list(targets)
    cuts = (slice(train), slice(train, train + validation), slice(train + validation, None))
    return [part(texts[cut], targets[cut]) for cut in cuts]


@pytest.fixture(scope="module")
def bills():
    table = real("cap_policy_topics", "data/USCongress.csv.gz", sep=";").drop_duplicates("text")
    return thirds(table["text"], table["major"], 1500, 200)


@pytest.mark.slow
def test_it_is_a_good_classifier_of_real_texts(bills):
    train, validation, test = bills
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = baseline.fit("tfidf", "classification", train, validation, metric="accuracy")
    right = np.mean(fitted.predict(test.texts) == test.targets)
    assert right > 0.68  # 0.725 when written; always naming the commonest topic gives 0.14
    assert fitted.name in ("TF-IDF + linear SVM", "TF-IDF + logistic regression")
    tried = fitted.settings["tried"]
    assert {one["model"] for one in tried} == {"linear SVM", "logistic regression"}
    assert fitted.validation == max(one["accuracy"] for one in tried)
    assert fitted.validation == np.mean(fitted.predict(validation.texts) == validation.targets)
    json.dumps(fitted.settings, allow_nan=False)


def test_the_same_seed_gives_the_same_answers(bills):
    train, validation, test = (part(p.texts[:300], p.targets[:300]) for p in bills)
    one, other = (
        baseline.fit("tfidf", "classification", train, validation, metric="macro_f1", seed=4)
        for _ in range(2)
    )
    assert one.settings == other.settings
    assert (one.predict(test.texts) == other.predict(test.texts)).all()


@pytest.mark.slow
def test_it_is_a_good_regression_on_real_texts():
    table = real("rwwd", "data_phase_1/files_clean/meta/rwwd_full.csv")
    train, validation, test = thirds(table["text_long"], table["worry"].astype(float), 1400, 300)
    fitted = baseline.fit("tfidf", "regression", train, validation, metric="pearson")
    guess = fitted.predict(test.texts)
    assert guess.dtype == np.float64 and guess.shape == (len(test),)
    assert metrics.value("pearson", test.targets, guess) > 0.42  # 0.470 when written
    mean = np.full(len(test), train.targets.mean())
    assert metrics.value("mae", test.targets, guess) < 0.93 * metrics.value("mae", test.targets, mean)
    assert fitted.name == "TF-IDF + ridge" and fitted.settings["tuned_on"] == "rmse"
    chosen = min(fitted.settings["tried"], key=lambda one: one["rmse"])
    assert fitted.validation == chosen["pearson"]


def test_only_training_texts_are_fitted():
    train = words()
    validation = part(["plum plum", "saw saw"], ["fruit", "tool"])
    fitted = baseline.fit("tfidf", "classification", train, validation, metric="accuracy")
    assert fitted.settings["texts"] == 12
    before = fitted.predict(["plum", "saw", "apple", "hammer"])
    swapped = part(validation.texts, ["tool", "fruit"])
    after = baseline.fit("tfidf", "classification", train, swapped, metric="accuracy").predict(
        ["plum", "saw", "apple", "hammer"]
    )
    assert before[2:].tolist() == after[2:].tolist() == ["fruit", "tool"]
    assert before[0] == before[1] and after[0] == after[1]  # words of validation are unknown


def test_validation_chooses_and_ties_go_to_the_first():
    fitted = baseline.fit("tfidf", "classification", words(), words(), metric="accuracy")
    name, least, strengths = baseline.CANDIDATES["classification"][0]
    chosen = fitted.settings["chosen"]
    assert (chosen["model"], chosen["least_texts_per_word"], chosen["C"]) == (name, least, strengths[0])
    number = part(FRUIT + TOOLS, [1.0] * 6 + [3.0] * 6)
    tried = baseline.fit("tfidf", "regression", number, number, metric="mae").settings
    assert tried["chosen"]["alpha"] == min(tried["tried"], key=lambda one: one["mae"])["alpha"]


def test_labels_only_validation_has_count_as_wrong():
    validation = part(["apple", "hammer", "stone", "rain"], ["fruit", "tool", "rock", "weather"])
    fitted = baseline.fit("tfidf", "classification", words(), validation, metric="accuracy")
    assert fitted.validation == 0.5


def test_texts_without_a_known_word_are_answered():
    fitted = baseline.fit("tfidf", "classification", words(), words(), metric="accuracy")
    answers = fitted.predict(["", "zzz qqq", "!!!", "APPLE"])
    assert answers.dtype == object and set(answers) <= {"fruit", "tool"} and answers[3] == "fruit"
    assert fitted.predict([]).shape == (0,)
    number = part(FRUIT + TOOLS, [1.0] * 6 + [3.0] * 6)
    values = baseline.fit("tfidf", "regression", number, number, metric="rmse").predict(["", "zzz"])
    assert values == pytest.approx([2.0, 2.0], abs=0.5)


def test_words_that_stand_in_one_text_only_are_enough():
    lonely = part(["alpha beta", "gamma delta"], ["a", "b"])
    fitted = baseline.fit("tfidf", "classification", lonely, lonely, metric="accuracy")
    assert fitted.predict(lonely.texts).tolist() == ["a", "b"]
    assert {one["least_texts_per_word"] for one in fitted.settings["tried"]} == {1}


def test_texts_without_any_word_are_an_error_that_says_so():
    empty = part(["!", "?", "a"], ["x", "y", "x"])
    with pytest.raises(DataError, match="finds no words in the 3 training texts") as caught:
        baseline.fit("tfidf", "classification", empty, empty, metric="accuracy")
    assert "none" in caught.value.fix


def test_one_label_and_no_texts_are_errors():
    with pytest.raises(DataError, match="all 12 training texts have the label 'same'"):
        baseline.fit("tfidf", "classification", words(("same", "same")), words(), metric="accuracy")
    empty = Part("train", [], None, np.array([], object), np.array([], int), words().table)
    with pytest.raises(DataError, match="no training texts"):
        baseline.fit("majority", "classification", empty, words(), metric="accuracy")


def test_a_kind_of_another_task_is_refused_by_name():
    with pytest.raises(ConfigError, match="'mean' is no baseline for classification"):
        baseline.fit("mean", "classification", words(), words(), metric="accuracy")
    with pytest.raises(ConfigError, match='did you mean "tfidf"'):
        baseline.fit("tfdif", "regression", words(), words(), metric="rmse")


def test_majority_and_mean():
    many = part(["a", "b", "c", "d"], ["y", "x", "x", "y"])
    fitted = baseline.fit("majority", "classification", many, many, metric="accuracy")
    assert fitted.predict(["any", "thing"]).tolist() == ["x", "x"]  # a tie: the first in order
    assert fitted.validation == 0.5
    number = part(["a", "b"], [1.0, 4.0])
    fitted = baseline.fit("mean", "regression", number, number, metric="pearson")
    assert fitted.predict(["c"]).tolist() == [2.5]
    assert math.isnan(fitted.validation)  # a constant has no correlation


def test_pairs_are_read_together():
    """The label is told by the second text alone, so a model of the first could not learn it."""
    texts, pairs = ["the same words"] * 12, FRUIT + TOOLS
    train = part(texts, ["fruit"] * 6 + ["tool"] * 6, pairs)
    fitted = baseline.fit("tfidf", "classification", train, train, metric="accuracy")
    assert fitted.predict(["the same words"] * 2, ["apple", "hammer"]).tolist() == ["fruit", "tool"]


def test_chinese_is_counted_by_the_character():
    good, bad = (
        ["很好的电影", "这部电影好看", "好电影", "真好看"],
        ["很差的电影", "太差了", "这部片差", "真差劲"],
    )
    train = part(good + bad, ["+"] * 4 + ["-"] * 4)
    fitted = baseline.fit("tfidf", "classification", train, train, metric="accuracy")
    assert fitted.predict(["好", "差"]).tolist() == ["+", "-"]


def sets(*targets):
    out = np.empty(len(targets), object)
    out[:] = targets
    return out


def test_one_svm_a_label_and_none_is_an_answer():
    texts = (
        FRUIT
        + TOOLS
        + ["apple and hammer", "an apple, a hammer"] * 3
        + ["plain words", "more plain words"] * 3
    )
    targets = [("fruit",)] * 6 + [("tool",)] * 6 + [("fruit", "tool")] * 6 + [()] * 6
    train = part(texts, ["x"] * len(texts))
    train = dataclasses.replace(train, targets=np.fromiter(targets, object, len(targets)))
    fitted = baseline.fit("tfidf", "multilabel", train, train, metric="micro_f1")
    said = fitted.predict(["ripe apple", "steel hammer", "apple and hammer", "plain words"])
    assert said.tolist() == [("fruit",), ("tool",), ("fruit", "tool"), ()]
    assert fitted.validation == 1 and fitted.name.startswith("TF-IDF + ")
    assert len(fitted.settings["tried"]) == sum(len(c[2]) for c in baseline.CANDIDATES["multilabel"])
    assert all("converged" not in one for one in fitted.settings["tried"])
    assert fitted.predict([]).tolist() == []
    json.dumps(fitted.settings)


def test_labels_of_validation_that_train_lacks_count_as_missed():
    known, truth, said = (sets(*x) for x in ([("a",), ("b", "a")], [("a",), ("z",)], [("a",), ("b",)]))
    assert baseline.judge("multilabel", "micro_f1", known, truth, said) == pytest.approx(2 / 4)
    assert baseline.judge("multilabel", "macro_f1", known, truth, said) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", ["words", "frequent"])
def test_taggers_as_baselines(kind):
    texts, tags = ["Anna sees Berlin", "Otto sees Rome"] * 5, [("B-p", "O", "B-l")] * 10
    train = dataclasses.replace(part(texts, ["x"] * 10), targets=np.fromiter(tags, object, 10))
    fitted = baseline.fit(kind, "tokens", train, train, metric="entity_f1")
    assert fitted.predict(["Anna sees Rome"]).tolist() == [("B-p", "O", "B-l")] and fitted.validation == 1
    assert fitted.settings["kind"] == kind and fitted.settings["texts"] == 10
    json.dumps(fitted.settings)
    with pytest.raises(ConfigError, match="no baseline for tokens"):
        baseline.check("majority", "tokens", train)


@pytest.mark.slow
def test_a_tagger_is_good_on_real_words():
    """Parts of speech from half of a small treebank: far above the commonest tag of each word."""
    if "MINIBERT_DATA" not in os.environ:
        pytest.skip("real texts are read from the folder MINIBERT_DATA, which is not set")
    path = Path(os.environ["MINIBERT_DATA"]) / "ud_english_ewt" / "en_ewt-ud-dev.conllu"
    frame = read_table(path).frame
    tags = np.fromiter((tuple(cell.split(" ")) for cell in frame["UPOS"]), object, len(frame))
    cuts = [slice(0, 500), slice(500, 600), slice(600, 1000)]
    train, validation, test = (
        dataclasses.replace(part(frame["FORM"][cut].tolist(), ["x"]), targets=tags[cut]) for cut in cuts
    )
    scores = {}
    for kind in ("words", "frequent"):
        fitted = baseline.fit(kind, "tokens", train, validation, metric="accuracy")
        scores[kind] = metrics.value("accuracy", test.targets, fitted.predict(test.texts), kind="tokens")
    assert scores["words"] > 0.86 and 0.7 < scores["frequent"] < 0.84, scores
