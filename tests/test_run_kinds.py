"""Whole runs of tagged words and of several labels a text, on a tiny model: files, scores, report, predict."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest

import minibert
from minibert import spec
from minibert.errors import ConfigError, DataError
from minibert.kinds import words_of
from minibert.predict import predict_file
from minibert.run import headline, run

from .test_report import Page
from .test_run import PLAIN, TOPICS, weights  # noqa: F401  fixture

TOPIC_OF = {word: topic for topic, words in TOPICS.items() for word in words.split()}


def sentences(n, seed):
    """Sentences whose topic words are entities; neighbours of one topic are one entity."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(n):
        words = [w for topic in rng.choice(list(TOPICS), rng.integers(1, 4))
                 for w in (*rng.choice(PLAIN.split(), 2), *rng.choice(TOPICS[topic].split(), rng.integers(1, 3)))]  # fmt: skip
        tags, before = [], ""
        for word in words:
            topic = TOPIC_OF.get(word, "")
            tags.append(f"{'I' if topic == before else 'B'}-{topic}" if topic else "O")
            before = topic
        out.append((words, tags))
    return out


def write_conll(path, rows):
    text = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in zip(*row)) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")


def write_sets(path, n, seed):
    """Texts with one or two topics, or none; their labels separated by a bar."""
    rng = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "topics"])
        for i in range(n):
            topics = sorted(rng.choice(list(TOPICS), i % 3, replace=False))
            words = [w for topic in topics for w in rng.choice(TOPICS[topic].split(), 3)]
            out.writerow(
                [" ".join(rng.permutation([*words, *rng.choice(PLAIN.split(), 3)])), " | ".join(topics)]
            )


def task(folder, weights, kind, **changes):  # noqa: F811
    keys = {
        "tokens": {"train": "train.conll", "test": "test.conll", "text": "1", "label": "2"},
        "multilabel": {"train": "train.csv", "test": "test.csv", "text": "text", "label": "topics",
                       "label_separator": "|"},
    }[kind]  # fmt: skip
    tables = {
        "task": {"name": "tiny", "kind": kind},
        "data": {"validation": 0.2, **keys},
        "model": {"weights": str(weights), "max_tokens": 10 if kind == "tokens" else 16},
        "train": {"epochs": 25, "learning_rate": 3e-3, "batch_size": 8},
    }
    for name, values in changes.items():
        tables[name] = {**tables.get(name, {}), **values}
    return spec.parse(tables, folder=str(folder))


@pytest.fixture(scope="module")
def tables_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_conll(folder / "train.conll", sentences(120, 1))
    write_conll(folder / "test.conll", sentences(60, 2))
    write_sets(folder / "train.csv", 150, 1)
    write_sets(folder / "test.csv", 60, 2)
    return folder


@pytest.fixture(scope="module")
def tagged(tables_folder, weights):  # noqa: F811
    outcome = run(task(tables_folder, weights, "tokens"), tables_folder / "tokens")
    assert outcome.status == "completed"
    return outcome


@pytest.fixture(scope="module")
def labelled(tables_folder, weights):  # noqa: F811
    outcome = run(task(tables_folder, weights, "multilabel"), tables_folder / "multilabel")
    assert outcome.status == "completed"
    return outcome


def read(outcome, name):
    return json.loads((outcome.folder / name).read_text(encoding="utf-8"))


def table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.slow
def test_words_learn_and_are_scored_by_entity(tagged):
    found = read(tagged, "metrics.json")
    assert list(found["test"]) == ["entity_f1", "entity_precision", "entity_recall", "accuracy", "macro_f1"]
    assert found["test"]["accuracy"]["value"] > 0.8 and found["test"]["accuracy"]["n"] == 60
    assert found["test"]["entity_f1"]["low"] < found["test"]["entity_f1"]["value"]
    assert found["baseline"]["name"] == "Word features + linear SVM"
    assert set(found["difference"]) == set(found["test"]) and "confusion" not in found
    assert [row["label"] for row in found["classes"]] == ["bank", "farm", "ship"]
    true = sum(tag.startswith("B-") for _, tags in sentences(60, 2) for tag in tags)
    assert sum(row["n"] for row in found["classes"]) == true
    assert read(tagged, "status.json")["metric"] == "entity_f1" and "entity_f1 0." in headline(tagged)
    assert read(tagged, "data.json")["parts"]["test"]["words"] == sum(len(w) for w, _ in sentences(60, 2))


def test_every_word_has_an_answer_however_long_its_text(tagged):
    """max_tokens is 10, and many texts are longer: they are read in pieces and nothing is cut."""
    found = table(tagged.folder / "predictions.csv")
    assert list(found.columns) == ["row_id", "1", "2", "label", "words", "tokens", "truncated"]
    counts = [len(words_of(text)) for text in found["1"]]
    assert [len(words_of(tags)) for tags in found["label"]] == counts == found["words"].astype(int).tolist()
    assert max(counts) > 8 and set(found["truncated"]) == {"false"}
    base = table(tagged.folder / "baseline.csv")
    assert [len(words_of(tags)) for tags in base["label"]] == counts


