"""Every shipped task parses, and every name it uses is listed."""

import csv
import gzip
import io
import os
import re
import tomllib

import pytest

from minibert import catalogue, spec
from minibert.data import load_splits, read_table
from minibert.errors import EnvironmentProblem
from minibert.study.human import read_ratings

TASKS = catalogue.tasks()
WANTED = [
    "reuters8",
    "reuters8_full",
    "reuters52",
    "newsgroups20",
    "worry_anxiety",
    "policy_topics",
    "paper_topics",
    "wnut17",
    "gum_ner",
    "ud_english_ewt",
    "goemotions",
    "paper_worry",
    "paper_topics_small",
    "worry_study",
    "policy_study",
    "policy_headlines",
    "emotion",
    "empathy",
    "distress",
    "happiness_agency",
    "happiness_social",
    "valence",
    "valence_tweets",
    "vader_tweets",
    "responsibility",
    "sentiment_transfer",
    "sentiment_transfer_xlmr",
    "stance_abortion",
    "stsb",
]
STUDIES = catalogue.studies()
NOT_HERE = ("paper_topics", "paper_topics_small")  # their table is to be had by hand
real = pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")


def test_the_shipped_tasks():
    assert sorted(TASKS) == sorted(WANTED)
    assert sorted(STUDIES) == [
        "first_experiments",
        "first_experiments_small",
        "policy_repeated",
        "worry_repeated",
    ]


@pytest.mark.parametrize("name", [*WANTED, *STUDIES])
def test_task_parses_and_names_what_is_listed(name):
    task = spec.load(catalogue.locate_task(name))
    assert task.task.name == name
    assert task.model.weights in catalogue.weights()
    used = [
        w
        for w in (task.data.train, task.data.test, task.data.source, task.data.validation)
        if isinstance(w, str) and w
    ]
    assert used and set(used) <= set(catalogue.data_sets())
    assert spec.parse(tomllib.loads(task.to_toml()), folder=task.folder) == task


def test_the_main_job_is_as_designed():
    task = spec.load(catalogue.locate_task("reuters8"))
    t = task.train
    assert (t.examples, t.epochs, t.learning_rate, t.batch_size, t.seed) == (300, 12, 1e-4, 16, 0)
    assert (task.model.weights, task.model.max_tokens) == ("all-MiniLM-L6-v2", 128)
    full = spec.load(catalogue.locate_task("reuters8_full"))
    assert (full.train.examples, full.train.epochs, full.train.learning_rate) == (0, 3, 5e-5)
    assert (full.data.train, full.data.test) == (task.data.train, task.data.test) and full.model == task.model


@pytest.mark.parametrize("name", ["worry_anxiety", "paper_worry"])
def test_worry_is_the_papers_setting(name):
    task = spec.load(catalogue.locate_task(name))
    assert task.data.split == (0.625, 0.125, 0.25) and task.task.kind == "regression"
    assert (task.train.learning_rate, task.train.batch_size, task.train.epochs) == (2e-5, 32, 10)
    assert task.model.weights == ("bert-base-uncased" if name == "paper_worry" else "all-MiniLM-L6-v2")


def test_the_first_experiments_are_the_papers():
    """In the study's own table; the rest of the spec is its first cell."""
    tables = tomllib.loads(STUDIES["first_experiments"].read_text(encoding="utf-8"))
    assert tables["study"]["weights"] == ["bert-base-uncased", "roberta-base"]
    assert tables["study"]["learning_rate"] == [1e-5, 2e-5, 3e-5]
    assert [tables["train"][key] for key in ("learning_rate", "batch_size", "epochs")] == [2e-5, 32, 3]


@pytest.mark.parametrize("name", [*WANTED, *STUDIES])
def test_what_a_study_names_is_listed(name):
    tables = tomllib.loads(catalogue.locate_task(name).read_text(encoding="utf-8"))
    study, people = tables.get("study", {}), tables.get("human", {})
    assert set(study.get("weights", ())) <= set(catalogue.weights())
    assert set(study.get("transfer", ())) <= set(catalogue.data_sets())
    assert not people or people["source"] in catalogue.data_sets()


