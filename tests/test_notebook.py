"""minibert.finetune: a DataFrame becomes a run folder like any other, and a small table to look at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import minibert
from minibert.data.tables import from_frame
from minibert.errors import ConfigError, DataError
from minibert.folder import FILES

from .test_estimator import QUICK
from .test_run import texts, weights  # noqa: F401  fixtures

ROOT = Path(__file__).parent.parent


def frame(n=90, seed=1):
    return pd.DataFrame(texts(n, seed), columns=["text", "topic", "score"]).astype({"score": float})


@pytest.fixture
def quick(weights):  # noqa: F811
    return {"weights": weights, **QUICK, "epochs": 1, "verbose": False}


@pytest.fixture(scope="module")
def tuned(weights, tmp_path_factory):  # noqa: F811
    df = frame(120)
    df.loc[3, "text"] += " anna@example.org"
    settings = {**QUICK, "learning_rate": np.float64(5e-3), "epochs": np.int64(5), "mask": ["email"]}
    out = tmp_path_factory.mktemp("tuned") / "out"
    return minibert.finetune(
        df, text="text", label="topic", weights=weights, out=out, verbose=False, **settings
    )


def test_it_leaves_what_a_run_leaves(tuned):
    assert tuned.status == "completed" and all(
        (tuned.folder / name).is_file()
        for name in FILES
        if name != "answers.json"  # a study's
    )
    assert tuned.scores == json.loads((tuned.folder / "metrics.json").read_text("utf-8"))
    assert tuned.scores["test"]["accuracy"]["value"] > 0.8 and tuned.scores["test"]["accuracy"]["n"] == 30
    assert tuned.report.read_text("utf-8").count("DataFrame (source, 120 rows)")
    kept = pd.read_csv(tuned.folder / "predictions.csv")
    assert list(kept.columns[:4]) == ["row_id", "text", "topic", "score"] and len(kept) == 30
    for file in tuned.folder.glob("*.*"):
        assert "anna@example" not in file.read_text("utf-8"), file


def test_it_predicts_and_shows_itself(tuned):
    found = tuned.predict(pd.Series(["wheat corn grain a@b.org", "loan rate credit"]))
    assert found["label"].tolist() == ["farm", "bank"]
    assert found["tokens"].tolist()[0] == len(tuned.model.tokenize(["wheat corn grain [email]"]).ids[0])
    page = tuned._repr_html_()
    assert page.startswith("<table>") and "macro f1" in page and "TF-IDF" in page and "30 test texts" in page
    assert "accuracy" in repr(tuned) and str(tuned.report) in repr(tuned)


def test_other_kinds_and_other_ways_to_split(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = {"text": "text", "baseline": {"kind": "none"}, **quick}
    one = minibert.finetune(frame(), label="score", kind="regression", test=frame(30, 2), **plain)
    assert one.folder == tmp_path / "runs" / "score" and one.scores["test"]["rmse"]["n"] == 30
    assert "baseline" not in one._repr_html_() and "(lower is better)" in one._repr_html_()
    df = frame(60).assign(labels=[["a"], ["a", "b"], []] * 20)
    two = minibert.finetune(df, label="labels", kind="multilabel", folds=2, name="sets", **plain)
    assert two.scores["labels"] == ["a", "b"] and two.scores["test"]["micro_f1"]["n"] == 60


def test_what_is_refused(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fails(error, said, df=None, **options):
        with pytest.raises(error, match=said):
            minibert.finetune(
                frame() if df is None else df, **{"text": "text", "label": "topic", **quick, **options}
            )

    fails(ConfigError, "whole numbers(.|\n)*Say kind=", label="score")
    fails(ConfigError, 'kind="multilabel"', frame(60).assign(topic=["a", "a,b", "b"] * 20))
    fails(ConfigError, 'did you mean "epochs"', epochz=3)
    fails(ConfigError, "not files", source="x.csv")
    fails(ConfigError, "epochs = 0", epochs=0)
    fails(DataError, 'did you mean "topic"', label="topics")
    fails(DataError, "no rows", frame().iloc[:0])
    fails(DataError, "not a list", [1, 2])
    fails(DataError, "same file or frame", test=frame())
    fails(DataError, "stands between", frame(9).assign(topic=[["a,b"]] * 9), kind="multilabel")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_there_is_refused_and_may_be_replaced(tuned, quick):
    with pytest.raises(ConfigError, match="already holds a run"):
        minibert.finetune(frame(), text="text", label="topic", out=tuned.folder, **quick)


def test_cells_of_a_frame_are_what_a_file_would_hold():
    made = from_frame(
        pd.DataFrame({"a": [1, 2], 3: [0.5, None], "c": pd.Categorical(["x", "y"]), "d": pd.to_datetime(["2020-01-02", None]),
                      "e": pd.array([True, pd.NA], "boolean")}, index=[7, 9])
    )  # fmt: skip
    assert made.frame.to_dict("list") == {"a": ["1", "2"], "3": ["0.5", ""], "c": ["x", "y"],
                                          "d": ["2020-01-02 00:00:00", ""], "e": ["true", ""]}  # fmt: skip
    assert made.frame.index.tolist() == [0, 1] and len(made.sha256) == 64
    with pytest.raises(DataError, match="more than one column"):
        from_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_the_page_does_what_it_says(weights, tmp_path, monkeypatch):  # noqa: F811
    """Every line of docs/python.md, on a tiny model."""
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    space = {"df": frame()}
    for block in blocks:
        block = re.sub(r"epochs=\d+", f'epochs=1, weights=r"{weights}", max_tokens=16', block)
        exec(block, space)
    assert (tmp_path / "runs" / "topic" / "report.html").is_file()
    assert minibert.load("best").predict(["wheat"]).shape == (1, 6)
