"""The first spec for a table: which column is the text, which the label, what kind of task it is.

In:  a table's path.   Out: the text of a commented TOML spec that loads as it stands.
Nothing is asked and nothing hidden: every guess stands in the spec as a key, with the reason beside it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .. import spec as schema
from ..errors import DataError
from ..kinds import KINDS, words_of
from .parts import MOST_LABELS, blank, count_of, number
from .separated import excerpt
from .splits import PART_WORDS, make_splits
from .tables import FORMATS, Table, plain_separator, read_table, sniff

SPLIT = (0.625, 0.125, 0.25)
LENGTHS = (32, 64, 96, 128, 192, 256)  # max_tokens that are proposed; more is slow, so it is a choice
MOST_OTHERS = 20  # columns named as labels that could be meant
NEARLY = 0.9  # of a column's filled cells that are numbers: it is meant as one of numbers
SETTINGS = {  # rows to train on at most -> epochs, learning_rate, batch_size: few texts want more rounds
    1_000: (8, 1e-4, 16),
    10_000: (4, 5e-5, 32),
    math.inf: (3, 5e-5, 32),
}

# Words in column names: what a label is often called, what a code is, what is rarely predicted, and who
# or what several rows may be of.
LABEL = {
    "label",
    "labels",
    "category",
    "class",
    "topic",
    "target",
    "sentiment",
    "emotion",
    "stance",
    "intent",
}
MAYBE = {"score", "rating", "gold", "code", "major", "polarity", "quality"}
CODE = {"label", "labels", "category", "class", "topic", "stance", "intent", "code", "major", "type"}
OTHER = {
    "date",
    "time",
    "duration",
    "count",
    "url",
    "link",
    "language",
    "source",
    "age",
    "sex",
    "gender",
    "country",
}
TAG = {"tag", "tags", "ner", "pos", "upos", "label", "labels"}
BETWEEN = (",", ";", "|")  # what several labels of a cell are separated by
MOST_TAGS = 200  # different tags of words; more are words
OTHER_KIND = {"classification": "regression", "regression": "classification"}
NUMBERED = {"id", "ids", "idx", "index"}
UNIT = NUMBERED | {
    "user",
    "author",
    "writer",
    "speaker",
    "participant",
    "person",
    "document",
    "session",
    "worker",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column looks like: `numbers` is None unless nearly every filled cell is a number.

    stray    a row whose cell is none all the same, or -1: such a column is one of numbers with a fault
    """

    name: str
    place: int
    filled: int
    distinct: int
    words: float  # a filled cell, on average
    numbers: np.ndarray | None
    decimal: str
    stray: int = -1
    between: str = ""  # stands between the labels of a cell, if many cells hold several

    @property
    def tokens(self) -> set[str]:
        """The words of the name, in lower case: "userID" -> user, id."""
        return set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name).lower()))


def propose(
    path: Path | str,
    *,
    separator: str = "",
    encoding: str = "",
    sheet: str = "",
    folder: Path | str | None = None,
) -> str:
    """The TOML text of a spec for a table; DataError where no column could be a text or a label.

    `folder`: where the spec will stand; the table's path is written from there (None: as it was given).
    """
    table, form = open_sniffed(path, separator, encoding, sheet)
    columns = describe(table)
    text = text_column(columns, table)
    tags = tag_column(columns, text, table)
    pair = None if tags else pair_column(columns, text)
    parts = part_column(columns, table)
    used = {c.name for c in (text, pair, parts) if c}
    groups = [] if parts or tags else group_columns(columns, used, len(table.frame))
    labels = (
        [tags] if tags else label_columns(columns, used | {c.name for c in groups}, text, len(table.frame))
    )
    if not labels:
        raise DataError(
            f"{table.path}: no column could be a label: one with a few classes, or with numbers.",
            f"Columns: {', '.join(c.name for c in columns)}. Add one, or write the spec by hand.",
        )
    refuse_faults(text, labels[0], table)
    found = {"text": text, "pair": pair, "parts": parts, "label": labels[0], "others": labels[1:]}
    for group in [*groups[:1], None]:  # whole groups can leave a class out of train: then without
        rows = compose(table, form, {**found, "group": group})
        try:
            make_splits(schema.parse(tables_of(rows)), {"source": table})
            break
        except DataError:
            if group is None:
                raise
    if folder is not None:
        rows = [(t, k, seen_from(folder, path) if k == "source" else v, why) for t, k, v, why in rows]
    return render(rows, Path(path).name)


def seen_from(folder: Path | str, path: Path | str) -> str:
    """The path of a table from a spec's folder: relative below it, else absolute."""
    whole, base = Path(path).resolve(), Path(folder).resolve()
    return (whole.relative_to(base) if whole.is_relative_to(base) else whole).as_posix()


