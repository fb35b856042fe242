"""`minibert.finetune` for a notebook: a DataFrame in, a run folder and what is worth showing of it out.

In:  a DataFrame, its columns, the kind of task, and keys of a spec.
Out: Tuned: scores, model, predictions, report; the folder is what `minibert run` leaves.

The frame is not written down: spec.toml has a word in its place. So a run that was interrupted goes on with
`finetune(..., resume=True)` and the same frame.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from . import spec
from .data import Table, from_frame
from .data.mask import mask
from .data.propose import SPLIT, by_looks, describe
from .data.splits import check_different
from .errors import ConfigError, DataError, nearest
from .estimator import plain
from .folder import STATUS, finite, read_json
from .kinds import KINDS
from .loading import load
from .metrics import HIGHER_IS_BETTER
from .model import Model
from .progress import hushed
from .run import Outcome, headline, run, span

# What stands between the entries of a list, where a cell holds one.
BETWEEN = {"multilabel": ",", "tokens": " "}


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A run that finetune did.

    folder   where it lies
    status   status.json's word; "completed" if all went well
    scores   metrics.json: test, baseline, difference; {} of a run that was stopped
    """

    folder: Path
    status: str
    scores: dict[str, Any]

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "report.html"

    @functools.cached_property
    def model(self) -> Model:
        """The fine-tuned model."""
        return load(self.folder)

    @functools.cached_property
    def spec(self) -> spec.TaskSpec:
        """The task as it was run."""
        return spec.load(self.folder / "spec.toml")

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a text: label and probabilities, or value; texts are masked as those of the run were."""
        words = KINDS[self.spec.task.kind].words
        texts, pairs = (
            None if some is None else [mask(one, self.spec.data.mask, by_word=words) for one in some]
            for some in (texts, pairs)
        )
        return self.model.predict(texts, pairs, separator=self.spec.data.label_separator)

    def __repr__(self) -> str:
        if not self.scores:
            return f"{self.status}: {read_json(self.folder / STATUS).get('message', '')}"
        return headline(Outcome(self.folder, self.status, 0, self.scores))

    def _repr_html_(self) -> str:
        """The scores as a small table, for a notebook."""
        if not self.scores:
            return f"<p>{escape(repr(self))}</p>"
        other, gaps = self.scores["baseline"], self.scores["difference"]
        heads = ["", "fine-tuned", *([other["name"], "difference"] if other else [])]
        rows = []
        for name, found in self.scores["test"].items():
            cells = [shown(found)] + (
                [shown(other["test"][name]), shown(gaps.get(name), "+.3f")] if other else []
            )
            lower = "" if HIGHER_IS_BETTER[name] else " (lower is better)"
            said = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            rows.append(f"<tr><th>{escape(name.replace('_', ' '))}{lower}</th>{said}</tr>")
        top = "".join(f"<th>{escape(head)}</th>" for head in heads)
        n = next(iter(self.scores["test"].values()))["n"]
        return (
            f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>On {n:,} test texts, with 95 % intervals. Report: {escape(str(self.report))}</p>"
        )


def shown(found: dict[str, Any] | None, form: str = ".3f") -> str:
    """A score with its interval; a dash where there is none."""
    if not found or found["value"] is None:
        return "–"
    return f"{round(found['value'], 3) + 0.0:{form}} ({span(found)})"


def finetune(
    frame: pd.DataFrame,
    *,
    text: str,
    label: str,
    kind: str | None = None,
    pair: str = "",
    test: pd.DataFrame | None = None,
    validation: float | pd.DataFrame | None = None,
    weights: str | Path = "all-MiniLM-L6-v2",
    name: str = "",
    out: Path | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    verbose: bool = True,
    **settings: Any,
) -> Tuned:
    """Fine-tune on a DataFrame, test, compare with a baseline, and write the report.

    text, pair, label   names of columns
    kind                what is predicted: "classification", "regression", "multilabel", "tokens". None is
                        classification, and an error where the label column holds numbers or looks like another
    test, validation    DataFrames of their own; else `split` says the shares of `frame` (train, validation, test),
                        or `folds` or `split_column`
    name, out           what the run is called (as the label, if absent), and its folder, if not runs/NAME
    settings            keys of the spec by their names: epochs=3, mask=["email"]; or a table: baseline={"kind": "none"}
    Raises MiniBertError where `minibert run` would end with its message.
    """
    frames = {"source" if test is None else "train": frame, "test": test}
    if isinstance(validation, pd.DataFrame):
        frames["validation"] = validation
    elif validation is not None:
        settings["validation"] = validation
    frames = {key: one for key, one in frames.items() if one is not None}
    named = {key: f"DataFrame ({key}, {len(one):,} rows)" for key, one in frames.items()}
    tables = {key: to_table(one, named[key], text, label, kind) for key, one in frames.items()}
    check_different(tables)
    if kind is None:
        kind = plain_kind(next(iter(tables.values())), text, label)
    found = placed(settings)
    given = found.get("data", {})
    if files := {"source", "train", "test"} & set(given):
        raise ConfigError(
            f"finetune takes DataFrames, not files: leave {', '.join(sorted(files))} out", "Or: minibert run"
        )
    alone = test is None and not any(given.get(key) for key in ("split", "folds", "split_column"))
    found["task"] = {"name": name or re.sub(r"[^\w.-]+", "_", label), "kind": kind, **found.get("task", {})}
    found["data"] = {
        **({"split": list(SPLIT)} if alone else {}),
        **given,
        **named,
        "text": text,
        "label": label,
    }
    found["data"] |= {"pair": pair} if pair else {}
    found["model"] = {"weights": str(weights), **found.get("model", {})}
    task = spec.parse(found, where="finetune")
    folder = Path(out) if out is not None else Path("runs") / task.task.name
    with hushed(not verbose):
        outcome = run(task, folder, overwrite=overwrite, resume=resume, tables=tables)
    return Tuned(outcome.folder, outcome.status, finite(outcome.metrics))


def placed(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings by table and key of the spec. ConfigError for a word that is no key."""
    out: dict[str, dict[str, Any]] = {}
    for word, value in settings.items():
        if word in spec.TABLES and isinstance(value, dict):
            out[word] = {**out.get(word, {}), **{key: plain(one) for key, one in value.items()}}
            continue
        found = spec.keys_called(word)
        if not found:
            known = {key.partition(".")[2] for key in spec.KEYS}
            raise ConfigError(f"finetune: {word!r} is no key of a spec{nearest(word, known)}")
        table, _, key = found[0].partition(".")
        out.setdefault(table, {})[key] = plain(value)
    return out


