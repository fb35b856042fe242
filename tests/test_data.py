"""Reading tables (minibert/data/tables.py) and splitting them (minibert/data/)."""

import gzip
import json
import os
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minibert import spec
from minibert.data import class_weights, fold_splits, load_splits, tables
from minibert.data.parts import Pool
from minibert.data.splits import deal_folds, take_rows
from minibert.data.tables import read_chunks, read_table
from minibert.errors import ConfigError, DataError, EnvironmentProblem

from .helpers import within

REAL = Path(os.environ.get("MINIBERT_DATA", ""))
real = pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA does not name the texts")


def write(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows_of(table):
    return table.frame.to_numpy().tolist()


def refused(path, *fragments, **options):
    """Reading fails with a DataError that holds every fragment."""
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    for fragment in fragments:
        assert fragment in str(caught.value)
    return str(caught.value)


# Reading


def test_cells_are_exactly_what_the_file_holds(tmp_path):
    cells = [
        "NA",
        "null",
        "None",
        "nan",
        "01",
        "1.0",
        "1e5",
        "TRUE",
        " padded ",
        "",
        'a "quote"',
        "x\ny",
        "é, ü",
    ]
    body = "text,label\n" + "".join(
        '"' + c.replace('"', '""') + '",' + f"{i:02}\n" for i, c in enumerate(cells)
    )
    table = read_table(write(tmp_path, "a.csv", body))
    assert rows_of(table) == [[c, f"{i:02}"] for i, c in enumerate(cells)]
    assert table.lines.tolist() == [*range(2, 14), 15]  # the cell with a line break takes two lines
    assert {type(cell) for row in rows_of(table) for cell in row} == {str}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_mark(tmp_path, end, start):
    table = read_table(
        write(tmp_path, "a.csv", start + end.join(["text,label", "one,1", "", "two\u2028,2", ""]))
    )
    assert list(table.frame.columns) == ["text", "label"]
    assert rows_of(table) == [["one", "1"], ["two\u2028", "2"]]
    assert table.lines.tolist() == [2, 4]


def test_sha256_is_that_of_the_file(tmp_path):
    path = write(tmp_path, "a.csv.gz", gzip.compress(b"text,label\na,b\n"))
    import hashlib

    assert read_table(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert rows_of(read_table(path)) == [["a", "b"]]


FAULTS = {
    "empty": (b"", ["is empty"]),
    "blank": (b"\n \n", ["is empty"]),
    "header only": (b"text,label\n", ["header and no rows"]),
    "twice": (b"text,text\na,b\n", ['"text"', "more than one column"]),
    "extra field": (b"text,label\na,b\nc,d,e\nf,g\n", ["line 3", "3 fields", "header 2", "'c,d,e'"]),
    "missing field": (b"text,label\na,b\nc\n", ["line 3", "1 fields", "'c'"]),
    "all rows longer": (b"text,label\na,b,c\nd,e,f\n", ["line 2", "1 more", "Every row is like this"]),
    "open quote": (b'text,label\na,b\n"c,d\ne,f\n', ["never closed", "line 3"]),
    "odd quote": (b'text,label\na,b\n"c" x,d\n', ["line 3", 'ends with "'.replace("ends", "end")]),
    "NUL": (b"text,label\na\0b,c\n", ["NUL", "byte 12", "line 2"]),
    "zip": (b"PK\x03\x04rest", ["zip archive"]),
    "gzip": (gzip.compress(b"text"), ["gzip data"]),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["Git LFS pointer"]),
    "page": (b"\n<!DOCTYPE html><html>", ["web page"]),
    "tar": (b"name".ljust(257, b"\0") + b"ustar\0", ["tar archive"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_file_are_named_with_their_place(tmp_path, fault):
    content, fragments = FAULTS[fault]
    refused(write(tmp_path, "a.csv", content), "a.csv", *fragments)


def test_what_is_no_file(tmp_path):
    write(tmp_path, "train.csv", "text,label\na,b\n")
    refused(tmp_path / "trian.csv", "does not exist", 'did you mean "train.csv"')
    refused(tmp_path, "is a folder")
    refused("https://example.org/a.csv", "address")
    refused("s3://bucket/a.csv", "address")
    refused(write(tmp_path, "a.zip", b"PK"), "unpack")
    refused(write(tmp_path, "a.xls", b"x"), ".xlsx")
    refused(write(tmp_path, "a.json", b"[]"), ".jsonl")
    refused(write(tmp_path, "a.txt", "text;label\na;b\n"), 'separator = ";"')
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.csv")
        refused(tmp_path / "pipe.csv", "no regular file")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize(
    "body", ["text{s}label\nhello, you{s}a\nb{s}c\n", '"text"{s}"label"\n"hello"{s}"a"\n']
)
def test_wrong_separator_is_named_with_the_key_that_opens_it(tmp_path, separator, body):
    path = write(tmp_path, "a.csv", body.format(s=separator))
    message = refused(path, "the header looks", f"Set [data] separator = {json.dumps(separator)}")
    assert read_table(path, separator=separator).frame.columns.tolist() == ["text", "label"], message


def test_spellings_of_a_tab(tmp_path):
    path = write(tmp_path, "a.csv", "text\tlabel\na\tb\n")
    for word in ("\t", "\\t", "tab", "TAB"):
        assert rows_of(read_table(path, separator=word)) == [["a", "b"]]
    refused(path, "one character", separator=";;")
    refused(path, "one character", separator='"')


ENCODINGS = [
    ("utf-16", "utf-16"),
    ("utf-16-le", "utf-16-le"),
    ("utf-16-be", "utf-16-be"),
    ("cp1252", "cp1252"),
]


@pytest.mark.parametrize("written, named", ENCODINGS)
def test_other_encodings_are_named_with_the_key_that_opens_them(tmp_path, written, named):
    body = "text;label\nplain;a\nSpaß – im Café;b\n"
    path = write(tmp_path, "a.csv", body, written)
    message = refused(path, "byte ", "line ", f'encoding = "{named}"', separator=";")
    if written == "cp1252":
        assert f"byte {body.index('ß')} (0xdf) on line 3" in message
    assert rows_of(read_table(path, separator=";", encoding=named))[1] == ["Spaß – im Café", "b"]


def test_encodings_that_can_not_be_right(tmp_path):
    plain = write(tmp_path, "a.csv", "text,label\nnaïve,b\n")
    refused(plain, 'encoding = "utf-8"', encoding="utf-16")
    refused(plain, "unknown", encoding="utf-9")
    refused(plain, "unknown", encoding="base64")
    marked = write(tmp_path, "b.csv", "\ufefftext,label\na,b\n")
    refused(marked, "mark of UTF-8", 'encoding = "utf-8"', encoding="cp1252")
    wide = write(tmp_path, "c.csv", "text,label\na,b\n", "utf-16")
    refused(wide, "mark of UTF-16", encoding="latin-1")


def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\nüöäß é,b\n".encode() + b"x\xff,c\n")
    message = refused(path, "0xff", "line 3")
    assert "looks like" not in message
    assert rows_of(read_table(path, errors="replace"))[1] == ["x\ufffd", "c"]


def test_long_cells_are_read(tmp_path):
    text = "word " * 60_000
    assert rows_of(read_table(write(tmp_path, "a.csv", f"text,label\n{text},x\n"))) == [[text, "x"]]


@pytest.mark.parametrize(
    "third", ["class\t", "\t", "", "class\tinclude=True", "i\tmeta", "\tmeta include=True title=True"]
)
@pytest.mark.parametrize("blank", ["", "\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_orange_headers(tmp_path, third, blank, end):
    lines = f'Category\tText\nd\tstring\n{third}\n{blank}earn\tone "two" three\n\t\nacq\t"a\tb"\n'
    table = read_table(write(tmp_path, "a.tab", lines.replace("\n", end)))
    assert rows_of(table) == [["earn", 'one "two" three'], ["", ""], ["acq", "a\tb"]]
    first = 4 + len(blank)
    assert table.lines.tolist() == [first, first + 1, first + 2]
    assert "types and roles" in table.notes[0]


def test_a_table_is_not_taken_for_orange(tmp_path):
    for body in ("a\tb\nd\tword\nclass\tx\n", "a\tb\nd\tstring\nclass\tother\n", "a\tb\nd\ts\n"):
        assert len(read_table(write(tmp_path, "a.tab", body)).frame) == body.count("\n") - 1
    assert len(read_table(write(tmp_path, "a.csv", "a,b\nd,s\ni,m\n")).frame) == 2  # answers of a quiz


def test_tab_files_without_quoting_lose_no_row(tmp_path):
    body = 'text\tlabel\n"Who wins," he said\ta\nhe asked "why"\tb\n"open\tc\nclosed"\td\n'
    table = read_table(write(tmp_path, "a.tsv", body))
    assert rows_of(table) == [line.split("\t") for line in body.splitlines()[1:]]
    assert "part of the text" in table.notes[0]
    joined = 'text\tlabel\n"open\tc\nplain"\td\n'  # with quoting this is one sound row
    assert len(read_table(write(tmp_path, "b.tsv", joined)).frame) == 2
    quoted = 'text\tlabel\n"a\tb ""c"""\tx\n"two\nlines"\ty\n'
    assert rows_of(read_table(write(tmp_path, "c.tsv", quoted))) == [['a\tb "c"', "x"], ["two\nlines", "y"]]


@real
def test_real_tables():
    assert len(read_table(REAL / "mrpc/msr-para-train.tsv").frame) == 3576
    banking = read_table(REAL / "banking77/banking_data/train.csv").frame
    assert len(banking) == 10_003 and banking["text"].str.contains("\n").sum() == 10
    emobank = read_table(REAL / "emobank/corpus/emobank.csv").frame
    assert emobank.loc[emobank["id"] == "easy_money_13624_13628", "text"].tolist() == ["None"]
    refused(REAL / "cap_policy_topics/data/NYTimes.csv.gz", "0xca", "line 2568", 'encoding = "cp1252"')
    refused(REAL / "isear/isear.csv", "line 199", "44 fields", "162 more", separator="|")


def test_gzip_faults(tmp_path, monkeypatch):
    packed = gzip.compress(b"text,label\n" + b"a,b\n" * 1000)
    refused(write(tmp_path, "cut.csv.gz", packed[:-9]), "no sound gzip")
    refused(write(tmp_path, "not.csv.gz", b"text,label\na,b\n"), "no sound gzip")
    monkeypatch.setattr(tables, "MOST_BYTES", 2000)
    refused(write(tmp_path, "bomb.csv.gz", packed), "holds more than")


def test_jsonl(tmp_path):
    body = '{"text": "a\\nb", "n": 1.50}\n\n{"n": 01e, "text": null}\n'
    refused(write(tmp_path, "a.jsonl", body), "line 3")
    body = '{"text": "a\\nb", "n": 1.50, "ok": true}\n\n{"n": -0, "text": null, "tags": ["x", 1]}\n'
    table = read_table(write(tmp_path, "b.jsonl", body))
    assert table.frame.columns.tolist() == ["text", "n", "ok", "tags"]
    assert rows_of(table) == [["a\nb", "1.50", "true", ""], ["", "-0", "", '["x", 1]']]
    assert table.lines.tolist() == [1, 3]
    refused(write(tmp_path, "c.jsonl", '[{"text": "a"}]'), "one JSON array")
    refused(write(tmp_path, "d.jsonl", '{"text": "a"}\n"b"\n'), "line 2", "no JSON object")
    refused(write(tmp_path, "e.jsonl", '{"text": "a", "text": "b"}\n'), "line 1", "twice")
    refused(write(tmp_path, "f.jsonl", '{"text": "a\\ud800"}\n'), "line 1", "U+D800")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    columns = {"text": ["NA", None, "01"], "n": [1, None, 3], "x": [0.5, 2.0, None]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert rows_of(table) == [["NA", "1", "0.5"], ["", "", "2"], ["01", "3", ""]]
    assert table.lines is None and table.where(1) == "row 1"
    refused(write(tmp_path, "b.parquet", b"PAR1 nothing"), "no sound Parquet")


def test_excel(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "first"
    for row in (["text", "label", None], ["a", "01", None], ["b", 2, None], [None, None, None]):
        book.active.append(row)
    book.create_sheet("second").append(["text", "label"])
    book["second"].append(["c", 1.5])
    book.save(tmp_path / "a.xlsx")
    table = read_table(tmp_path / "a.xlsx")
    assert rows_of(table) == [["a", "01"], ["b", "2"]] and table.lines.tolist() == [2, 3]
    assert table.notes == ('a.xlsx: of 2 sheets, "first" was read ([data] sheet).',)
    assert rows_of(read_table(tmp_path / "a.xlsx", sheet="second")) == [["c", "1.5"]]
    refused(tmp_path / "a.xlsx", 'no sheet "secnd"', 'did you mean "second"', sheet="secnd")
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as file:
        file.writestr("x", "y")
    refused(tmp_path / "b.xlsx", "no Excel workbook")
    refused(write(tmp_path, "c.csv", "a,b\n1,2\n"), "no sheets", sheet="first")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(EnvironmentProblem, match="pip install openpyxl"):
        read_table(tmp_path / "a.xlsx")


STREAMED = {
    "a.csv": ('\ufefftext,label\n"x, ""y""\nz",1\n\nb,2\nc,3\nd,4\n', ","),
    "a.tab": ("Category\tText\nd\tstring\nclass\t\n\na\tx\nb\ty\n\t\n", ""),
    "a.tsv": ('text\tlabel\n"open\tc\nplain"\td\n', ""),
    "a.txt": ("text;label\r\na;b\r\nc;d\r\ne;f\r\n", ";"),
}


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_pieces_are_the_table(tmp_path, monkeypatch, name, large):
    monkeypatch.setattr(tables, "LARGE", large)
    body, separator = STREAMED[name]
    path = write(tmp_path, name, body)
    pieces = list(read_chunks(path, 2, separator=separator))
    whole = read_table(path, separator=separator).frame
    assert [row for piece in pieces for row in piece.to_numpy().tolist()] == whole.to_numpy().tolist()
    assert [i for piece in pieces for i in piece.index] == whole.index.tolist()
    assert {len(piece) for piece in pieces[:-1]} <= {2} and list(pieces[0].columns) == list(whole.columns)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("zip", "gzip", "LFS", "page", "tar")])
def test_streaming_names_the_same_faults(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(tables, "LARGE", 0)
    content, fragments = FAULTS[fault]
    with pytest.raises(DataError) as caught:
        list(read_chunks(write(tmp_path, "a.csv", content), 2))
    for fragment in fragments:
        assert fragment in str(caught.value)


# Splitting


def task(kind="classification", learn=None, **keys):
    keys = {"text": "text", "label": "label", **keys}
    return spec.parse({"task": {"name": "t", "kind": kind}, "data": keys, "model": {"weights": "w"},
                       "train": learn or {}})  # fmt: skip


def table_of(folder, labels, name="a.csv", prefix="text", **columns):
    """A CSV with one row a label; more columns by name."""
    head = ",".join(["text", "label", *columns])
    lines = [",".join([f"{prefix} {i}", str(label), *(str(c[i]) for c in columns.values())])
             for i, label in enumerate(labels)]  # fmt: skip
    return write(folder, name, "\n".join([head, *lines]) + "\n")


def split(folder, labels, kind="classification", learn=None, columns=None, **keys):
    table_of(folder, labels, **(columns or {}))
    keys = {"source": "a.csv", "split": [0.625, 0.125, 0.25], **keys}
    return load_splits(task(kind, learn, **keys), folder.joinpath)


def parts_of(splits):
    return splits.train, splits.validation, splits.test


def fails(fragments, function, *args, **options):
    with pytest.raises(DataError) as caught:
        function(*args, **options)
    for fragment in [fragments] if isinstance(fragments, str) else fragments:
        assert fragment in str(caught.value)


LABELS = ["a"] * 64 + ["b"] * 40 + ["c"] * 16 + ["d"] * 8


def test_shares_are_exact_and_classes_in_proportion(tmp_path):
    splits = split(tmp_path, LABELS)
    assert [len(part) for part in parts_of(splits)] == [80, 16, 32]
    rows = np.concatenate([part.rows for part in parts_of(splits)])
    assert sorted(rows) == list(range(128))
    for part, share in zip(parts_of(splits), (0.625, 0.125, 0.25)):
        assert Counter(part.targets) == {"a": 64 * share, "b": 40 * share, "c": 16 * share, "d": 8 * share}
        assert part.texts == [f"text {row}" for row in part.rows] and part.pairs is None
        assert part.targets.tolist() == [LABELS[row] for row in part.rows]
    assert splits.labels == ("a", "b", "c", "d")


def test_splits_are_a_function_of_the_seed(tmp_path):
    def test_rows(seed):
        return split(tmp_path, LABELS, learn={"seed": seed}).test.rows.tolist()

    assert test_rows(0) == test_rows(0) != test_rows(1)
    small = split(tmp_path, "aaaaaabbbb", learn={"seed": 7})  # written down once: it must never change
    assert [part.rows.tolist() for part in parts_of(small)] == PINNED


PINNED = [[1, 2, 3, 6, 7, 8], [5], [0, 4, 9]]


def test_every_row_is_as_likely_in_the_test_part():
    taken = sum(take_rows(np.array(list("aaaaabbbcc")), 0.3, np.random.default_rng(s)) for s in range(2000))
    assert (abs(taken / 2000 - 0.3) < 0.06).all()


def test_small_classes_never_crash_and_single_rows_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    outcomes = Counter()
    for n in range(2, 40):
        labels = rng.choice(list("abcdefg"), n, p=[0.4, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05]).tolist()
        try:
            splits = split(tmp_path, labels, learn={"seed": n})
        except DataError:
            outcomes["refused"] += 1
            assert n < 10
            continue
        outcomes["split"] += 1
        assert set(splits.train.targets) == set(labels) and min(map(len, parts_of(splits))) > 0
        for label, count in Counter(labels).items():
            assert count > 1 or label in splits.train.targets
    assert outcomes["split"] > 30


def test_regression_is_shuffled_plainly(tmp_path):
    splits = split(tmp_path, [i / 4 for i in range(100)], "regression")
    assert [len(part) for part in parts_of(splits)] == [62, 13, 25] and splits.labels == ()
    assert splits.test.targets.dtype == np.float64
    assert splits.test.targets.tolist() == (splits.test.rows / 4).tolist()
    assert 5 < splits.test.targets.mean() < 20


def test_examples_count_every_label_used_and_are_nested(tmp_path):
    drawn = {n: split(tmp_path, LABELS, learn={"examples": n}) for n in (20, 40, 96)}
    used = {n: set(s.train.rows) | set(s.validation.rows) for n, s in drawn.items()}
    assert {n: len(rows) for n, rows in used.items()} == {20: 20, 40: 40, 96: 96}
    assert used[20] < used[40] < used[96]
    assert len({tuple(s.test.rows) for n, s in drawn.items()}) == 1  # drawing does not move the test rows
    counts = Counter(LABELS[row] for row in used[40])
    assert all(abs(counts[label] - LABELS.count(label) * 40 / 128) <= 1 for label in "abcd")
    assert "40 of 96 rows were drawn" in " ".join(drawn[40].notes)


def test_examples_out_of_range(tmp_path):
    fails("Choose from 4 (one a class) to 96", split, tmp_path, LABELS, learn={"examples": 97})
    fails("Choose from 4", split, tmp_path, LABELS, learn={"examples": 3})
    numbers = split(tmp_path, range(100), "regression", learn={"examples": 40})
    assert len(numbers.train) + len(numbers.validation) == 40


def test_given_files_and_validation(tmp_path):
    table_of(tmp_path, "abababababab", "train.csv", "train")
    table_of(tmp_path, "aabb", "test.csv", "test")
    table_of(tmp_path, "ab", "dev.csv", "dev")
    splits = load_splits(task(train="train.csv", test="test.csv", validation=0.25), tmp_path.joinpath)
    assert [len(part) for part in parts_of(splits)] == [9, 3, 4]
    assert splits.validation.table.path.endswith("train.csv") and splits.test.rows.tolist() == [0, 1, 2, 3]
    splits = load_splits(task(train="train.csv", test="test.csv", validation="dev.csv"), tmp_path.joinpath)
    assert [len(part) for part in parts_of(splits)] == [12, 2, 4]
    write(tmp_path, "copy.csv", (tmp_path / "train.csv").read_bytes())
    for keys in ({"test": "copy.csv"}, {"test": "test.csv", "validation": "copy.csv"}):
        fails("are the same file", load_splits, task(train="train.csv", **keys), tmp_path.joinpath)
    source = task(source="train.csv", split=[0.5, 0.25, 0.25], validation="dev.csv")
    fails("validation is a share", load_splits, source, tmp_path.joinpath)
    fails("folds", load_splits, task(source="train.csv", folds=2), tmp_path.joinpath)


def test_split_column(tmp_path):
    words = ["train"] * 8 + ["VAL ", "Dev", "valid"] + ["test"] * 3
    keys = {"split": [], "split_column": "part"}
    splits = split(tmp_path, "abababababbaab", columns={"part": words}, **keys)
    assert [part.rows.tolist() for part in parts_of(splits)] == [[*range(8)], [8, 9, 10], [11, 12, 13]]
    words = ["train"] * 11 + ["test"] * 3  # no validation: the share of train
    splits = split(tmp_path, "abababababbaab", columns={"part": words}, validation=0.2, **keys)
    assert [len(part) for part in parts_of(splits)] == [9, 2, 3] and max(splits.validation.rows) < 11
    fails(
        ["row 13 (line 15)", "'tset'"],
        split,
        tmp_path,
        "abababababbaab",
        columns={"part": [*words[:-1], "tset"]},
        **keys,
    )
    fails('"test"', split, tmp_path, "abababababbaab", columns={"part": ["train"] * 14}, **keys)


def test_groups_stay_whole(tmp_path):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        authors = np.repeat([f"author {i}" for i in range(30)], rng.integers(1, 6, 30))
        labels = rng.choice(list("ab"), len(authors))
        splits = split(tmp_path, labels, columns={"by": authors}, group="by", learn={"seed": seed})
        found = [set(authors[part.rows]) for part in parts_of(splits)]
        assert sum(map(len, found)) == 30 and len(set.union(*found)) == 30
        for part, share in zip(parts_of(splits), (0.625, 0.125, 0.25)):
            assert abs(len(part) - share * len(authors)) < 6  # the largest group has five rows


def test_group_problems(tmp_path):
    ab = "ab" * 6
    fails("in groups: 1", split, tmp_path, ab, columns={"by": ["x"] * 12}, group="by")
    splits = split(tmp_path, ab, columns={"by": ["x"] * 10 + ["y", "z"]}, group="by")
    assert len(splits.train) == 10
    splits = split(tmp_path, ab, columns={"by": ["x", "x", *[""] * 10]}, group="by")
    assert "10 rows without by, each its own group" in " ".join(splits.notes)
    table_of(tmp_path, ab, "train.csv", by=["x", *range(11)])
    table_of(tmp_path, "ab", "test.csv", "test", by=["x", "new"])
    fails(
        'by "x" stands in',
        load_splits,
        task(train="train.csv", test="test.csv", group="by"),
        tmp_path.joinpath,
    )


def test_folds_test_every_row_once(tmp_path):
    table_of(tmp_path, LABELS, by=[i // 2 for i in range(len(LABELS))])
    plain = list(fold_splits(task(source="a.csv", folds=4), tmp_path.joinpath))
    grouped = list(fold_splits(task(source="a.csv", folds=4, group="by"), tmp_path.joinpath))
    for folds in (plain, grouped):
        assert sorted(row for s in folds for row in s.test.rows) == list(range(128))
        for s in folds:
            assert len(s.test) == 32
            used = np.concatenate([part.rows for part in parts_of(s)])
            assert sorted(used) == list(range(128)) and len(s.validation) in (9, 10)
    assert all(Counter(s.test.targets) == {"a": 16, "b": 10, "c": 4, "d": 2} for s in plain)
    assert all(set(s.test.rows // 2).isdisjoint(s.train.rows // 2) for s in grouped)
    assert any(set(s.test.rows // 2) & set(s.train.rows // 2) for s in plain)


def test_folds_of_uneven_groups_are_even(tmp_path):
    by = np.repeat(range(12), [1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 8, 8])
    table_of(tmp_path, range(32), by=by)
    for seed in range(5):
        folds = fold_splits(
            task("regression", {"seed": seed}, source="a.csv", folds=4, group="by"), tmp_path.joinpath
        )
        assert [len(s.test) for s in folds].count(8) == 4


def test_folds_of_few_rows(tmp_path):
    table_of(tmp_path, [*"aaaabbbb", "c"])
    folds = task(source="a.csv", folds=3, validation=0.2)
    fails(["c", "unseen"], lambda: list(fold_splits(folds, tmp_path.joinpath)))
    wrong = task(source="a.csv", folds=3, validation=0.2, unseen="wrong")
    assert sorted(r for s in fold_splits(wrong, tmp_path.joinpath) for r in s.test.rows) == list(range(9))
    fails("folds = 10", lambda: list(fold_splits(task(source="a.csv", folds=10), tmp_path.joinpath)))


# Labels and targets


def test_labels_stay_as_written_and_sort_by_value_if_whole(tmp_path):
    assert split(tmp_path, ["10", "9", "1", "01"] * 10).labels == ("01", "1", "9", "10")
    assert split(tmp_path, ["10", "9", "1.0", "NA"] * 10).labels == ("1.0", "10", "9", "NA")
    assert split(tmp_path, ["-1", "+1", "0"] * 10).labels == ("-1", "0", "+1")


def test_labels_that_only_the_test_part_has(tmp_path):
    table_of(tmp_path, "ab" * 10, "train.csv")
    table_of(tmp_path, ["a", "B", "x", "x"], "test.csv", "test")
    fails(['"x" (2)', '"B" (1)', "row 1 (line 3)", "differ only in case"], load_splits,
          task(train="train.csv", test="test.csv"), tmp_path.joinpath)  # fmt: skip
    kept = load_splits(task(train="train.csv", test="test.csv", unseen="wrong"), tmp_path.joinpath)
    assert kept.test.targets.tolist() == ["a", "B", "x", "x"] and kept.labels == ("a", "b")
    dropped = load_splits(task(train="train.csv", test="test.csv", unseen="drop"), tmp_path.joinpath)
    assert dropped.test.rows.tolist() == [0] and "3 rows of test" in " ".join(dropped.notes)


def test_label_columns_that_can_not_be(tmp_path):
    fails('all 8 rows to train on have label = "a"', split, tmp_path, ["a"] * 14)
    fails("40 distinct values in 40 rows", split, tmp_path, range(40))
    fails("1,001 distinct values", split, tmp_path, [i % 1001 for i in range(2100)])
    fails('all 8 rows to train on have label = "2.5"', split, tmp_path, [2.5] * 14, "regression")


BAD_NUMBERS = ["nan", "NaN", "inf", "-inf", "1e999", "NA", "1_000", "1 000", "x", "1,5", "٣"]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
def test_targets_that_are_no_numbers(tmp_path, bad):
    fails(["row 3 (line 5)", repr(bad), "no finite number"], split, tmp_path,
          ["1", "2", "3", f'"{bad}"', "5"] * 4, "regression")  # fmt: skip


def test_decimal_marks(tmp_path):
    german = ['"1,5"', '"-2,25"', "3", '"1,5e2"'] * 5
    fails('decimal = ","', split, tmp_path, german, "regression")
    splits = split(tmp_path, german, "regression", decimal=",")
    assert set(np.concatenate([p.targets for p in parts_of(splits)])) == {1.5, -2.25, 3, 150}
    fails('decimal = "."', split, tmp_path, ["1.5", "2"] * 5, "regression", decimal=",")
    fails("1.234,5", split, tmp_path, ['"1.234,5"', "2"] * 5, "regression", decimal=",")


def test_columns_are_found_or_the_nearest_is_named(tmp_path):
    write(tmp_path, "a.csv", "Text, label\n" + "a,b\n" * 9)
    spec_of = {"source": "a.csv", "split": [0.5, 0.25, 0.25]}
    fails(['"text" ([data] text)', '"Text" differs only in case', 'Its columns: "Text", " label"'],
          load_splits, task(**spec_of), tmp_path.joinpath)  # fmt: skip
    fails(
        '" label" differs only in case, spaces', load_splits, task(text="Text", **spec_of), tmp_path.joinpath
    )
    fails('did you mean "Text"', load_splits, task(text="Texts", **spec_of), tmp_path.joinpath)


def test_rows_without_text_or_label(tmp_path):
    body = "text,pair,label\n" + "".join(f"text {i},pair {i},{'ab'[i % 2]}\n" for i in range(12))
    write(tmp_path, "a.csv", body + " ,p,a\nlonely,,b\nnothing,p, \n,,\n")
    keys = {"source": "a.csv", "split": [0.5, 0.25, 0.25], "pair": "pair"}

    def load(**more):
        return load_splits(task(**keys, **more), tmp_path.joinpath)

    fails(["3 rows without text", "row 12 (line 14), row 13 (line 15)", 'empty = "drop"'], load)
    fails(["1 row without label", "row 14 (line 16)"], load, empty="drop")
    splits = load(empty="drop", missing_label="drop")
    assert (
        sum(map(len, parts_of(splits))) == 12 and splits.train.pairs[0] == "pair" + splits.train.texts[0][4:]
    )
    assert any("3 rows without text" in n and "dropped" in n for n in splits.notes)
    assert any("1 row without label" in n and "dropped" in n for n in splits.notes)
    kept = load(empty="keep", missing_label="drop")
    assert sum(map(len, parts_of(kept))) == 14 and any(
        "2 rows without" in n or "kept" in n for n in kept.notes
    )
    write(tmp_path, "a.csv", "text,pair,label\n,,\n,,\n")
    fails("none of 2 rows is usable", load, empty="drop")


def test_duplicates_and_leaks_are_told(tmp_path):
    write(tmp_path, "train.csv", "text,label\n" + "".join(f"t{i % 10},{'ab'[i % 2]}\n" for i in range(12)))
    write(tmp_path, "test.csv", "text,label\nt1,b\nnew,a\nt1,a\n")
    kept = load_splits(task(train="train.csv", test="test.csv"), tmp_path.joinpath)
    assert "2 rows of test: the same text stands in train." in kept.notes and len(kept.test) == 3
    once = load_splits(task(train="train.csv", test="test.csv", duplicates="drop"), tmp_path.joinpath)
    assert len(once.train) + len(once.validation) == 10 and len(once.test) == 2
    assert any("2 rows with a text that stood before: row 10 (line 12)" in note for note in once.notes)


def test_class_weights():
    targets, labels = np.array(["a"] * 6 + ["b"] * 2, object), ("a", "b")
    assert class_weights("none", targets, labels) is None
    np.testing.assert_allclose(class_weights("balanced", targets, labels), [8 / 12, 8 / 4])
    np.testing.assert_allclose(class_weights({"b": 3.0}, targets, labels), [1, 3])
    fails(['"c" is no label', "Labels: a, b"], class_weights, {"c": 2.0}, targets, labels)
    fails("no finite number", class_weights, {"a": float("nan")}, targets, labels)
    fails("no finite number", class_weights, {"a": -1.0}, targets, labels)
    fails(["no finite number above 0", "leave its rows out"], class_weights, {"a": 0.0}, targets, labels)


@real
def test_real_splits():
    def load(kind, **keys):
        return load_splits(task(kind, **keys), REAL.joinpath)

    shares = {"split": [0.625, 0.125, 0.25]}
    worry = load("regression", source="rwwd/data_phase_1/files_clean/meta/rwwd_full.csv", text="text_long",
                 label="anxiety", **shares)  # fmt: skip
    assert [len(part) for part in parts_of(worry)] == [1557, 311, 623]
    bills = load("classification", source="cap_policy_topics/data/USCongress.csv.gz", separator=";",
                 label="major", duplicates="drop", **shares)  # fmt: skip
    assert sum(map(len, parts_of(bills))) == 4449 - 154 and bills.labels[-2:] == ("21", "99")
    emotion = load("regression", source="emobank/corpus/emobank.csv", split_column="split", label="V")
    assert [len(part) for part in parts_of(emotion)] == [8062, 1000, 1000]
    writers = load("regression", source="empathic_reactions/data/responses/data/messages.csv", text="essay",
                   label="empathy", group="response_id", **shares)  # fmt: skip
    ids = [set(part.table.frame["response_id"].iloc[part.rows]) for part in parts_of(writers)]
    assert [len(part) for part in parts_of(writers)] == [1165, 230, 465] and len(set.union(*ids)) == sum(
        map(len, ids)
    ) == 372


def test_typed_cells_that_are_no_plain_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    columns = {"text": [b"caf\xc3\xa9", b"two"], "x": pa.array([float("nan"), 3.0]), "y": [0.5, 1e300]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert rows_of(read_table(tmp_path / "a.parquet")) == [["caf\u00e9", "", "0.5"], ["two", "3", "1e+300"]]
    pyarrow.parquet.write_table(pa.table({"text": [b"caf\xe9"]}), tmp_path / "b.parquet")
    refused(tmp_path / "b.parquet", "no sound Parquet file", "can't decode byte 0xe9")


@pytest.mark.parametrize("start", ["sep=;", '"sep=;"', "\ufeffSEP=;"])
def test_excels_own_first_line_is_left_out_and_told(tmp_path, start):
    path = write(tmp_path, "a.csv", f"{start}\r\ntext;label\r\na, b;c\r\n")
    table = read_table(path, separator=";")
    assert rows_of(table) == [["a, b", "c"]] and "sep=;" in table.notes[0] and table.lines.tolist() == [3]
    refused(path, 'separator = ";"')
    assert tables.sniff(path)[0] == ";"


def test_a_sheet_that_says_it_is_smaller_than_it_is(tmp_path):
    """Some exporters write a wrong dimension; openpyxl's read-only mode believes it."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["text", "label"]] + [[f"t{i}", "a"] for i in range(9)]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("sheet1.xml"):
                assert b'ref="A1:B10"' in body
                body = body.replace(b'ref="A1:B10"', b'ref="A1:B3"')
            new.writestr(name, body)
    assert len(read_table(tmp_path / "b.xlsx").frame) == 9


def test_a_stream_heeds_the_mark_as_a_table_does(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write("\ufefftext,label\ncaf\u00e9,a\n".encode())
    with pytest.raises(DataError, match="mark of UTF-8"):
        list(read_chunks(tmp_path / "a.csv.gz", 10, encoding="cp1252"))
    assert list(read_chunks(tmp_path / "a.csv.gz", 10))[0].to_numpy().tolist() == [["caf\u00e9", "a"]]


def test_groups_are_dealt_in_no_time(tmp_path):
    """One comparison of all rows for each group would take a minute here."""
    groups = np.repeat(np.arange(60_000), 2).astype(str).astype(object)
    pool = Pool(groups, None, groups, groups, np.arange(len(groups)), None)
    with within(20):
        fold = deal_folds(pool, 5, False, np.random.default_rng(0))
    assert (fold[::2] == fold[1::2]).all() and (np.bincount(fold) == 24_000).all()


# Words with tags, several labels a text


def kind_spec(kind, **keys):
    train = keys.pop("train_keys", {})
    return spec.parse({"task": {"name": "t", "kind": kind}, "model": {"weights": "w"}, "train": train,
                       "data": {"train": "train.csv", "test": "test.csv", "text": "text", "label": "label", **keys}})  # fmt: skip


def test_words_and_tags(tmp_path):
    write(tmp_path, "train.csv", "text,label\n" + "a\u00a0b  c,X O\nd,I-x\n" * 9 + "d e,B-x I-x\n")
    write(tmp_path, "test.csv", "text,label\nc,X\nd e,NEW O\n")
    found = load_splits(kind_spec("tokens"), tmp_path.joinpath)
    assert found.labels == ("B-x", "I-x", "O", "X")
    assert found.test.targets.tolist() == [("X",), ("NEW", "O")]  # kept, and told
    assert any('labels that train lacks, "NEW" (1)' in note for note in found.notes)
    assert any("9 tags I-... follow no tag of their type" in note for note in found.notes)
    kept = load_splits(kind_spec("tokens", unseen="drop"), tmp_path.joinpath)
    assert kept.test.targets.tolist() == [("X",)]


def test_words_without_a_tag_name_the_row(tmp_path):
    write(tmp_path, "train.csv", "text,label\na b,X Y\na b c,X Y\nd,X Y\n")
    write(tmp_path, "test.csv", "text,label\na,X\n")
    with pytest.raises(
        DataError, match=r"row 1 \(line 3\) has 3 words in text and 2 tags in label \(2 rows in all\)"
    ):
        load_splits(kind_spec("tokens"), tmp_path.joinpath)


def test_one_tag_everywhere_is_nothing_to_learn(tmp_path):
    write(tmp_path, "train.csv", "text,label\n" + "a b,O O\nc,O\n" * 9)
    write(tmp_path, "test.csv", "text,label\na,O\n")
    with pytest.raises(DataError, match='have label = "O"'):
        load_splits(kind_spec("tokens"), tmp_path.joinpath)


def test_several_labels(tmp_path):
    write(tmp_path, "train.csv", 'text,label\n1,"a, b"\n2,\n3,"b,b ,"\n4,c\n5,"a,c"\n6,b\n')
    write(tmp_path, "test.csv", 'text,label\n7,"z,a"\n8," "\n')
    found = load_splits(kind_spec("multilabel", train_keys={"seed": 3}), tmp_path.joinpath)
    said = dict(zip(found.train.texts, found.train.targets)) | dict(
        zip(found.validation.texts, found.validation.targets)
    )
    assert said == {"1": ("a", "b"), "2": (), "3": ("b",), "4": ("c",), "5": ("a", "c"), "6": ("b",)}
    assert found.labels == ("a", "b", "c") and found.test.targets.tolist() == [("z", "a"), ()]
    assert any("with a label twice, which counts once: row 2" in note for note in found.notes)


@pytest.mark.parametrize(
    ("rows", "match"), [("1,a\n2,a\n3,\n4,\n", "know one label"), ("1,\n2,\n3,\n", "nothing to learn")]
)
def test_labels_that_teach_nothing(tmp_path, rows, match):
    write(tmp_path, "train.csv", "text,label\n" + rows)
    write(tmp_path, "test.csv", "text,label\n5,a\n")
    with pytest.raises(DataError, match=match):
        load_splits(kind_spec("multilabel", train_keys={"seed": 1}), tmp_path.joinpath)


def test_a_file_without_header_and_labels_as_numbers(tmp_path):
    write(tmp_path, "train.tsv", 'say "no"\t0,2\tid1\nyes\t1\tid2\n' * 5)
    write(tmp_path, "test.tsv", "no\t2\tid3\n")
    keys = {
        "train": "train.tsv",
        "test": "test.tsv",
        "columns": ["text", "label", "id"],
        "label_names": ["x", "y", "z"],
    }
    found = load_splits(kind_spec("multilabel", **keys), tmp_path.joinpath)
    assert found.labels == ("x", "y", "z") and found.test.targets.tolist() == [("z",)]
    assert len(found.train) + len(found.validation) == 10  # the first line is a row
    assert found.train.table.lines.tolist() == list(range(1, 11)) and 'say "no"' in found.train.texts
    with pytest.raises(
        DataError, match=r"row 0 \(line 1\) has label = '2', and \[data\] label_names has 2 names"
    ):
        load_splits(kind_spec("multilabel", **keys | {"label_names": ["x", "y"]}), tmp_path.joinpath)
    refused(write(tmp_path, "a.jsonl", '{"a": 1}'), "names its columns", columns=["a"])
    refused(tmp_path / "train.tsv", "3 fields, the header 2", columns=["a", "b"])


def test_fields_beyond_the_columns_named_are_left_out_where_the_spec_says_so(tmp_path):
    """As STS-B is: seven fields or nine, and quotes that are text."""
    rows = ['g\t1\tsays "no\tb', "g\t2\tc\td\tmore\tand more", 'g\t3\t"e" f"\tg']
    path = write(tmp_path, "pairs.csv", "\n".join(rows) + "\n")
    names = ["genre", "score", "one", "two"]
    table = read_table(path, separator="\t", columns=[*names, "..."])
    assert list(table.frame.columns) == names and len(table.frame) == 3
    assert table.frame["one"].tolist() == ['says "no', "c", '"e" f"'] and table.frame["two"][1] == "d"
    assert any("1 rows have more than the 4 columns named" in note for note in table.notes)
    plain = write(tmp_path, "plain.csv", "g\t2\tc\td\tmore\tand more\ng\t1\ta\tb\n")
    refused(plain, "6 fields, the header 4", separator="\t", columns=names)
    refused(plain, "4 fields, the header 5", separator="\t", columns=[*names, "five", "..."])


def lines(folder, texts, labels, prefix="train"):
    write(folder, f"{prefix}_labels.txt", labels)
    return write(folder, f"{prefix}_text.txt", texts)


def test_a_text_a_line_and_its_label_in_a_file_beside_it(tmp_path):
    """A line ends at a line feed alone: at none of the marks that str.splitlines() takes for its end."""
    path = lines(tmp_path, 'one\u2028line\nsay "no", a\x85b\n\nlast', "0\n1\n0\n1\n")
    table = read_table(path)
    assert table.frame["text"].tolist() == ["one\u2028line", 'say "no", a\x85b', "", "last"]
    assert table.frame["label"].tolist() == ["0", "1", "0", "1"] and table.lines.tolist() == [1, 2, 3, 4]
    assert any("read from train_labels.txt" in note for note in table.notes)
    other = read_table(lines(tmp_path, 'one\u2028line\nsay "no", a\x85b\n\nlast', "0\n1\n1\n1\n"))
    assert other.sha256 != table.sha256  # of both files
    assert read_table(lines(tmp_path, "a\r\nb\r\n", "x\r\ny\r\n")).frame.values.tolist() == [
        ["a", "x"],
        ["b", "y"],
    ]
    refused(lines(tmp_path, "a\nb\n", "0\n"), "2 lines, train_labels.txt 1")
    (tmp_path / "train_labels.txt").unlink()
    refused(path, "does not say what stands between")


def test_rows_that_the_spec_leaves_out(tmp_path):
    labels = "ab" * 20
    ids = [f"{'mystery' if i % 4 == 1 else 'real'}-{i}" for i in range(40)]
    splits = split(tmp_path, labels, columns={"ID": ids}, leave_out={"ID": "mystery"})
    rows = np.concatenate([part.rows for part in parts_of(splits)])
    assert sorted(rows) == [i for i in range(40) if i % 4 != 1]
    assert any('10 rows with "mystery" in ID left out: row 1 (line 3)' in note for note in splits.notes)
    fails(
        'no column "Id" ([data] leave_out)',
        split,
        tmp_path,
        labels,
        columns={"ID": ids},
        leave_out={"Id": "m"},
    )
    with pytest.raises(ConfigError, match="leave_out = .* must be a table of texts"):
        task(source="a.csv", split=[0.5, 0.25, 0.25], leave_out={"ID": 3})
