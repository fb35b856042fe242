"""A whole study on a tiny model: what it runs, what it never looks at, and what it says."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from minibert import data, spec
from minibert import run as running
from minibert.data import withheld
from minibert.errors import ConfigError
from minibert.study import before, store, study
from minibert.study import plan as plans
from minibert.study import series as going
from minibert.study.seal import Ledger

from .test_run import task, texts, weights, write  # noqa: F401  (weights is a fixture)

STUDY = {"examples": [30, 60], "seeds": 2, "methods": ["tfidf-svm", "majority"]}


def small(
    tmp_path,
    weights,  # noqa: F811
    kind="classification",
    **changes,
):
    """A spec with a [study] table."""
    methods = {"methods": ["tfidf-ridge", "mean"]} if kind == "regression" else {}
    changes = {"study": {**STUDY, **methods, **changes.pop("study", {})}, "train": {"epochs": 3}, **changes}
    return task(tmp_path, weights, kind, **changes)


def read(folder, name="study.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):  # noqa: F811
    tmp_path = tmp_path_factory.mktemp("study")
    outcome = study(small(tmp_path, weights), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 0), outcome.table["problems"]
    return tmp_path


def test_a_study_runs_every_cell_once_and_says_what_came_out(finished):
    found = read(finished / "out")
    assert found["status"] == "completed" and found["done"] == found["planned"] == 4
    assert [one["size"] for one in found["comparisons"]] == [30, 60]
    ours = next(one for one in found["curve"] if one["role"] == "fine_tuned")
    assert [p["runs"] for p in ours["points"]] == [2, 2]
    assert {row["name"] for row in found["table"]} == {"fine-tuned", "tfidf-svm", "majority"}
    assert found["seal"]["problems"] == [] and found["seal"]["openings"] == 1
    assert (finished / "out" / "report.html").is_file()


def test_its_scores_are_those_of_the_stored_answers(finished):
    """By scikit-learn, from the answers on disk and the table's own labels."""
    from sklearn.metrics import f1_score

    found = read(finished / "out")
    truth = [row.split(",")[1] for row in (finished / "test.csv").read_text().splitlines()[1:]]
    values = []
    for seed in (0, 1):
        folder = finished / f"out/runs/fine-tuned/n-60/split-0-seed-{seed}"
        labels = store.facts_of(folder)["labels"]
        said = np.array(labels)[np.load(folder / "answers/test.npy").argmax(1)]
        values.append(f1_score(truth, said, average="macro"))
    point = next(one for one in found["curve"] if one["name"] == "fine-tuned")["points"][-1]
    assert point["value"] == pytest.approx(np.mean(values), abs=1e-9)


def test_nothing_that_learns_or_chooses_can_read_the_labels_of_the_test_part():
    part = withheld.Withheld(3)
    assert len(part) == 3
    for wish in (
        lambda: part[0],
        lambda: list(part),
        lambda: np.asarray(part),
        lambda: part == 1,
        lambda: part.shape,
    ):
        with pytest.raises(withheld.SealBroken):
            wish()


def test_a_run_that_reads_the_labels_early_ends_the_study(tmp_path, weights, monkeypatch):  # noqa: F811
    true = running.fit

    def peeking(given, splits, *rest):
        sorted(splits.test.targets)
        return true(given, splits, *rest)

    monkeypatch.setattr(running, "fit", peeking)
    with pytest.raises(withheld.SealBroken):
        study(small(tmp_path, weights, study={"examples": [60], "seeds": 1}), tmp_path / "out")
    assert read(tmp_path / "out")["status"] == "failed"
    assert not (tmp_path / "out" / "seal.json").exists()


def test_the_table_that_all_parts_share_has_no_labels_of_the_test_part(tmp_path, weights):  # noqa: F811
    given = from_one_table(small(tmp_path, weights), tmp_path)
    splits = data.load_splits(given, Path)
    bare = withheld.withheld(splits, "topic")
    for part in (bare.train, bare.validation, bare.test):
        blank = np.flatnonzero(part.table.frame["topic"] == "")
        assert np.array_equal(blank, np.sort(splits.test.rows))
    assert (splits.test.table.frame["topic"] != "").all(), "the table itself stays as it was"
    assert np.array_equal(bare.train.targets, splits.train.targets)


def from_one_table(given, tmp_path):
    """The same task on one table that is split."""
    write(tmp_path / "all.csv", texts(120, 3))
    one = {"train": "", "test": "", "source": str(tmp_path / "all.csv"), "split": (0.6, 0.15, 0.25)}
    return dataclasses.replace(given, data=dataclasses.replace(given.data, **one))


