"""Every shipped task parses, and every name it uses is listed."""

import csv
import gzip
import io
import os
import re
import tomllib

import pytest

from minibert import catalogue, spec
from minibert.data import load_splits
from minibert.errors import EnvironmentProblem

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
]


def test_the_shipped_tasks():
    assert sorted(TASKS) == sorted(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_task_parses_and_names_what_is_listed(name):
    task = spec.load(TASKS[name])
    assert task.task.name == name
    assert task.model.weights in catalogue.weights()
    used = [w for w in (task.data.train, task.data.test, task.data.source) if w]
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


def test_worry_is_the_papers_setting():
    task = spec.load(catalogue.locate_task("worry_anxiety"))
    assert task.data.split == (0.625, 0.125, 0.25) and task.task.kind == "regression"
    assert (task.train.learning_rate, task.train.batch_size, task.train.epochs) == (2e-5, 32, 10)


@pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")
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


@pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")
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
@pytest.mark.parametrize("name", [n for n in WANTED if n != "paper_topics"])
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
