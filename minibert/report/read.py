"""A run folder, read: what `minibert run` wrote, and the answers worth showing.

In:  the folder.   Out: Run (settings, scores, history, environment), Answers (mistakes, points).

A run that was stopped lacks some files; they read as empty and the page says so. Only spec.toml must
be there. A torn last line of history.jsonl, left by a killed process, is passed over.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import spec as specs
from ..counts import spans
from ..errors import DataError
from ..kinds import KINDS, has_entities, words_of
from ..spec import TaskSpec

MISTAKES = 12  # shown on the page
csv.field_size_limit(2**31 - 1)  # the module's own limit, 128 kB, is less than a long text


@dataclass(frozen=True)
class Run:
    """Everything of a run folder but the tables of answers; {} or [] for files that aren't there.

    steps, evaluations   the events of history.jsonl; of a cross-validation, those of the first fold
    splits               (step, tokens at once) where memory ran out
    """

    folder: Path
    spec: TaskSpec
    metrics: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    environment: dict[str, Any]
    data: dict[str, Any]
    status: dict[str, Any]
    diagnosis: dict[str, Any]
    splits: list[tuple[int, int]] = field(default_factory=list)

    @property
    def folds(self) -> int:
        """How many times the data were split; 0 where there is one test part."""
        return self.spec.data.folds

    @property
    def kind(self) -> str:
        """A name of KINDS."""
        return self.spec.task.kind

    @property
    def text(self) -> str:
        """The column that holds the text."""
        return self.data.get("text_column") or self.spec.data.text

    @property
    def label(self) -> str:
        """The column that holds the true label or value."""
        return self.data.get("label_column") or self.spec.data.label


@dataclass(frozen=True)
class Answer:
    """One test text with its true and predicted label (a string), value (a float), labels or tags (tuples).

    weight   what mistakes are ranked by: the probability of the wrong label, the size of the error, or how
             many entities or words are wrong
    """

    row: str
    text: str
    truth: Any
    predicted: Any
    weight: float
    truncated: bool
    baseline: str = ""


@dataclass
class Answers:
    """The largest mistakes, worst first, how many there are, and for regression every (truth, value)."""

    mistakes: list[Answer] = field(default_factory=list)
    wrong: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)
    why_none: str = ""


def read_run(folder: Path) -> Run:
    """Read a run folder. DataError where it is none or a file is damaged."""
    if not (folder / "spec.toml").is_file():
        raise DataError(
            f"{folder} holds no spec.toml, so it is no run folder",
            "Name the folder that `minibert run` wrote.",
        )
    # cross-validation trains once a fold: the curves of several would lie on top of each other
    events = [event for event in lines(folder / "history.jsonl") if event.get("fold", 1) == 1]
    return Run(
        folder,
        specs.load(folder / "spec.toml"),
        metrics=table(folder / "metrics.json"),
        steps=[event for event in events if event.get("event") == "step"],
        splits=[(e["step"], e["tokens_per_microbatch"]) for e in events if e.get("event") == "memory"],
        evaluations=[event for event in events if event.get("event") == "evaluation"],
        environment=table(folder / "environment.json"),
        data=table(folder / "data.json"),
        status=table(folder / "status.json"),
        diagnosis=table(folder / "diagnosis.json"),
    )


def table(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; {} where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} can't be read: {problem}", "Run the task again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {type(value).__name__}, not an object", "Run the task again.")
    return value


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; the last line may be torn, any other may not."""
    try:
        written = path.read_bytes().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(written, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            if number == len(written):
                return
            raise DataError(f"{path} line {number} is not JSON", "Run the task again.") from None
        if isinstance(value, dict):
            yield value


def answers(run: Run) -> Answers:
    """The test answers of predictions.csv, beside the baseline's of baseline.csv. Read as a stream."""
    path = run.folder / "predictions.csv"
    if not path.is_file():
        return Answers(why_none="the run folder holds no predictions.csv")
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        columns = Columns(header, run)
        if columns.why_none:
            return Answers(why_none=columns.why_none)
        found = READERS[run.kind](run, rows, columns)
    other = baseline_answers(run.folder / "baseline.csv", columns.own, {one.row for one in found.mistakes})
    found.mistakes = [Answer(**vars(one) | {"baseline": other.get(one.row, "")}) for one in found.mistakes]
    return found


class Columns:
    """Where things stand in predictions.csv: row_id, then the input's columns, then ours.

    Where the input has a column of one of our names, ours has `predicted_` before it, once or more.
    """

    def __init__(self, header: list[str], run: Run):
        self.own = KINDS[run.kind].column
        self.ours = {name: i for i, name in enumerate(header)}  # of equal names the last
        given = {name: i for i, name in reversed(list(enumerate(header)))}  # of equal names the first
        said = [i for name, i in self.ours.items() if re.fullmatch(f"(predicted_)*{self.own}", name)]
        kept = run.spec.data.keep_texts
        missing = [name for name in ((run.text, run.label) if kept else (run.label,)) if name not in given]
        self.why_none = ""
        if missing or not said:
            self.why_none = f"predictions.csv has no column {', '.join(missing) or self.own}"
            return
        self.row, self.said = 0 if re.fullmatch("(predicted_)*row_id", header[0]) else None, max(said)
        self.truth = given[run.label]
        self.texts = [
            given[name] for name in (run.text, run.spec.data.pair) if kept and name and name in given
        ]

    def answer(self, weight: float, row: list[str], truth: Any, said: Any) -> Answer:
        """One row as an Answer; the two texts of a pair are joined by an empty line, and none where none is kept."""
        text = "\n\n".join(row[place] for place in self.texts)
        cut = "truncated" in self.ours and row[self.ours["truncated"]].lower() in ("true", "1")
        return Answer("" if self.row is None else row[self.row], text, truth, said, weight, cut)


def classified(run: Run, rows: Iterator[list[str]], columns: Columns) -> Answers:
    """Wrong labels, the most probable first."""
    out, largest = Answers(), Largest()
    for row in rows:
        truth, predicted = named(run, row[columns.truth].strip()), row[columns.said].strip()
        if truth != predicted:
            out.wrong += 1
            likely = columns.ours.get(f"probability_{predicted}")
            largest.add(math.nan if likely is None else number(row[likely]), (row, truth, predicted))
    out.mistakes = [columns.answer(weight, *rest) for weight, rest in largest.ranked()]
    return out


def regressed(run: Run, rows: Iterator[list[str]], columns: Columns) -> Answers:
    """Every (truth, value), and the texts with the largest errors."""
    out, largest = Answers(), Largest()
    for row in rows:
        truth = number(row[columns.truth].replace(run.spec.data.decimal, "."))
        value = number(row[columns.said])
        if math.isfinite(truth) and math.isfinite(value):
            out.points.append((truth, value))
            largest.add(abs(truth - value), (row, truth, value))
    out.wrong = len(out.points)
    out.mistakes = [columns.answer(weight, *rest) for weight, rest in largest.ranked()]
    return out


def labelled(run: Run, rows: Iterator[list[str]], columns: Columns) -> Answers:
    """Texts with a label too many or too few, first those whose wrong label was surest one way or the other."""
    out, largest = Answers(), Largest()
    for row in rows:
        truth, said = (parted(run, row[place]) for place in (columns.truth, columns.said))
        truth = tuple(named(run, label) for label in truth)
        if set(truth) != set(said):
            out.wrong += 1
            wrong = [(label, label in said) for label in {*truth} ^ {*said}]
            known = [(columns.ours.get(f"probability_{label}"), was) for label, was in wrong]
            sure = [number(row[i]) if was else 1 - number(row[i]) for i, was in known if i is not None]
            largest.add(max(sure, default=math.nan), (row, truth, said))
    out.mistakes = [columns.answer(weight, *rest) for weight, rest in largest.ranked()]
    return out


def tagged(run: Run, rows: Iterator[list[str]], columns: Columns) -> Answers:
    """Texts with the most wrong entities, or words where tags mark no entities."""
    out, largest = Answers(), Largest()
    entities = has_entities(run.metrics.get("labels") or ())
    for row in rows:
        truth = tuple(named(run, tag) for tag in words_of(row[columns.truth]))
        said = tuple(words_of(row[columns.said]))
        marks = [set(spans(tags) if entities else enumerate(tags)) for tags in (truth, said)]
        if marks[0] != marks[1]:
            out.wrong += 1
            largest.add(len(marks[0] ^ marks[1]) / (1 if entities else 2), (row, truth, said))
    out.mistakes = [columns.answer(weight, *rest) for weight, rest in largest.ranked()]
    return out


READERS = {"classification": classified, "regression": regressed, "multilabel": labelled, "tokens": tagged}


def parted(run: Run, cell: str) -> tuple[str, ...]:
    """The labels of a cell."""
    return tuple(word.strip() for word in cell.split(run.spec.data.label_separator) if word.strip())


def named(run: Run, label: str) -> str:
    """The name of a label that the data write as a number."""
    names = run.spec.data.label_names
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


class Largest:
    """Keeps the MISTAKES items of the largest weight; of equal ones, those that came first."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Any]] = []
        self.count = 0

    def add(self, weight: float, item: Any) -> None:
        """Offer an item; a weight that is not a number ranks last."""
        self.count += 1
        entry = (-1.0 if weight != weight else weight, -self.count, item)
        keep = heapq.heappush if len(self.heap) < MISTAKES else heapq.heappushpop
        keep(self.heap, entry)

    def ranked(self) -> list[tuple[float, Any]]:
        """(weight, item), the largest first."""
        return [(weight, item) for weight, _, item in sorted(self.heap, reverse=True)]


def baseline_answers(path: Path, own: str, wanted: set[str]) -> dict[str, str]:
    """row_id -> the baseline's answer, for the wanted rows; {} without the file."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        return {row["row_id"]: row.get(own, "") for row in csv.DictReader(file) if row["row_id"] in wanted}


def number(text: str) -> float:
    """A cell as a float; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
