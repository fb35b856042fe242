"""What a model's numbers and a cell's labels mean to each other, by kind.

    cells -> targets -> what a head learns from (wanted), what metrics take (scored)
    what a head predicts (found) -> the same form as targets (said) -> cells (written)

Targets have the form that data.Part gives them: (n,) label strings, values, tuples of labels, tuples of
tags. `found` is what Model.answer_table gives: (n, C) probabilities, (n,) values, or, of tokens, (words, C)
with the texts one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .kinds import KINDS, each_label, has_entities

Labels = Sequence[str]
LEAST = 0.5  # probability from which a text is said to have a label, where it may have several


def class_numbers(targets: Sequence[str], labels: Labels) -> np.ndarray:
    """(n,) int64 places in `labels`; -1 for a label that is not there."""
    known = {label: i for i, label in enumerate(labels)}
    return np.array([known.get(target, -1) for target in targets], dtype=np.int64)


def indicator(targets: Sequence[tuple[str, ...]], labels: Labels) -> np.ndarray:
    """(n, C) bool: which of `labels` each text has; others are passed over."""
    known = {label: i for i, label in enumerate(labels)}
    out = np.zeros((len(targets), len(labels)), bool)
    for row, target in enumerate(targets):
        out[row, [known[label] for label in target if label in known]] = True
    return out


def tag_numbers(targets: Sequence[tuple[str, ...]], labels: Labels) -> np.ndarray:
    """n arrays of class numbers, one number a word."""
    return rows(class_numbers(tags, labels) for tags in targets)


def rows(items: Any) -> np.ndarray:
    """(n,) object array of n tuples or arrays, which NumPy alone would take for a rectangle."""
    items = list(items)
    return np.fromiter(items, object, len(items))


def values(targets: Sequence[float], labels: Labels = ()) -> np.ndarray:
    """(n,) float64."""
    return np.asarray(targets, dtype=np.float64)


def wanted(kind: str, targets: np.ndarray, labels: Labels) -> np.ndarray:
    """What the kind's head learns from, an entry a text: numbers, values, (n, C) float, arrays of numbers."""
    return WANTED[kind](targets, labels)


WANTED: dict[str, Callable[..., np.ndarray]] = {
    "classification": class_numbers,
    "regression": values,
    "multilabel": lambda targets, labels: indicator(targets, labels).astype(np.float64),
    "tokens": tag_numbers,
}


def scored(kind: str, targets: np.ndarray, labels: Labels) -> Any:
    """What metrics.py takes. Several labels a text: `labels` should be those of `all_labels`."""
    return SCORED[kind](targets, labels)


SCORED: dict[str, Callable[..., Any]] = {
    "classification": class_numbers,
    "regression": values,
    "multilabel": indicator,
    "tokens": lambda targets, labels: list(targets),
}


def all_labels(kind: str, labels: Labels, targets: np.ndarray) -> tuple[str, ...]:
    """The labels that a model knows, and behind them those of the targets that it doesn't."""
    return (*labels, *sorted(set(each_label(kind, targets)) - set(labels)))


def types(labels: Labels) -> tuple[str, ...]:
    """The types of entity that tags name: B-person and I-person give person."""
    return tuple(sorted({label[2:] for label in labels if has_entities([label])}))


def said(kind: str, found: np.ndarray, labels: Labels, words: np.ndarray | None = None) -> np.ndarray:
    """What a head predicts as targets (n,). `words` (n,): how many words each text has, for tokens."""
    return SAID[kind](found, labels, words)


def most_probable(found: np.ndarray, labels: Labels, words: Any = None) -> np.ndarray:
    """Probabilities (n, C) to label strings (n,)."""
    names = np.fromiter(labels, object, len(labels))
    return names[found.argmax(-1)] if len(found) else names[:0]


def probable(found: np.ndarray, labels: Labels, words: Any = None) -> np.ndarray:
    """Probabilities (n, C) to the labels that are more likely than not, n tuples."""
    return rows(tuple(label for label, p in zip(labels, row) if p >= LEAST) for row in found)


def tagged(found: np.ndarray, labels: Labels, words: np.ndarray) -> np.ndarray:
    """Probabilities (words, C) to n tuples of tags."""
    parts = np.split(most_probable(found, labels), np.cumsum(words)[:-1]) if len(words) else []
    return rows(tuple(part) for part in parts)


SAID: dict[str, Callable[..., np.ndarray]] = {
    "classification": most_probable,
    "regression": lambda found, labels, words: found,
    "multilabel": probable,
    "tokens": tagged,
}


def written(kind: str, targets: np.ndarray, separator: str = ",") -> np.ndarray:
    """Targets as cells: several labels with the separator between them, tags with a space."""
    if not KINDS[kind].many:
        return targets
    between = " " if KINDS[kind].words else separator
    return rows(between.join(target) for target in targets)


def columns(
    kind: str, found: np.ndarray, labels: Labels, words: np.ndarray | None = None, separator: str = ","
) -> dict[str, np.ndarray]:
    """The columns of a table of answers: label or value, and a probability of each label, or the words."""
    answer = {KINDS[kind].column: written(kind, said(kind, found, labels, words), separator)}
    if KINDS[kind].words:
        return answer | {"words": words}
    return answer | {f"probability_{label}": found[:, i] for i, label in enumerate(labels)}


def loss(kind: str, found: np.ndarray, targets: np.ndarray, labels: Labels, deviation: float = 1.0) -> float:
    """The mean loss of predictions, as the head's own loss counts it; NaN where no target is known."""
    return LOSS[kind](found, wanted(kind, targets, labels), deviation)


def cross_entropy(found: np.ndarray, numbers: np.ndarray, deviation: float) -> float:
    """Of the texts (or words) whose label is known."""
    known = numbers >= 0
    picked = found[known, numbers[known]]
    return float(-np.log(np.maximum(picked, 1e-30)).mean()) if len(picked) else float("nan")


def binary_cross_entropy(found: np.ndarray, has: np.ndarray, deviation: float) -> float:
    """Of every text and label."""
    right = np.where(has > 0, found, 1 - found)
    return float(-np.log(np.maximum(right, 1e-30)).mean()) if right.size else float("nan")


LOSS: dict[str, Callable[..., float]] = {
    "classification": cross_entropy,
    "regression": lambda found, true, deviation: float(np.mean(((found - true) / deviation) ** 2)),
    "multilabel": binary_cross_entropy,
    "tokens": lambda found, numbers, _: cross_entropy(
        found, np.concatenate([*numbers, np.zeros(0, int)]), 1.0
    ),
}
