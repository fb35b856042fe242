"""What a finished run writes: scores, predictions, what was in the data, and where it ran.

In:  Fitted models and baselines, one a fold.   Out: the files named in folder.py.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import __version__, baseline, device, kernels, metrics, system
from .data import Part, Splits
from .data.check import audit
from .data.splits import label_order
from .data.tables import free_name, write_rows
from .fit import Fitted, class_numbers, decide
from .folder import RunFolder
from .model import Model, columns
from .spec import TaskSpec

VERSIONS = ("torch", "tokenizers", "safetensors", "numpy", "pandas", "scikit-learn", "matplotlib")


def write_scores(
    task: TaskSpec, fits: list[Fitted], others: list[baseline.Fitted | None], folder: RunFolder
) -> dict[str, Any]:
    """metrics.json, predictions.csv and baseline.csv; the test texts of all folds together."""
    labels = label_order(np.concatenate([f.splits.labels for f in fits])) if fits[0].splits.labels else ()
    kind, count = task.task.kind, len(labels) or None
    truth = np.concatenate([class_numbers(f.splits.test, labels) for f in fits])
    found = np.concatenate([aligned(f, labels) for f in fits])
    ours = decide(found)
    options = {"num_classes": count, "seed": task.train.seed}
    out: dict[str, Any] = {
        "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, ours, **options).items()},
        "validation": fits[0].validation,
        "baseline": None,
        "difference": {},
    }
    if labels:
        out["labels"] = list(labels)
        out["classes"] = metrics.per_class(truth, ours, labels)
        out["confusion"] = metrics.confusion(truth, ours, len(labels))
    write_table(folder.path / "predictions.csv", prediction_table(fits, labels, found))
    if others and others[0] is not None:
        theirs = np.concatenate([answers_of(other, f.splits.test, labels) for other, f in zip(others, fits)])
        out["baseline"] = {
            "name": " / ".join(dict.fromkeys(o.name for o in others)),
            "settings": others[0].settings,
            "validation": others[0].validation,
            "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, theirs, **options).items()},
        }
        out["difference"] = metrics.difference(kind, truth, ours, theirs, **options)
        rows = np.concatenate([f.splits.test.rows for f in fits])
        words = np.array(labels, dtype=object)[theirs] if labels else theirs
        write_table(
            folder.path / "baseline.csv",
            pd.DataFrame({"row_id": rows, "label" if labels else "value": words}),
        )
    folder.json("metrics.json", out)
    return out


def aligned(fitted: Fitted, labels: tuple[str, ...]) -> np.ndarray:
    """Test probabilities (n, C) in the order of `labels`: a fold may not know a rare class. Values as they are."""
    if not labels:
        return fitted.test
    out = np.zeros((len(fitted.test), len(labels)))
    out[:, [labels.index(label) for label in fitted.splits.labels]] = fitted.test
    return out


def answers_of(other: baseline.Fitted, part: Part, labels: tuple[str, ...]) -> np.ndarray:
    """A baseline's predictions as class numbers (n,) or values (n,)."""
    found = other.predict(part.texts, part.pairs)
    if not labels:
        return np.asarray(found, dtype=np.float64)
    known = {label: i for i, label in enumerate(labels)}
    return np.array([known[w] for w in found], dtype=np.int64)


def prediction_table(fits: list[Fitted], labels: tuple[str, ...], found: np.ndarray) -> pd.DataFrame:
    """predictions.csv: row_id, the input's columns, what was predicted, tokens, truncated."""
    parts = [f.splits.test for f in fits]
    inputs = pd.concat([p.table.frame.iloc[p.rows] for p in parts])
    tokens = np.concatenate([f.encoded["test"].tokens for f in fits])
    cut = np.concatenate([f.encoded["test"].cut > 0 for f in fits])
    added = columns(labels, found) | {"tokens": tokens, "truncated": cut}
    rows = pd.DataFrame({"row_id": np.concatenate([p.rows for p in parts])})
    return beside(rows, inputs.reset_index(drop=True), added)


def beside(rows: pd.DataFrame, inputs: pd.DataFrame, added: dict[str, np.ndarray]) -> pd.DataFrame:
    """Columns side by side; a column of ours that the input already has is called predicted_..."""
    ours = pd.DataFrame({free_name(k, inputs.columns): v for k, v in added.items()})
    rows = rows.rename(columns=lambda name: free_name(name, inputs.columns))
    return pd.concat([rows, inputs, ours], axis=1)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A CSV file, all or nothing; true and false in lower case as in JSON."""
    table = table.replace({True: "true", False: "false"}) if "truncated" in table else table
    with system.replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        write_rows(table, file)


def describe_data(task: TaskSpec, fitted: Fitted, splits: list[Splits]) -> dict[str, Any]:
    """data.json: rows, labels, lengths and what was cut in each part; notes; what the check found."""
    parts = {}
    for part in (fitted.splits.train, fitted.splits.validation, fitted.splits.test):
        counts = dict(zip(*(x.tolist() for x in np.unique(part.targets.astype(str), return_counts=True))))
        facts = fitted.encoded[part.name].summary()
        parts[part.name] = {"rows": len(part), "labels": counts if fitted.splits.labels else {}, **facts}
    return {
        "parts": parts,
        "notes": list(fitted.splits.notes)
        + ([f"{len(splits)} folds; the counts are the first's"] if len(splits) > 1 else []),
        "findings": audit(fitted.splits).as_dict()["findings"],
        "text_column": task.data.text,
        "label_column": task.data.label,
    }


def environment(task: TaskSpec, model: Model, started: str, minutes: float) -> dict[str, Any]:
    """environment.json: what ran where, with which versions, seeds, weights and kernel."""
    dropped = model.config.attention_dropout > 0
    number, autocast = device.precision(task.train.dtype, model.device)
    chosen = kernels.choose(
        task.model.kernel, device=model.device.type, dtype=autocast or number, dropout=dropped, gradients=True
    )
    source = model.report.source
    return {
        "minibert": __version__,
        "python": sys.version.split()[0],
        **device.describe(model.device),
        "dtype": str(autocast or number).removeprefix("torch."),  # of training
        "evaluation_dtype": str(number).removeprefix("torch."),
        "kernel": chosen.name,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "seeds": {**task.train.seeds, "bootstrap": task.train.seed},
        "started": started,
        "minutes": minutes,
        "weights": {
            "name": task.model.weights,
            "source": source,
            "sha256": hashes(Path(source)),
            "report": str(model.report),
        },
    }


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every safetensors file of a folder."""
    return {p.name: system.sha256(p) for p in sorted(folder.glob("*.safetensors"))}
