"""The tables that a study leaves beside its page: summary.csv, a line a run and method, and predictions.csv.

In:  everything scored (scores.Scored).   Out: files.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import answers, system
from ..results import beside, write_table
from . import store

HEAD = (
    "contestant",
    "labelled_texts",
    "split",
    "seed",
    "metric",
    "validation",
    "test",
    "learned_from",
    "minutes",
)


def summary(s: Any) -> None:
    """summary.csv: every run and every method, with its scores on validation and test."""
    with (
        system.replacing(s.out / "summary.csv") as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerows(lines(s))


def lines(s: Any) -> list[list[Any]]:
    """A line a run and metric."""
    out = []
    for name in s.everyone:
        for cell in s.plan.cells():
            one, facts = s.replicate(name, cell), s.fact(name, cell)
            for metric in s.metrics if one else ():
                tested = s.value(metric, one)
                out.append([name, cell.size, cell.split, cell.seed, metric, facts["validation"].get(metric), tested,
                            facts.get("learned_from"), facts.get("minutes")])  # fmt: skip
    return out


def predictions(s: Any, folder: Path) -> None:
    """predictions.csv: what the run in `folder` answered to its test texts, beside the table's own columns."""
    cell = next(cell for cell in s.plan.cells() if folder.as_posix().endswith(cell.folder))
    part, labels = s.test(cell), tuple(store.facts_of(folder)["labels"])
    name = next(name for name, place in s.everyone.items() if folder.is_relative_to(s.out / place))
    said = s.said(name, cell)
    added: dict[str, np.ndarray] = {}
    if said.probabilities is not None or s.kind == "tokens":
        raw = store.array(folder, "test")
        words = np.array([len(t) for t in said.targets]) if s.kind == "tokens" else None
        added = answers.columns(s.kind, raw, labels, words, s.plan.task.data.label_separator)
    else:
        added = {"value": said.targets}
    rows = pd.DataFrame({"row_id": part.rows})
    inputs = part.table.frame.iloc[part.rows].reset_index(drop=True)
    if not s.plan.task.data.keep_texts:
        inputs = inputs[[s.plan.task.data.label]]
    write_table(s.out / "predictions.csv", beside(rows, inputs, added))
