"""More runs than one: what is run in which order, what validation chooses, and that nothing is done twice or lost."""

# ruff: noqa: F811  (fixtures from elsewhere)
from __future__ import annotations

import csv
import dataclasses
import gc
import json
import os
import re
import signal
import statistics
import sys
import weakref
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import minibert
from minibert import cli, folder, report, spec, system
from minibert import sweep as several
from minibert.errors import ConfigError, DataError, EnvironmentProblem, WeightsError
from minibert.model import Model
from minibert.run import run
from minibert.sweep import plan as plans
from minibert.sweep import summary as summaries

from .test_report import chromium  # noqa: F401  fixture
from .test_resume import POSIX, function_of, killed_in, stops
from .test_run import read, task, texts, weights, write  # noqa: F401  fixture

SHORT = {"epochs": 2, "learning_rate": 5e-3, "checkpoint_minutes": 0.0}
RATES = ["learning_rate=1e-3,5e-3,1e30"]
BROKEN = {"clip": 0.0, "warmup": 0.0}  # with a rate of 1e30


def short(tmp_path, weights, baseline="none", **changes):
    """A task of 18 steps."""
    return task(tmp_path, weights, train=SHORT | changes, baseline={"kind": baseline})


def planned(one, seeds=None, *words):
    return plans.make_plan(one, seeds, words)


def rows_of(out):
    """summary.csv."""
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def seeded(weights, tmp_path_factory):
    """Three seeds of one task."""
    tmp_path = tmp_path_factory.mktemp("seeded")
    one = short(tmp_path, weights, "tfidf", epochs=4)
    outcome = several.sweep(planned(one, 3), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 0)
    return one, tmp_path / "out"


@pytest.fixture(scope="module")
def swept(weights, tmp_path_factory):
    """Two rates that learn, and one that diverges, each with two seeds."""
    tmp_path = tmp_path_factory.mktemp("swept")
    outcome = several.sweep(planned(short(tmp_path, weights, **BROKEN), 2, *RATES), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 1), "two runs diverged"
    return outcome


# --- the plan -------------------------------------------------------------------------------------


def test_a_grid_gives_each_setting_once_before_any_has_its_second_seed(weights, tmp_path):
    plan = planned(short(tmp_path, weights), 2, "learning_rate=1e-5,2e-5", "model.truncation=head,tail")
    assert [plan.folder(*one) for one in plan.runs()] == [
        f"learning_rate={rate},truncation={cut}/seed-{seed}"
        for seed in (0, 1) for rate in ("1e-5", "2e-5") for cut in ("head", "tail")
    ]  # fmt: skip
    assert [(plan.spec(*one).train.learning_rate, plan.spec(*one).model.truncation, plan.spec(*one).train.seed)
            for one in plan.runs()][:3] == [(1e-5, "head", 0), (1e-5, "tail", 0), (2e-5, "head", 0)]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("epochs=1, 2", [1, 2]),
        ("layer_decay=0.9,1", [0.9, 1.0]),
        ("truncation=head,tail", ["head", "tail"]),
        ('truncation="head","head+tail"', ["head", "head+tail"]),
        ("recompute=true,false", [True, False]),
        ('class_weights="none",{farm = 2.0, bank = 1, ship = 1}', ["none", {"farm": 2.0, "bank": 1.0, "ship": 1.0}]),
        ("weights=one,two", ["one", "two"]),
    ],
)  # fmt: skip
def test_values_are_toml_or_plain_words(weights, tmp_path, word, values):
    plan = planned(short(tmp_path, weights), None, word)
    assert list(plan.swept.values()) == [values]
    assert plan.seeds == (0,) and plan.task.train.seed == 0


