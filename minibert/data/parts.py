"""Rows to parts: the columns of a table as texts and targets, and every row that is left out told.

In:  a Table and the [data] keys of a TaskSpec.
Out: Pool, the usable rows on their way into parts; Part and Splits, what a model is given.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..counts import spans
from ..errors import DataError, nearest
from ..kinds import KINDS, OTHERS, Kind, each_label, has_entities, words_of
from ..spec import TaskSpec
from .mask import masked
from .separated import excerpt
from .tables import Table

MOST_LABELS = 1000
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Part:
    """What one part of the data is to a model.

    texts    n strings;  pairs: n strings or None
    targets  (n,) array by kind. classification: label strings; regression: float64; multilabel: tuples of
             labels; tokens: tuples of tags, one for each word that words_of finds in the text
    rows     (n,) int64 row_id in `table`
    """

    name: str
    texts: list[str]
    pairs: list[str] | None
    targets: np.ndarray
    rows: np.ndarray
    table: Table

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Splits:
    """The three parts, the label order (empty for regression), and what was done, in sentences.

    whole   labelled texts that [train] examples could be drawn from, validation included where it is drawn from them
    """

    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    whole: int = 0


@dataclass(frozen=True)
class Pool:
    """Usable rows on their way into parts: arrays of n. `groups` is None where the spec has no group."""

    texts: np.ndarray
    pairs: np.ndarray | None
    targets: np.ndarray
    groups: np.ndarray | None
    rows: np.ndarray
    table: Table

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, which: np.ndarray) -> Pool:
        """The rows of a mask or an index, in file order."""
        index = np.sort(np.arange(len(self))[which])
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "table"}
        return replace(self, **{name: a if a is None else a[index] for name, a in arrays.items()})

    def part(self, name: str) -> Part:
        """The rows as models see them."""
        pairs = None if self.pairs is None else self.pairs.tolist()
        return Part(name, self.texts.tolist(), pairs, self.targets, self.rows, self.table)


def kind_of(spec: TaskSpec) -> Kind:
    """What the task's kind means for its data."""
    return KINDS[spec.task.kind]


def text_keys(part: Part) -> list[tuple[str, str]]:
    """What makes two rows the same text: text and pair."""
    return list(zip(part.texts, part.pairs or [""] * len(part)))


def column(table: Table, name: str, key: str, of: str = "data") -> np.ndarray:
    """(n,) cells of a column; DataError with the nearest name where there is none. `key` is of the spec's table `of`."""
    names = [str(c) for c in table.frame.columns]
    if name in names:
        return table.frame[name].to_numpy(dtype=object)
    hint = nearest(name, names) or "."
    for other in names:
        if folded(other) == folded(name):
            hint = f'; "{other}" differs only in case, spaces or Unicode form.'
    shown = ", ".join(f'"{n}"' for n in names[:30]) + (f" and {len(names) - 30} more" if names[30:] else "")
    raise DataError(f'{table.path} has no column "{name}" ([{of}] {key}){hint}', f"Its columns: {shown}.")


def folded(word: str) -> str:
    """A word without case, outer and doubled spaces, and differences of Unicode form."""
    return " ".join(unicodedata.normalize("NFC", word).casefold().split())


def usable_pools(spec: TaskSpec, tables: dict[str, Table], notes: list[str]) -> dict[str, Pool]:
    """The usable rows of each table, masked; a label column that can't be one is refused."""
    pools = {key: usable(spec, masked(spec, table), notes) for key, table in tables.items()}
    check_label_column(spec, pools.get("train") or pools["source"])
    return pools


def usable(spec: TaskSpec, table: Table, notes: list[str]) -> Pool:
    """The rows of a table that the spec's rules keep; what they drop is told in `notes`."""
    d = spec.data
    notes.extend(table.notes)
    keys = ["text", "label", *(key for key in ("pair", "group") if getattr(d, key))]
    cells = {key: column(table, getattr(d, key), key) for key in keys}
    keep = ~unwanted(spec, table, notes)
    empty = (blank(cells["text"]) | (blank(cells["pair"]) if d.pair else False)) & keep
    keep &= ~left_out(table, empty, d.empty, "without text", "empty", notes)
    unlabelled = without_label(spec, cells["label"]) & keep
    keep &= ~left_out(table, unlabelled, d.missing_label, "without label", "missing_label", notes)
    if d.duplicates == "drop":
        again = repeated(list(zip(cells["text"], cells.get("pair", cells["text"]))), keep)
        keep &= ~left_out(table, again, "drop", "with a text that stood before", "duplicates", notes)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise DataError(f"{table.path}: none of {count_of(len(keep))} is usable.", "\n".join(notes))
    if d.group and blank(cells["group"]).any():
        alone = np.flatnonzero(blank(cells["group"]))
        cells["group"] = cells["group"].copy()
        cells["group"][alone] = [f"\0{row}" for row in alone]
        notes.append(
            f"{Path(table.path).name}: {count_of(len(alone))} without {d.group}, each its own group."
        )
    picked = {key: values[rows] for key, values in cells.items()}
    targets = TARGETS[spec.task.kind](picked["label"], picked["text"], rows, spec, table, notes)
    return Pool(
        picked["text"], picked.get("pair"), targets, picked.get("group"), rows.astype(np.int64), table
    )


