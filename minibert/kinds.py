"""The kinds of task that a run can do, as one table: what a label cell holds, and what follows from it.

In:  a kind's name, as in [task] kind.   Out: its Kind, which spec, data, fit, results and report look things up in.

What is a function and differs by kind stands where it is used, in a dict with these names as keys.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

WORD = re.compile(r"[^ \t\r\n]+")  # between plain spaces: a no-break space belongs to its word
ENTITY = ("B-", "I-")  # how a tag of IOB2 begins that is not O
OTHERS = ("S-", "E-", "L-", "U-")  # ... and one of BIOES and BILOU, which are counted in another way


@dataclass(frozen=True)
class Kind:
    """What is predicted of a text, and what that means for data, scores and files."""

    name: str  # for people: "a NAME"
    about: str  # in a sentence: "predict LABEL, ..."
    metrics: tuple[str, ...]  # as the report shows them
    chosen: tuple[str, ...]  # picks the best epoch: the first that can be computed
    baselines: tuple[str, ...]  # the first is the default
    labels: bool = True  # answers are labels known from training; else numbers
    many: bool = False  # a cell holds several labels
    words: bool = False  # ... and exactly one for each word of the text
    none: bool = False  # an empty cell is an answer: no label
    stratified: bool = False  # rows are drawn in the proportions of the labels
    weighted: bool = False  # [train] class_weights can be set
    unseen: str = "error"  # test labels that train lacks, where [data] unseen is not set

    @property
    def column(self) -> str:
        """What the answer's column is called in predictions.csv."""
        return "label" if self.labels else "value"


KINDS = {
    "classification": Kind(
        name="classification",
        about="one of {} labels",
        metrics=("accuracy", "macro_f1"),
        chosen=("macro_f1",),
        baselines=("tfidf", "majority"),
        stratified=True,
        weighted=True,
    ),
    "regression": Kind(
        name="regression",
        about="a number",
        metrics=("pearson", "spearman", "rmse", "mae", "r2"),
        chosen=("pearson",),
        baselines=("tfidf", "mean"),
        labels=False,
    ),
    "multilabel": Kind(
        name="multi-label classification",
        about="any of {} labels, or none",
        metrics=("micro_f1", "macro_f1", "exact"),
        chosen=("micro_f1",),
        baselines=("tfidf",),
        many=True,
        none=True,
        unseen="wrong",
    ),
    "tokens": Kind(
        name="tagging of words",
        about="one of {} tags for each word",
        metrics=("entity_f1", "entity_precision", "entity_recall", "accuracy", "macro_f1"),
        chosen=("entity_f1", "accuracy"),
        baselines=("words", "frequent"),
        many=True,
        words=True,
        weighted=True,
        unseen="wrong",
    ),
}
OF_ENTITIES = ("entity_f1", "entity_precision", "entity_recall")


def has_entities(labels: Iterable[str]) -> bool:
    """Whether tags mark entities (B-person, I-person), not words alone (NOUN)."""
    return any(label.startswith(ENTITY) for label in labels)


def metrics_of(kind: str, labels: Collection[str]) -> tuple[str, ...]:
    """The metrics of a kind that these labels allow: entities need tags that mark them."""
    left = () if has_entities(labels) else OF_ENTITIES
    return tuple(name for name in KINDS[kind].metrics if name not in left)


def words_of(text: str) -> list[str]:
    """The words of a text, and the tags of a cell: what stands between spaces. A no-break space is no border."""
    return WORD.findall(text)


def each_label(kind: str, targets: Iterable[Any]) -> Iterable[str]:
    """Every label of every target, one after the other; nothing where targets are numbers."""
    if not KINDS[kind].labels:
        return ()
    return (label for target in targets for label in target) if KINDS[kind].many else targets
