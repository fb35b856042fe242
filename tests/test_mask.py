"""[data] mask: what is found in a text and what is left alone, in what time, and that a table is masked at once."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from minibert import spec as specs
from minibert.data import load_splits
from minibert.data.check import audit, check_spec
from minibert.data.mask import PATTERNS, mask, masked
from minibert.data.tables import from_frame
from minibert.errors import DataError
from minibert.kinds import words_of

ALL = tuple(PATTERNS)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("write to anna.maria+x@mail.example.org.", "write to [email]."),
        ("(anna@example.org), <bob@example.org>; eve@x.co.uk!", "([email]), <[email]>; [email]!"),
        ("jörg.groß@müller-söhne.de oder Ελένη@παράδειγμα.gr", "[email] oder [email]"),
        ("mailto:anna@example.org?subject=x", "mailto:[email]?subject=x"),
        ("anna (at) example.org, bob[at]example[dot]org, eve ＠ no", "[email], [email], eve ＠ no"),
        ("a@x.de-b@y.de,c@z.de", "[email]-[email],[email]"),
        ("see https://x.org/a?b=anna@example.org&c=1.", "see [link]."),
        ('<a href="http://x.de/y">y</a> (www.x.de/z), [t](https://x.de)', '<a href="[link]">y</a> ([link]), [t]([link])'),
        ("bit.ly/2abc t.co/xyz example.com uni-köln.de/a.", "[link] [link] [link] [link]."),
        ("RT @anna_b: .@bob said (@Eve.M) @jörg", "RT [name]: .[name] said ([name]) [name]"),
        ("@anna@mastodon.social and https://medium.com/@anna", "[name] and [link]"),
        ("ruf +49 (0)30 123456 oder +49 30/1234-567 an", "ruf [phone] oder [phone] an"),
        ("0049 171 1234567, 0171-1234567, 030/1234567, (030) 12345", "[phone], [phone], [phone], [phone]"),
        ("01711234567. 06 12 34 56 78; 06.12.34.56.78", "[phone]. [phone]; [phone]"),
        ("+1 (555) 123-4567, (555) 123-4567, 555-123-4567, 1-800-555-0199", ", ".join(["[phone]"] * 4)),
        ("+44 20 7946 0958; +86 138 0013 8000, 0171 1234567 0172 7654321", "[phone]; [phone], [phone]"),
        ("Tel.: 55 12 34, phone: 555-1234, Fax 2019", "Tel.: [phone], phone: [phone], Fax 2019"),
        ("tel:+4930123456 (+49) 30 123456", "tel:[phone] [phone]"),
    ],
)  # fmt: skip
def test_what_is_masked(text, after):
    assert mask(text, ALL) == after
    assert mask(after, ALL) == after  # and what is masked stays


@pytest.mark.parametrize(
    "text",
    [
        "in 1999-2003, 2019/2020 and on 12.03.2021, 03/12/2021, 2021-03-12T08:30:00",
        "01.02.2003, 01.02.2003-05.06.2007, 09.11.-12.11.2019, 05/06/21",
        "$1,234,567 or 1.234.567,89 € or 1 234 567 or +12 345 678 € or 0.123456789",
        "ids 20231145678, 1700000000, 000123456; ISBN 978-3-16-148410-0; IP 192.168.100.1",
        "IBAN DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111",
        "3-2 after 90:00, 08:30-09:15, 09.30 - 10.45, 1.2.3, -273.15",
        "at @5pm, @ 3.50, @3.50, tod@s, a @ b, e.g. this/that and/or z.B. Fair.It was",
        "root@localhost, x@y, [email] [MASK] <mask>",
        "main.py, node.js/express, v2.0/beta, U.S./Canada, St. Gallen",
    ],
)
def test_what_is_left_alone(text):
    assert mask(text, ALL) == text


def test_only_what_is_wanted_is_masked():
    text = "anna@example.org, @anna, 0171 1234567, https://x.org/@eve?m=bob@example.org"
    assert mask(text, ()) == text
    assert mask(text, ["email"]) == "[email], @anna, 0171 1234567, https://x.org/@eve?m=[email]"
    assert (
        mask(text, ["name"])
        == "anna@example.org, [name], 0171 1234567, https://x.org/[name]?m=bob@example.org"
    )
    assert mask(text, ["phone"]) == text.replace("0171 1234567", "[phone]")
    assert mask(text, ["link"]) == "anna@example.org, @anna, 0171 1234567, [link]"


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "a-", "a@", "@", "a@a.", "a@a.a ", "http://", "http://.", "www.", "0", "01 ", "+4", "(0", "+49 ",
     "0 /", "tel. ", "Tel.:1 ", "555-", "@a.", "@a@", "[at]", "a (at) ", "_", ".", "a:", "１", "é."],
)  # fmt: skip
def test_no_text_takes_long(piece):
    """In proportion to its length: 50,000 characters would take minutes if every one began a new search."""
    text = piece * (50_000 // len(piece))
    start = time.perf_counter()
    mask(text + "!", ALL)
    assert time.perf_counter() - start < 4


@pytest.mark.parametrize(
    "text", ["Tel +49 30 1234567 , anna (at) x.de", "a\u00a00171 1234567 b\tc  d", "@anna's x"]
)
def test_tagged_words_keep_their_number(text):
    hidden = mask(text, ALL, by_word=True)
    assert hidden != text and len(words_of(hidden)) == len(words_of(text))


def task(**keys):
    tables = {
        "task": {"name": "t", "kind": "classification"},
        "data": {"source": "a.csv", "split": [0.5, 0.25, 0.25], "text": "text", "label": "label", **keys},
        "model": {"weights": "w"},
    }
    return specs.parse(tables)


def test_a_table_is_masked_but_for_what_the_task_knows_by_its_words():
    frame = pd.DataFrame(
        {
            "text": ["mail a@x.org", "no"],
            "other": ["x", "@eve 0171 1234567"],
            "by": ["@a", "@b"],
            "label": ["l", "m"],
        }
    )
    found = masked(task(mask=ALL, group="by"), from_frame(frame))
    assert found.frame["text"].tolist() == ["mail [email]", "no"]
    assert found.frame["other"].tolist() == ["x", "[name] [phone]"]
    assert found.frame["by"].tolist() == ["@a", "@b"]
    assert found.notes == (
        'the DataFrame: masked in "text": 1 e-mail addresses.',
        'the DataFrame: masked in "other": 1 phone numbers, 1 @names.',
        'the DataFrame: "by" holds 2 @names and stays as it is: it says which label, group or part a row has.',
    )
    again = masked(task(mask=ALL, group="by"), found)
    assert again.notes == found.notes and again.frame.equals(found.frame)


def table(tmp_path, rows):
    (tmp_path / "a.csv").write_text("text,pair,label\n" + "\n".join(rows) + "\n", encoding="utf-8")


def test_parts_pairs_and_checks_are_masked(tmp_path):
    rows = [f"write to a{i}@x.org today,call 0171 12345{i:02},{'xy'[i % 2]}" for i in range(20)]
    table(tmp_path, [*rows, "same,@anna,x", "same,@bob,y"])
    keys = {"mask": ALL, "pair": "pair"}
    splits = load_splits(task(**keys), tmp_path.joinpath)
    for part in (splits.train, splits.validation, splits.test):
        assert set(part.texts) <= {"write to [email] today", "same"}
        assert set(part.pairs) <= {"call [phone]", "[name]"}
        assert not part.table.frame.map(lambda cell: "@" in cell or "0171" in cell).to_numpy().any()
    assert any("masked" in note for note in splits.notes)
    told = check_spec(task(**keys), tmp_path.joinpath).text()
    assert (
        "masked" in told and "[email]" in told and "@x.org" not in told
    )  # texts under two labels are quoted


def test_a_cell_that_an_error_quotes_is_masked(tmp_path):
    table(tmp_path, ["one,two,x", "anna@x.org,call,0171 1234567,too,many"])
    with pytest.raises(DataError, match=r"a.csv: the row on line 3 has 5 fields.*\[email\]"):
        load_splits(task(mask=ALL), tmp_path.joinpath)


def test_without_texts_no_finding_quotes_one(tmp_path):
    table(tmp_path, [f"a secret {i // 2},p,{'xy'[i % 2]}" for i in range(20)])
    for keep in (True, False):
        one = task(keep_texts=keep)
        for found in (audit(one, load_splits(one, tmp_path.joinpath)), check_spec(one, tmp_path.joinpath)):
            torn = next(row.sentence for row in found.rows if "more than one label" in row.sentence)
            assert ("secret" in torn) == keep
            assert keep or "row " in torn
