"""`minibert estimate`: predictions and codes as files, to the arrays that shares and regressions take.

In:  the table that `minibert predict` wrote, and the codes: in a table of their own, or in a column of it.
Out: a document for JSON: what was asked, an entry for each estimate, notes. Only the columns needed are kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import read_chunks
from ..errors import ConfigError, DataError, as_options, nearest
from .correction import LEAST
from .regression import regression
from .shares import Estimate, mean, share

CHUNK = 20_000  # rows held as a frame at once
PROBABILITY = "probability_"
MOST_LEVELS = 30  # of a column of words in a regression
MOST_CLASSES = 100  # whose shares are estimated unasked
SHOWN = 5  # wrong cells that a message names


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, in the words of the command line.

    label      column of the codes           share    the class; each of them where absent
    coded      table of the codes            mean     of a number instead of shares
    id         column that both tables have  by       column: an estimate for each of its groups
    on         columns of a regression       outcome  column that is explained; the prediction then explains
    chance     column: how likely a text was to be coded
    """

    label: str
    coded: Path | None = None
    id: str = "row_id"
    share: str = ""
    mean: bool = False
    by: str = ""
    on: tuple[str, ...] = ()
    outcome: str = ""
    model: str = ""
    chance: str = ""
    probabilities: bool = False
    label_separator: str = ""
    unseen: str = "error"
    corpus_only: bool = False
    separator: str = ""
    encoding: str = "utf-8"
    sheet: str = ""

    def __post_init__(self) -> None:
        regressed = bool(self.on or self.outcome)
        for wrong, why in (
            (self.share and self.mean, "--share is of classes, --mean of numbers: give one of them"),
            (regressed and not (self.share or self.mean), "a regression is of one class or number: add --share CLASS or --mean"),
            (regressed and self.by, "--by is for shares and means: put the column in --on"),
            (self.model and not regressed, "--model is of a regression: name its columns with --on"),
            (self.model not in ("", "ols", "logit"), f"--model {self.model}: ols or logit"),
            (self.probabilities and not self.share, "--probabilities needs the class: add --share CLASS"),
            (self.unseen not in ("error", "wrong"), f"--unseen {self.unseen}: error or wrong"),
            (self.mean and self.label_separator, "--label-separator is of labels, not of numbers"),
        ):  # fmt: skip
            if wrong:
                raise ConfigError(why)


@dataclass(frozen=True)
class Corpus:
    """The texts that count: what was said of each, and the codes of some.

    said, columns    (m,) cells, as written       coded  (n,) places
    codes, chance    (n,) cells of the coded      known  the classes that the classifier can say
    """

    said: np.ndarray
    columns: dict[str, np.ndarray]
    coded: np.ndarray
    codes: np.ndarray
    chance: np.ndarray | None
    known: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def estimate_file(predictions: Path | str, question: Question) -> dict[str, Any]:
    """Answer a question about the texts of a table of predictions; the document that `--out` writes."""
    corpus = gather(Path(predictions), question)
    if not question.mean:
        check_labels(corpus, question)
    answer = regressed if question.on or question.outcome else numbers_of if question.mean else shares_of
    found, notes = answer(corpus, question)
    return {
        "asked": {k: str(v) if isinstance(v, Path) else v for k, v in vars(question).items() if v},
        "texts": len(corpus.said),
        "coded": len(corpus.coded),
        "agreement": agreement(corpus, question),
        "estimates": found,
        "notes": [*dict.fromkeys((*corpus.notes, *notes))],
    }


# Files to arrays ----------------------------------------------------------------------------------


def read(path: Path, needed: Callable[[list[str]], Iterable[str]], **form: str) -> dict[str, list[str]]:
    """Cells of the columns that `needed` names once it has seen the header."""
    out: dict[str, list[str]] = {}
    try:
        for frame in read_chunks(path, CHUNK, **form):
            for name in out or needed(list(frame.columns)):
                out.setdefault(name, []).extend(frame[name].tolist())
    except DataError as problem:
        raise DataError(as_options(problem.message), as_options(problem.fix)) from None
    return out


def there(name: str, names: Sequence[str], path: Path, option: str) -> str:
    """`name`, which a table must have as a column."""
    if name not in names:
        raise DataError(
            f"{path} has no column {name!r}{nearest(name, names)}",
            f"Its columns: {', '.join(names)}. Name one with {option}.",
        )
    return name