def unwanted(spec: TaskSpec, table: Table, notes: list[str]) -> np.ndarray:
    """(n,) bool: rows that [data] leave_out names, as its word stands in the cell of its column."""
    out = np.zeros(len(table.frame), bool)
    for name, word in (spec.data.leave_out or {}).items():
        found = np.array([word in cell for cell in column(table, name, "leave_out")], bool)
        if found.any():
            notes.append(f'{Path(table.path).name}: {count_of(found.sum())} with "{word}" in {name} left out: '
                         f"{places(table, np.flatnonzero(found))}.")  # fmt: skip
        out |= found
    return out


def blank(cells: np.ndarray) -> np.ndarray:
    """(n,) bool: cells with nothing but white space."""
    return np.array([not cell.strip() for cell in cells], bool)


def without_label(spec: TaskSpec, cells: np.ndarray) -> np.ndarray:
    """(n,) bool: cells that should hold a label and are empty; with several labels, none is an answer."""
    return np.zeros(len(cells), bool) if kind_of(spec).none else blank(cells)


def repeated(keys: list[tuple[str, str]], keep: np.ndarray) -> np.ndarray:
    """(n,) bool: kept rows whose key a kept row before them has."""
    seen: set[tuple[str, str]] = set()
    again = np.zeros(len(keep), bool)
    for row in np.flatnonzero(keep):
        again[row] = keys[row] in seen
        seen.add(keys[row])
    return again


def left_out(
    table: Table, found: np.ndarray, policy: str, what: str, key: str, notes: list[str], fix: str = ""
) -> np.ndarray:
    """The rows to drop by a policy: those found ("drop"), none, or a DataError ("error")."""
    if not found.any():
        return found
    sentence = f"{count_of(found.sum())} {what}: {places(table, np.flatnonzero(found))}"
    if policy == "error":
        raise DataError(f"{table.path}: {sentence}.", fix or f'Mend the table, or set [data] {key} = "drop".')
    done = "dropped" if policy == "drop" else "kept"
    notes.append(f'{Path(table.path).name}: {sentence}; {done} ({key} = "{policy}").')
    return found if policy == "drop" else np.zeros_like(found)


