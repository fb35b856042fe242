"""The ladder a fine-tuned model is compared with: a floor, no training at all, words counted, published vectors.

In:  the training and validation Part, and for some methods Vectors and words for the labels.
Out: Fitted: targets (n,) for any texts, in the form of Part's, and probabilities (n, C) where a method has them.

METHODS is the table. Each method learns from the training texts alone and is tuned on validation, ties going
to the candidate listed first; the test part is no argument of anything here. The candidates of "tfidf-svm"
and of ridge are those of baseline.py; the others were written down before any test score was looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import baseline
from ..answers import rows
from ..data import Part
from ..errors import ConfigError, nearest
from ..kinds import each_label, metrics_of
from ..linear import WORDS, Counted, Features, OnFeatures, attempts, counted_attempts
from .features import Rows, Vectors, looks, vader


@dataclass(frozen=True)
class Method:
    """One rung.

    title            for people
    kinds            of task that it fits
    needs            "": texts and labels; "embeddings": vectors; "names": vectors, and labels that are words
    learns           from training texts; else one answer serves every number of them
    is_traditional   needs no published weights and is more than a floor
    """

    title: str
    kinds: tuple[str, ...]
    needs: str = ""
    learns: bool = True
    is_traditional: bool = True


METHODS = {  # in the order of the ladder
    "majority": Method("Most frequent label", ("classification",), is_traditional=False),
    "mean": Method("Mean of the training values", ("regression",), is_traditional=False),
    "frequent": Method("Most frequent tag of each word", ("tokens",), is_traditional=False),
    "zero-shot": Method(
        "Zero-shot from label names", ("classification",), needs="names", learns=False, is_traditional=False
    ),
    "dictionary": Method("Dictionary + ridge", ("regression",)),
    "words": Method("Word features + linear SVM", ("tokens",)),
    "tfidf": Method("TF-IDF + linear SVM a label", ("multilabel",)),
    "tfidf-bayes": Method("TF-IDF + naive Bayes", ("classification",)),
    "tfidf-logistic": Method("TF-IDF + logistic regression", ("classification",)),
    "tfidf-svm": Method("TF-IDF + linear SVM", ("classification",)),
    "tfidf-ridge": Method("TF-IDF + ridge", ("classification", "regression")),
    "frozen": Method(
        "Frozen embeddings + linear head",
        ("classification", "regression", "multilabel"),
        needs="embeddings",
        is_traditional=False,
    ),
}

# Method -> kind -> rows as in baseline.CANDIDATES: model, in how many training texts a word must stand, strengths.
COUNTED = {
    "tfidf-bayes": {
        "classification": (
            ("complement naive Bayes", 2, (0.3, 0.1, 1.0, 0.03)),
            ("naive Bayes", 2, (0.1, 0.03, 0.3, 0.01)),
            ("complement naive Bayes", 1, (0.3, 0.1, 1.0, 0.03)),
        )
    },
    "tfidf-logistic": {"classification": (("logistic regression", 2, (100.0, 10.0, 1.0)),)},
    "tfidf-svm": {
        "classification": tuple(
            row for row in baseline.CANDIDATES["classification"] if row[0] == "linear SVM"
        )
    },
    "tfidf-ridge": {
        "classification": (
            ("ridge classifier", 2, (1.0, 0.3, 3.0, 0.1)),
            ("ridge classifier", 1, (1.0, 0.3, 3.0)),
        ),
        "regression": baseline.CANDIDATES["regression"],
    },
}
# Method -> kind -> model and its strengths, on rows of numbers. Published vectors are of length 1, or of 10 and more.
HEADS = {
    "dictionary": {"regression": ("ridge of scaled features", (1.0, 10.0, 100.0, 0.1, 1000.0))},
    "frozen": {
        "classification": ("logistic regression", (1.0, 10.0, 0.1, 100.0, 0.01)),
        "regression": ("ridge", (1.0, 0.1, 10.0, 0.01, 100.0, 1000.0)),
        "multilabel": ("logistic regression a label", (1.0, 10.0, 0.1, 100.0, 0.01)),
    },
}


@dataclass(frozen=True)
class Fitted:
    """A fitted method.

    settings     what it was given, what was tried and chosen
    validation   every score of the kind on validation; None where undefined
    labels       the columns of its probabilities; () for values
    minutes      what fitting and tuning took, with its share of what methods share counted in full
    model        (texts, pairs) -> targets (n,)
    """

    name: str
    title: str
    settings: dict[str, Any]
    validation: dict[str, float | None]
    labels: tuple[str, ...]
    minutes: float
    model: Callable[..., np.ndarray]

    def answer(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """One answer a text, (n,), as Part.targets has it."""
        return self.model(texts, pairs)

    def probabilities(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray | None:
        """(n, C) by `labels`; None of a method that has none, as an SVM."""
        return self.model.probabilities(texts, pairs) if isinstance(self.model, OnFeatures) else None


class Cache:
    """What the methods of a ladder share: the words of the last parts they were fitted on, the looks of all texts."""

    def __init__(self) -> None:
        self.last: Counted | None = None
        self.looks = Rows(looks)

    def counted(self, train: Part, validation: Part) -> Counted:
        """The words of these parts."""
        if self.last is None or self.last.train is not train or self.last.validation is not validation:
            self.last = Counted(train, validation)
        return self.last


@dataclass(frozen=True)
class Job:
    """What `fit` is asked for."""

    name: str
    kind: str
    train: Part
    validation: Part
    seed: int
    vectors: Vectors | None
    names: Mapping[str, str]
    cache: Cache


@dataclass(frozen=True)
class Ready:
    """A method about to be tuned: what is told of it, the targets it knows, its attempts; seconds of what is shared."""

    about: dict[str, Any]
    known: np.ndarray
    attempts: Iterator[tuple]
    seconds: float


def methods_of(kind: str) -> tuple[str, ...]:
    """The methods for a kind of task, in the order of the ladder."""
    return tuple(name for name, method in METHODS.items() if kind in method.kinds)


def why_not(
    name: str, kind: str, names: Mapping[str, str] | None = None, labels: Collection[str] = ()
) -> str:
    """Why a method can't be had for a task of this kind with these labels, or "". ConfigError for an unknown one.

    names: words for labels, as far as they are given
    """
    if name not in METHODS:
        raise ConfigError(
            f"{name!r} is no method to compare with{nearest(name, METHODS)}",
            f"For {kind} there are {', '.join(methods_of(kind))}.",
        )
    if kind not in METHODS[name].kinds:
        return f"{name} is for {' and '.join(METHODS[name].kinds)}, not for {kind}"
    if strange := sorted(set(names or ()) - set(labels or names or ())):
        return f"names has words for {strange[0]!r}, which is no label{nearest(strange[0], labels)}"
    bare = [label for label in labels if not any(map(str.isalpha, spoken(label, names)))]
    if METHODS[name].needs == "names" and bare:
        return f"{name} reads labels as words, and {bare[0]!r} has none: give it words, names = {{{bare[0]!r} = ...}}"
    return ""


def spoken(label: str, names: Mapping[str, str] | None) -> str:
    """A label in words: those given for it, or itself with spaces for underscores."""
    return (names or {}).get(label) or label.replace("_", " ")


def fit(
    name: str,
    task_kind: str,
    train: Part,
    validation: Part,
    metric: str,
    seed: int = 0,
    *,
    vectors: Vectors | None = None,
    names: Mapping[str, str] | None = None,
    cache: Cache | None = None,
) -> Fitted:
    """Fit a method on the training part and tune it on validation, by `metric` (see baseline.TUNED_ON).

    vectors   for "frozen" and "zero-shot"
    names     label -> words, for "zero-shot": it knows these labels and those of `train`
    cache     one for all methods of a ladder spares counting words again
    ConfigError for a method that doesn't fit the task, DataError for texts that nothing can be learned from.
    """
    job = Job(name, task_kind, train, validation, seed, vectors, names or {}, cache or Cache())
    check(job)
    start, seconds, known = time.perf_counter(), 0.0, train.targets
    if name in WAYS:
        ready = WAYS[name](job)
        start, seconds, known = time.perf_counter(), ready.seconds, ready.known
        about = {"kind": name} | ready.about
        found = baseline.tune(
            METHODS[name].title, about, ready.attempts, task_kind, known, validation, metric
        )
    else:
        found = baseline.fit(name, task_kind, train, validation, metric=metric, seed=seed)
    minutes = (seconds + time.perf_counter() - start) / 60
    labels = tuple(sorted(set(each_label(task_kind, known))))
    guess = found.predict(validation.texts, validation.pairs)
    scores = {
        one: baseline.judge(task_kind, one, known, validation.targets, guess)
        for one in metrics_of(task_kind, labels)
    }
    scores = {one: None if x != x else x for one, x in scores.items()}
    return Fitted(name, METHODS[name].title, found.settings, scores, labels, minutes, found.answer)


def check(job: Job) -> None:
    """Raise what can't be fitted, before anything is computed."""
    known = {*job.names, *each_label(job.kind, job.train.targets)}
    if reason := why_not(job.name, job.kind, job.names, sorted(known)):
        raise ConfigError(reason, f"Choose among {', '.join(methods_of(job.kind))}.")
    method = METHODS[job.name]
    if method.needs and job.vectors is None:
        raise ConfigError(f"{job.name} needs embeddings", "Give vectors = Vectors(weights).")
    if method.needs == "names" and job.train.pairs is not None:
        raise ConfigError(f"{job.name} is for single texts: a label is no second text", "Leave it out.")
    if method.learns or not known:
        baseline.check_texts(job.kind, job.train, labels=job.name in WAYS, words=job.name in COUNTED)