def test_what_fails_everywhere_leaves_the_labels_unread(tmp_path, weights, monkeypatch):  # noqa: F811
    """Mended and resumed, the study is scored for the first time."""

    def broken(*args, **kwargs):
        raise ValueError("a bug")

    given = small(tmp_path, weights, study={"examples": [60], "seeds": 1})
    with monkeypatch.context() as patch:
        patch.setattr(going, "run", broken)
        outcome = study(given, tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "a bug" in next(iter(outcome.table["problems"].values()))
    assert not (tmp_path / "out" / "seal.json").exists()
    outcome = study(given, tmp_path / "out", resume=True)
    assert outcome.exit_code == 0 and outcome.table["seal"]["openings"] == 1


def test_a_method_that_fails_costs_nobody_else(tmp_path, weights, monkeypatch):  # noqa: F811
    true = going.rungs.fit

    def failing(name, *args, **kwargs):
        if name == "tfidf-svm":
            raise np.linalg.LinAlgError("singular")
        return true(name, *args, **kwargs)

    monkeypatch.setattr(going.rungs, "fit", failing)
    outcome = study(small(tmp_path, weights, study={"examples": [60], "seeds": 1}), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 1)
    assert {row["name"] for row in outcome.table["table"]} == {"fine-tuned", "majority"}
    assert outcome.table["chosen"]["traditional"] is None


def test_without_texts_none_is_written(finished, tmp_path, weights):  # noqa: F811
    given = small(tmp_path, weights, study={"examples": [60], "seeds": 1})
    bare = dataclasses.replace(given, data=dataclasses.replace(given.data, keep_texts=False))
    study(bare, tmp_path / "out")
    some = [row.split(",")[0] for row in (tmp_path / "test.csv").read_text().splitlines()[1:]]
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in (".html", ".json", ".csv", ".md", ".jsonl"):
            told = path.read_text(encoding="utf-8")
            assert not [text for text in some if text in told], path.name
    told = (finished / "out" / "predictions.csv").read_text(encoding="utf-8")
    assert sum(text in told for text in some) == len(some), "which others are"


def test_settings_that_nobody_could_tell_apart_are_refused(tmp_path, weights):  # noqa: F811
    two = [str(weights), str(weights.parent / "other" / weights.name)]
    with pytest.raises(ConfigError, match="two have the same name"):
        study(small(tmp_path, weights, study={"weights": two}), tmp_path / "out")
    long = [plans.Setting({"weights": "w" * 90 + str(i)}, ("weights",)) for i in range(2)]
    assert len({one.folder for one in long}) == 2


def test_the_proof_notices_what_changes_afterwards(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished / "out", folder)
    ledger, choices = Ledger(folder), read(folder)["choices"]
    assert ledger.problems(choices) == []
    other = json.loads(json.dumps(choices))
    other["sizes"][0]["fine_tuned"] = "another"
    assert "choices" in ledger.problems(other)[0]
    path = next(folder.glob("runs/*/n-30/*/answers/test.npy"))
    np.save(path, np.load(path) + 1)
    assert "1 files of answers changed" in ledger.problems(choices)[0]


def test_a_study_that_is_stopped_goes_on(tmp_path, weights, monkeypatch, finished):  # noqa: F811
    """After the first run a signal comes; resumed, it comes to the same answers as without."""
    true, calls = going.run, []

    def once(*args, **kwargs):
        outcome = true(*args, **kwargs)
        if not calls:
            signal.raise_signal(signal.SIGTERM)
        calls.append(1)
        return outcome

    monkeypatch.setattr(going, "run", once)
    given = small(tmp_path, weights)
    outcome = study(given, tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("stopped", 75) and outcome.table["done"] == 1
    assert not (tmp_path / "out" / "seal.json").exists(), "the labels were not read"
    outcome = study(given, tmp_path / "out", resume=True)
    assert outcome.status == "completed" and len(calls) == 4
    one = "runs/fine-tuned/n-60/split-0-seed-1/answers/test.npy"
    assert np.array_equal(np.load(tmp_path / "out" / one), np.load(finished / "out" / one))


def test_only_the_chosen_model_stays(finished):
    models = list((finished / "out").glob("runs/**/model/config.json"))
    assert len(models) == 1
    assert models[0].is_relative_to(finished / "out" / read(finished / "out")["chosen"]["folder"])


@pytest.mark.slow
def test_more_seeds_may_follow_and_the_page_says_that_the_labels_were_read_twice(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    given = spec.load(tmp_path / "copy/out/spec.toml")
    grown = dataclasses.replace(given, study=dataclasses.replace(given.study, seeds=3))
    outcome = study(grown, tmp_path / "copy/out", resume=True)
    assert outcome.table["done"] == 6 and outcome.table["seal"]["openings"] == 2
    assert "read 2 times" in outcome.table["seal"]["problems"][0]
    less = dataclasses.replace(given, study=dataclasses.replace(given.study, seeds=1))
    with pytest.raises(ConfigError, match="seeds was 3 and can't become less"):
        study(less, tmp_path / "copy/out", resume=True)


@pytest.mark.slow
def test_regression_repeated_splits_and_settings(tmp_path, weights):  # noqa: F811
    given = small(
        tmp_path,
        weights,
        "regression",
        study={"examples": [0], "seeds": 1, "splits": 3, "learning_rate": [1e-3, 1e-4]},
    )
    outcome = study(from_one_table(given, tmp_path), tmp_path / "out")
    found = outcome.table
    assert outcome.exit_code == 0 and found["planned"] == 6
    assert {row["name"] for row in found["table"]} == {
        "learning rate 0.001",
        "learning rate 1e-4",
        "tfidf-ridge",
        "mean",
    }
    pearson = next(one for one in found["repeated"] if one["metric"] == "pearson")
    assert len(pearson["differences"]) == 3
    beside = found["comparisons"][0]["scores"]["pearson"]
    assert {k: beside[k] for k in ("value", "low", "high")} == {
        k: pearson[k] for k in ("value", "low", "high")
    }
    assert beside["p_splits"] == pearson["p"] <= beside["p_holm"] and beside["p_randomisation"] is None
    ours = next(one for one in found["table"] if one["name"] == found["chosen"]["fine_tuned"])
    assert ours["against"] is None and found["tests"] == 2, "a constant has no correlation"


@pytest.mark.slow
def test_random_weights_and_continued_pretraining(tmp_path, weights):  # noqa: F811
    words = ["published", "none", "mlm"]
    given = small(
        tmp_path, weights, study={"examples": [0], "seeds": 1, "pretraining": words, "pretraining_epochs": 1}
    )
    outcome = study(given, tmp_path / "out")
    assert outcome.exit_code == 0, outcome.table["problems"]
    assert {f"pretraining {w}" for w in words} <= {row["name"] for row in outcome.table["table"]}
    assert not list((tmp_path / "out/weights").glob("*.txt")), "texts stay where they came from"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": 2}, "only .data. source with split"),
        ({"examples": [30, 30]}, "names something twice"),
        ({"examples": [4]}, "these labels need 6 texts"),
        ({"methods": ["tfidf-svn"]}, "tfidf-svm"),
        ({"transfer": ["nowhere.csv"]}, "nowhere.csv"),
        ({"transfer": ["train.csv"]}, "train.csv is a table that is learned from"),
        ({"subgroup": "topik"}, "topic"),
    ],
)
def test_what_a_study_refuses_before_anything_runs(tmp_path, weights, changes, words):  # noqa: F811
    with pytest.raises(Exception, match=words):
        study(small(tmp_path, weights, study=changes), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, weights, finished):  # noqa: F811
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "years-of-work.csv").touch()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="not of a study"):
            study(small(tmp_path, weights), tmp_path / "out", overwrite=overwrite)
    with pytest.raises(ConfigError, match="already holds a study"):
        study(small(finished, weights), finished / "out")