def test_the_scores_are_those_of_the_predictions(tagged):
    found = table(tagged.folder / "predictions.csv")
    pairs = [
        (a, b) for truth, said in zip(found["2"], found["label"]) for a, b in zip(truth.split(), said.split())
    ]
    assert read(tagged, "metrics.json")["test"]["accuracy"]["value"] == pytest.approx(
        np.mean([a == b for a, b in pairs])
    )


def test_the_page_of_tagged_words(tagged):
    page = Page(tagged.folder / "report.html")
    assert "tagging of words" in page.text and "Entity F1" in page.text and "Confusions" not in page.text
    assert "one of 7 tags for each word" in page.text and "read in pieces" in page.text
    assert page.all("span", **{"class": "missed"}) and page.all("span", **{"class": "found"})
    assert "A filled mark is right" in page.text


def test_predict_tags_the_words_of_a_table_and_of_a_conll_file(tagged, tables_folder, tmp_path):
    assert predict_file(str(tagged.folder), tables_folder / "test.conll", tmp_path / "a.csv") == 60
    found = table(tmp_path / "a.csv")
    assert found["label"].tolist() == table(tagged.folder / "predictions.csv")["label"].tolist()
    (tmp_path / "new.csv").write_text(
        '1\n"wheat corn was\u00a0said  new loan"\n" "\nport\n', encoding="utf-8"
    )
    predict_file(str(tagged.folder), tmp_path / "new.csv", tmp_path / "b.csv")
    found = table(tmp_path / "b.csv")
    assert [len(words_of(tags)) for tags in found["label"]] == [5, 0, 1]  # no text, no answer


def test_the_saved_model_of_words_loads_and_answers_alike(tagged):
    model = minibert.load(tagged.folder / "model")
    assert model.head.kind == "tokens" and model.labels[-1] == "O"
    found = table(tagged.folder / "predictions.csv")
    assert model.predict(found["1"].tolist())["label"].tolist() == found["label"].tolist()