def on_words(job: Job) -> Ready:
    """TF-IDF and its candidates; on all words where none stands in as many texts as they ask for."""
    candidates, counted = COUNTED[job.name][job.kind], job.cache.counted(job.train, job.validation)
    if not any([counted.features(least) for _, least, _ in candidates]):
        candidates = tuple((model, 1, strengths) for model, _, strengths in candidates)
        counted.features(1)
    every = counted_attempts(candidates, counted, job.kind, job.seed)
    seconds = sum(counted.seconds[least] for least in {least for _, least, _ in candidates})
    return Ready({"words": WORDS, "texts": len(job.train)}, job.train.targets, every, seconds)


def on_rows(job: Job, source: Rows, about: dict[str, Any]) -> Ready:
    """A linear head on rows of numbers."""
    parts, (model, strengths) = (job.train, job.validation), HEADS[job.name][job.kind]
    known, unseen = (source.of(part.texts, part.pairs) if len(part) else None for part in parts)
    features = Features(known, unseen, source.of, {"features": known.shape[1]})
    every = attempts(model, strengths, features, job.train.targets, job.kind, job.seed)
    seconds = source.cost([text for part in parts for text in (*part.texts, *(part.pairs or ()))])
    return Ready(about | {"texts": len(job.train)}, job.train.targets, every, seconds)


