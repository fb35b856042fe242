"""Proposed specs: they parse, they load, and each guess is written down with its reason."""

import os
import tomllib
from pathlib import Path

import pytest

from minibert import spec
from minibert.data import load_splits
from minibert.data.propose import propose
from minibert.errors import DataError

REAL = Path(os.environ.get("MINIBERT_DATA", ""))
real = pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA does not name the texts")


def proposed(path, **options):
    """(the text, the spec it parses to, the splits it loads)."""
    text = propose(path, **options)
    task = spec.parse(tomllib.loads(text))
    return text, task, load_splits(task, Path)


def write(folder, rows, head, name="answers.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes("\n".join([head, *rows, ""]).encode(encoding))
    return path


def column(values, head="y", folder=None):
    """A table of 40 texts with one more column."""
    return write(
        folder, [f"some words of text {i};{value}" for i, value in enumerate(values)], f"text;{head}"
    )


def test_every_key_is_explained(tmp_path):
    rows = [f"some words of text {i},{'ab'[i % 2]}" for i in range(40)]
    text, task, splits = proposed(write(tmp_path, rows, "comment,topic"))
    assert (task.data.text, task.data.label, task.task.kind) == ("comment", "topic", "classification")
    assert task.data.split == (0.625, 0.125, 0.25) and len(splits.train) == 25
    assert task.task.name == "answers" and task.model.max_tokens == 32
    lines = text.splitlines()
    for name, values in tomllib.loads(text).items():
        about = {f.name: f.metadata["about"] for f in spec.dataclasses.fields(spec.TABLES[name])}
        for key in values:
            places = [i for i, line in enumerate(lines) if line.startswith(f"{key} = ")]
            assert any(lines[i - 1] == f"# {about[key]}" for i in places), key


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_excel_tables_are_recognised_and_the_keys_written(tmp_path, encoding, separator):
    marks = ["1,25", "-0,5", "3"]
    rows = [separator.join((f"Über Café {i} – so", f'"{marks[i % 3]}"', f"x{i % 4}")) for i in range(40)]
    path = write(tmp_path, rows, separator.join(("text", "score", "other")), encoding=encoding)
    text, task, splits = proposed(path)
    assert task.data.separator == ("" if separator == "," else separator)
    assert task.data.encoding == ("utf-8" if encoding == "utf-8-sig" else encoding)
    assert (task.task.kind, task.data.label, task.data.decimal) == ("regression", "score", ",")
    assert set(splits.train.targets) == {1.25, -0.5, 3} and splits.train.texts[0].startswith("Über Café")
    for key in ("separator", "encoding", "decimal"):
        assert (f"{key} = " in text) == (
            getattr(task.data, key) != getattr(spec.Data(text="t", label="l"), key)
        )


KINDS = {
    "words": (["yes", "no", "maybe"], "classification"),
    "two numbers": ([0, 1], "classification"),
    "codes from zero": (range(6), "classification"),
    "codes with gaps": ([1, 2, 5, 99], "classification"),
    "a scale": ([1, 2, 3, 4, 5], "regression"),
    "a long scale": (range(1, 10), "regression"),
    "zero to ten": (range(11), "regression"),
    "decimals": ([0.5, 1.25], "regression"),
    "a wide scale": (range(0, 100, 3), "regression"),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(tmp_path, case):
    values, kind = KINDS[case]
    values = list(values)
    path = column([values[i % len(values)] for i in range(80)], folder=tmp_path)
    text, task, _ = proposed(path)
    assert task.task.kind == kind
    line = next(line for line in text.splitlines() if line.startswith("kind = "))
    assert "# y holds" in line and ("if that is wrong" in line) == (case not in ("words", "decimals"))
    named, task, _ = proposed(column([i % 5 + 1 for i in range(80)], "topic_code", tmp_path))
    assert task.task.kind == "classification"  # the name says that numbers are codes


def test_rows_that_must_go_are_counted(tmp_path):
    rows = [f"some words of text {i},{'ab'[i % 2]}" for i in range(40)]
    rows += [",a", " ,b", "no label here,", "some words of text 3,b"]
    text, task, splits = proposed(write(tmp_path, rows, "text,label"))
    assert (task.data.empty, task.data.missing_label, task.data.duplicates) == ("drop",) * 3
    for line in ('empty = "drop"  # found in 2 rows', 'missing_label = "drop"  # found in 1 row',
                 'duplicates = "drop"  # found in 1 row'):  # fmt: skip
        assert line in text.splitlines()
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 40


def test_groups_parts_and_pairs(tmp_path):
    rows = [f"{i // 2},first words {i},second words {i},{'ab'[i % 2]}" for i in range(40)]
    _, task, splits = proposed(write(tmp_path, rows, "writerID,sentence1,sentence2,label"))
    assert (task.data.group, task.data.text, task.data.pair) == ("writerID", "sentence1", "sentence2")
    assert splits.train.pairs[0].startswith("second") and not set(splits.train.rows // 2) & set(
        splits.test.rows // 2
    )
    parts = ["train", "dev", "test"]
    rows = [f"{parts[i % 3]},some words {i},{'ab'[i % 2]}" for i in range(40)]
    _, task, splits = proposed(write(tmp_path, rows, "part,text,label"))
    assert task.data.split_column == "part" and task.data.split == () and len(splits.validation) == 13
    rows = [f"{i // 20},some words {i},{'ab'[i // 20]}" for i in range(40)]  # few groups, a class in each
    _, task, _ = proposed(write(tmp_path, rows, "user,text,label"))
    assert task.data.group == ""


def test_a_group_that_would_break_the_split_is_left_out(tmp_path):
    rows = [f"{i},some words {i},b" for i in range(9)] + [f"9,more words {i},a" for i in range(100)]
    text, task, splits = proposed(write(tmp_path, rows, "user,text,label"))  # one user wrote all of class a
    assert task.data.group == "" and splits.labels == ("a", "b")


def test_a_number_for_each_row_is_no_label(tmp_path):
    rows = [f"some words {i},{7 * i},{'ab'[i % 2]}" for i in range(40)]
    assert proposed(write(tmp_path, rows, "text,hmno,tone"))[1].data.label == "tone"


def test_a_test_file_beside_is_mentioned(tmp_path):
    rows = [f"some words of text {i},{'ab'[i % 2]}" for i in range(40)]
    write(tmp_path, rows, "text,label", "test.csv")
    text, task, _ = proposed(write(tmp_path, rows, "text,label", "train.csv"))
    assert "test.csv lies beside it" in text and task.task.name in tmp_path.name.lower().replace("-", "_")


def test_long_texts_and_few_rows_set_the_numbers(tmp_path):
    rows = [f"{'word ' * 60}{i},{'ab'[i % 2]}" for i in range(40)]
    _, few, _ = proposed(write(tmp_path, rows, "text,label"))
    assert few.model.max_tokens == 96 and (few.train.epochs, few.train.batch_size) == (8, 16)
    rows = [f"word {i},{'ab'[i % 2]}" for i in range(3000)]
    _, many, _ = proposed(write(tmp_path, rows, "text,label"))
    assert many.train.epochs == 4 and many.train.learning_rate == 5e-5
    rows = [f"{'word ' * 600}{i},{'ab'[i % 2]}" for i in range(40)]
    text, long, _ = proposed(write(tmp_path, rows, "text,label"))
    assert long.model.max_tokens == 256 and "will be cut" in text


def test_tables_without_text_or_label_are_refused(tmp_path):
    with pytest.raises(DataError, match="no column could be a label"):
        propose(write(tmp_path, [f"text number {i}" for i in range(9)], "text"))
    with pytest.raises(DataError, match="no column holds texts"):
        propose(write(tmp_path, ["1,2", "3,4"], "a,b"))
    with pytest.raises(DataError, match="does not exist"):
        propose(tmp_path / "none.csv")


TABLES = {
    "cap_policy_topics/data/USCongress.csv.gz": ("text", "major", "classification", {"separator": ";"}),
    "cap_policy_topics/data/NYTimes.csv.gz": (
        "Title",
        "Topic.Code",
        "classification",
        {"encoding": "cp1252"},
    ),
    "rwwd/data_phase_1/files_clean/meta/rwwd_full.csv": ("text_long", "chosen_emotion", "classification", {}),
    "emobank/corpus/emobank.csv": ("text", "D", "regression", {"split_column": "split"}),
    "banking77/banking_data/train.csv": ("text", "category", "classification", {}),
    "dair_emotion/train.txt": (
        "text",
        "label_name",
        "classification",
        {"separator": ";", "duplicates": "drop"},
    ),
    "empathic_reactions/data/responses/data/messages.csv": (
        "essay",
        "distress_bin",
        "classification",
        {"group": "response_id"},
    ),
    "semeval2018_affect/datasets/task1/V-reg/Valence-reg-En-train.txt": (
        "Tweet",
        "Intensity Score",
        "regression",
        {"separator": "\t"},
    ),
    "mrpc/msr-para-train.tsv": ("#1 String", "Quality", "classification", {"pair": "#2 String"}),
}


@real
@pytest.mark.parametrize("name", TABLES)
def test_real_tables(name):
    text, label, kind, more = TABLES[name]
    _, task, splits = proposed(REAL / name)
    assert (task.data.text, task.data.label, task.task.kind) == (text, label, kind)
    assert {key: getattr(task.data, key) for key in more} == more
    assert min(len(splits.train), len(splits.validation), len(splits.test)) > 50


def test_a_table_without_a_header_is_refused_not_robbed_of_a_row(tmp_path):
    for name, rows in {"a.csv": ["a fine long story,1", "a dull one,0", "what a day,1"] * 9,
                       "b.csv": ["a fine long story,good", "a dull one,bad", "what a day,good"] * 9}.items():  # fmt: skip
        (tmp_path / name).write_text("\n".join(rows), encoding="utf-8")
        with pytest.raises(DataError, match="the first line looks like data"):
            propose(tmp_path / name)


def test_a_survey_question_is_a_name(tmp_path):
    rows = [f"day {i} was quiet and slow,{1 + i % 7}" for i in range(60)]
    question = "Please describe in your own words how you felt last week,anxiety"
    (tmp_path / "a.csv").write_text("\n".join([question, *rows]), encoding="utf-8")
    assert 'label = "anxiety"' in propose(tmp_path / "a.csv")


def test_a_word_among_a_labels_numbers_is_named(tmp_path):
    rows = [f"text number {i};{i / 7:.2f}".replace(".", ",") for i in range(60)]
    rows[4] = "text number 4;NA"
    (tmp_path / "a.csv").write_text("\n".join(["text;score", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match=r"score holds numbers but for 1 row: row 4 \(line 6\) has 'NA'"):
        propose(tmp_path / "a.csv")


def test_the_table_is_found_from_where_the_spec_will_stand(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    (tmp_path / "a.csv").write_text("\n".join(["text,label"] + [f"a b {i},{'xy'[i % 2]}" for i in range(40)]))
    monkeypatch.chdir(tmp_path)
    assert 'source = "a.csv"' in propose("a.csv", folder=".")
    assert f'source = "{(tmp_path / "a.csv").as_posix()}"' in propose("a.csv", folder="specs")
    assert 'source = "data/a.csv"' in propose_below(tmp_path)


def propose_below(tmp_path):
    """The spec of a table in a folder below the spec's own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_bytes((tmp_path / "a.csv").read_bytes())
    return propose("data/a.csv", folder=tmp_path)


def test_a_sheet_is_proposed(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Data")
    for row in [("text", "label")] + [(f"a b {i}", "xy"[i % 2]) for i in range(40)]:
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    assert 'sheet = "Data"' in propose(tmp_path / "a.xlsx", sheet="Data")


def write_conll(folder, name="train.conll", n=40):
    rows = [f"Anna\tB-per\nsaw\tO\ntown{i}\tB-loc\n" for i in range(n)]
    (folder / name).write_text("\n".join(rows), encoding="utf-8")
    return folder / name


def test_tags_beside_words_are_seen(tmp_path):
    text, task, splits = proposed(write_conll(tmp_path))
    assert (task.task.kind, task.data.text, task.data.label, task.data.pair) == ("tokens", "1", "2", "")
    assert splits.labels == ("B-loc", "B-per", "O") and task.baseline.kind == "words"
    assert "one tag for each word of 1" in text
    rows = [f"the cat {i} sat,D N X V,en" for i in range(40)]
    _, task, _ = proposed(write(tmp_path, rows, "words,pos,language"))
    assert (task.task.kind, task.data.text, task.data.label) == ("tokens", "words", "pos")
    tree = "".join(
        f"1\tA{i}\ta\tNOUN\tNN\t_\t0\troot\t_\t_\n2\tb\tb\tVERB\tVB\t_\t1\tx\t_\t_\n\n" for i in range(40)
    )
    (tmp_path / "a.conllu").write_text(tree, encoding="utf-8")
    _, task, _ = proposed(tmp_path / "a.conllu")
    assert (task.data.text, task.data.label, task.data.group) == ("FORM", "UPOS", "")


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_several_labels_in_a_cell_are_seen(tmp_path, mark):
    cells = ["joy", f"joy{mark} love", "fear", "", f"love{mark}fear"]
    rows = [f'some words of text {i}\t"{cells[i % 5]}"' for i in range(60)]
    text, task, splits = proposed(write(tmp_path, rows, "text\temotions", name="a.tsv"))
    assert task.task.kind == "multilabel" and task.data.label_separator == mark
    assert splits.labels == ("fear", "joy", "love") and task.data.missing_label == "error"
    assert f"with {mark!r} between them" in text


def test_a_label_with_a_comma_in_its_name_is_one_label(tmp_path):
    rows = [f"some words of text {i};{('trade, foreign', 'labour', 'health')[i % 3]}" for i in range(60)]
    _, task, _ = proposed(write(tmp_path, rows, "text;topic"))
    assert task.task.kind == "classification"
