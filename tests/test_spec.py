"""The schema of a task: what it takes, what it refuses, and that it says everything at once."""

from __future__ import annotations

import typing

import pytest

from minibert import spec
from minibert.errors import ConfigError

TABLES = {
    "task": {"name": "t", "kind": "classification"},
    "data": {"train": "a.csv", "test": "b.csv", "text": "text", "label": "label"},
    "model": {"weights": "w"},
}


def changed(table: str, **values):
    return {**TABLES, table: {**TABLES.get(table, {}), **values}}


def test_a_spec_comes_back_from_its_own_toml(tmp_path):
    tables = changed("train", class_weights={"a b": 2.0, "ü": 1}, epochs=7, learning_rate=1e-4)
    first = spec.parse(tables)
    path = tmp_path / "spec.toml"
    path.write_text(first.to_toml(), encoding="utf-8")
    again = spec.load(path)
    assert again.table() == first.table()
    assert again.train.class_weights == {"a b": 2.0, "ü": 1.0}
    assert again.folder == str(tmp_path)


def test_overrides_are_toml_or_plain_words(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(spec.parse(TABLES).to_toml(), encoding="utf-8")
    found = spec.load(
        path, {"train.epochs": "5", "model.weights": "other", "data.validation": "0.25", "task.name": '"x"'}
    )
    assert (found.train.epochs, found.model.weights, found.data.validation, found.task.name) == (
        5,
        "other",
        0.25,
        "x",
    )


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (changed("train", epochz=3), ["epochz is no key", 'did you mean "epochs"']),
        ({**TABLES, "trian": {}}, ["[trian]", 'did you mean "train"']),
        (changed("task", kind="clasification"), ["none of", 'did you mean "classification"']),
        (changed("train", epochs="3"), ["must be a whole number"]),
        (changed("data", columns="text"), ["must be a list of texts in quotes"]),
        (changed("data", label_names=["a", 1]), ["must be a list of texts in quotes"]),
        (changed("baseline", kind="word"), ["none of", "'words'"]),
        (changed("train", epochs=True), ["must be a whole number"]),
        (changed("train", epochs=0), ["must lie from 1"]),
        (changed("train", warmup=1.5), ["must lie from 0 to 1"]),
        (changed("train", learning_rate=float("nan")), ["must lie"]),
        (changed("train", learning_rate=0), ["trains nothing"]),
        (changed("train", metric="pearson"), ["none of loss, accuracy, macro_f1"]),
        (changed("train", class_weights="balancd"), ["class_weights"]),
        (changed("data", source="x.csv"), ["leave train and test out", "exactly one of"]),
        (changed("data", split=[0.5, 0.2, 0.3]), ["need source"]),
        (changed("data", validation=1.0), ["between 0 and 1"]),
        (changed("data", pair="b") | {"model": {"weights": "w", "truncation": "window"}}, ["single texts"]),
        (changed("model", truncation="window", stride=125), ["no room to move"]),
        (
            {"task": TABLES["task"], "data": {"text": "t", "label": "l"}, "model": {"weights": "w"}},
            ["needs train and test"],
        ),
        ({"task": {}, "data": {}, "model": {}}, ["name is missing", "text is missing", "weights is missing"]),
    ],
)
def test_what_is_wrong_is_named(tables, words):
    with pytest.raises(ConfigError) as caught:
        spec.parse(tables, where="my.toml")
    for word in ["my.toml", *words]:
        assert word in str(caught.value)


def test_all_problems_stand_in_one_error():
    with pytest.raises(ConfigError) as caught:
        spec.parse(changed("train", epochz=1, batch_size=0) | {"task": {"name": "t", "kind": "x"}})
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("split", [[0.625, 0.125, 0.25], [0.5, 0.25, 0.25]])
def test_the_papers_split_is_one_line(split):
    tables = changed("data", source="x.csv", split=split)
    del tables["data"]["train"], tables["data"]["test"]
    assert spec.parse(tables).data.split == tuple(split)


@pytest.mark.parametrize("split", [[0.6, 0.4], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0]])
def test_shares_must_be_three_and_sum_to_one(split):
    tables = changed("data", source="x.csv", split=split)
    del tables["data"]["train"], tables["data"]["test"]
    with pytest.raises(ConfigError, match="sum to 1"):
        spec.parse(tables)


@pytest.mark.parametrize("text", ["task = 3", "[task\n", "\x00", "[task]\nname = 'a'\nname = 'b'"])
def test_what_is_no_spec_is_said(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"s\.toml"):
        spec.load(path)


def test_seeds_can_be_set_apart():
    names = ("data", "split", "head", "order", "dropout")
    assert spec.parse(changed("train", seed=4)).train.seeds == dict.fromkeys(names, 4)
    apart = spec.parse(changed("train", seed=4, split_seed=1, head_seed=0, dropout_seed=9)).train.seeds
    assert apart == {"data": 4, "split": 1, "head": 0, "order": 4, "dropout": 9}


@pytest.mark.parametrize(
    ("value", "said"),
    [(1e-4, "1e-4"), (2.5e-5, "2.5e-5"), (0.001, "0.001"), (0.0, "0"), (1e30, "1e30"), (2.0, "2"), (-1e-4, "-1e-4"),
     (3, "3"), (True, "true"), (None, "as published"), ("head", "head"), ("/a/b/", "b"), ((1, 2), "[1, 2]")],
)  # fmt: skip
def test_a_value_is_told_in_brief(value, said):
    assert spec.brief(value) == said


def test_a_word_may_mean_a_key_of_any_table():
    assert spec.keys_called("epochs") == spec.keys_called("train.epochs") == ["train.epochs"]
    assert spec.keys_called("kind") == ["task.kind", "baseline.kind"]
    assert spec.keys_called("rain.epochs") == spec.keys_called("poch") == []


def test_paths_become_absolute_and_names_stay(tmp_path):
    (tmp_path / "a.csv").write_text("")
    found = spec.parse(TABLES, folder=str(tmp_path)).absolute()
    assert found.data.train == str(tmp_path / "a.csv")
    assert (found.data.test, found.model.weights, found.data.validation) == ("b.csv", "w", 0.1)


def test_every_fields_type_has_words():
    for schema in spec.TABLES.values():
        for kind in typing.get_type_hints(schema).values():
            assert str(kind) in spec.TYPES


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epochs": "2"}, ["--set epochs=2", "did you mean train.epochs=2?"]),
        ({"train.epoch": "2"}, ["my.toml with --set train.epoch", 'did you mean "epochs"']),
    ],
)
def test_an_override_that_is_wrong_is_named_as_one(tmp_path, overrides, words):
    (tmp_path / "my.toml").write_text(spec.parse(TABLES).to_toml(), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        spec.load(tmp_path / "my.toml", overrides)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_a_default_follows_from_kind_and_labels():
    one = spec.parse(changed("task", kind="tokens"))
    assert spec.chosen_metric(one, ["B-x", "O"]) == spec.scored_metric(one, ["B-x", "O"]) == "entity_f1"
    assert spec.chosen_metric(one, ["NOUN", "VERB"]) == "accuracy"
    loss = spec.parse({**changed("task", kind="multilabel"), "train": {"metric": "loss"}})
    assert spec.chosen_metric(loss, ["a"]) == "loss" and spec.scored_metric(loss, ["a"]) == "micro_f1"
    named = spec.parse({**changed("task", kind="tokens"), "train": {"metric": "entity_recall"}})
    with pytest.raises(ConfigError, match="none of train begins with B- or I-"):
        spec.chosen_metric(named, ["NOUN"])
