"""What `check` finds, and that it goes on where it can."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minibert import spec
from minibert.data import load_splits
from minibert.data.check import audit, check_spec, check_table
from minibert.data.looks import MOJIBAKE
from minibert.errors import DataError, EnvironmentProblem

REAL = Path(os.environ.get("MINIBERT_DATA", ""))
real = pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA does not name the texts")


class Words:
    """A tokenizer that counts words, and two special tokens a text."""

    def encode(self, texts, pairs=None, *, max_tokens, truncation, stride, max_windows):
        tokens = np.array([len(f"{a} {b}".split()) + 2 for a, b in zip(texts, pairs or [""] * len(texts))])
        windows = max_windows if truncation == "window" else 1
        most = max_tokens + (windows - 1) * (max_tokens - 2 - stride)
        return SimpleNamespace(tokens=tokens, cut=(tokens - most).clip(0))


def opener():
    return Words(), 512


def task(kind="classification", model=None, **keys):
    keys = {"text": "text", "label": "label", **keys}
    return spec.parse({"task": {"name": "t", "kind": kind}, "data": keys,
                       "model": {"weights": "w", **(model or {})}})  # fmt: skip


def write(folder, name, rows, head="text,label", encoding="utf-8"):
    path = folder / name
    path.write_bytes("\n".join([head, *rows, ""]).encode(encoding))
    return path


def has(found, severity, *fragments):
    """Whether one finding of that severity holds every fragment; the report and its JSON hold it too."""
    hits = [r for r in found.rows if r.severity == severity and all(f in r.sentence for f in fragments)]
    assert len(hits) <= 1
    if hits:
        assert " ".join(hits[0].sentence.split()) in " ".join(found.text().split())
        assert hits[0]._asdict() in json.loads(json.dumps(found.as_dict(), allow_nan=False))["findings"]
    return bool(hits)


PLAIN = [f"plain text {i},{'ab'[i % 2]}" for i in range(40)]


def test_sound_tables_give_no_complaint(tmp_path):
    write(tmp_path, "train.csv", PLAIN)
    write(tmp_path, "test.csv", [f"test {row}" for row in PLAIN])
    found = check_spec(task(train="train.csv", test="test.csv"), tmp_path.joinpath, opener)
    assert found.errors == 0 and {row.severity for row in found.rows} == {"info"}
    assert "0 errors, 0 warnings" in found.text()
    assert has(found, "info", "train.csv: 40 rows, 2 columns") and has(
        found, "info", "right for 50.0% of train"
    )
    labels, lengths, tokens = found.tables
    assert labels.columns == ("label", "train", "validation", "test")
    assert labels.rows == [("a", 18, 2, 20), ("b", 18, 2, 20), ("all", 36, 4, 40)]
    assert lengths.rows[0] == ("train, words", 3, 3, 3, 3, 3, 3)
    assert tokens.rows[0] == ("train, tokens", 5, 5, 5, 5, 5, 5)
    assert "validation" in found.text() and "Lengths in tokens" in found.text()


def test_each_trouble_is_found_and_the_look_goes_on(tmp_path):
    odd = [" ,a", "no label, ", "plain text 1,b", "plain text 1,a", "its â€™ gone,a", "lost \ufffd,b",
           "a [SEP] here,a", "x,A", "y,a ", "z,cafe\u0301", "zz,caf\u00e9"]  # fmt: skip
    write(tmp_path, "train.csv", [*PLAIN, *odd])
    write(tmp_path, "test.csv", ["plain text 1,b", "plain text 3,b", "new,a", "newer,q"])
    found = check_spec(task(train="train.csv", test="test.csv", validation=0.2), tmp_path.joinpath, opener)
    assert has(found, "error", "train.csv: 1 row without text: row 40 (line 42)", 'empty = "drop"')
    assert has(found, "error", "1 row without label: row 41 (line 43)", 'missing_label = "drop"')
    assert has(found, "error", '"q" (1)', "unseen")
    assert has(found, "warning", "2 rows of test: the same text stands in ") or (
        has(found, "warning", "1 row of test: the same text stands in train")
        and has(found, "warning", "1 row of test: the same text stands in validation")
    )
    assert has(found, "warning", "1 text stands under more than one label", "'plain text 1'", "a, b")
    assert has(found, "warning", "differ only in case", "'A' (1)", "'a '")
    assert has(found, "warning", "differ only in case", "caf\u00e9")
    assert has(found, "warning", "fewer than 10 rows", '"A" (1)')
    for severity, words in (("warning", "UTF-8 read as"), ("warning", "U+FFFD"), ("info", "[SEP]")):
        assert any(
            words in r.sentence and r.severity == severity and "row " in r.sentence for r in found.rows
        )
    assert found.errors == 3
    assert found.tables[0].rows[-1][3] == 4  # the test row with the unknown label is counted too


def test_duplicates_in_a_part(tmp_path):
    write(tmp_path, "train.csv", [*PLAIN, *["again,a"] * 20])
    write(tmp_path, "test.csv", ["x,a", "x,a", "y,b"])
    keys = {"train": "train.csv", "test": "test.csv"}
    assert has(
        check_spec(task(**keys), tmp_path.joinpath), "warning", "test: 1 row with a text that stood before"
    )
    dropped = check_spec(task(**keys, duplicates="drop"), tmp_path.joinpath)
    assert has(dropped, "info", "train.csv: 19 rows with a text that stood before", "dropped")
    assert not has(dropped, "warning", "stood before")


def test_regression(tmp_path):
    write(tmp_path, "a.csv", [*[f"text {i},{i / 2}" for i in range(40)], "bad,nan", 'worse,"1,5"'])
    keys = {"source": "a.csv", "split": [0.5, 0.25, 0.25]}
    found = check_spec(task("regression", **keys), tmp_path.joinpath)
    assert has(found, "error", "2 rows whose label is no finite number", "'nan'", "row 40 (line 42), row 41")
    assert has(found, "error", "row 40 (line 42) has label = 'nan'")  # what a run would say
    assert [grid.title for grid in found.tables] == ["Targets", "Lengths of the texts"]
    assert found.tables[0].rows[0][:3] == ("source", 42, 0.0) and found.tables[0].rows[0][-1] == 19.5
    write(tmp_path, "a.csv", [f"text {i},{i / 2}" for i in range(40)])
    sound = check_spec(task("regression", **keys), tmp_path.joinpath)
    assert sound.errors == 0 and [row[:2] for row in sound.tables[0].rows] == [
        ("train", 20),
        ("validation", 10),
        ("test", 10),
    ]


def test_truncation_is_counted(tmp_path):
    write(tmp_path, "train.csv", [*PLAIN, *[f"{'word ' * 20}{i},a" for i in range(10)]])
    write(tmp_path, "test.csv", [f"test {row}" for row in PLAIN])

    def look(truncation="head", most=13):
        keys = {"max_tokens": most, "truncation": truncation, "stride": 2}
        return check_spec(task(model=keys, train="train.csv", test="test.csv"), tmp_path.joinpath, opener)

    cut = next(row for row in look().rows if row.topic == "lengths" and row.sentence.startswith("train"))
    train = look().tables[0].rows[-1][1]
    n = int(cut.sentence.split()[1])
    assert cut.severity == "warning" and 8 <= n <= 10
    assert cut.sentence == (f"train: {n} of {train} texts ({n / train:.1%}) are longer than 13 tokens; "
                            f"{n * 10 / (n * 23 + (train - n) * 5):.1%} of all tokens are cut.")  # fmt: skip
    assert has(look("error"), "error", "train", "longer than 13") and look("window").errors == 0
    assert not any(row.topic == "lengths" for row in look(most=23).rows)  # the longest has 23
    assert has(look("window"), "info", "train", "read in windows")
    few = {"max_tokens": 13, "truncation": "window", "stride": 2, "max_windows": 1}
    found = check_spec(task(model=few, train="train.csv", test="test.csv"), tmp_path.joinpath, opener)
    assert has(found, "warning", "train", f"{n} of them beyond max_windows = 1", "of all tokens are cut")
    assert has(look(most=513), "error", "max_tokens = 513, but w holds 512 positions")


def test_data_are_looked_at_without_a_tokenizer(tmp_path):
    def none():
        raise EnvironmentProblem("no network")

    write(tmp_path, "train.csv", PLAIN)
    write(tmp_path, "test.csv", [f"test {row}" for row in PLAIN])
    found = check_spec(task(train="train.csv", test="test.csv"), tmp_path.joinpath, none)
    assert has(found, "warning", "Tokens could not be counted: no network") and found.errors == 0
    assert [grid.title for grid in found.tables] == ["Labels", "Lengths of the texts"]


def test_a_scale_taken_for_classes_is_worth_a_warning(tmp_path):
    write(tmp_path, "a.csv", [f"plain text {i},{1 + i % 7}" for i in range(70)], "text,anxiety")
    keys = {"source": "a.csv", "split": [0.6, 0.2, 0.2], "label": "anxiety"}
    found = check_spec(task(**keys), tmp_path.joinpath)
    assert has(found, "warning", "kind is classification", "look like a scale", "regression?")
    assert not has(check_spec(task("regression", **keys), tmp_path.joinpath), "warning", "kind is")


def test_class_weights_are_looked_at(tmp_path):
    write(tmp_path, "train.csv", PLAIN)
    write(tmp_path, "test.csv", [f"test {row}" for row in PLAIN])
    one = task(train="train.csv", test="test.csv")
    one = dataclasses.replace(one, train=dataclasses.replace(one.train, class_weights={"c": 2.0}))
    assert has(check_spec(one, tmp_path.joinpath), "error", '"c" is no label of train')


def test_groups_that_repeat_are_named(tmp_path):
    rows = [f"text {i},{'ab'[i % 2]},{i // 3}" for i in range(60)]
    write(tmp_path, "a.csv", rows, "text,label,user_id")
    keys = {"source": "a.csv", "split": [0.5, 0.25, 0.25]}
    assert has(check_spec(task(**keys), tmp_path.joinpath), "info", '"user_id" has 20 values in 60 rows')
    assert not has(check_spec(task(**keys, group="user_id"), tmp_path.joinpath), "info", "user_id")


def test_folds_are_looked_at(tmp_path):
    write(tmp_path, "a.csv", PLAIN)
    found = check_spec(task(source="a.csv", folds=4), tmp_path.joinpath)
    assert found.errors == 0 and found.tables[0].rows[-1] == ("all", 27, 3, 10)
    write(tmp_path, "a.csv", [*PLAIN, "single,c"])
    assert has(check_spec(task(source="a.csv", folds=4), tmp_path.joinpath), "error", '"c" (1)', "unseen")


def test_what_can_not_be_read_as_it_is_named_and_read_anyway(tmp_path):
    write(tmp_path, "a.csv", [row.replace(",", ";") + "\u00e9" for row in PLAIN], "text;label", "cp1252")
    found = check_table(tmp_path / "a.csv")
    assert has(found, "error", "0xe9", "line 2", '--encoding "cp1252"')
    assert has(found, "info", "read with separator ';', encoding cp1252")
    assert [row[0] for row in found.tables[0].rows] == ["a\u00e9", "b\u00e9", "all"]
    (tmp_path / "b.csv").write_bytes(
        "text,label\n\u00fc\u00f6\u00e4 one,a\n".encode() + b"two \xff,b\n" + b"three x,a\n" * 9
    )
    found = check_table(tmp_path / "b.csv")
    assert has(found, "error", "0xff", "line 3") and has(
        found, "warning", "1 row with U+FFFD", "row 1 (line 3)"
    )


def test_one_table_missing_leaves_the_other(tmp_path):
    write(tmp_path, "train.csv", PLAIN)
    found = check_spec(task(train="train.csv", test="tset.csv"), tmp_path.joinpath)
    assert has(found, "error", "[data] test", "tset.csv does not exist") and found.tables[0].rows[0] == (
        "a",
        20,
    )
    write(tmp_path, "test.csv", PLAIN)
    same = check_spec(task(train="train.csv", test="test.csv"), tmp_path.joinpath)
    assert has(same, "error", "test and train are the same file")
    for keys in ({"test": "test.csv", "text": "txt"}, {"test": "none.csv", "train": "nor.csv"}):
        with pytest.raises(DataError):
            check_spec(task(**{"train": "train.csv", **keys}), tmp_path.joinpath)


def test_a_table_by_itself(tmp_path):
    write(tmp_path, "a.csv", [f"{i},{row}" for i, row in enumerate(PLAIN)], "id,body,topic")
    found = check_table(tmp_path / "a.csv")
    assert has(found, "info", '"body" is taken for the text') and has(
        found, "info", '"topic" is taken for the label'
    )
    named = check_table(tmp_path / "a.csv", "topic", "body")
    assert not any("taken for" in row.sentence for row in named.rows)
    with pytest.raises(DataError, match='did you mean "topic"'):
        check_table(tmp_path / "a.csv", "body", "topics")
    tokens = check_table(tmp_path / "a.csv", opener=opener).tables[-1]
    assert tokens.title == "Lengths in tokens" and tokens.rows[0][:2] == ("all rows, tokens", 5)
    write(tmp_path, "n.csv", [f"text {i};{i % 60},5" for i in range(60)] + ["text;NA"], "text;score")
    found = check_table(tmp_path / "n.csv", separator=";")
    assert has(found, "info", "A regression by its looks") and has(
        found, "info", "decimal comma", 'decimal = ","'
    )
    assert has(found, "error", "1 row whose score is no finite number", "'NA'", "row 60 (line 62)")
    write(tmp_path, "h.csv", [f"text number {i},{i % 2}" for i in range(20)], "one long string,1")
    assert has(check_table(tmp_path / "h.csv"), "warning", "first line looks like data")
    write(tmp_path, "b.csv", ["only texts here", "and here"], "text")
    assert [grid.title for grid in check_table(tmp_path / "b.csv").tables] == ["Lengths of the texts"]


def test_audit_of_a_run(tmp_path):
    write(tmp_path, "train.csv", PLAIN)
    write(tmp_path, "test.csv", ["plain text 1,b", "c,zz"])
    spec = task(train="train.csv", test="test.csv", unseen="wrong")
    found = audit(spec, load_splits(spec, tmp_path.joinpath))
    assert any("same text stands in" in row.sentence for row in found.rows)
    assert found.tables[0].rows[2][0] == "zz"


def test_mojibake_is_told_from_letters():
    for text in ("it\u2019s", "caf\u00e9", "\u201cso\u201d", "\u00a320", "\U0001f600"):
        for wrong in ("cp1252", "latin-1"):
            assert MOJIBAKE.search(text.encode().decode(wrong, "replace").replace("\ufffd", "\x9d")), text
        assert not MOJIBAKE.search(text)
    for sound in (
        "N\u00c3O",
        "\u00c2ge",
        "Spa\u00df\u201c",
        "ch\u00e2teau",
        "\u00e2\u2026!",
        "\u00f0a",
        "\u00e9\u00bb.",
    ):
        assert not MOJIBAKE.search(sound), sound


@pytest.mark.slow
@real
def test_real_texts():
    happy = check_table(REAL / "claff_happydb/data/TRAIN/labeled_10k.csv", "moment", "agency")
    assert has(happy, "warning", "639 rows with a text that stood before")  # 647 if case is left aside
    emotion = task(train="dair_emotion/train.txt", test="dair_emotion/test.txt", label="label_name",
                   separator=";", validation="dair_emotion/val.txt")  # fmt: skip
    found = check_spec(emotion, REAL.joinpath)
    assert found.errors == 0 and has(found, "warning", "11 rows of test: the same text stands in train")
    assert has(found, "warning", "51 texts stand under more than one label")


def conll(folder, name, rows):
    (folder / name).write_text("\n\n".join("\n".join(row) for row in rows) + "\n", encoding="utf-8")
    return folder / name


def test_tagged_words(tmp_path):
    rows = [[f"Anna{i}\tB-per", "saw\tO", "Rome\tI-loc"] for i in range(30)]
    conll(tmp_path, "train.conll", rows)
    conll(
        tmp_path, "test.conll", [["Otto\tB-per", "slept\tO"], ["x\tB-new"], [f"w{i}\tO" for i in range(1001)]]
    )
    keys = {"train": "train.conll", "test": "test.conll", "text": "1"}
    found = check_spec(task("tokens", label="2", **keys), tmp_path.joinpath, opener)
    grids = {grid.title: grid.rows for grid in found.tables}
    assert [row[0] for row in grids["Words"]] == ["train", "validation", "test"]
    assert sum(row[3] for row in grids["Words"][:2]) == 60 and grids["Words"][2][1:] == (3, 1004, 2)
    assert ["B-new", 0, 0, 1] in [list(row) for row in grids["Tags"]] and grids["Tags"][-1][0] == "all words"
    assert has(found, "warning", "train", "follow no tag of their type")
    assert has(found, "warning", "a text has 1,001 words: is a blank line missing")
    assert has(found, "info", "test", "longer than 128 tokens", "read in pieces, cut between words")
    assert not found.errors


def test_words_and_tags_that_differ_in_number_are_an_error_with_the_row(tmp_path):
    write(tmp_path, "train.csv", ["a b,X Y"] * 9 + ["a b c,X Y"], "text,tags")
    write(tmp_path, "test.csv", ["b a,Y X"], "text,tags")
    found = check_spec(task("tokens", label="tags", train="train.csv", test="test.csv"), tmp_path.joinpath)
    assert has(found, "error", "row 9 (line 11) has 3 words in text and 2 tags in tags (1 row in all)")


def test_a_metric_that_the_tags_do_not_allow(tmp_path):
    write(tmp_path, "train.csv", ["a b,X Y", "b a,Y X"] * 9, "text,tags")
    write(tmp_path, "test.csv", ["b a,Y X"], "text,tags")
    one = task("tokens", label="tags", train="train.csv", test="test.csv")
    one = dataclasses.replace(one, train=dataclasses.replace(one.train, metric="entity_f1"))
    assert has(check_spec(one, tmp_path.joinpath), "error", "needs tags of entities")


def test_several_labels(tmp_path):
    rows = [f'text {i},"{("a", "a, b", "", "b,a,c")[i % 4]}"' for i in range(40)]
    write(tmp_path, "train.csv", rows)
    write(tmp_path, "test.csv", ['x,"a,d"', "y,"])
    found = check_spec(task("multilabel", train="train.csv", test="test.csv"), tmp_path.joinpath)
    grids = {grid.title: grid.rows for grid in found.tables}
    assert [sum(row[k] for row in grids["Labels of a text"][:2]) for k in range(1, 6)] == [10, 10, 10, 10, 0]
    assert grids["Labels"][-1] == ("all rows", 36, 4, 2) and not found.errors
    assert has(found, "info", "4 labels", '"a" is that of')


def test_tables_of_tags_and_of_several_labels_by_themselves(tmp_path):
    path = conll(tmp_path, "a.conll", [[f"Anna{i}\tB-per", "saw\tO", "Rome\tB-loc"] for i in range(30)])
    found = check_table(path)
    assert has(found, "info", "A tagging of words by its looks") and "Words" in [
        g.title for g in found.tables
    ]
    write(tmp_path, "b.csv", [f"some text {i},{('a|b', 'b', '', 'a')[i % 4]}" for i in range(40)])
    found = check_table(tmp_path / "b.csv")
    assert has(found, "info", "A multi-label classification by its looks") and not found.errors