def count_of(rows: int) -> str:
    """1 row; 1,200 rows."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def places(table: Table, rows: np.ndarray) -> str:
    """The first of some rows, as people find them."""
    shown = ", ".join(table.where(int(row)) for row in rows[:3])
    return shown + (f" and {len(rows) - 3:,} more" if len(rows) > 3 else "")


# Cells to targets: the cells and texts of some rows of a table -> (n,) targets as Part has them.


def to_labels(
    cells: np.ndarray, texts: np.ndarray, rows: np.ndarray, spec: TaskSpec, table: Table, notes: list[str]
) -> np.ndarray:
    """Label strings as they stand, or the names that [data] label_names gives them."""
    return np.fromiter((named(cell, row, spec, table) for cell, row in zip(cells, rows)), object, len(cells))


def to_label_sets(
    cells: np.ndarray, texts: np.ndarray, rows: np.ndarray, spec: TaskSpec, table: Table, notes: list[str]
) -> np.ndarray:
    """Tuples of labels, () for an empty cell; a label that a cell repeats counts once, and that is told."""
    found, again = [], []
    for cell, row in zip(cells, rows):
        words = [word.strip() for word in cell.split(spec.data.label_separator)]
        labels = [named(word, row, spec, table) for word in words if word]
        found.append(tuple(dict.fromkeys(labels)))
        again += [row] if len(found[-1]) < len(labels) else []
    if again:
        notes.append(f"{Path(table.path).name}: {count_of(len(again))} with a label twice, which counts once: "
                     f"{places(table, np.array(again))}.")  # fmt: skip
    return np.fromiter(found, object, len(found))


def to_tags(
    cells: np.ndarray, texts: np.ndarray, rows: np.ndarray, spec: TaskSpec, table: Table, notes: list[str]
) -> np.ndarray:
    """Tuples of tags, one a word; DataError with the first row that has more or fewer tags than words."""
    found = [tuple(named(tag, row, spec, table) for tag in words_of(cell)) for cell, row in zip(cells, rows)]
    counts = [(len(words_of(text)), len(tags)) for text, tags in zip(texts, found)]
    bad = [i for i, (words, tags) in enumerate(counts) if words != tags]
    if bad:
        words, tags = counts[bad[0]]
        raise DataError(
            f"{table.path}: {table.where(int(rows[bad[0]]))} has {words} words in {spec.data.text} and {tags} "
            f"tags in {spec.data.label} ({count_of(len(bad))} in all): {excerpt(texts[bad[0]])}.",
            "Words and tags are what stands between spaces, one tag for each word.",
        )
    every = {tag for tags in found for tag in tags}
    other = sorted(tag for tag in every if tag.startswith(OTHERS))
    if other and has_entities(every):
        raise DataError(
            f"{table.path}: {spec.data.label} has tags such as {', '.join(other[:3])}: BIOES or BILOU, not IOB2",
            "Write B- at the first word of an entity and I- at the others; S- and U- become B-, E- and L- become I-.",
        )
    odd = stray_tags(found)
    if odd:
        notes.append(f"{Path(table.path).name}: {odd:,} tags I-... follow no tag of their type; each begins an "
                     "entity, as the CoNLL script counts.")  # fmt: skip
    return np.fromiter(found, object, len(found))


def stray_tags(found: Iterable[tuple[str, ...]]) -> int:
    """Tags that IOB2 does not allow: entities that begin with I-."""
    return sum(tags[first].startswith("I-") for tags in found for first, _, _ in spans(tags))


def named(label: str, row: int, spec: TaskSpec, table: Table) -> str:
    """The name of a label that the column writes as a number; the label itself where none are named."""
    names = spec.data.label_names
    if not names:
        return label
    if not (label.strip().isdecimal() and int(label) < len(names)):
        raise DataError(
            f"{table.path}: {table.where(int(row))} has {spec.data.label} = {excerpt(label)}, and [data] "
            f"label_names has {len(names)} names, for 0 to {len(names) - 1}."
        )
    return names[int(label)]


def to_numbers(
    cells: np.ndarray, texts: np.ndarray, rows: np.ndarray, spec: TaskSpec, table: Table, notes: list[str]
) -> np.ndarray:
    """(n,) float64 of number cells; DataError with the first row whose cell is no finite number."""
    d = spec.data
    values = [number(cell, d.decimal) for cell in cells]
    bad = [i for i, value in enumerate(values) if value is None]
    if bad:
        first, other = cells[bad[0]], "." if d.decimal == "," else ","
        fix = 'Where a number is missing, leave the cell empty and set [data] missing_label = "drop".'
        if number(first, other) is not None:
            fix = f'Its decimal mark is "{other}": set [data] decimal = "{other}".'
        raise DataError(
            f"{table.path}: {table.where(int(rows[bad[0]]))} has {d.label} = {excerpt(first)}, "
            f"no finite number ({count_of(len(bad))} in all).",
            fix,
        )
    return np.array(values, np.float64)


TARGETS = {
    "classification": to_labels,
    "regression": to_numbers,
    "multilabel": to_label_sets,
    "tokens": to_tags,
}


def number(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell holds, or None. Thousands marks, NaN and infinities are no numbers."""
    cell = cell.strip()
    if decimal == ",":
        cell = cell.replace(".", "x").replace(",", ".")
    value = float(cell) if NUMBER.fullmatch(cell) else math.inf
    return value if math.isfinite(value) else None


def check_label_column(spec: TaskSpec, pool: Pool) -> None:
    """Refuse a label column that holds ids, texts or numbers of a scale."""
    kind, distinct = kind_of(spec), len(set(each_label(spec.task.kind, pool.targets)))
    if distinct > MOST_LABELS or (kind.stratified and distinct == len(pool) > 1):
        raise DataError(
            f"{pool.table.path}: {spec.data.label} has {distinct:,} distinct values "
            f"in {count_of(len(pool))}.",
            'A wrong column? Set [data] label to another, or [task] kind = "regression" for numbers.',
        )
