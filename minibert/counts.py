"""Counts of right, true and said labels, text by text, and the ratios that scores of many labels are.

In:  truth and predicted of n texts: (n, C) bool (several labels a text), or n tuples of tags (words).
Out: Counts, (n, C) each; ratios of their sums as functions of weights (R, n), for metrics.py to resample.

Entities are read off tags as the CoNLL script `conlleval` reads them, and one is right if its first word,
its last word and its type are. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

Tags = tuple[str, ...]  # of the words of a text
Weighted = Callable[[np.ndarray], np.ndarray]  # weights (R, n) -> (R,)
RATES = ("precision", "recall", "f1")


class Counts(NamedTuple):
    """How often each text has each label: rightly said, in truth, said. (n, C) float64 each."""

    right: np.ndarray
    true: np.ndarray
    said: np.ndarray


def label_counts(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str] = ()) -> Counts:
    """By column of (n, C) bool."""
    return Counts(*(x.astype(float) for x in (truth & predicted, truth, predicted)))


def tag_counts(truth: Sequence[Tags], predicted: Sequence[Tags], labels: Sequence[str] = ()) -> Counts:
    """Words by tag; without `labels` all tags that occur."""
    marked = [[list(enumerate(tags)) for tags in texts] for texts in (truth, predicted)]
    return counted(*marked, labels)


def type_counts(truth: Sequence[Tags], predicted: Sequence[Tags], labels: Sequence[str] = ()) -> Counts:
    """Entities by type; without `labels` all types that occur."""
    return counted(*([spans(tags) for tags in texts] for texts in (truth, predicted)), labels)


COUNTS: dict[str, Callable[..., Counts]] = {
    "multilabel": label_counts,
    "tags": tag_counts,
    "entities": type_counts,
}


def spans(tags: Iterable[str]) -> list[tuple[int, int, str]]:
    """The entities that IOB2 tags mark: (first word, word after the last, type), in their order.

    B-X begins one; so does I-X after anything but B-X and I-X, as in `conlleval`. Other tags are outside.
    """
    found: list[tuple[int, int, str]] = []
    inside: str | None = None  # the type of the entity that the word before belongs to
    for place, tag in enumerate(tags):
        mark, name = (tag[0], tag[2:]) if tag[:2] in ("B-", "I-") else ("", None)
        if mark == "I" and name == inside:
            found[-1] = (found[-1][0], place + 1, name)
        elif mark:
            found.append((place, place + 1, name))
        inside = name
    return found


def counted(truth: list[list[tuple]], said: list[list[tuple]], labels: Sequence[str]) -> Counts:
    """Marks of each text, such as (word, tag) or (first, last, type), counted by the name they end with."""
    names = labels or sorted({mark[-1] for marks in (*truth, *said) for mark in marks})
    place = {name: i for i, name in enumerate(names)}
    out = Counts(*(np.zeros((len(truth), len(names))) for _ in Counts._fields))
    for row, (true, answer) in enumerate(zip(truth, said)):
        for counts, marks in zip(out, (set(true) & set(answer), true, answer)):
            for mark in marks:
                if mark[-1] in place:
                    counts[row, place[mark[-1]]] += 1
    return out


def rates(counts: Counts, which: str) -> Weighted:
    """Precision, recall or F1 of each column: weights (R, n) -> (R, C). What has nothing below the line is 0."""
    below = {"precision": counts.said, "recall": counts.true, "f1": (counts.said + counts.true) / 2}[which]

    def of(weights: np.ndarray) -> np.ndarray:
        right, whole = weights @ counts.right, weights @ below  # (R, C)
        return np.divide(right, whole, out=np.zeros_like(right), where=whole > 0)

    return of


def micro(counts: Counts, which: str) -> Weighted:
    """A rate over all labels together: weights (R, n) -> (R,)."""
    of = rates(Counts(*(x.sum(axis=1, keepdims=True) for x in counts)), which)
    return lambda weights: of(weights)[:, 0]


def macro(counts: Counts, seen_only: bool = False) -> Weighted:
    """The mean F1 of the labels: of all, or of those that occur in what was drawn. Weights (R, n) -> (R,)."""
    of, seen = rates(counts, "f1"), counts.true + counts.said
    if not seen_only:
        return lambda weights: of(weights).mean(axis=1)
    return lambda weights: of(weights).sum(axis=1) / np.maximum((weights @ seen > 0).sum(axis=1), 1)