def test_tags_that_mark_no_entities_are_scored_by_word(tables_folder, weights, tmp_path):  # noqa: F811
    for part in ("train", "test"):
        rows = sentences(60, len(part))
        with open(tmp_path / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(["words", "tags"])
            out.writerows((" ".join(w), " ".join(t[2:] or "PLAIN" for t in tags)) for w, tags in rows)
    keys = {"train": "train.csv", "test": "test.csv", "text": "words", "label": "tags"}
    one = task(tmp_path, weights, "tokens", data=keys, baseline={"kind": "frequent"}, train={"epochs": 3})
    found = run(one, tmp_path / "out")
    scores = read(found, "metrics.json")
    assert (
        list(scores["test"]) == ["accuracy", "macro_f1"]
        and read(found, "status.json")["metric"] == "accuracy"
    )
    assert scores["baseline"]["name"] == "most frequent tag of each word"
    assert scores["baseline"]["test"]["accuracy"]["value"] > 0.95
    words = sum(len(w) for w, _ in sentences(60, 4))
    assert np.sum(scores["confusion"]) == words == sum(row["n"] for row in scores["classes"])
    page = Page(found.folder / "report.html")
    assert "Confusions" in page.text and "Marked are the words" in page.text


def test_a_metric_of_entities_needs_entities(tables_folder, weights, tmp_path):  # noqa: F811
    (tmp_path / "train.csv").write_text("w,t\n" + "a b,X Y\n" * 9 + "b a,Y X\n" * 9, encoding="utf-8")
    keys = {"source": "train.csv", "split": [0.5, 0.25, 0.25], "text": "w", "label": "t"}
    tables = task(tables_folder, weights, "tokens", train={"metric": "entity_f1"}).table()
    tables["data"] = keys
    with pytest.raises(ConfigError, match="none of train begins with B- or I-"):
        run(spec.parse(tables, folder=str(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_class_weights_are_of_words(tables_folder, weights, tmp_path):  # noqa: F811
    one = task(
        tables_folder,
        weights,
        "tokens",
        train={"class_weights": {"O": 0.01}, "epochs": 2, "learning_rate": 1e-2},
    )
    run(one, tmp_path / "out")
    said = " ".join(table(tmp_path / "out" / "predictions.csv")["label"]).split()
    assert said.count("O") < 0.5 * len(said)  # 6 of 10 words are O, and it hardly counts


@pytest.mark.slow
def test_several_labels_learn_and_none_is_an_answer(labelled):
    found = read(labelled, "metrics.json")
    assert list(found["test"]) == ["micro_f1", "macro_f1", "exact"] and found["labels"] == [
        "bank",
        "farm",
        "ship",
    ]
    assert found["test"]["micro_f1"]["value"] > 0.75 and found["test"]["micro_f1"]["n"] == 60
    assert found["baseline"]["name"].startswith("TF-IDF + ") and "label" in found["baseline"]["name"]
    rows = table(labelled.folder / "predictions.csv")
    assert list(rows.columns) == ["row_id", "text", "topics", "label", "probability_bank", "probability_farm",
                                  "probability_ship", "tokens", "truncated"]  # fmt: skip
    for said, *shares in rows[["label", "probability_bank", "probability_farm", "probability_ship"]].values:
        assert said == "|".join(t for t, p in zip(("bank", "farm", "ship"), shares) if float(p) >= 0.5)
    exact = [truth.replace(" ", "") == said for truth, said in zip(rows["topics"], rows["label"])]
    assert found["test"]["exact"]["value"] == pytest.approx(np.mean(exact))
    assert "" in set(rows["label"])


def test_a_head_of_several_labels_begins_at_each_labels_share(tables_folder, weights):  # noqa: F811
    """Before any step it says of every text what a label's share of the training texts is, about."""
    from minibert.run import look_ahead

    (splits, *_), model, encoded = look_ahead(task(tables_folder, weights, "multilabel"))
    shares = [np.mean([label in target for target in splits.train.targets]) for label in splits.labels]
    assert model.head.out.bias.detach().sigmoid().tolist() == pytest.approx(shares, abs=0.01)
    said = model.answer_table(encoded["test"]).mean(0)
    assert said.tolist() == pytest.approx(shares, abs=0.1) and max(shares) < 0.42


def test_the_page_of_several_labels(labelled):
    page = Page(labelled.folder / "report.html")
    assert "multi-label classification" in page.text and "any of 3 labels, or none" in page.text
    assert "Micro F1" in page.text and "Exact match" in page.text and "Confusions" not in page.text


def test_predict_gives_several_labels(labelled, tables_folder, tmp_path):
    predict_file(str(labelled.folder), tables_folder / "test.csv", tmp_path / "a.csv")
    found = table(tmp_path / "a.csv")
    assert found["label"].tolist() == table(labelled.folder / "predictions.csv")["label"].tolist()
    model = minibert.load(labelled.folder / "model")
    assert model.head.kind == "multilabel" and model.labels == ("bank", "farm", "ship")


def test_labels_that_only_the_test_part_has_count_as_missed(tables_folder, weights, tmp_path):  # noqa: F811
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_bytes((tables_folder / f"{part}.csv").read_bytes())
    with open(tmp_path / "test.csv", "a", encoding="utf-8") as file:
        file.write("wheat corn,farm|mars\n")
    found = run(
        task(tmp_path, weights, "multilabel", train={"epochs": 1}, baseline={"kind": "none"}),
        tmp_path / "out",
    )
    scores = read(found, "metrics.json")
    assert scores["labels"] == ["bank", "farm", "ship"]
    assert scores["classes"][-1] | {"low": 0, "high": 0} == {
        "label": "mars", "precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 1, "said": 0, "low": 0, "high": 0,
    }  # fmt: skip
    assert any("labels that train lacks" in note for note in read(found, "data.json")["notes"])
    with pytest.raises(DataError, match="labels that train lacks"):
        run(task(tmp_path, weights, "multilabel", data={"unseen": "error"}), tmp_path / "other")


def test_folds_of_words_are_scored_together(tables_folder, weights, tmp_path):  # noqa: F811
    tables = task(
        tables_folder, weights, "tokens", train={"epochs": 1}, baseline={"kind": "frequent"}
    ).table()
    tables["data"] = {"source": str(tables_folder / "test.conll"), "folds": 3, "text": "1", "label": "2"}
    found = run(spec.parse(tables), tmp_path / "out")
    assert read(found, "metrics.json")["test"]["accuracy"]["n"] == 60
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [len(words_of(t)) for t in rows["label"]] == [len(words_of(t)) for t in rows["1"]]


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("tokens", {"data": {"pair": "1"}}, "stands alone"),
        ("tokens", {"data": {"empty": "keep"}}, "nothing to tag"),
        ("tokens", {"model": {"truncation": "tail"}}, "never cut"),
        ("tokens", {"train": {"metric": "micro_f1"}}, "none of loss, entity_f1"),
        (
            "multilabel",
            {"train": {"class_weights": "balanced"}},
            "class_weights are for classification and tokens",
        ),
        ("multilabel", {"data": {"label_separator": ""}}, "separates nothing"),
        ("multilabel", {"data": {"label_names": ["a|b"]}}, "holds the separator"),
    ],
)
def test_keys_that_a_kind_has_no_use_for(tables_folder, weights, kind, changes, match):  # noqa: F811
    with pytest.raises(ConfigError, match=match):
        task(tables_folder, weights, kind, **changes)


def test_a_baseline_of_another_kind_is_refused(tables_folder, weights, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="no baseline for tokens") as problem:
        run(task(tables_folder, weights, "tokens", baseline={"kind": "tfidf"}), tmp_path / "out")
    assert "words or frequent" in str(problem.value)


def test_a_head_without_answers_for_a_table_says_so(weights):  # noqa: F811
    with pytest.raises(ConfigError, match="kind nsp has no answers that fit into a table"):
        minibert.load(weights, head="nsp").predict(["a text"])
