"""data/conll.py: one word a line to one sentence a row, and what is wrong with such files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from minibert.data import read_chunks, read_table, tables
from minibert.errors import DataError

SIMPLE = "EU\tB-org\nrejects\tO\n\nPeter\tB-per\nBlack\tI-per\n.\tO\n"


def write(folder, text, name="a.conll"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def cells(folder, text, name="a.conll"):
    return read_table(write(folder, text, name)).frame


@pytest.mark.parametrize("name", ["a.conll", "a.iob", "a.iob2", "a.bio", "a.annotated", "A.CONLL"])
def test_a_sentence_a_row_and_a_field_a_column(tmp_path, name):
    table = read_table(write(tmp_path, SIMPLE, name))
    assert list(table.frame.columns) == ["1", "2"]
    assert table.frame.values.tolist() == [["EU rejects", "B-org O"], ["Peter Black .", "B-per I-per O"]]
    assert table.lines.tolist() == [1, 4] and table.notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "\n\n" + SIMPLE,  # GUM begins so
        SIMPLE.replace("\n\n", "\n\t\n"),  # and WNUT's blank lines hold a tab
        SIMPLE.replace("\n\n", "\n\n \n\n\n"),
        SIMPLE.replace("\n", "\r\n"),
        SIMPLE.rstrip("\n"),
        "# id 1\n" + SIMPLE,
        "\ufeff" + SIMPLE,
        SIMPLE.replace("\t", " "),
        SIMPLE.replace("\t", "   "),
    ],
)
def test_the_same_table_however_it_is_written(tmp_path, text):
    assert cells(tmp_path, text).equals(cells(tmp_path, SIMPLE, "b.conll"))


def test_words_that_look_like_comments_are_words(tmp_path):
    assert cells(tmp_path, "#\tO\n#tag\tO\nx\tB-a\n")["1"].tolist() == ["# #tag x"]
    assert cells(tmp_path, "# O\n#tag O\n", "b.conll")["1"].tolist() == ["# #tag"]


def test_a_space_inside_a_field_stays_inside_its_word(tmp_path):
    assert cells(tmp_path, "10 000\tB-n\neuros\tO\n")["1"].tolist() == ["10\u00a0000 euros"]


def test_marks_of_documents_are_left_out_and_told(tmp_path):
    table = read_table(
        write(tmp_path, "-DOCSTART- -X- O\n\nEU NNP B-org\n\n-DOCSTART- -X- O\n\nUN NNP B-org\n")
    )
    assert table.frame["1"].tolist() == ["EU", "UN"] and list(table.frame.columns) == ["1", "2", "3"]
    assert table.notes == ("a.conll: 2 lines -DOCSTART- were left out.",)


TREE = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tnada\tnada\tNOUN\t_\t_\t_\t_\t_\t_
3\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\tSpaceAfter=No

"""


def test_conllu_has_names_and_skips_ranges_and_empty_nodes(tmp_path):
    table = read_table(write(tmp_path, TREE * 2, "a.conllu"))
    assert table.frame["FORM"].tolist() == ["vamos nos mar"] * 2
    assert table.frame["UPOS"].tolist() == ["VERB PRON NOUN"] * 2 and "MISC" in table.frame.columns
    assert (
        len(table.notes) == 2 and "2 multiword ranges" in table.notes[0] and "2 empty nodes" in table.notes[1]
    )
    assert table.lines.tolist() == [4, 12]


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ("EU\tO\nx\n", "a.conll", "line 2 has 1 field, the lines before it have 2"),
        ("EU\tO\nx\tO\tO\n", "a.conll", "line 2 has 3 fields"),
        ("EU\tO\n\tO\n", "a.conll", "line 2 has nothing in field 1"),
        ("EU\tO\nx\t\n", "a.conll", "line 2 has nothing in field 2"),
        ("1\tEU\n", "a.conllu", "line 1 has 2 fields, CoNLL-U has 10"),
        ("# only\n# remarks\n", "a.conllu", "holds no words"),
        ("", "a.conll", "is empty"),
        ("<html>", "a.conll", "web page"),
    ],
)
def test_faults_name_the_line(tmp_path, text, name, match):
    with pytest.raises(DataError, match=match):
        read_table(write(tmp_path, text, name))


@pytest.mark.parametrize("name", ["a.conll", "a.conll.gz"])
def test_a_long_file_is_streamed_to_the_same_rows(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tables, "LARGE", 1)
    path, raw = tmp_path / name, (SIMPLE + "\n") * 50
    path.write_bytes(gzip.compress(raw.encode()) if name.endswith("gz") else raw.encode())
    pieces = list(read_chunks(path, 30))
    assert [len(piece) for piece in pieces] == [30, 30, 30, 10]
    whole = read_table(path).frame
    assert [list(row) for piece in pieces for row in piece.values] == whole.values.tolist()


def test_a_fault_in_a_streamed_file_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGE", 1)
    with pytest.raises(DataError, match="line 3 has 1 field"):
        list(read_chunks(write(tmp_path, "EU\tO\nx\tO\ny\n"), 10))


@pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")
@pytest.mark.parametrize(
    ("file", "column", "sentences", "words"),
    [
        ("wnut17/wnut17train.conll", "1", 3394, 62730),
        ("wnut17/emerging.dev.conll", "1", 1009, 15733),
        ("wnut17/emerging.test.annotated", "1", 1287, 23394),
        ("gum_ner/GUM/CONLL-format/data/train/gum-train.conll", "1", 2495, 44111),
        ("gum_ner/GUM/CONLL-format/data/test/gum-test.conll", "1", 1000, 18236),
        ("ud_english_ewt/en_ewt-ud-dev.conllu", "FORM", 2001, 25147),
        ("ud_english_ewt/en_ewt-ud-test.conllu", "FORM", 2077, 25094),
    ],
)
def test_published_counts_of_real_corpora(file, column, sentences, words):
    """The numbers that these corpora's own pages state."""
    table = read_table(Path(os.environ["MINIBERT_DATA"]) / file)
    counts = [[len(cell.split(" ")) for cell in table.frame[name]] for name in table.frame.columns]
    assert len(table.frame) == sentences and sum(len(c.split(" ")) for c in table.frame[column]) == words
    assert all(count == counts[0] for count in counts)


def test_signs_between_documents_are_no_sentences_with_tabs_either(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART-\tO\n\nthe\tO\ncat\tB-x\n", encoding="utf-8")
    assert read_table(path).frame["1"].tolist() == ["the cat"]