def refuse_faults(text: Column, label: Column, table: Table) -> None:
    """What makes a spec useless however it is edited: no header, or a word among a label's numbers."""
    if why := headless(text, label, table):
        raise DataError(
            f"{table.path}: the first line looks like data, not like names of columns: {why}.",
            "Write a line of names at its top, for example text and label, so that no row is lost.",
        )
    if label.stray >= 0:
        words = label.filled - len(label.numbers)
        raise DataError(
            f"{table.path}: {label.name} holds numbers but for {count_of(words)}: {table.where(label.stray)} "
            f"has {excerpt(table.frame[label.name].iloc[label.stray])}.",
            "Mend these cells, or leave them empty where the number is missing.",
        )


def open_sniffed(
    path: Path | str, separator: str = "", encoding: str = "", sheet: str = ""
) -> tuple[Table, dict[str, Any]]:
    """(the table, the keys of [data] that open it beyond the defaults: separator, encoding, sheet)."""
    likely_separator, likely_encoding = sniff(path)
    usual = FORMATS.get(Path(Path(path).name.lower().removesuffix(".gz")).suffix, ("text", ""))[1]
    separator = plain_separator(separator) or likely_separator or usual
    encoding = encoding or likely_encoding or "utf-8"
    table = read_table(path, separator=separator, encoding=encoding, sheet=sheet)
    form = {"separator": separator if separator != usual else "", "encoding": encoding, "sheet": sheet}
    return table, {k: v for k, v in form.items() if v and v != "utf-8"}


def describe(table: Table) -> list[Column]:
    """What each column of a table looks like."""
    columns = []
    for place, name in enumerate(table.frame.columns):
        filled = [(row, cell) for row, cell in enumerate(table.frame[name]) if cell.strip()]
        cells = [cell for _, cell in filled]
        numbers, decimal, stray = None, ".", -1
        for mark in (".", ","):
            values = [number(cell, mark) for cell in cells]
            known = [value for value in values if value is not None]
            if (
                known
                and len(known) >= NEARLY * len(values)
                and (numbers is None or len(known) > len(numbers))
            ):
                numbers, decimal = np.array(known), mark
                stray = filled[values.index(None)][0] if len(known) < len(values) else -1
        words = sum(len(cell.split()) for cell in cells) / max(1, len(cells))
        facts = (name, place, len(cells), len(set(cells)), words, numbers, decimal, stray)
        columns.append(Column(*facts, several(cells) if numbers is None else ""))
    return columns


def several(cells: list[str]) -> str:
    """What stands between the labels of cells that hold several, or "".

    So it is if one cell in twenty holds it, the pieces are short, come again, and half of those that stand
    beside another also stand without it: "trade, foreign" alone is one label with a comma.
    """
    for mark in BETWEEN:
        pieces = [tuple(piece.strip() for piece in cell.split(mark)) for cell in cells]
        names = Counter(piece for found in pieces for piece in set(found))
        places = Counter(piece for found in set(pieces) for piece in set(found))
        beside = {piece for found in pieces if len(found) > 1 for piece in found}
        often = sum(len(found) > 1 for found in pieces) >= max(2, 0.05 * len(cells))
        short = len(names) <= MOST_LABELS and all(0 < len(name.split()) <= 4 for name in names)
        again = sum(count > 1 for count in names.values()) >= 0.9 * len(names)
        mixed = 2 * sum(places[piece] > 1 for piece in beside) >= len(beside)
        if often and short and again and mixed:
            return mark
    return ""


def tag_column(columns: list[Column], text: Column, table: Table) -> Column | None:
    """The column with one tag for each word of the text in every row, of a small set; by name, or the last."""
    words = [words_of(cell) for cell in table.frame[text.name]]
    if max(map(len, words), default=0) < 2:
        return None
    most = min(MOST_TAGS, sum(map(len, words)) / 5, len({word for row in words for word in row}) - 1)
    alike = []
    for c in columns:
        cells = [words_of(cell) for cell in table.frame[c.name]]
        tags = {tag for row in cells for tag in row}
        if c.name != text.name and 1 < len(tags) <= most and list(map(len, cells)) == list(map(len, words)):
            alike.append(c)
    return max(alike, key=lambda c: (bool(c.tokens & TAG), c.place), default=None)


def headless(text: Column, label: Column | None, table: Table) -> str:
    """Why these columns' names look like a row of data, or "". A long name alone is a survey's question."""
    if label is None:
        return ""
    if label.numbers is not None and number(label.name, label.decimal) is not None:
        return f'"{label.name}" is a number, as the cells below it are'
    if len(text.name.split()) > 2 and label.name in set(table.frame[label.name]):
        return f'"{label.name}" stands again in the cells below it'
    return ""