def said_column(names: Sequence[str], mean: bool, path: Path) -> str:
    """The column of answers: label or value, behind predicted_ where the texts came with one of that name."""
    word, other = ("value", "label") if mean else ("label", "value")
    found = max((n for n in names if re.fullmatch(f"(predicted_)*{word}", n)), key=len, default="")
    if not found:
        also = f" It has {other}: {'leave --mean out' if mean else 'add --mean'}." if other in names else ""
        raise DataError(f"{path} has no column {word}", f"Give the table that minibert predict wrote.{also}")
    return found


def gather(path: Path, q: Question) -> Corpus:
    """Both tables, joined; texts without a prediction, or without what a regression needs, are left out."""
    header: list[str] = []

    def needed(names: list[str]) -> list[str]:
        header.extend(names)
        said = said_column(names, q.mean, path)
        if not q.coded and q.label == said:
            raise DataError(
                f"{path}: {said} is what the classifier said, not what a person coded",
                "Name the column of codes with --label, or their table with --coded.",
            )
        own = [(q.by, "--by"), (q.outcome, "--outcome"), *((name, "--on") for name in q.on)]
        own += (
            [(q.id, "--id")] if q.coded else [(q.label, "--label"), (q.chance, "--probability-of-sampling")]
        )
        own += [(PROBABILITY + q.share, "--share")] if q.probabilities else []
        kept = [there(name, names, path, option) for name, option in own if name]
        return [*dict.fromkeys([said, *kept, *([q.chance] if q.chance in names else [])])]

    form = {} if q.coded else {"separator": q.separator, "encoding": q.encoding, "sheet": q.sheet}
    cells = {k: np.array(v, object) for k, v in read(path, needed, **form).items()}
    said = cells[said_column(header, q.mean, path)]
    codes, chance = codes_from(path, cells, q) if q.coded else (cells[q.label], cells.get(q.chance))
    columns = {name: cells[name] for name in (q.by, q.outcome, *q.on) if name}
    if q.probabilities:
        columns[PROBABILITY] = cells[PROBABILITY + q.share]
    able = [name.removeprefix(PROBABILITY) for name in header if name.startswith(PROBABILITY)]
    return complete(path, q, said, codes, chance, columns, able)


def codes_from(path: Path, cells: dict[str, np.ndarray], q: Question) -> tuple[np.ndarray, np.ndarray | None]:
    """(codes, sampling probabilities) from their own table, each (rows of the predictions,), None where not coded."""

    def needed(names: list[str]) -> list[str]:
        wanted = [(q.id, "--id"), (q.label, "--label")]
        if q.chance and (q.chance in names or q.chance not in cells):
            wanted.append((q.chance, "--probability-of-sampling"))
        return [*dict.fromkeys(there(name, names, q.coded, option) for name, option in wanted)]

    table = read(q.coded, needed, separator=q.separator, encoding=q.encoding, sheet=q.sheet)
    ids, coded = cells[q.id].tolist(), table[q.id]
    for file, some in ((path, ids), (q.coded, coded)):
        twice = [one for one, count in Counter(some).items() if count > 1]
        if twice:
            raise DataError(
                f"{file}: {listed(twice)} in {q.id} more than once", "Name a column of one's own with --id."
            )
    place = {one: i for i, one in enumerate(ids)}
    strange = [one for one in coded if one not in place]
    if strange:
        raise DataError(
            f"{q.coded}: {len(strange):,} of {len(coded):,} coded texts are not in {path}: {q.id} {listed(strange)}",
            f"Every coded text needs a prediction. The first {q.id} predicted are {listed(ids)}.",
        )

    def spread(name: str) -> np.ndarray:
        out = np.full(len(ids), None, object)
        out[[place[one] for one in coded]] = table[name]
        return out

    return spread(q.label), spread(q.chance) if q.chance in table else cells.get(q.chance)


