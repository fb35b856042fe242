"""What a person should know of the data before any training: `minibert check SPEC|CSV`.

In:  a spec and a function that finds its files; or a table; or the Splits of a run.
Out: Findings: sentences with a topic and a severity, and tables of label counts and lengths.

A problem is a finding wherever the rest can still be looked at. DataError is left for a file that no
setting opens, and for columns that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError, MiniBertError, as_options
from ..kinds import KINDS, each_label, words_of
from ..spec import Data, TaskSpec, Weights, chosen_metric
from .findings import Findings, Grid
from .looks import QUANTILES, look_at_parts, quantiles
from .mask import mask, masked
from .parts import (
    Part,
    Splits,
    blank,
    column,
    count_of,
    kind_of,
    number,
    places,
    repeated,
    unwanted,
    without_label,
)
from .propose import by_looks, describe, group_columns, headless, label_columns, tag_column, text_column
from .separated import excerpt
from .splits import class_weights, form, make_folds, make_splits, source_words
from .tables import Table, read_table, sniff

MANY = 0.1  # share of cut texts that is worth a warning


class Counts(Protocol):
    """What `check` needs of a tokenizer: `tokens` and `cut` of each text, (n,) each."""

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, **reading: Any) -> Any:
        """As Tokenizer.encode."""


Opener = Callable[[], tuple[Counts, int]]  # gives a tokenizer, and how many tokens its model holds at most


def check_spec(spec: TaskSpec, locate: Callable[[str], Path], opener: Opener | None = None) -> Findings:
    """Look at all that a spec names: files, cells, splits, texts; lengths in tokens with a tokenizer.

    The tokenizer comes last and may be missing: the data can be looked at without it.
    """
    d, found = spec.data, Findings(spec.task.name, quotes=spec.data.keep_texts)
    tables, failed = {}, []
    for key, word in source_words(spec).items():
        try:
            table = masked(spec, open_anyway(found, locate(word), **form(spec)))
            for name in ("text", "pair", "label", "group", "split_column"):
                wanted = name in ("text", "label") or getattr(d, name)
                if wanted and not (name == "split_column" and key != "source"):
                    column(table, getattr(d, name), name)
            tables[key] = table
        except DataError as problem:
            failed.append(problem)
            found.add("file", "error", f"[data] {key}: {problem}")
    if not tables:
        raise failed[0]
    for key, table in tables.items():
        same = [other for other in tables if other != key and tables[other].sha256 == table.sha256]
        if same:
            found.add("file", "error", f"[data] {' and '.join(sorted([key, *same]))} are the same file.")
    relaxed: dict[str, str] = {}
    for table in tables.values():
        relaxed |= look_at_cells(found, spec, table)
    splits = None if failed else try_splits(found, spec, tables, relaxed)
    if splits:
        try:
            each = list(each_label(spec.task.kind, splits.train.targets))
            class_weights(spec.train.class_weights, each, splits.labels)
            chosen_metric(spec, splits.labels)
        except MiniBertError as problem:
            found.add("labels", "error", str(problem))
    look_at_kind(found, spec, next(iter(tables.values())))
    parts = [splits.train, splits.validation, splits.test] if splits else raw_parts(spec, tables)
    look_at_parts(found, parts, spec.task.kind)
    look_at_tokens(found, parts, opener, spec.model, kind_of(spec).words)
    found.rows[:] = [row._replace(sentence=mask(row.sentence, d.mask)) for row in found.rows]
    return found


def look_at_kind(found: Findings, spec: TaskSpec, table: Table) -> None:
    """A label column that looks like the other kind of task, where a cell holds one thing."""
    label = next(c for c in describe(table) if c.name == spec.data.label)
    kind, why = by_looks(label)
    one = not (kind_of(spec).many or spec.data.label_names)
    if label.numbers is not None and kind != spec.task.kind and one:
        found.add("labels", "warning", f"[task] kind is {spec.task.kind}, but {why}: {kind}?")


def check_table(
    path: Path | str,
    text: str | None = None,
    label: str | None = None,
    separator: str = "",
    encoding: str = "utf-8",
    sheet: str = "",
    opener: Opener | None = None,
) -> Findings:
    """Look at one table; columns that are not named are guessed, and the guess is a finding."""
    found = Findings(Path(path).name)
    table = open_anyway(found, path, separator, encoding, sheet)
    columns = {c.name: c for c in describe(table)}
    for name in (text, label):
        if name:
            column(table, name, "text" if name == text else "label")
    chosen = columns[text] if text else text_column(list(columns.values()), table)
    tags = tag_column(list(columns.values()), chosen, table)
    likely = (
        [tags] if tags else label_columns(list(columns.values()), {chosen.name}, chosen, len(table.frame))
    )
    target = columns[label] if label else (likely[0] if likely else None)
    if not text:
        found.add("columns", "info", f'"{chosen.name}" is taken for the text: it has the longest cells.')
    if not label and target:
        found.add("columns", "info", f'"{target.name}" is taken for the label; name another if it is not.')
    if why := headless(chosen, target, table):
        found.add("columns", "warning", f"The first line looks like data, not like names of columns: {why}. "
                  "If so, write a line of names at the top: as it stands, one row is lost.")  # fmt: skip
    kind, why = by_looks(target, chosen, table) if target else ("classification", "")
    if target:
        found.add("columns", "info", f"A {KINDS[kind].name} by its looks: {why}.")
    cells = {"text": column(table, chosen.name, "text")}
    cells["label"] = column(table, target.name, "label") if target else np.full(len(table.frame), "-", object)
    count_rows(found, table)
    unlabelled = blank(cells["label"]) & (not KINDS[kind].none)
    tell(found, "texts", table, blank(cells["text"]), "without text", "empty", "error")
    tell(found, "labels", table, unlabelled, "without label", "missing_label", "error")
    rows = np.flatnonzero(~blank(cells["text"]) & ~unlabelled)
    if target and not KINDS[kind].labels:
        if target.decimal != ".":
            found.add(
                "labels", "info", f'Numbers of {target.name} have a decimal comma: [data] decimal = ",".'
            )
        no_numbers(found, table, target.name, cells["label"], target.decimal)
    look = replace(LOOSE, label_separator=target.between or ",", decimal=target.decimal) if target else LOOSE
    targets = loose_targets(kind, look, cells["label"][rows])
    part = Part("all rows", cells["text"][rows].tolist(), None, targets, rows, table)
    look_at_parts(found, [part], kind if target else "")
    look_at_tokens(found, [part], opener, Weights(weights=""), KINDS[kind].words)
    found.rows[:] = [row._replace(sentence=as_options(row.sentence)) for row in found.rows]
    return found


LOOSE = Data(text="", label="")  # how cells are read where there is no spec


def loose_targets(kind: str, d: Data, cells: np.ndarray) -> np.ndarray:
    """Cells as targets for a look, whatever is wrong with them: nothing is refused."""
    read = {
        "classification": lambda cell: cell,
        "regression": lambda cell: number(cell, d.decimal),
        "multilabel": lambda cell: tuple(w.strip() for w in cell.split(d.label_separator) if w.strip()),
        "tokens": lambda cell: tuple(words_of(cell)),
    }[kind]
    kept = [read(cell) for cell in cells]
    return np.fromiter(kept, object, len(kept)) if KINDS[kind].labels else np.array(kept, float)


def audit(spec: TaskSpec, splits: Splits) -> Findings:
    """Look at parts that a run has made already."""
    found, parts = (
        Findings("data", quotes=spec.data.keep_texts),
        [splits.train, splits.validation, splits.test],
    )
    look_at_parts(found, parts, spec.task.kind)
    return found


# The file and its cells


def open_anyway(
    found: Findings,
    path: Path | str,
    separator: str,
    encoding: str,
    sheet: str = "",
    columns: Sequence[str] = (),
) -> Table:
    """Read a table; if only other settings open it, that is an error to find, and the look goes on."""
    try:
        return read_table(path, separator=separator, encoding=encoding, sheet=sheet, columns=columns)
    except DataError as problem:
        first = problem
    try:
        likely = sniff(path)
    except DataError:
        raise first from None
    separators, encodings = dict.fromkeys((separator, likely[0])), dict.fromkeys((likely[1], encoding))
    for errors in ("strict", "replace"):
        for s, e in ((s, e) for e in encodings if e for s in separators):
            try:
                table = read_table(path, separator=s, encoding=e, sheet=sheet, columns=columns, errors=errors)
            except DataError:
                continue
            found.add("file", "error", str(first))
            used = [f"separator {s!r}"] * (s != separator) + [f"encoding {e}"] * (e != encoding)
            used += ["U+FFFD for bytes that do not decode"] * (errors == "replace")
            found.add("file", "info", f"What follows was read with {', '.join(used)}.")
            return table
    raise first


def look_at_cells(found: Findings, spec: TaskSpec, table: Table) -> dict[str, str]:
    """Empty and unusable cells of one table; returns the policies under which a split can still be made."""
    d, relaxed = spec.data, {}
    count_rows(found, table)
    notes: list[str] = []
    out = unwanted(spec, table, notes)
    for note in notes:
        found.add("texts", "info", note)
    empty = blank(column(table, d.text, "text")) | (blank(column(table, d.pair, "pair")) if d.pair else False)
    empty &= ~out
    labels = column(table, d.label, "label")
    unlabelled = without_label(spec, labels) & ~empty & ~out
    if tell(found, "texts", table, empty, "without text", "empty", d.empty):
        relaxed["empty"] = "drop"
    if tell(found, "labels", table, unlabelled, "without label", "missing_label", d.missing_label):
        relaxed["missing_label"] = "drop"
    if not kind_of(spec).labels:
        no_numbers(found, table, d.label, np.where(empty | out, "", labels), d.decimal)
    if d.duplicates == "drop":
        keys = list(zip(column(table, d.text, "text"), column(table, d.pair or d.text, "text")))
        again = repeated(keys, ~empty & ~unlabelled & ~out)
        tell(found, "texts", table, again, "with a text that stood before", "duplicates", "drop")
    if d.source and not (d.group or d.split_column or kind_of(spec).words):
        for c in group_columns(describe(table), {d.text, d.pair, d.label}, len(table.frame))[:1]:
            found.add("groups", "info", f'"{c.name}" has {c.distinct:,} values in {c.filled:,} rows: if '
                      f'these belong together, set [data] group = "{c.name}".')  # fmt: skip
    return relaxed


def no_numbers(found: Findings, table: Table, name: str, cells: np.ndarray, decimal: str) -> None:
    """Filled cells of a number column that hold none."""
    bad = np.array([number(cell, decimal) is None for cell in cells], bool) & ~blank(cells)
    if bad.any():
        first = excerpt(cells[np.flatnonzero(bad)[0]])
        found.add("labels", "error", f"{Path(table.path).name}: {count_of(bad.sum())} whose {name} is "
                  f"no finite number, such as {first}: {places(table, np.flatnonzero(bad))}.")  # fmt: skip


def count_rows(found: Findings, table: Table) -> None:
    """How large a table is, and what its reader had to decide."""
    name = Path(table.path).name
    found.add("file", "info", f"{name}: {count_of(len(table.frame))}, {table.frame.shape[1]} columns.")
    for note in table.notes:
        found.add("file", "info", note)


def tell(
    found: Findings, topic: str, table: Table, rows: np.ndarray, what: str, key: str, policy: str
) -> bool:
    """A finding for rows that a policy of [data] decides on; True if that policy is "error"."""
    if not rows.any():
        return False
    which = f"{Path(table.path).name}: {count_of(rows.sum())} {what}: {places(table, np.flatnonzero(rows))}"
    done = {
        "error": f'; a run stops there, unless [data] {key} = "drop"',
        "drop": ", dropped",
        "keep": ", kept",
    }
    found.add(topic, "error" if policy == "error" else "info", f"{which}{done[policy]}.")
    return policy == "error"


def try_splits(
    found: Findings, spec: TaskSpec, tables: dict[str, Table], relaxed: dict[str, str]
) -> Splits | None:
    """The splits a run would make, if need be with what was told already forgiven; None if there are none."""
    for more in ({}, {"unseen": "wrong"}):
        lenient = replace(spec, data=replace(spec.data, **relaxed, **more))
        try:
            if spec.data.folds:
                return list(make_folds(lenient, tables))[0]
            return make_splits(lenient, tables)
        except DataError as problem:
            found.add("split", "error", str(problem))
    return None


def raw_parts(spec: TaskSpec, tables: dict[str, Table]) -> list[Part]:
    """The tables themselves as parts, for a look where no split can be made."""
    parts, d = [], spec.data
    for key, table in tables.items():
        pair = column(table, d.pair, "pair") if d.pair else None
        labels = column(table, d.label, "label")
        cells = [column(table, d.text, "text"), pair]
        gone = np.any([blank(c) for c in cells if c is not None], axis=0) | without_label(spec, labels)
        rows = np.flatnonzero(~gone & ~unwanted(spec, table, []))
        texts, pairs = (None if c is None else c[rows] for c in cells)
        targets = loose_targets(spec.task.kind, d, labels[rows])
        parts.append(
            Part(key, texts.tolist(), None if pairs is None else pairs.tolist(), targets, rows, table)
        )
    return parts


# Texts and labels


def look_at_tokens(
    found: Findings, parts: list[Part], opener: Opener | None, reading: Weights, whole: bool = False
) -> None:
    """Lengths in tokens, and how much of the texts a model would not read; `whole`: none, it takes pieces."""
    if opener is None:
        return
    try:
        tokenizer, longest = opener()
        if reading.max_tokens > longest:
            found.add("lengths", "error", f"[model] max_tokens = {reading.max_tokens}, but "
                      f"{reading.weights} holds {longest} positions.")  # fmt: skip
        grid = Grid("Lengths in tokens", ("part", *QUANTILES), [])
        for part in parts:
            grid.rows.append(
                (f"{part.name}, tokens", *quantiles(count_tokens(found, part, tokenizer, reading, whole)))
            )
        found.tables.append(grid)
    except MiniBertError as problem:
        found.add("lengths", "warning", f"Tokens could not be counted: {problem}")


def count_tokens(found: Findings, part: Part, tokenizer: Counts, reading: Weights, whole: bool) -> np.ndarray:
    """(n,) tokens of each text of a part; what is cut of them is a finding."""
    strict, most = reading.truncation == "error", reading.max_tokens
    how = {"truncation": "head" if strict else reading.truncation, "max_windows": reading.max_windows}
    coded = tokenizer.encode(part.texts, part.pairs, max_tokens=most, stride=reading.stride, **how)
    long, cut = coded.tokens > most, coded.cut > 0
    if long.any():
        of = f"{part.name}: {long.sum():,} of {len(part):,} texts ({long.mean():.1%}) are longer than {most} tokens"
        done = f"{coded.cut.sum() / coded.tokens.sum():.1%} of all tokens are cut"
        if reading.truncation == "window":
            beyond = f"; {cut.sum():,} of them beyond max_windows = {reading.max_windows}: {done}"
            done = "they are read in windows" + (beyond if cut.any() else "")
        if whole:
            done, cut = "they are read in pieces, cut between words", np.zeros(1)
        grave = "error" if strict else "warning" if cut.mean() > MANY else "info"
        found.add("lengths", grave, f"{of}; {done}.")
    return coded.tokens