def text_column(columns: list[Column], table: Table) -> Column:
    """The column with the longest cells, in words."""
    wordy = [c for c in columns if c.numbers is None and c.filled]
    if not wordy:
        raise DataError(f"{table.path}: no column holds texts.", "A text column is needed.")
    named = [c for c in wordy if c.name == "FORM"]  # CoNLL-U: every column has as many words
    first = max(named or wordy, key=lambda c: c.words)
    return first if first.words > 1 else max(wordy, key=lambda c: c.distinct)


def pair_column(columns: list[Column], text: Column) -> Column | None:
    """The text column right behind `text` whose name differs only in 2 for 1, or b for a."""
    for c in columns:
        differ = [x + y for x, y in zip(text.name.lower(), c.name.lower()) if x != y]
        alike = len(c.name) == len(text.name) and differ in (["12"], ["ab"])
        if alike and c.words > 1 and c.place == text.place + 1:
            return c
    return None


def part_column(columns: list[Column], table: Table) -> Column | None:
    """A column that says train and test (and perhaps validation) in every row."""
    for c in columns:
        if 2 <= c.distinct <= 4 and c.filled == len(table.frame):
            words = {PART_WORDS.get(cell.strip().lower()) for cell in set(table.frame[c.name])}
            if {"train", "test"} <= words and None not in words:
                return c
    return None


def group_columns(columns: list[Column], used: set[str], rows: int) -> list[Column]:
    """Columns that name who or what a row is of, where one such has several rows."""
    named = [c for c in columns if c.name not in used and c.tokens & UNIT and c.filled > rows / 2]
    return [c for c in named if 10 <= c.distinct <= c.filled / 1.5]


def label_columns(columns: list[Column], used: set[str], text: Column, rows: int) -> list[Column]:
    """The columns that could be predicted, likeliest first: by name and size, then nearness to the text."""

    def likely(c: Column) -> tuple[int, int]:
        name = 3 * bool(c.tokens & LABEL) + bool(c.tokens & MAYBE) - 2 * bool(c.tokens & OTHER)
        return (c.numbers is None and c.distinct > 100) - name, abs(c.place - text.place)

    named = [c for c in columns if c.name and c.name not in used and not c.tokens & NUMBERED]
    known = [c for c in named if c.filled > rows / 2 and c.distinct > 1]
    known = [c for c in known if not (is_whole(c) and c.distinct == c.filled)]  # a number for each row: an id
    most = min(MOST_LABELS, rows / 2)
    return sorted((c for c in known if c.distinct <= most or c.numbers is not None), key=likely)


def is_whole(c: Column) -> bool:
    """Whether all values are whole numbers, written as such or not."""
    return c.numbers is not None and bool((c.numbers == np.round(c.numbers)).all())


def by_looks(c: Column, text: Column | None = None, table: Table | None = None) -> tuple[str, str]:
    """(kind, why) of a task with this label column; tags are seen only beside the text."""
    if text and table and tag_column([c], text, table):
        return "tokens", f"{c.name} holds one tag for each word of {text.name}, in every row"
    if c.between:
        return "multilabel", f"many cells of {c.name} hold several labels, with {c.between!r} between them"
    if c.numbers is None:
        return "classification", f"{c.name} holds words, {c.distinct} different ones"
    low, high = c.numbers.min(), c.numbers.max()
    span = f"{low:g} to {high:g}"
    if not is_whole(c):
        return "regression", f"{c.name} holds numbers with decimals, {span}"
    if c.distinct > 100:
        return "regression", f"{c.name} holds {c.distinct} different numbers, {span}"
    if c.distinct <= 2 or c.tokens & CODE:
        return "classification", f"{c.name} holds {c.distinct} whole numbers, {span}, which look like codes"
    if c.distinct > 20 or (c.distinct >= 5 and low != 0 and high - low + 1 == c.distinct) or high == 10:
        return "regression", f"{c.name} holds the whole numbers {span}, which look like a scale"
    return "classification", f"{c.name} holds {c.distinct} whole numbers, {span}, which look like codes"


Row = tuple[str, str, Any, str]  # table, key, value, why ("" if there is nothing to say)