def on_looks(job: Job) -> Ready:
    """The dictionary."""
    left_out = "; VADER is left out: its package is missing (pip install vaderSentiment)"
    about = {"words": "lengths, marks, VADER's scores" if vader() else f"lengths and marks{left_out}"}
    return on_rows(job, job.cache.looks, about)


def on_vectors(job: Job) -> Ready:
    """Frozen embeddings."""
    return on_rows(job, job.vectors, {"embeddings": job.vectors.settings})


def by_names(job: Job) -> Ready:
    """The label whose words lie nearest to a text. Nothing is learned."""
    labels = sorted({*job.names, *each_label(job.kind, job.train.targets)})
    words = [spoken(label, job.names) for label in labels]

    def answer(texts: list[str], pairs: None = None) -> np.ndarray:
        """(n,) labels."""
        places = job.vectors.cosines(texts, words).argmax(1) if len(texts) else ()
        return rows(labels[i] for i in places)

    guess = answer(job.validation.texts)
    about = {"names": dict(zip(labels, words)), "embeddings": job.vectors.settings, "texts": 0}
    seconds = job.vectors.cost([*job.validation.texts, *(words if len(guess) else ())])
    return Ready(about, rows(labels), iter([({"model": "nearest label"}, answer, guess)]), seconds)


WAYS: dict[str, Callable[[Job], Ready]] = {
    **dict.fromkeys(COUNTED, on_words),
    "dictionary": on_looks,
    "frozen": on_vectors,
    "zero-shot": by_names,
}