@real
@pytest.mark.parametrize("name, rows", [("worry_anxiety", 2491), ("policy_topics", 4449)])
def test_columns_stand_in_the_real_file(name, rows):
    data = spec.load(TASKS[name]).data
    raw = catalogue.locate_data(data.source).read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode(data.encoding)
    header, *body = csv.reader(io.StringIO(text, newline=""), delimiter=data.separator or ",")
    assert data.text in header and data.label in header and len(body) == rows
    if name == "worry_anxiety":
        assert {row[header.index(data.label)] for row in body} <= set("123456789")
    else:
        assert len({row[header.index(data.label)] for row in body}) == 20


@real
@pytest.mark.parametrize(
    "name, kind, labels, entities",
    [("wnut17", "tokens", 13, 6), ("gum_ner", "tokens", 23, 11), ("ud_english_ewt", "tokens", 17, 0),
     ("goemotions", "multilabel", 28, 0)],
)  # fmt: skip
def test_tasks_of_many_labels_load_with_the_labels_that_their_papers_name(name, kind, labels, entities):
    task = spec.load(TASKS[name])
    found = load_splits(task, lambda word: catalogue.locate_data(word, task.folder))
    assert task.task.kind == kind and len(found.labels) == labels
    assert len({label[2:] for label in found.labels if label[:2] in ("B-", "I-")}) == entities
    assert set(found.labels) <= set(task.data.label_names or found.labels)


def test_readme_has_a_row_for_every_task():
    text = (catalogue.package_folder("tasks") / "README.md").read_text(encoding="utf-8")
    for name in WANTED:
        assert re.search(rf"^\| `{name}` \|", text, re.M), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in WANTED if n not in NOT_HERE])
def test_readme_counts_the_texts_of_each_part(name):
    task = spec.load(TASKS[name])
    try:
        found = load_splits(task, lambda word: catalogue.locate_data(word, task.folder))
    except EnvironmentProblem as problem:
        pytest.skip(f"the data can't be had here: {problem}")
    text = (catalogue.package_folder("tasks") / "README.md").read_text(encoding="utf-8")
    cells = re.search(rf"^\| `{name}` \|(.*)", text, re.M)[1].split("|")
    sizes = [len(part) for part in (found.train, found.validation, found.test)]
    assert cells[1].strip() == ", ".join(f"{n:,}" for n in sizes)


# Rows that each source states, less those that the spec drops; distinct labels.
FACTS = {
    "paper_worry": (2491, 0), "worry_study": (2491, 0), "policy_study": (4295, 20), "emotion": (20000, 6),
    "empathy": (1859, 0), "distress": (1859, 0), "happiness_agency": (9921, 2), "happiness_social": (9921, 2),
    "valence": (10062, 0), "valence_tweets": (2567, 0), "vader_tweets": (4200, 0), "responsibility": (999, 2),
    "sentiment_transfer": (3033, 3), "stance_abortion": (933, 3), "stsb": (8628, 0), "policy_headlines": (3076, 27),
}  # fmt: skip


@real
@pytest.mark.parametrize("name", FACTS)
def test_new_tasks_hold_the_texts_and_labels_that_their_sources_state(name):
    task = spec.load(TASKS[name])
    found = load_splits(task, lambda word: catalogue.locate_data(word, task.folder))
    texts = sum(len(part) for part in (found.train, found.validation, found.test))
    assert (texts, len(found.labels)) == FACTS[name]


@real
@pytest.mark.parametrize("name", [n for n in WANTED if n not in NOT_HERE])
def test_ratings_and_names_and_tables_to_transfer_to_fit_the_task(name):
    tables = tomllib.loads(TASKS[name].read_text(encoding="utf-8"))
    study, people, form = tables.get("study", {}), tables.get("human", {}), tables["data"]
    if people:
        table = read_table(
            catalogue.locate_data(people["source"]),
            separator=people.get("separator", ""),
            columns=people.get("header", ()),
        )
        keys = {key: people[key] for key in ("id", "rater", "value", "columns") if key in people}
        ratings = read_ratings(table, tables["task"]["kind"], **keys)
        assert ratings.values.shape[1] > 2
    for word in study.get("transfer", ()):
        table = read_table(catalogue.locate_data(word))
        assert {form["text"], form["label"]} <= set(table.frame.columns)
        assert set(table.frame[form["label"]]) == {str(i) for i in range(len(form["label_names"]))}
    if "subgroup" in study:
        assert study["subgroup"] in read_table(catalogue.locate_data(form["source"])).frame.columns
    if "names" in study:
        task = spec.load(TASKS[name])
        found = load_splits(task, lambda word: catalogue.locate_data(word, task.folder))
        assert set(study["names"]) == set(found.labels)
