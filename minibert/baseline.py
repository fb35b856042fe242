"""Traditional models to compare with, fitted on the same training texts: TF-IDF, mean, majority; taggers.

In:  the training and validation Part.   Out: Fitted, whose predict gives targets (n,) in the form of Part's.

"tfidf" counts words and pairs of neighbouring words and fits linear models to them; where a text may have
several labels, one for each label. "words" and "frequent" tag words: see taggers.py. What "tfidf" may
choose from is written below, in CANDIDATES; validation chooses, ties go to the one listed first, and
no text but the training ones is fitted.

The candidates and their order are not blind: they were settled in trials that looked at test scores of
Reuters R8, 20 newsgroups, bill titles, tweets and the worry texts (those of multilabel and of taggers.py
were written down before any test was looked at). With few validation texts ties are
common, so there the order often decides. On those data the baseline is, if anything, flattered.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import metrics, taggers
from .answers import all_labels, rows, scored
from .data import Part
from .errors import ConfigError, DataError, nearest
from .kinds import KINDS, each_label, words_of
from .linear import WORD, WORDS, Counted, counted_attempts, joined

# model, in how many training texts a word must stand, C (ridge: alpha): tried in this order.
# Logistic regression is not tried on all words: slow there, and never ahead of the SVM in the trials.
CANDIDATES = {
    "classification": (
        ("linear SVM", 2, (3.0, 1.0, 10.0, 0.3, 0.1)),
        ("logistic regression", 2, (100.0, 10.0)),
        ("linear SVM", 1, (3.0, 1.0, 10.0)),
    ),
    "regression": (
        ("ridge", 1, (1.0, 0.3, 3.0, 0.1, 10.0, 30.0)),
        ("ridge", 2, (1.0, 0.3, 3.0, 0.1, 10.0, 30.0)),
    ),
    "multilabel": (  # a rare label is found by few SVMs that weigh all texts alike
        ("linear SVM a label", 2, (1.0, 3.0, 0.3)),
        ("balanced linear SVM a label", 2, (0.3, 0.1, 1.0)),
        ("linear SVM a label", 1, (1.0, 3.0, 0.3)),
    ),
}

# A correlation is blind to scale: tuned on it, ridge shrinks its values and loses in RMSE and MAE.
TUNED_ON = {"pearson": "rmse", "spearman": "rmse"}

Answer = Callable[..., np.ndarray]  # (texts, pairs or None) -> targets (n,)


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline: its name, what was tried and chosen, and its score on validation."""

    name: str
    settings: dict[str, Any]
    validation: float
    answer: Answer

    def predict(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """One answer a text, (n,), as Part.targets has it."""
        return self.answer(texts, pairs)


def fit(kind: str, task_kind: str, train: Part, validation: Part, *, metric: str, seed: int = 0) -> Fitted:
    """Fit baseline `kind` for a task's kind: one of its KINDS[task_kind].baselines.

    `metric` is one of metrics.METRICS[task_kind]. DataError for texts or labels that nothing can be
    learned from, ConfigError for a kind that the task doesn't have.
    """
    check(kind, task_kind, train)
    if kind in TUNED:
        name, about, attempts = TUNED[kind]
        every = attempts(task_kind, train, validation, seed)
        about = {"kind": kind, "words": about, "texts": len(train)}
        return tune(name, about, every, task_kind, train.targets, validation, metric)
    name, told, answer = FIXED[kind](train)
    settings = {"kind": kind, **told, "texts": len(train)}
    guess = answer(validation.texts, validation.pairs)
    return Fitted(name, settings, judge(task_kind, metric, train.targets, validation.targets, guess), answer)


def majority(train: Part) -> tuple:
    """(name, settings, answer): the label that most training texts have."""
    constant = taggers.first(Counter(train.targets))
    answer = lambda texts, pairs=None: np.full(len(texts), constant, object)  # noqa: E731
    return "most frequent label", {"answer": constant}, answer


def mean(train: Part) -> tuple:
    """(name, settings, answer): the mean of the training values."""
    constant = float(np.mean(train.targets))
    answer = lambda texts, pairs=None: np.full(len(texts), constant)  # noqa: E731
    return "mean of the training values", {"answer": constant}, answer


def frequent(train: Part) -> tuple:
    """(name, settings, answer): the tag that each word had most often."""
    tag = taggers.most_frequent([words_of(text) for text in train.texts], train.targets)
    return "most frequent tag of each word", {}, functools.partial(answer_words, tag)


FIXED: dict[str, Callable[[Part], tuple]] = {"majority": majority, "mean": mean, "frequent": frequent}


def check(kind: str, task_kind: str, train: Part) -> None:
    """Raise what `fit` would for these training texts, in no time: so that a run can ask before it trains."""
    kinds = KINDS[task_kind].baselines
    if kind not in kinds:
        raise ConfigError(
            f"[baseline] kind = {kind!r} is no baseline for {task_kind}{nearest(kind, kinds)}",
            f"Choose {' or '.join(kinds)}, or none.",
        )
    check_texts(task_kind, train, labels=kind == "tfidf", words=kind == "tfidf")


def check_texts(task_kind: str, train: Part, *, labels: bool, words: bool) -> None:
    """DataError for training texts that are none; that have one label, or no words, where these are needed."""
    if len(train) == 0:
        raise DataError("the baseline has no training texts", "Check the [data] table of the spec.")
    if labels and task_kind == "classification" and len(set(train.targets)) < 2:
        raise DataError(
            f"all {len(train)} training texts have the label {train.targets[0]!r}: a baseline needs two labels",
            "Check [data] label in the spec, or leave the baseline out: [baseline] kind = 'none'.",
        )
    if words and not any(re.search(WORD, text) for text in joined(train.texts, train.pairs, " ")):
        raise DataError(
            f"the baseline finds no words in the {len(train)} training texts: a word is two or more "
            "letters or digits",
            "Check [data] text in the spec, or leave the baseline out: [baseline] kind = 'none'.",
        )


def tune(
    name: str,
    about: dict[str, Any],
    attempts: Iterator[tuple],
    task_kind: str,
    known: np.ndarray,
    validation: Part,
    metric: str,
) -> Fitted:
    """The best of the attempts on validation, each fitted on the training texts alone.

    attempts: of each candidate its facts, its answer to texts, its answers on validation (n,)
    known: the targets of training, whose labels are those that can be said
    """
    tuned_on = TUNED_ON.get(metric, metric)
    best: tuple = ()
    tried = []
    for facts, answer, guess in attempts:
        scored = {
            name: judge(task_kind, name, known, validation.targets, guess) for name in (tuned_on, metric)
        }
        tried.append(facts | {name: None if x != x else x for name, x in scored.items()})
        if not best or metrics.better(tuned_on, scored[tuned_on], best[0]):
            best = (scored[tuned_on], scored[metric], facts, answer)
    _, reached, chosen, answer = best
    settings = about | {"tuned_on": tuned_on, "chosen": chosen, "tried": tried}
    return Fitted(f"{name} + {chosen['model']}", settings, reached, answer)


def tfidf_attempts(task_kind: str, train: Part, validation: Part, seed: int) -> Iterator[tuple]:
    """Every candidate on words, fitted."""
    return counted_attempts(CANDIDATES[task_kind], Counted(train, validation), task_kind, seed)


def word_attempts(task_kind: str, train: Part, validation: Part, seed: int) -> Iterator[tuple]:
    """The same for taggers of words."""
    texts, unseen = ([words_of(text) for text in part.texts] for part in (train, validation))
    for facts, tag in taggers.attempts(texts, train.targets, seed):
        answer = functools.partial(answer_words, tag)
        yield facts, answer, rows(tag(unseen))


def answer_words(tag: taggers.Tagger, texts: list[str], pairs: None = None) -> np.ndarray:
    """What a tagger says of the words of texts, n tuples."""
    return rows(tag([words_of(text) for text in texts]))


# a baseline that validation tunes: its name, what it counts, its candidates
TUNED: dict[str, tuple[str, str, Callable[..., Iterator[tuple]]]] = {
    "tfidf": ("TF-IDF", WORDS, tfidf_attempts),
    "words": ("Word features", "the word, its ends and shape, its neighbours, its place", word_attempts),
}


def judge(task_kind: str, metric: str, known: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> float:
    """The metric on validation; labels that the training targets lack count as wrong. NaN if undefined."""
    labels = sorted(set(each_label(task_kind, known)))
    names = all_labels(task_kind, labels, truth) if KINDS[task_kind].none else labels
    pair = [scored(task_kind, one, names) for one in (truth, guess)]
    return metrics.value(metric, *pair, len(labels) or None, task_kind)
