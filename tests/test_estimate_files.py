"""`minibert estimate`: the tables that people have, in and out; and the page that explains it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from minibert import estimate
from minibert.cli import app

ROOT = Path(__file__).parent.parent
CLASSES = ("economy", "health", "war")


def write(path, names, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def corpus():
    """600 texts as predict leaves them, and what they are in truth."""
    rng = np.random.default_rng(0)
    truth = rng.choice(CLASSES, 600, p=(0.5, 0.3, 0.2))
    said = np.where(rng.random(600) < 0.8, truth, rng.choice(CLASSES, 600))
    year = rng.integers(2000, 2020, 600)
    party = rng.choice(["left", "right"], 600)
    return truth, said, year, party


@pytest.fixture
def tables(corpus, tmp_path, monkeypatch):
    """answers.csv with all texts, coded.csv with 150 of them, in another order."""
    monkeypatch.chdir(tmp_path)
    truth, said, year, party = corpus
    rows = [(f"text {i}", year[i], party[i], said[i], 0.8, 0.1, 0.1, 4, "false", i) for i in range(600)]
    names = (
        "text",
        "year",
        "party",
        "label",
        *(f"probability_{x}" for x in CLASSES),
        "tokens",
        "truncated",
        "row_id",
    )
    write(tmp_path / "answers.csv", names, rows)
    write(tmp_path / "coded.csv", ("topic", "row_id"), [(truth[i], i) for i in reversed(range(0, 600, 4))])
    return tmp_path


def says(*words, code=0):
    """What the command prints, or with another exit code what it complains of."""
    done = CliRunner().invoke(app, ["estimate", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def answers(*words):
    says(*words, "--out", "out.json", "--overwrite")
    return json.loads(Path("out.json").read_text("utf-8"))


PLAIN = ("answers.csv", "--coded", "coded.csv", "--label", "topic")


def test_shares_of_each_class_are_those_of_the_arrays(tables, corpus):
    truth, said, *_ = corpus
    found = answers(*PLAIN)
    assert (found["texts"], found["coded"]) == (600, 150)
    coded = np.arange(0, 600, 4)
    for one, name in zip(found["estimates"], CLASSES, strict=True):
        expected = estimate.share(said == name, coded, truth[coded] == name, of=name)
        assert one == json.loads(json.dumps(expected.as_dict()))
    printed = says(*PLAIN)
    header, *rows = printed.split("\n\n")[0].splitlines()
    assert re.split(r"\s{2,}", header) == ["share of", "naive", "coded only", "corrected", "texts", "coded"]
    assert [row.split()[0] for row in rows] == list(CLASSES)
    assert f"agree on {np.mean(said[coded] == truth[coded]):.1%}" in printed
    assert "random sample of these texts, and had no part in training" in printed


def test_codes_may_stand_in_the_predictions_own_table(tables, corpus):
    truth, said, *_ = corpus
    rows = [(truth[i] if i % 4 == 0 else "", said[i], i) for i in range(600)]
    write(tables / "both.csv", ("label", "predicted_label", "row_id"), rows)
    one, two = answers("both.csv", "--label", "label"), answers(*PLAIN)
    assert one["estimates"] == two["estimates"]


def test_groups_and_regressions(tables, corpus):
    truth, said, year, party = corpus
    coded = np.arange(0, 600, 4)
    by = answers(*PLAIN, "--share", "war", "--by", "party")["estimates"]
    assert [one["group"] for one in by] == ["left", "right"]
    assert sum(one["coded"] for one in by) == 150 and sum(one["texts"] for one in by) == 600
    X = np.c_[year, party == "right"]
    options = {"names": ("year", "party=right"), "model": "logit", "true_y": (truth == "war")[coded]}
    expected = estimate.regression(said == "war", X, coded, **options)
    found = answers(*PLAIN, "--share", "war", "--on", "year,party")
    assert found["estimates"] == json.loads(json.dumps([one.as_dict() for one in expected]))
    assert "each is compared with left" in found["notes"][0]
    turned = answers(*PLAIN, "--share", "war", "--outcome", "year", "--on", "party")["estimates"]
    assert [one["of"] for one in turned] == ["constant", "war", "party=right"]
    assert turned[0]["coded_only"]["value"] == pytest.approx(2010, abs=3)
    assert "coefficient of" in says(*PLAIN, "--share", "war", "--on", "year", "--model", "ols")


def test_means_of_numbers(tables, corpus):
    _, _, year, _ = corpus
    write(tables / "values.csv", ("value", "row_id"), [(y / 10 + i % 3, i) for i, y in enumerate(year)])
    write(tables / "rated.csv", ("anxiety", "row_id"), [(y / 10, i) for i, y in enumerate(year[:200])])
    (one,) = answers("values.csv", "--coded", "rated.csv", "--label", "anxiety", "--mean")["estimates"]
    assert one["of"] == "mean of anxiety" and one["naive"]["value"] == pytest.approx(
        year.mean() / 10 + 1, abs=0.01
    )
    assert one["corrected"]["low"] < year.mean() / 10 < one["corrected"]["high"] < one["naive"]["low"]
    assert "correlate by" in says("values.csv", "--coded", "rated.csv", "--label", "anxiety", "--mean")


def test_sampling_probabilities_from_either_table(tables, corpus):
    truth, said, *_ = corpus
    chance = np.where(said == "war", 0.5, 0.2)
    coded = np.flatnonzero(np.random.default_rng(1).random(600) < chance)
    write(tables / "drawn.csv", ("topic", "row_id", "p"), [(truth[i], i, chance[i]) for i in coded])
    expected = estimate.share(said == "war", coded, truth[coded] == "war", chance=chance[coded], of="war")
    words = ("--coded", "drawn.csv", "--label", "topic", "--share", "war", "--probability-of-sampling", "p")
    found = answers("answers.csv", *words)
    assert found["estimates"] == [json.loads(json.dumps(expected.as_dict()))]
    write(tables / "with.csv", ("label", "row_id", "p"), [(said[i], i, chance[i]) for i in range(600)])
    write(tables / "drawn.csv", ("topic", "row_id"), [(truth[i], i) for i in coded])
    assert answers("with.csv", *words)["estimates"] == found["estimates"]
    assert "drawn with the probabilities in p" in says("with.csv", *words)


def test_several_labels_a_text(tables):
    rng = np.random.default_rng(2)
    has = rng.random((400, 2)) < (0.3, 0.6)
    cells = [",".join(n for n, x in zip(("fear", "joy"), row) if x) for row in has]
    write(
        tables / "many.csv",
        ("label", "probability_fear", "probability_joy", "row_id"),
        [(c, 0.5, 0.5, i) for i, c in enumerate(cells)],
    )
    write(tables / "codes.csv", ("mood", "row_id"), [(c, i) for i, c in enumerate(cells[:100])])
    found = answers("many.csv", "--coded", "codes.csv", "--label", "mood", "--label-separator", ",")
    assert [one["of"] for one in found["estimates"]] == ["fear", "joy"]
    assert [one["naive"]["value"] for one in found["estimates"]] == pytest.approx(has.mean(axis=0))
    assert found["coded"] == 100 and found["agreement"] == {"same": 1.0}  # a text with none is coded, too


def test_what_is_left_out_is_told(tables, corpus):
    truth, said, year, party = corpus
    rows = [("" if i == 1 else said[i], "" if i == 2 else year[i], i) for i in range(600)]
    write(tables / "gaps.csv", ("label", "year", "row_id"), rows)
    write(
        tables / "codes.csv", ("topic", "row_id"), [("" if i == 0 else truth[i], i) for i in range(0, 600, 4)]
    )
    printed = says("gaps.csv", "--coded", "codes.csv", "--label", "topic", "--share", "war", "--on", "year")
    assert "Mind: texts without a prediction are left out: 1." in printed
    assert "Mind: texts with nothing in year are left out: 1." in printed
    assert "Mind: rows of codes.csv without a code are left out: 1." in printed


def bad(name, tables, corpus):
    """Arguments that can't be answered, by a name; most are about coded.csv."""
    truth, said, *_ = corpus
    rows, names = [[truth[i], i] for i in range(0, 600, 4)], ["topic", "row_id"]
    words = list(PLAIN)
    if name == "a misspelt code":
        rows[0][0] = "Economy"
    elif name == "an id that was never predicted":
        rows[0][1] = 6000
    elif name == "an id twice":
        rows[0][1] = 4
    elif name == "no prediction for a coded text":
        write(
            tables / "answers.csv", ("label", "row_id"), [("" if i == 8 else said[i], i) for i in range(600)]
        )
    elif name == "too few":
        rows = rows[:12]
    elif name == "no such column":
        names[0] = "topics"
    elif name == "no such class":
        words += ["--share", "sport"]
    elif name == "a probability over one":
        names.append("p")
        rows = [[*row, 2] for row in rows]
        words += ["--probability-of-sampling", "p"]
    elif name == "classes where numbers are wanted":
        words += ["--mean"]
    elif name == "a regression of nothing":
        words += ["--on", "year"]
    elif name == "a column that is neither":
        words += ["--share", "war", "--on", "text"]
    elif name == "predictions as codes":
        words = ["answers.csv", "--label", "label"]
    write(tables / "coded.csv", names, rows)
    return words