def complete(
    path: Path, q: Question, said: np.ndarray, codes: np.ndarray, chance: np.ndarray | None,
    columns: dict[str, np.ndarray], able: Sequence[str],
) -> Corpus:  # fmt: skip
    """The Corpus of texts that have all that is needed; how many have not is noted, or refused if coded.

    able: the classes that have a column of probabilities.
    """
    given, silent, notes = [code is not None for code in codes], blank(said) & (not q.label_separator), []
    codes = coded_only(codes, q)
    coded = np.array([code is not None for code in codes], bool)
    if q.coded and sum(given) > coded.sum():
        notes.append(f"rows of {q.coded.name} without a code are left out: {sum(given) - coded.sum():,}.")
    if (silent & coded).any():
        raise DataError(
            f"{path}: {int((silent & coded).sum()):,} coded texts carry no prediction, the first is row "
            f"{np.argmax(silent & coded)}",
            "Predict them too, or take their codes out: only what was predicted can be corrected.",
        )
    if silent.any():
        notes.append(f"texts without a prediction are left out: {int(silent.sum()):,}.")
    kept = ~silent
    for name, cells in columns.items():
        empty = blank(cells) & ~silent
        kept &= ~empty
        if empty.any():
            notes.append(f"texts with nothing in {name} are left out: {int(empty.sum()):,}.")
    places = np.flatnonzero(coded[kept])
    if not len(places):
        raise DataError(f"no text has a code in {q.label}", "Name the column of codes with --label.")
    drawn = None if chance is None else numbers(chance[kept][places], q.chance, "coded text")
    spoken = () if q.mean else (x for cell in set(said[kept]) for x in labels_in(cell, q.label_separator))
    known = tuple(sorted({*spoken, *able} - {""}))
    columns = {name: cells[kept] for name, cells in columns.items()}
    return Corpus(said[kept], columns, places, codes[kept][places], drawn, known, tuple(notes))


def blank(cells: np.ndarray) -> np.ndarray:
    """Which cells hold nothing: (m,) bool."""
    return np.array([not cell.strip() for cell in cells], bool)


def coded_only(codes: np.ndarray, q: Question) -> np.ndarray:
    """Codes with None for an empty cell, unless it says that a text has none of several labels."""
    if q.coded and q.label_separator:
        return codes
    return np.array([code if code and code.strip() else None for code in codes], object)


def labels_in(cell: str, separator: str) -> list[str]:
    """The labels of a cell: one, or any number with the separator between them."""
    return [x.strip() for x in cell.split(separator) if x.strip()] if separator else [cell]


def listed(words: Sequence[Any]) -> str:
    """The first of some words, for a message."""
    return ", ".join(map(repr, words[:SHOWN])) + (", ..." if len(words) > SHOWN else "")


def numbers(cells: np.ndarray, name: str, what: str = "text") -> np.ndarray:
    """Cells as numbers; DataError names the first that is none."""
    out = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            out[i] = float(cell)
        except ValueError:
            out[i] = math.nan
        if not math.isfinite(out[i]):
            raise DataError(
                f"{name} of a {what} is {cell!r}, which is no number", "Write numbers with a point: 0.5."
            )
    return out


def check_labels(corpus: Corpus, q: Question) -> None:
    """Codes and predictions must speak of the same classes."""
    counts = Counter(x for cell in corpus.codes for x in labels_in(cell, q.label_separator))
    new = [name for name in counts if name not in corpus.known]
    if new and q.unseen == "error":
        shown = ", ".join(f"{name!r} ({counts[name]:,} texts)" for name in new[:SHOWN])
        raise DataError(
            f"{q.label} holds codes that the classifier never says: {shown}{nearest(new[0], corpus.known)}",
            f"It says {', '.join(corpus.known[:20])}. Mend the spelling; a class that it does not know: --unseen wrong.",
        )
    if q.share and q.share not in corpus.known and q.share not in counts:
        raise DataError(
            f"--share {q.share}: no text is predicted or coded so{nearest(q.share, (*corpus.known, *counts))}",
            f"The classes: {', '.join(corpus.known[:20])}.",
        )


# Arrays to estimates ------------------------------------------------------------------------------


def is_so(cells: np.ndarray, name: str, separator: str) -> np.ndarray:
    """Which cells are, or hold, a label: (m,) bool."""
    return np.array([name in labels_in(cell, separator) for cell in cells], bool)


