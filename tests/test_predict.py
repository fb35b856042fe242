"""predict and embed on files: columns and order kept, chunks, odd formats, and nothing half-written."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import numpy as np
import pandas as pd
import pytest

import minibert
from minibert import predict
from minibert.errors import ConfigError, DataError, MiniBertError

from .test_run import finished, texts, weights, write  # noqa: F401  fixtures


@pytest.fixture
def table(tmp_path):
    rows = [(t, i, "x, y") for i, (t, _, _) in enumerate(texts(25, 9))]
    return write(tmp_path / "new.csv", rows, ("text", "id", "other"))


def answers(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_the_inputs_columns_stay_and_ours_follow(finished, table, tmp_path):  # noqa: F811
    assert predict.predict_file(str(finished), table, tmp_path / "out.csv") == 25
    found, given = answers(tmp_path / "out.csv"), answers(table)
    assert list(found.columns) == ["text", "id", "other", "label", "probability_bank", "probability_farm",
                                   "probability_ship", "tokens", "truncated", "row_id"]  # fmt: skip
    assert found[list(given.columns)].equals(given)
    model = minibert.load(finished / "model")
    assert found["label"].tolist() == model.predict(given["text"].tolist())["label"].tolist()


def test_chunks_make_no_difference(finished, table, tmp_path, monkeypatch):  # noqa: F811
    predict.predict_file(str(finished), table, tmp_path / "one.csv")
    monkeypatch.setattr(predict, "CHUNK", 4)
    predict.predict_file(str(finished), table, tmp_path / "many.csv")
    one, many = answers(tmp_path / "one.csv"), answers(tmp_path / "many.csv")
    assert one["row_id"].tolist() == many["row_id"].tolist() == [str(i) for i in range(25)]
    assert one["label"].tolist() == many["label"].tolist()
    gap = np.abs(one.filter(like="prob").astype(float) - many.filter(like="prob").astype(float)).to_numpy()
    assert gap.max() < 1e-6


@pytest.mark.parametrize("name", ["new.tsv", "new.csv.gz", "new.parquet", "new.jsonl", "new.tab"])
def test_every_format_gives_the_same_answers(name, finished, table, tmp_path):  # noqa: F811
    frame, path = answers(table), tmp_path / name
    if name == "new.parquet":
        frame.to_parquet(path)
    elif name == "new.jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif name == "new.tab":
        lines = ["text\tid\tother", "string\tstring\tstring", "\t\tmeta"] + [
            "\t".join(r) for r in frame.to_numpy()
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="\t" if name == "new.tsv" else ",")
    predict.predict_file(str(finished), table, tmp_path / "a.csv")
    predict.predict_file(str(finished), path, tmp_path / "b.csv")
    assert answers(tmp_path / "a.csv").equals(answers(tmp_path / "b.csv"))


def test_a_column_called_label_is_left_alone(finished, tmp_path):  # noqa: F811
    path = write(tmp_path / "new.csv", [("wheat corn", "mine"), ("loan rate", "own")], ("text", "label"))
    predict.predict_file(str(finished), path, tmp_path / "out.csv")
    found = answers(tmp_path / "out.csv")
    assert found["label"].tolist() == ["mine", "own"]
    assert set(found["predicted_label"]) <= {"farm", "bank", "ship"}


def test_embedded_newlines_quotes_and_na_words_survive(finished, tmp_path):  # noqa: F811
    rows = [('wheat "corn",\nrain', "NA"), ("null", "01"), ("None", "1e5")]
    path = write(tmp_path / "new.csv", rows, ("text", "code"))
    predict.predict_file(str(finished), path, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))
    assert [tuple(r[:2]) for r in found[1:]] == rows


def test_formulas_are_defused_on_request(finished, tmp_path):  # noqa: F811
    path = write(tmp_path / "new.csv", [("=cmd|calc", "1")], ("text", "id"))
    predict.predict_file(str(finished), path, tmp_path / "plain.csv")
    predict.predict_file(str(finished), path, tmp_path / "safe.csv", excel_safe=True)
    assert answers(tmp_path / "plain.csv")["text"][0] == "=cmd|calc"
    assert answers(tmp_path / "safe.csv")["text"][0] == "'=cmd|calc"


def broken(tmp_path, kind):
    good = "text,id\n" + "wheat corn,1\n" * 30
    raw = {
        "a row too wide": good.encode() + b"a,b,c\n",
        "bytes that are no UTF-8": good.encode() + b"caf\xe9,2\n",
        "an unclosed quote": good.encode() + b'"open,2\n',
        "no such column": b"words,id\nwheat,1\n",
        "an empty file": b"",
        "a header only": b"text,id\n",
    }[kind]
    path = tmp_path / "bad.csv"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "a row too wide",
        "bytes that are no UTF-8",
        "an unclosed quote",
        "no such column",
        "an empty file",
        "a header only",
    ],
)
def test_bad_tables_leave_no_output(kind, finished, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(predict, "CHUNK", 8)
    before = tmp_path / "out.csv"
    before.write_text("earlier answers")
    with pytest.raises(DataError) as caught:
        predict.predict_file(str(finished), broken(tmp_path, kind), before, overwrite=True)
    assert caught.value.exit_code == 2 and "bad.csv" in str(caught.value)
    assert before.read_text() == "earlier answers"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv", "out.csv"]


def test_wrong_uses_are_refused(finished, weights, table, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match=r"\.csv or \.tsv"):
        predict.predict_file(str(finished), table, tmp_path / "out.xlsx")
    with pytest.raises(ConfigError, match="the input itself"):
        predict.predict_file(str(finished), table, table)
    with pytest.raises(ConfigError, match="no head"):
        predict.predict_file(str(weights), table, tmp_path / "out.csv")
    with pytest.raises(MiniBertError, match="nowhere"):
        predict.predict_file(str(tmp_path / "nowhere"), table, tmp_path / "out.csv")


def test_embed_writes_a_row_a_text(weights, table, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(predict, "CHUNK", 7)
    assert predict.embed_file(str(weights), table, tmp_path / "v.npy", column="text", pooling="mean") == (
        25,
        24,
    )
    found = np.load(tmp_path / "v.npy")
    assert found.shape == (25, 24) and found.dtype == np.float32
    right = minibert.load(weights).embed(answers(table)["text"].tolist(), pooling="mean")
    assert np.abs(found - right).max() < 1e-5
    with pytest.raises(ConfigError, match="pooling"):
        predict.embed_file(str(weights), table, tmp_path / "w.npy", column="text")
    assert not (tmp_path / "w.npy").exists()


@pytest.mark.slow
def test_a_large_table_is_streamed(finished, tmp_path, monkeypatch):  # noqa: F811
    """60,000 rows: the reader never holds more than a chunk, so memory does not grow with the file."""
    path = tmp_path / "big.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        file.write("text\n" + "wheat corn and rain\n" * 60_000)
    monkeypatch.setattr("minibert.data.tables.LARGE", 1)
    sizes = [len(frame) for frame in predict.chunks(path, "", "utf-8")]
    assert max(sizes) == predict.CHUNK and sum(sizes) == 60_000
    assert predict.predict_file(str(finished), path, tmp_path / "out.csv") == 60_000


def test_the_runs_own_separator_and_a_count_of_empty_texts(weights, tmp_path, capsys):  # noqa: F811
    """A run on a semicolon table predicts semicolon tables; rows without text are counted aloud."""
    from minibert.run import run

    from .test_run import task

    one = task(tmp_path, weights, data={"separator": ";"}, train={"epochs": 1})
    for name in ("train", "test"):
        path = tmp_path / f"{name}.csv"
        path.write_text(path.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    run(one, tmp_path / "out")
    (tmp_path / "new.csv").write_text('text;id\n"wheat; corn";1\n"";2\n', encoding="utf-8")
    predict.predict_file(str(tmp_path / "out"), tmp_path / "new.csv", tmp_path / "answers.csv")
    assert answers(tmp_path / "answers.csv")["text"].tolist() == ["wheat; corn", ""]
    assert "1 of 2 rows have no text and were left without an answer" in capsys.readouterr().err
    found = answers(tmp_path / "answers.csv")
    assert found["label"][0] in ("bank", "farm", "ship") and found["label"][1] == ""
    assert [found[c][1] for c in found.columns if c.startswith("probability_")] == ["", "", ""]


def test_what_exists_is_not_replaced_unasked(finished, weights, table, tmp_path):  # noqa: F811
    for name in ("mine.csv", "mine.npy"):
        (tmp_path / name).write_text("years of coding")
    with pytest.raises(ConfigError, match="mine.csv exists"):
        predict.predict_file(str(finished), table, tmp_path / "mine.csv")
    with pytest.raises(ConfigError, match="mine.npy exists"):
        predict.embed_file(str(weights), table, tmp_path / "mine.npy", column="text", pooling="mean")
    assert {(tmp_path / n).read_text() for n in ("mine.csv", "mine.npy")} == {"years of coding"}
    assert predict.predict_file(str(finished), table, tmp_path / "mine.csv", overwrite=True) == 25


def test_what_is_no_run_is_told_from_what_did_not_end(finished, table, tmp_path, capsys):  # noqa: F811
    with pytest.raises(ConfigError, match="is a spec; predict needs the run"):
        predict.predict_file(str(finished / "spec.toml"), table, tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="did you mean .*out"):
        predict.predict_file(str(finished.parent / "ou"), table, tmp_path / "a.csv")
    shutil.copytree(finished, tmp_path / "run")
    status = {"status": "stopped", "message": "stopped on SIGINT"}
    (tmp_path / "run" / "status.json").write_text(json.dumps(status))
    predict.predict_file(str(tmp_path / "run"), table, tmp_path / "a.csv")
    assert "this run did not end (stopped on SIGINT)" in capsys.readouterr().err


def test_the_runs_own_sheet_or_the_one_that_is_named(weights, tmp_path):  # noqa: F811
    openpyxl = pytest.importorskip("openpyxl")
    from minibert.run import run

    from .test_run import task, texts

    for name, n in (("train", 30), ("test", 12)):
        book = openpyxl.Workbook()
        book.active.append(["text"])
        book.active.append(["of the wrong sheet"])
        sheet = book.create_sheet("Data")
        for row in [("text", "topic", "score"), *texts(n, len(name))]:
            sheet.append(row)
        book.save(tmp_path / f"{name}.xlsx")
    keys = {"train": "train.xlsx", "test": "test.xlsx", "sheet": "Data"}
    run(task(tmp_path, weights, data=keys, train={"epochs": 1}), tmp_path / "out")
    assert predict.predict_file(str(tmp_path / "out"), tmp_path / "test.xlsx", tmp_path / "a.csv") == 12
    with pytest.raises(DataError, match="no sheet .Dat.*did you mean"):
        predict.predict_file(str(tmp_path / "out"), tmp_path / "test.xlsx", tmp_path / "b.csv", sheet="Dat")
    form = {"column": "text", "pooling": "mean", "sheet": "Sheet"}
    assert predict.embed_file(str(weights), tmp_path / "test.xlsx", tmp_path / "v.npy", **form)[0] == 1


def test_errors_speak_of_options(finished, tmp_path):  # noqa: F811
    path = write(tmp_path / "new.csv", [("a;b", "c")], ("text;id", "x"))
    (tmp_path / "new.csv").write_text("text;id\na b;1\nc, d;2\n", encoding="utf-8")
    with pytest.raises(DataError, match='Set --separator ";"'):
        predict.predict_file(str(finished), path, tmp_path / "out.csv")
    write(path, [("a", "b")], ("text", "other"))
    with pytest.raises(DataError, match="Name one with --pair"):
        predict.predict_file(str(finished), path, tmp_path / "out.csv", pair="second")


@pytest.mark.parametrize("name", ["big.jsonl", "big.csv.gz", "big.jsonl.gz"])
def test_packed_files_and_json_lines_are_streamed(name, tmp_path, monkeypatch):
    """No more than a chunk is held; a key that comes late is a column all the same."""
    opened = gzip.open if name.endswith(".gz") else open
    rows = ['{"text": "wheat"}'] * 4001 + ['{"text": "corn", "late": "x"}']
    with opened(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write("\n".join(rows) if "jsonl" in name else "text,late\n" + "wheat,\n" * 4001 + "corn,x\n")
    monkeypatch.setattr("minibert.data.tables.LARGE", 1)
    monkeypatch.setattr("minibert.data.tables.read_table", lambda *_, **__: pytest.fail("read whole"))
    found = list(predict.chunks(tmp_path / name, "", "utf-8"))
    assert [len(frame) for frame in found] == [2000, 2000, 2]
    assert found[0].columns.tolist() == ["text", "late"] and found[0]["late"][0] == ""
    assert found[2].to_numpy().tolist() == [["wheat", ""], ["corn", "x"]]


def test_a_runs_folder_loads_as_its_model(finished):  # noqa: F811
    assert minibert.load(finished).labels == minibert.load(finished / "model").labels


def test_a_carriage_return_in_a_text_is_no_end_of_a_row(finished, tmp_path):  # noqa: F811
    path = write(
        tmp_path / "new.csv", [("wheat\rcorn", "1"), ("a\r\nb", "2"), ("plain", "3")], ("text", "id")
    )
    predict.predict_file(str(finished), path, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        found = list(csv.reader(file))
    assert {len(row) for row in found} == {len(found[0])} and len(found) == 4
    assert [row[:2] for row in found[1:]] == [["wheat\rcorn", "1"], ["a\r\nb", "2"], ["plain", "3"]]


def test_a_run_in_another_encoding_does_not_spoil_utf8(weights, tmp_path):  # noqa: F811
    from minibert.run import run

    from .test_run import task

    run(task(tmp_path, weights, data={"encoding": "cp1252"}, train={"epochs": 1}), tmp_path / "out")
    (tmp_path / "new.csv").write_text("text\nK\u00f6ln wheat\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is UTF-8.*cp1252"):
        predict.predict_file(str(tmp_path / "out"), tmp_path / "new.csv", tmp_path / "a.csv")
    predict.predict_file(str(tmp_path / "out"), tmp_path / "new.csv", tmp_path / "a.csv", encoding="utf-8")
    (tmp_path / "old.csv").write_text("text\nK\u00f6ln wheat\n", encoding="cp1252")
    predict.predict_file(str(tmp_path / "out"), tmp_path / "old.csv", tmp_path / "b.csv")
    assert answers(tmp_path / "a.csv").equals(answers(tmp_path / "b.csv"))


def test_an_error_names_the_row_of_the_file(finished, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(predict, "CHUNK", 8)
    path = write(tmp_path / "new.csv", [("wheat",)] * 20 + [("x" * 30,)], ("text",))
    monkeypatch.setattr("minibert.tokenize.LONGEST_TEXT", 20)
    with pytest.raises(DataError, match="row 20:"):
        predict.predict_file(str(finished), path, tmp_path / "out.csv")


def test_parquet_with_a_name_twice_is_refused(finished, tmp_path):  # noqa: F811
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    twice = pa.Table.from_arrays([pa.array(["wheat"]), pa.array(["corn"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="more than one column"):
        predict.predict_file(str(finished), tmp_path / "a.parquet", tmp_path / "out.csv")


def test_what_a_run_masks_is_masked_in_what_it_predicts(finished, tmp_path):  # noqa: F811
    """... in the model's input and in the output; the run's other columns and its label column as there."""
    shutil.copytree(finished, tmp_path / "run")
    spec = (tmp_path / "run" / "spec.toml").read_text("utf-8")
    (tmp_path / "run" / "spec.toml").write_text(
        spec.replace("[data]", '[data]\nmask = ["email", "phone"]'), "utf-8"
    )
    rows = [("wheat corn a@b.org", "call 0171 1234567", "c@d.org"), ("loan rate", "x", "y")]
    path = write(tmp_path / "new.csv", rows, ("text", "other", "topic"))
    predict.predict_file(str(tmp_path / "run"), path, tmp_path / "out.csv")
    found = answers(tmp_path / "out.csv")
    assert found["text"].tolist() == ["wheat corn [email]", "loan rate"]
    assert found["other"].tolist() == ["call [phone]", "x"] and found["topic"].tolist() == ["c@d.org", "y"]
    predict.predict_file(str(tmp_path / "run"), path, tmp_path / "label.csv", column="topic")
    assert answers(tmp_path / "label.csv")["topic"].tolist() == ["[email]", "y"]
    model = minibert.load(finished)
    assert found["label"].tolist() == model.predict(["wheat corn [email]", "loan rate"])["label"].tolist()
    assert found["tokens"].tolist() == [
        str(n) for n in model.predict(["wheat corn [email]", "loan rate"])["tokens"]
    ]