@pytest.mark.parametrize(
    "name, said",
    [
        ("a misspelt code", "'Economy' (1 texts); did you mean \"economy\"?"),
        ("an id that was never predicted", "1 of 150 coded texts are not in answers.csv: row_id '6000'"),
        ("an id twice", "coded.csv: '4' in row_id more than once"),
        ("no prediction for a coded text", "1 coded texts carry no prediction, the first is row 8"),
        ("too few", "12 coded texts are too few"),
        ("no such column", "coded.csv has no column 'topic'; did you mean \"topics\"?"),
        ("no such class", "--share sport"),
        ("a probability over one", "over 0 and at most 1"),
        ("classes where numbers are wanted", "has no column value"),
        ("a regression of nothing", "add --share CLASS or --mean"),
        ("a column that is neither", "neither numbers nor groups"),
        ("predictions as codes", "not what a person coded"),
    ],
)
def test_bad_input_is_exit_2_and_one_message(name, said, tables, corpus):
    complaint = says(*bad(name, tables, corpus), "--out", "out.json", code=2)
    assert said in complaint and complaint.startswith("minibert: ")
    assert not Path("out.json").exists()


def test_an_unknown_class_of_the_coder_may_be_wrong_answers(tables, corpus):
    truth, *_ = corpus
    rows = [("sport" if i < 60 else truth[i], i) for i in range(0, 600, 4)]
    write(tables / "coded.csv", ("topic", "row_id"), rows)
    found = answers(*PLAIN, "--unseen", "wrong")["estimates"]
    assert [one["of"] for one in found] == ["economy", "health", "sport", "war"]
    assert found[2]["corrected"] == found[2]["coded_only"] and found[2]["naive"]["value"] == 0


def test_what_exists_is_not_replaced_unasked(tables):
    (tables / "out.json").write_text("years of work")
    assert "exists and is left as it is" in says(*PLAIN, "--out", "out.json", code=2)
    assert (tables / "out.json").read_text() == "years of work"


def test_the_pages_example_is_what_is_printed(tmp_path, monkeypatch):
    """docs/estimates.md: its corpus is made, its commands are run, and what it shows is what they print."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "estimates.md").read_text("utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})
    shown = re.findall(r"```\n(minibert estimate [^\n]*)\n```\n\n```\n(.*?)```", page, re.S)
    assert len(shown) == 2
    for command, output in shown:
        assert says(*command.split()[2:]).rstrip() == output.rstrip()