def to_table(frame: pd.DataFrame, name: str, text: str, label: str, kind: str | None) -> Table:
    """A frame as a table; lists in its text or label column are joined as the kind reads them."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"finetune takes a DataFrame, not a {type(frame).__name__}", "pandas.DataFrame({...})"
        )
    between = BETWEEN.get(kind or "", "")
    for column in {text, label} & set(frame.columns) if between else ():
        frame = frame.assign(**{column: [joined(cell, between) for cell in frame[column]]})
    return from_frame(frame, name)


def joined(cell: Any, between: str) -> Any:
    """The entries of a list as one cell; any other cell as it is."""
    if not isinstance(cell, (list, tuple, set, frozenset)):
        return cell
    entries = [str(one) for one in (sorted(cell) if isinstance(cell, (set, frozenset)) else cell)]
    if bad := [one for one in entries if between in one]:
        raise DataError(f"{bad[0]!r} holds {between!r}, which stands between the entries of a list here")
    return between.join(entries)


def plain_kind(table: Table, text: str, label: str) -> str:
    """classification, where no kind is named; ConfigError if the label column holds numbers, or looks like another."""
    columns = {column.name: column for column in describe(table)}
    if text not in columns or label not in columns:
        return "classification"  # reading the columns says what is wrong
    column = columns[label]
    kind, why = by_looks(column, columns[text], table)
    if kind != "classification" or (column.numbers is not None and column.distinct > 2):
        others = ", ".join(one for one in KINDS if one != kind)
        raise ConfigError(f"finetune: {why}, and no kind is named", f'Say kind="{kind}", or {others}.')
    return kind