def target(corpus: Corpus, q: Question, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(said (m,), truth (n,)) as numbers: of a class, whether a text is of it; else values."""
    if q.mean:
        return numbers(corpus.said, "the prediction"), numbers(corpus.codes, q.label, "coded text")
    truth = is_so(corpus.codes, name, q.label_separator)
    if q.probabilities:
        return numbers(corpus.columns[PROBABILITY], PROBABILITY + name), truth
    return is_so(corpus.said, name, q.label_separator), truth


def each_group(corpus: Corpus, q: Question) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """(name, which texts (m,)) of each group of --by, and a note for groups with too few codes."""
    if not q.by:
        return [("", np.ones(len(corpus.said), bool))], []
    out, notes = [], []
    for name in sorted(set(corpus.columns[q.by])):
        inside = corpus.columns[q.by] == name
        n = int(inside[corpus.coded].sum())
        if n < LEAST:
            notes.append(f"{q.by} {name}: {n} coded texts, under {LEAST}, so that nothing can be said of it.")
        else:
            out.append((name, inside))
    if not out:
        raise DataError(f"no group of {q.by} has {LEAST} coded texts", "Code more, or leave --by out.")
    return out, notes


def in_group(corpus: Corpus, said: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> tuple[Any, ...]:
    """(said, coded, truth, chance) of the texts inside."""
    here = inside[corpus.coded]
    place = np.cumsum(inside) - 1
    chance = None if corpus.chance is None else corpus.chance[here]
    return said[inside], place[corpus.coded[here]], truth[here], chance


def shares_of(corpus: Corpus, q: Question) -> tuple[list[dict[str, Any]], list[str]]:
    """The share of a class, or of each, in all texts or in each group."""
    coded_so = {x for cell in corpus.codes for x in labels_in(cell, q.label_separator)} - {""}
    classes = (q.share,) if q.share else tuple(sorted({*corpus.known, *coded_so}))
    if len(classes) > MOST_CLASSES:
        raise DataError(f"there are {len(classes):,} classes", "Name one with --share.")
    return by_group(corpus, q, classes, share)


def numbers_of(corpus: Corpus, q: Question) -> tuple[list[dict[str, Any]], list[str]]:
    """The mean of a number, in all texts or in each group."""
    return by_group(corpus, q, (f"mean of {q.label}",), mean)


def by_group(
    corpus: Corpus, q: Question, names: Sequence[str], estimate: Callable[..., Estimate]
) -> tuple[list[dict[str, Any]], list[str]]:
    """An estimate for each name and group."""
    groups, notes = each_group(corpus, q)
    out = []
    for name in names:
        said, truth = target(corpus, q, name)
        for group, inside in groups:
            *given, chance = in_group(corpus, said, truth, inside)
            title = f"{name}, {q.by} {group}" if group else name
            one = estimate(*given, chance=chance, corpus_only=q.corpus_only, of=title)
            notes += one.notes
            out.append(replace(one, of=name).as_dict() | ({"group": group} if q.by else {}))
    return out, notes


def regressed(corpus: Corpus, q: Question) -> tuple[list[dict[str, Any]], list[str]]:
    """The prediction on columns; or, with --outcome, a column on the prediction and others."""
    said, truth = target(corpus, q, q.share)
    names, columns, notes = [], [], []
    for name in q.on:
        words, some, note = design(name, corpus.columns[name])
        names += words
        columns += some
        notes += note
    X = np.stack(columns, axis=1) if columns else np.empty((len(said), 0))
    options = {"chance": corpus.chance, "corpus_only": q.corpus_only}
    if q.outcome:
        y = numbers(corpus.columns[q.outcome], q.outcome)
        mine = np.concatenate([said[:, None], X], axis=1)
        true = np.concatenate([truth[:, None], X[corpus.coded]], axis=1)
        options |= {"true_X": true, "names": [q.share or q.label, *names], "model": q.model or "ols"}
        found = regression(y, mine, corpus.coded, **options)
    else:
        options |= {"true_y": truth, "names": names, "model": q.model or ("ols" if q.mean else "logit")}
        found = regression(said, X, corpus.coded, **options)
    notes += [note for one in found for note in one.notes]
    return [one.as_dict() for one in found], notes


def design(name: str, cells: np.ndarray) -> tuple[list[str], list[np.ndarray], list[str]]:
    """(names, columns, notes) of a column in a regression: its numbers, or a 0/1 column for each word but the first."""
    try:
        return [name], [numbers(cells, name)], []
    except DataError:
        levels = sorted(set(cells))
    if len(levels) > MOST_LEVELS:
        raise DataError(
            f"{name} holds {len(levels):,} different cells, the first {listed(levels)}: neither numbers nor groups",
            f"--on takes columns of numbers, or of at most {MOST_LEVELS} different words.",
        )
    note = f"{name} is a column of words: each is compared with {levels[0]}."
    return [f"{name}={x}" for x in levels[1:]], [(cells == x).astype(float) for x in levels[1:]], [note]


def agreement(corpus: Corpus, q: Question) -> dict[str, float]:
    """How far classifier and coder agree on the coded texts: {"same": share}, or {"correlation": Pearson's r}."""
    if q.mean:
        said, truth = target(corpus, q, "")
        near = said[corpus.coded]
        flat = near.std() == 0 or truth.std() == 0
        return {} if flat else {"correlation": float(np.corrcoef(near, truth)[0, 1])}
    cells = zip(corpus.said[corpus.coded], corpus.codes)
    pairs = [[sorted(labels_in(cell, q.label_separator)) for cell in pair] for pair in cells]
    return {"same": float(np.mean([said == code for said, code in pairs]))}