def test_every_problem_is_told_at_once(weights, tmp_path):
    words = ("learning_rate=1e-5,-1", "epochz=1,2", "truncation=head,middle", "batch_size=8", "rates", "kind=a,b",
             "batch_size=4,8")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        planned(short(tmp_path, weights), 1, *words)
    for said in ("--seeds 1", "learning_rate = -1", "epochz is no key of a spec; did you mean \"epochs\"",
                 "truncation = 'middle' is none of", "two values or more", "key=value,value",
                 "task.kind or baseline.kind", "batch_size is swept already"):  # fmt: skip
        assert said in str(caught.value), said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=0,1", "--seeds 5 runs"),
        ("split_seed=0,1", "tested on other texts"),
        ("name=a,b", "changes nothing"),
        ("keep=1,2", "changes nothing"),
        ("trackers=[],['tensorboard']", "changes nothing"),
        ("baseline.kind=tfidf,none", "changes nothing"),
        ("learning_rate=1e-5,0.00001", "learning_rate=1e-5 and learning_rate=1e-5 are the same training"),
        ("lora_alpha=8,16", "lora_alpha=8 and lora_alpha=16 are the same training"),
        ("stride=2,4", "the same training"),
    ],
)
def test_what_changes_nothing_is_refused(weights, tmp_path, word, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        planned(short(tmp_path, weights), None, word)
    assert planned(short(tmp_path, weights, lora_rank=2), None, "lora_alpha=8,16").settings


def test_folders_are_safe_and_apart(weights, tmp_path):
    names = ["a/m", "b/m", "../m", "M", "x y:z*?", "ü" * 90]
    plan = planned(short(tmp_path, weights), None, f"weights={','.join(names)}")
    assert plan.folders[:4] == ("weights=m", "weights=m-2", "weights=m-3", "weights=M-4")
    assert len({one.casefold() for one in plan.folders}) == len(names)
    assert all(re.fullmatch(r"[\w.,=+-]{1,90}", one) and ".." not in one for one in plan.folders)


# --- seeds ----------------------------------------------------------------------------------------


def test_each_seed_is_the_run_it_would_be_alone(seeded, tmp_path):
    one, out = seeded
    assert {p.name for p in out.iterdir()} == {"seed-0", "seed-1", "seed-2", "summary.json", "summary.csv",
                                               "report.html", "spec.toml"}  # fmt: skip
    alone = dataclasses.replace(one, train=dataclasses.replace(one.train, seed=1))
    run(alone, tmp_path / "alone")
    for name in ("metrics.json", "predictions.csv", "model/model.safetensors", "spec.toml"):
        assert (out / "seed-1" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    models = {(out / f"seed-{i}" / "model" / "model.safetensors").read_bytes() for i in range(3)}
    assert len(models) == 3


def test_mean_and_spread_of_every_score(seeded):
    _, out = seeded
    summary = read(out, "summary.json")
    own = summary["settings"][0]
    runs = [read(out / f"seed-{i}", "metrics.json") for i in range(3)]
    tables = {
        "test": [one["test"] for one in runs],
        "baseline": [one["baseline"]["test"] for one in runs],
        "difference": [one["difference"] for one in runs],
    }
    for part, found in tables.items():
        assert own[part].keys() == {"accuracy", "macro_f1"}
        for name, spread in own[part].items():
            values = [one[name]["value"] for one in found]
            wanted = (np.mean(values), np.std(values, ddof=1), min(values), max(values), 3)
            assert tuple(spread.values()) == pytest.approx(wanted), (part, name)
    assert own["test"]["accuracy"]["deviation"] > 0, "seeds that differ in nothing prove nothing"
    lines = rows_of(out)
    assert [row["seed"] for row in lines] == ["0", "1", "2"] and {row["status"] for row in lines} == {
        "completed"
    }
    assert [float(row["test_accuracy"]) for row in lines] == [
        one["test"]["accuracy"]["value"] for one in runs
    ]
    best = max(
        range(3), key=lambda i: (float(lines[i]["validation_macro_f1"]), -float(lines[i]["validation_loss"]))
    )
    assert summary["model"] == f"seed-{best}" and summary["chosen"]["values"] == {}


def test_the_terminal_and_the_page_say_the_same(seeded):
    _, out = seeded
    summary, page = read(out, "summary.json"), Text((out / "report.html").read_text(encoding="utf-8"))
    score = summary["settings"][0]["test"]["accuracy"]
    said = summaries.headline(summary, out / "report.html")
    assert f"accuracy {score['mean']:.3f} (sd {score['deviation']:.3f}) on average over 3 seeds" in said
    for number in (score["mean"], score["deviation"], score["min"], score["max"]):
        assert f"{number:.3f}" in page.text
    assert {f"seed-{i}/report.html" for i in range(3)} <= set(page.links)
    assert "script" not in page.tags and page.text.count("so far") == 0


@pytest.mark.slow
def test_all_seeds_are_tested_on_the_same_texts(weights, tmp_path):
    """Where the test part is drawn from a table it is the spec's own; what is learned from is drawn anew."""
    write(tmp_path / "all.csv", texts(120, 3))
    tables = short(tmp_path, weights, epochs=1, seed=4).table()
    tables["data"] = {"source": "all.csv", "split": [0.6, 0.2, 0.2], "text": "text", "label": "topic"}
    one = spec.parse(tables, folder=str(tmp_path))
    several.sweep(planned(one, 3), tmp_path / "out")
    run(one, tmp_path / "alone")

    def tested(where):
        return sorted(pd.read_csv(where / "predictions.csv")["row_id"])

    parts = [tested(tmp_path / "out" / f"seed-{i}") for i in range(3)]
    assert parts[0] == parts[1] == parts[2] == tested(tmp_path / "alone")
    run(dataclasses.replace(one, train=dataclasses.replace(one.train, seed=1)), tmp_path / "other")
    assert tested(tmp_path / "other") != parts[0], "a seed that is set moves them as ever"
    scores = [
        row["validation"]["loss"] for row in read(tmp_path / "out", "summary.json")["settings"][0]["runs"]
    ]
    assert len(set(scores)) == 3
    assert "split_seed = 4" in (tmp_path / "out" / "seed-0" / "spec.toml").read_text(encoding="utf-8")


# --- what validation chooses ----------------------------------------------------------------------


def made(*settings):
    """Settings as `chosen` takes them: of each, (validation score, loss) by seed, None for a run that failed."""
    out = []
    for runs in settings:
        rows = []
        for seed, score in enumerate(runs):
            row = {"seed": seed, "status": "completed" if score else "diverged", "validation": {}}
            rows.append(row | {"validation": dict(zip(("macro_f1", "loss"), score))} if score else row)
        out.append({"runs": rows})
    return out


@pytest.mark.parametrize(
    ("settings", "metric", "ranked"),
    [
        ([[(0.5, 1)], [(0.7, 2)], [(0.6, 0)]], "macro_f1", [1, 2, 0]),
        ([[(0.5, 1)], [(0.7, 2)], [(0.6, 0)]], "loss", [2, 0, 1]),
        ([[(0.5, 1), (0.9, 1)], [(0.6, 1), (0.6, 1)]], "macro_f1", [0, 1]),  # the mean
        ([[(0.5, 1)], [(0.5, 0.9)]], "macro_f1", [1, 0]),  # a tie
        ([[(0.9, 1), None], [(0.6, 1), (0.6, 1)]], "macro_f1", [1]),  # a failed run
        ([[(0.5, 1), (0.9, 1)], [(0.6, 1)]], "macro_f1", [1, 0]),  # on the seeds that both have
        ([[(0.5, 1)], []], "macro_f1", [0]),  # not run yet
        ([[(None, 1)], [(0.1, 1)]], "macro_f1", [1]),  # undefined
        ([[None], [None]], "macro_f1", []),
    ],
)
def test_the_best_on_validation_is_chosen(settings, metric, ranked):
    assert summaries.chosen(made(*settings), metric) == ranked


def test_a_sweep_is_decided_on_validation_and_tells_the_test_beside_it(swept):
    out, summary = swept.folder, read(swept.folder, "summary.json")
    one, two, three = summary["settings"]
    for own in (one, two):
        seen = []
        for row in own["runs"]:
            lines = (out / row["folder"] / "history.jsonl").read_text(encoding="utf-8").splitlines()
            best = [event for event in map(json.loads, lines) if event.get("best")][-1]
            assert row["validation"]["macro_f1"] == best["macro_f1"]
            seen.append(best["macro_f1"])
        assert own["validation"]["macro_f1"]["mean"] == pytest.approx(statistics.fmean(seen))
    better = max((one, two), key=lambda own: own["validation"]["macro_f1"]["mean"])
    assert summary["chosen"]["values"] == better["values"] and summary["model"].startswith(better["folder"])
    assert three["test"] == {} and [row["status"] for row in three["runs"]] == ["diverged"] * 2
    assert "not finite" in three["runs"][0]["reason"]
    said = several.headline(swept)
    assert f"chosen on validation: {better['name']}" in said and "2 of 6 runs failed" in said
    assert [row["learning_rate"] for row in rows_of(out)] == [
        "0.001",
        "0.001",
        "0.005",
        "0.005",
        "1e+30",
        "1e+30",
    ]


def test_the_page_of_a_sweep_says_where_the_choice_was_made(swept):
    page = Text((swept.folder / "report.html").read_text(encoding="utf-8"))
    best = read(swept.folder, "summary.json")["chosen"]["name"].replace("learning_rate=", "learning rate ")
    assert f"Chosen on validation: {best}" in page.text and "had no part in the choice" in page.text
    assert "2 runs of 6 failed" in page.text and "diverged seeds 0, 1" in page.text
    assert len(page.tags["svg"]) == 2 + 2, "two cards, validation, test"
    assert all(
        re.fullmatch(r"learning_rate%3D\d[\w.-]*/seed-[01]/report\.html|#\w+", link) for link in page.links
    )
    for link in page.links:
        assert link.startswith("#") or (swept.folder / link.replace("%3D", "=")).is_file()


def test_folds_choose_by_their_mean(weights, tmp_path):
    write(tmp_path / "all.csv", texts(60, 3))
    tables = short(tmp_path, weights, epochs=1).table()
    tables["data"] = {"source": "all.csv", "folds": 3, "validation": 0.2, "text": "text", "label": "topic"}
    outcome = several.sweep(planned(spec.parse(tables, folder=str(tmp_path)), 2), tmp_path / "out")
    for row in outcome.metrics["settings"][0]["runs"]:
        lines = (tmp_path / "out" / row["folder"] / "history.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [event["loss"] for event in map(json.loads, lines) if event.get("best")]
        assert len(losses) == 3 and row["validation"]["loss"] == pytest.approx(statistics.fmean(losses))
    rows = [
        pd.read_csv(tmp_path / "out" / f"seed-{i}" / "predictions.csv")["row_id"].tolist() for i in (0, 1)
    ]
    assert rows[0] == rows[1], "the folds are the spec's own, too"


def test_settings_that_see_other_texts_are_told(weights, tmp_path):
    plan = planned(short(tmp_path, weights, epochs=1), None, "examples=30,60")
    outcome = several.sweep(plan, tmp_path / "out")
    assert outcome.metrics["unequal"] == ["validation"]
    assert "validated on different texts" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [(), ("pooling=cls,mean",)])
def test_regression_without_a_baseline_has_its_page(weights, tmp_path, words):
    one = task(tmp_path, weights, "regression", train=SHORT | {"epochs": 1}, baseline={"kind": "none"})
    several.sweep(planned(one, None if words else 2, *words), tmp_path / "out")
    page = Text((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "No baseline was run." in page.text and "RMSE" in page.text
    assert len(page.tags["svg"]) == 5 + 2 * len(words), "five metrics; validation and test by pooling"


# --- interrupted, and gone on with ----------------------------------------------------------------


def counted(monkeypatch):
    """The folders of the runs that are really done."""
    done, real = [], several.run

    def wrapped(one, out, **options):
        done.append((f"{out.parent.name}/{out.name}", options))
        return real(one, out, **options)

    monkeypatch.setattr(several, "run", wrapped)
    return done


def same_results(out, wanted):
    for row in rows_of(wanted):
        for name in ("metrics.json", "predictions.csv", "model/model.safetensors"):
            if row["status"] == "completed":
                one, two = (f / row["folder"] / name for f in (out, wanted))
                assert one.read_bytes() == two.read_bytes(), one
    clock = {"minutes"}
    for one, two in zip(rows_of(out), rows_of(wanted), strict=True):
        assert {k: v for k, v in one.items() if k not in clock} == {
            k: v for k, v in two.items() if k not in clock
        }


@POSIX
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_stop_saves_and_exits_75_and_resume_does_the_rest(number, seeded, tmp_path, monkeypatch, capsys):
    one, whole = seeded
    stops(monkeypatch, *function_of("minibert.fit.log_step"), at=36 + 15, number=number)
    outcome = several.sweep(planned(one, 3), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("stopped", 75)
    summary = read(tmp_path / "out", "summary.json")
    assert summary["status"] == "stopped" and "1 of 3 runs done" in summary["message"]
    assert f"minibert run {tmp_path / 'out'} --resume" in capsys.readouterr().err
    assert "so far" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert folder.read_status(tmp_path / "out" / "seed-1") == "stopped"
    monkeypatch.undo()
    done = counted(monkeypatch)
    assert several.sweep(planned(one, 3), tmp_path / "out", resume=True).exit_code == 0
    assert done == [("out/seed-1", {"resume": True}), ("out/seed-2", {})]
    same_results(tmp_path / "out", whole)
    with pytest.raises(ConfigError, match="is done: there is nothing to resume"):
        several.sweep(planned(one, 3), tmp_path / "out", resume=True)


@POSIX
def test_a_stop_that_comes_as_a_run_ends_ends_the_series(seeded, tmp_path, monkeypatch):
    one, _ = seeded
    stops(monkeypatch, minibert.report, "write")
    outcome = several.sweep(planned(one, 3), tmp_path / "out")
    assert outcome.exit_code == 75 and "1 of 3 runs done" in outcome.metrics["message"]
    assert folder.read_status(tmp_path / "out" / "seed-0") == "completed"
    assert not (tmp_path / "out" / "seed-1").exists()


@POSIX
def test_a_stop_before_the_first_run_leaves_nothing(seeded, tmp_path, monkeypatch, capsys):
    one, _ = seeded
    monkeypatch.setattr(several.checks, "look_ahead", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    outcome = several.sweep(planned(one, 3), tmp_path / "out")
    assert (outcome.exit_code, (tmp_path / "out").exists()) == (75, False)
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    ("where", "at", "steps"), [("log_step", 36 + 15, 0), ("log_step", 36 + 15, 4), ("save_file", 6, 4)]
)
def test_a_killed_series_goes_on(where, at, steps, seeded, tmp_path):
    """With a checkpoint from there, without one (or with a torn one alone) that run begins again."""
    one, whole = seeded
    one = dataclasses.replace(one, train=dataclasses.replace(one.train, checkpoint_steps=steps))
    dotted = f"minibert.{'fit' if where == 'log_step' else 'resume'}.{where}"
    killed_in(*function_of(dotted), at, lambda: several.sweep(planned(one, 3), tmp_path / "out"))
    assert read(tmp_path / "out", "summary.json")["status"] == "running"
    with pytest.raises(ConfigError, match="already holds runs.*\n.*--resume"):
        several.sweep(planned(one, 3), tmp_path / "out")
    assert several.sweep(planned(one, 3), tmp_path / "out", resume=True).status == "completed"
    same_results(tmp_path / "out", whole)


@pytest.mark.slow
def test_a_plan_may_grow_but_not_shrink_or_change(weights, tmp_path, monkeypatch):
    one = short(tmp_path, weights, epochs=1)
    several.sweep(planned(one, 2, "batch_size=8,16"), tmp_path / "out")
    for smaller in (
        planned(one, None, "batch_size=8,16"),
        planned(one, 2, "batch_size=8,32"),
        planned(one, 2),
    ):
        with pytest.raises(ConfigError, match="not asked for now"):
            several.sweep(smaller, tmp_path / "out", resume=True)
    with pytest.raises(ConfigError, match="another spec.*epochs is 2, was 1"):
        several.sweep(planned(short(tmp_path, weights), 2, "batch_size=8,16"), tmp_path / "out", resume=True)
    done = counted(monkeypatch)
    several.sweep(planned(one, 3, "batch_size=8,16,32"), tmp_path / "out", resume=True)
    assert len(done) == 9 - 4 and len(rows_of(tmp_path / "out")) == 9


def test_other_data_than_before_is_refused(weights, tmp_path, monkeypatch):
    one = short(tmp_path, weights, epochs=1)
    monkeypatch.setattr(several.Series, "run", lambda *_: False)
    assert several.sweep(planned(one, 2), tmp_path / "out").exit_code == 75
    write(tmp_path / "train.csv", texts(90, 7))
    with pytest.raises(ConfigError, match=r"this has changed: \[data\] train"):
        several.sweep(planned(one, 2), tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    "problem",
    [
        WeightsError("no luck"),
        *(pytest.param(x, marks=pytest.mark.slow) for x in (RuntimeError("a bug"), MemoryError("no room"))),
    ],
)
def test_a_run_that_fails_is_a_row_and_is_tried_again(problem, weights, tmp_path, monkeypatch):
    one, real = short(tmp_path, weights, epochs=1), several.run

    def fails(spec, out, **options):
        if out.name == "seed-0":
            raise problem
        return real(spec, out, **options)

    monkeypatch.setattr(several, "run", fails)
    outcome = several.sweep(planned(one, 3), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 1)
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows] == ["failed", "completed", "completed"]
    assert str(problem) in rows[0]["reason"] and outcome.metrics["settings"][0]["test"]["accuracy"]["n"] == 2
    assert "1 run of 3 failed" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    monkeypatch.undo()
    done = counted(monkeypatch)
    assert several.sweep(planned(one, 3), tmp_path / "out", resume=True).exit_code == 0
    assert [name for name, _ in done] == ["out/seed-0"]


def test_a_diverged_run_is_not_tried_again(swept, monkeypatch):
    plan = several.planned(str(swept.folder), {}, None, [], True)[0]
    with pytest.raises(ConfigError, match="nothing to resume"):
        several.sweep(plan, swept.folder, resume=True)


# --- refused --------------------------------------------------------------------------------------


def test_what_no_setting_can_do_is_refused_before_the_first_run(weights, tmp_path):
    plan = planned(short(tmp_path, weights), 2, "max_tokens=16,99", "batch_size=8,16")
    with pytest.raises(ConfigError) as caught:
        several.sweep(plan, tmp_path / "out")
    assert str(caught.value).count("holds 40 positions") == 2 and "max_tokens=16" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        several.sweep(
            planned(task(tmp_path, weights, data={"text": "Text"}), None, "batch_size=8,16"), tmp_path / "out"
        )
    assert "batch_size" not in str(caught.value), "what is wrong with all is told once"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_that_holds_something_is_left_alone(seeded, tmp_path, weights):
    one, out = short(tmp_path, weights, epochs=1), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not of several runs: thesis.txt"):
        several.sweep(planned(one, 2), out, overwrite=True)
    with pytest.raises(ConfigError, match="no runs that could be resumed"):
        several.sweep(planned(one, 2), out, resume=True)
    (out / "thesis.txt").unlink()
    several.sweep(planned(one, 2, "batch_size=8,16"), out)
    for place in ("", "batch_size=8", "batch_size=8/seed-1"):
        (out / place / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match="thesis.txt"):
            several.sweep(planned(one, 2), out, overwrite=True)
        (out / place / "thesis.txt").unlink()
    with pytest.raises(ConfigError, match="that are not a run's"):
        run(one, out, overwrite=True)
    inside = task(tmp_path, out / "batch_size=8" / "seed-0" / "model", train=SHORT)
    with pytest.raises(ConfigError, match="which this run would write into"):
        several.sweep(planned(inside, 2), out, overwrite=True)
    (out / ".DS_Store").write_text("litter")
    assert several.sweep(planned(one, 2), out, overwrite=True).exit_code == 0
    assert not list(out.glob("*=*")) and len(rows_of(out)) == 2


@pytest.mark.slow
def test_a_single_runs_folder_is_no_series(tmp_path, weights):
    one = short(tmp_path, weights, epochs=1)
    run(one, tmp_path / "out")
    with pytest.raises(ConfigError, match="not of several runs"):
        several.sweep(planned(one, 2), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "metrics.json").exists()


def test_a_second_process_is_refused(seeded, tmp_path):
    one, out = seeded
    with system.lock(tmp_path / "out" / folder.LOCK), pytest.raises(ConfigError, match="another process"):
        several.sweep(planned(one, 2), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*seed*"))


def test_several_processes_are_refused(weights, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="without torchrun"):
        several.sweep(planned(short(tmp_path, weights), 2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_tracker_is_told_before_anything(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentProblem, match="tensorboard"):
        several.sweep(planned(short(tmp_path, weights, trackers=["tensorboard"]), 2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_does_not_grow_from_run_to_run(weights, tmp_path, monkeypatch):
    """When a run begins, no model of the one before is alive, whether that went well or diverged."""
    made, alive, real, init = [], [], several.run, Model.__init__

    def noted(model, *words, **options):
        made.append(weakref.ref(model))
        init(model, *words, **options)

    def counts(*words, **options):
        alive.append(sum(one() is not None for one in made))
        return real(*words, **options)

    gc.collect()
    monkeypatch.setattr(Model, "__init__", noted)
    monkeypatch.setattr(several, "run", counts)
    several.sweep(planned(short(tmp_path, weights, epochs=1, **BROKEN), 2, *RATES), tmp_path / "out")
    assert len(made) >= 9 and alive == [0] * 6


# --- from the command line ------------------------------------------------------------------------


def says(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.slow
def test_from_the_command_line(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.toml").write_text(short(tmp_path, weights, epochs=1).to_toml(), encoding="utf-8")
    wrong = says("run", "task.toml", "--sweep", "learning_rate=-1,1", "--sweep", "epochz=1,2")
    assert wrong.exit_code == 2 and "learning_rate = -1" in wrong.output and "epochz" in wrong.output
    assert says("run", "task.toml", "--seeds", "0").exit_code == 2
    assert not (tmp_path / "runs").exists()
    done = says("run", "task.toml", "--seeds", "2", "--set", "train.batch_size=16")
    assert done.exit_code == 0 and "on average over 2 seeds" in done.output, done.output
    assert says("run", "task.toml", "--seeds", "2").exit_code == 2, "there are runs already"
    assert "nothing to resume" in says("run", "runs/tiny-seeds", "--resume").output
    more = says("run", "runs/tiny-seeds", "--seeds", "3", "--resume")
    assert more.exit_code == 0 and "on average over 3 seeds" in more.output
    told = says("predict", "runs/tiny-seeds", "--input", "test.csv", "--output", "a.csv")
    assert told.exit_code == 2 and re.search(r"holds several runs\n.*tiny-seeds.seed-\d", told.output)
    grid = says("run", "task.toml", "--sweep", "learning_rate=1e-3,1e30", "--set", "train.clip=0",
                "--set", "train.warmup=0")  # fmt: skip
    assert grid.exit_code == 1 and "chosen on validation: learning_rate=0.001" in grid.output
    assert (tmp_path / "runs" / "tiny-sweep" / "learning_rate=0.001" / "seed-0" / "report.html").exists()


# --- the page -------------------------------------------------------------------------------------


class Text(HTMLParser):
    """A page's text, its tags and where its links go."""

    def __init__(self, source):
        super().__init__()
        self.pieces, self.tags, self.links, self.hidden = [], {}, [], 0
        self.feed(source)
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag != "svg" or given.get("role") == "img":
            self.tags.setdefault(tag, []).append(given)
        self.links += [given["href"]] if tag == "a" else []
        self.hidden += tag == "style"

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        self.pieces += [] if self.hidden else [data]


def invented(tmp_path, name, words, seeds, baseline=True, **facts):
    """A folder of runs that were never made, with a name and reasons full of markup."""
    tables = {
        "task": {"name": f"{name} <b>&", "kind": "classification"},
        "data": {"train": "a", "test": "b", "text": "t", "label": "l"},
        "model": {"weights": "/a/long/folder" * 9},
    }
    plan, rng = plans.make_plan(spec.parse(tables), seeds, words), np.random.default_rng(0)
    rows = {}
    for place, seed in plan.runs():
        score = {"accuracy": 0.8 + rng.normal() / 20, "macro_f1": 0.7 + rng.normal() / 20}
        row = {"seed": seed, "reason": "", "minutes": 3.0, "best_epoch": 2, "status": "completed",
               "validation": {**score, "loss": 0.5}, "n": dict.fromkeys(score, 2189), "baseline_name": "TF-IDF" * baseline,
               "texts": {"train": 270, "validation": 30, "test": 2189}, "test": score,
               "baseline": {k: v - 0.1 for k, v in score.items()} if baseline else {},
               "difference": dict.fromkeys(score, 0.1) if baseline else {}}  # fmt: skip
        if words and place % 5 == 4:
            row |= {"status": "failed", "reason": "<script>alert(1)</script> " + "x" * 300}
        rows[place, seed] = row
    out = tmp_path / name
    table = summaries.summarise(plan, rows, "macro_f1") | {
        "status": "completed", "message": "", "planned": len(rows), "minutes": 36.0, "unequal": [],
        "started": "2031-05-04T09:30:12+00:00", "minibert": "0.1.0", "made_of": [], **facts,
    }  # fmt: skip
    summaries.write_summary(out, table)
    (out / "spec.toml").write_text(plan.task.to_toml(), encoding="utf-8")
    return report.write_several(out)


GRIDS = {
    "seeds": ([], 5),
    "rates": (["learning_rate=1e-5,2e-5,3e-5,5e-5,1e-4"], 3),
    "names": (["weights=all-MiniLM-L6-v2,all-mpnet-base-v2,sentence-transformers/paraphrase-multilingual-MiniLM"], None),
    "grid": (["learning_rate=1e-5,2e-5,3e-5", "batch_size=8,16", "truncation=head,tail"], 2),
    "large": (["learning_rate=1e-5,2e-5,3e-5", "batch_size=8,16,32,64,128", "epochs=1,2,3,4,5"], None),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_a_page_of_any_shape(name, tmp_path):
    words, seeds = GRIDS[name]
    page = Text(invented(tmp_path, name, words, seeds).read_text(encoding="utf-8"))
    drawn = {"seeds": 0, "rates": 2, "names": 2, "grid": 8, "large": 0}[name]
    assert len(page.tags["svg"]) == 2 + drawn and "script" not in page.tags
    assert f"{name} <b>&" in page.text, "markup is text"
    ids = [given["id"] for tags in page.tags.values() for given in tags if "id" in given]
    assert all(link[1:] in ids for link in page.links if link.startswith("#"))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(tmp_path, chromium, width, scheme):
    """No request, no sideways scrolling, no label of a picture outside the page or over another."""
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("request", lambda request: asked.append(request.url))
    for name, (words, seeds) in GRIDS.items():
        tab.goto(invented(tmp_path, name, words, seeds).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        boxes = tab.evaluate(
            "[...document.querySelectorAll('svg[role=img]')].map(s => [...s.querySelectorAll('text:not(.failed)')]"
            ".filter(t => t.textContent).map(t => {const b = t.getBoundingClientRect();"
            " return [b.left, b.right, b.top, b.bottom, !!t.getAttribute('transform')]}))"
        )
        for picture in boxes:
            assert picture and all(left >= 0 and right <= width for left, right, *_ in picture), name
            flat = [one for one in picture if not one[4]]
            for i, (left, right, top, bottom, _) in enumerate(flat):
                for other in flat[:i]:
                    apart = right <= other[0] or left >= other[1] or bottom <= other[2] or top >= other[3]
                    assert apart, (name, flat[i], other)
    assert said == [] and all(url.startswith(("file:", "data:")) for url in asked)


# --- on real weights ------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_rates_and_two_seeds_on_real_weights(minilm, tmp_path):
    """reuters8 from 100 texts, one epoch: four runs, a choice on validation, and a page."""
    out = tmp_path / "out"
    done = says("run", "reuters8", "--set", "train.examples=100", "--set", "train.epochs=1", "--set",
                "train.batch_size=8", "--set", "model.max_tokens=64", "--sweep", "learning_rate=1e-5,2e-4", "--seeds", 2, "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    summary = read(out, "summary.json")
    scores = {one["name"]: one["validation"]["loss"]["mean"] for one in summary["settings"]}
    print(several.headline(several.Outcome(out, "", 0, summary)))
    assert summary["metric"] == "loss" and summary["chosen"]["name"] == min(scores, key=scores.get)
    assert summary["chosen"]["name"] == "learning_rate=2e-4", "the other one hardly moves in twelve steps"
    tested = [pd.read_csv(out / row["folder"] / "predictions.csv")["row_id"] for row in rows_of(out)]
    assert all(len(one) == 2189 for one in tested)
    assert "Chosen on validation: learning rate 2e-4" in Text((out / "report.html").read_text("utf-8")).text
