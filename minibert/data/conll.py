"""One word a line, a blank line behind each sentence: what named-entity and treebank corpora come as.

In:  the text or lines of a file.
Out: the rows that a CSV would give: one a sentence, one column a field, words joined by one space.

Columns are called "1", "2", ... by their place, or by CoNLL-U's own names, FORM and UPOS among them. A
space inside a field becomes a no-break space, so that words can be counted by their spaces again.
https://universaldependencies.org/format.html says what CoNLL-U is; the others follow CoNLL-2003:
fields between tabs, or between blanks where the file has no tab.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import DataError
from .separated import Read, excerpt, lines_of

CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
DOCUMENT = "-DOCSTART-"  # CoNLL-2003 marks where a document begins by a word of its own
HEAD = 1000  # lines in which a tab is looked for
SPACE = "\u00a0"


def from_conll(text: str, path: Path) -> Read:
    """Rows of a whole file."""
    names, found, left_out = sentences(lambda: lines_of(text), path)
    rows = list(found)
    notes = tuple(f"{path.name}: {n:,} {what} were left out." for what, n in left_out.items())
    return names, [cells for _, cells in rows], [line for line, _ in rows], notes


def conll_rows(lines: Callable[[], Iterable[str]], path: Path) -> tuple[list[str], Iterator[list[str]]]:
    """(column names, cells of each row), for a file larger than memory."""
    names, found, _ = sentences(lines, path)
    return names, (cells for _, cells in found)


def sentences(
    lines: Callable[[], Iterable[str]], path: Path
) -> tuple[list[str], Iterator[tuple[int, list[str]]], Counter]:
    """(column names, (first line, cells) of each sentence, what is left out): the last grows as one reads."""
    treebank = path.name.lower().removesuffix(".gz").endswith(".conllu")
    tabs = treebank or any("\t" in line for line in itertools.islice(lines(), HEAD))
    left_out: Counter = Counter()
    found = grouped(words(lines(), path, treebank, tabs, left_out))
    first = next(found, None)
    if first is None:
        raise DataError(
            f"{path} holds no words.", "One word a line is wanted, and a blank line behind a sentence."
        )
    names = list(CONLLU) if treebank else [str(i + 1) for i in range(len(first[1][0]))]
    every = itertools.chain([first], found)
    return names, ((line, [" ".join(c) for c in zip(*rows)]) for line, rows in every), left_out


def grouped(found: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[list[str]]]]:
    """(first line, the fields of each word) of every sentence; no fields end one."""
    for ends, group in itertools.groupby(found, key=lambda one: not one[1]):
        if not ends:
            rows = list(group)
            yield rows[0][0], [fields for _, fields in rows]


def words(
    lines: Iterable[str], path: Path, treebank: bool, tabs: bool, left_out: Counter
) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of every word, and [] for every blank line; each has as many fields as the first."""
    width = len(CONLLU) if treebank else 0
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            yield number, []
            continue
        if line.startswith("#") and (treebank or (tabs and "\t" not in line)):
            continue  # elsewhere a word may begin so
        fields = [field.strip().replace(" ", SPACE) for field in line.split("\t")] if tabs else line.split()
        if not treebank and fields[0] == DOCUMENT:
            left_out[f"lines {DOCUMENT}"] += 1
            continue
        width = width or len(fields)
        if len(fields) != width:
            raise DataError(
                f"{path}: line {number} has {len(fields)} field{'s'[: len(fields) != 1]}, "
                f"{'CoNLL-U has' if treebank else 'the lines before it have'} {width}: {excerpt(line)}",
                "Every word needs the same fields, and only a blank line ends a sentence.",
            )
        if "" in fields:
            raise DataError(
                f"{path}: line {number} has nothing in field {fields.index('') + 1}: {excerpt(line)}",
                "A word and its tag can't be empty; only a blank line ends a sentence.",
            )
        what = {"-": "multiword ranges such as 1-2", ".": "empty nodes such as 1.1"}
        kind = next((what[mark] for mark in what if mark in fields[0]), "") if treebank else ""
        if kind:  # their parts are words of their own, or nothing was said there
            left_out[kind] += 1
            continue
        yield number, fields