def compose(table: Table, form: dict[str, Any], found: dict[str, Any]) -> list[Row]:
    """The keys of the spec with their values and reasons."""
    text, pair, label, group, parts = (found[k] for k in ("text", "pair", "label", "group", "parts"))
    kind, why = by_looks(label, text, table)
    why += f'; if that is wrong: "{OTHER_KIND[kind]}"' if is_whole(label) and kind in OTHER_KIND else ""
    frame, n = table.frame, len(table.frame)
    cells = {c.name: frame[c.name].to_numpy(dtype=object) for c in (text, pair, label) if c}
    empty = blank(cells[text.name]) | (blank(cells[pair.name]) if pair else False)
    unlabelled = blank(cells[label.name]) & ~empty & (not KINDS[kind].none)
    kept = frame[~empty & ~unlabelled]
    again = kept.duplicated([c.name for c in (text, pair) if c])
    stem = Path(table.path).name.split(".")[0].lower()
    stem = Path(table.path).resolve().parent.name.lower() if stem in PART_WORDS else stem
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    rows: list[Row] = [
        ("task", "name", name or "task", ""),
        ("task", "kind", kind, why),
        ("data", "source", Path(table.path).as_posix(), f"{n:,} rows"),
        ("data", "text", text.name, f"its cells are the longest: {text.words:.0f} words on average"),
    ]
    if pair:
        rows.append(("data", "pair", pair.name, "by its name"))
    others = ", ".join(c.name for c in found["others"][:MOST_OTHERS])
    more = len(found["others"]) - MOST_OTHERS
    others += f" and {more} more" if more > 0 else ""
    rows.append(("data", "label", label.name, f"others that could be: {others}" if others else ""))
    if parts:
        rows.append(("data", "split_column", parts.name, "its cells name the parts"))
    else:
        rows.append(("data", "split", SPLIT, beside(Path(table.path))))
    if group:
        rows.append(
            ("data", "group", group.name, f"{group.distinct:,} different ones in {group.filled:,} rows")
        )
    rows += [("data", key, value, "found in the file") for key, value in form.items()]
    if label.between not in ("", ",") and KINDS[kind].none:
        rows.append(("data", "label_separator", label.between, f"found in {label.name}"))
    if label.decimal != "." and kind == "regression":
        rows.append(("data", "decimal", label.decimal, f"found in {label.name}"))
    for key, found_rows in (("empty", empty), ("missing_label", unlabelled), ("duplicates", again)):
        count = int(found_rows.sum())
        if count and not (key == "duplicates" and parts):
            rows.append(("data", key, "drop", f"found in {count_of(count)}"))
    return rows + settings(table, text, pair, n, kind)


def beside(path: Path) -> str:
    """A hint where a file called train has one called test beside it."""
    word = next((w for w in PART_WORDS if w in path.stem.lower()), "")
    other = path.with_name(path.name.lower().replace(word, "test")) if word.startswith("train") else path
    return (
        f"{other.name} lies beside it: train and test instead of source and split"
        if other != path and other.exists()
        else ""
    )


def settings(table: Table, text: Column, pair: Column | None, n: int, kind: str) -> list[Row]:
    """The keys of [model], [train] and [baseline], from the number of rows and the length of the texts."""
    sizes = np.zeros(n)
    for c in (text, pair):
        if c:
            cells = table.frame[c.name]
            sizes += [
                max(1.4 * len(cell.split()), len(cell) / 4) for cell in cells
            ]  # pieces a word, letters a piece
    most = float(np.quantile(sizes, 0.95)) + (3 if pair else 2)
    tokens = next((length for length in LENGTHS if length >= most), LENGTHS[-1])
    share = "19 of 20 texts are likely shorter" if tokens >= most else "many texts are longer and will be cut"
    epochs, rate, batch = next(v for most, v in SETTINGS.items() if n * SPLIT[0] <= most)
    return [
        ("model", "weights", "all-MiniLM-L6-v2", "22 million parameters: minutes on two cores"),
        ("model", "max_tokens", tokens, f"{share}; minibert check counts them"),
        *([] if KINDS[kind].words else [("model", "pooling", "cls", "")]),
        ("train", "epochs", epochs, ""),
        ("train", "learning_rate", rate, ""),
        ("train", "batch_size", batch, ""),
        ("train", "seed", 0, ""),
        ("baseline", "kind", KINDS[kind].baselines[0], ""),
    ]


def tables_of(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """The keys as the tables that spec.parse takes."""
    out: dict[str, dict[str, Any]] = {name: {} for name in schema.TABLES}
    for name, key, value, _ in rows:
        out[name][key] = list(value) if isinstance(value, tuple) else value
    return out


def render(rows: list[Row], source: str) -> str:
    """The spec as TOML text: above each key what it does, behind it why it has this value."""
    lines = [f"# Proposed for {source}: read it, change what is wrong, then run `minibert check` on it."]
    current = ""
    for name, key, value, why in rows:
        if name != current:
            lines += ["", f"[{name}]"]
            current = name
        about = {f.name: f.metadata["about"] for f in dataclasses.fields(schema.TABLES[name])}[key]
        lines.append(f"# {about}")
        reason = " ".join(why.split())
        lines.append(f"{key} = {schema.toml_value(value)}" + (f"  # {reason}" if reason else ""))
    return "\n".join(lines) + "\n"