@pytest.mark.parametrize(("table", "key"), [("study", "weights"), ("study", "transfer"), ("human", "source")])
def test_what_a_study_reads_is_not_written_over(tmp_path, weights, table, key):  # noqa: F811
    own = tmp_path / "out" / "own.csv"
    own.parent.mkdir()
    own.touch()
    value = str(own) if table == "human" else [str(own)]
    more = {"columns": ["a", "b"]} if table == "human" else {}
    given = small(tmp_path, weights, **{table: {key: value, **more}})
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="own.csv lies in"):
            study(given, tmp_path / "out", overwrite=overwrite)
    assert own.exists()


def test_texts_of_a_pretraining_that_fails_are_not_left_behind(tmp_path, weights):  # noqa: F811
    given = small(tmp_path, weights)
    splits = data.load_splits(given, store.locator(given))
    given = dataclasses.replace(given, train=dataclasses.replace(given.train, device="no such device"))
    with pytest.raises(Exception, match="device"):
        before.prepared(tmp_path / "weights/mlm", given, "mlm", splits, 1)
    assert not list((tmp_path / "weights").glob("*.txt"))


def test_the_first_answers_come_first():
    study_ = spec.Study(seeds=2, splits=2, examples=(100, 500))
    one = plans.Plan(None, study_, (), (100, 500), 500)
    assert [(c.seed, c.split, c.size) for c in one.cells()][:3] == [(0, 0, 100), (0, 0, 500), (0, 1, 100)]


def test_texts_of_another_table_are_answered_too(tmp_path, weights):  # noqa: F811
    write(tmp_path / "further.csv", texts(30, 9))
    given = small(tmp_path, weights, study={"examples": [0], "seeds": 1, "transfer": ["further.csv"]})
    found = study(given, tmp_path / "out").table["transfer"]
    assert [one["n"] for one in found] == [30]
    assert 1 <= found[0]["pieces_per_word"] < 2
    assert set(found[0]["scores"]) >= {"fine-tuned", "tfidf-svm"}
