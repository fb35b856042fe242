"""Traditional models to compare with, fitted on the same training texts: TF-IDF, mean, majority.

In:  the training and validation Part.   Out: Fitted, whose predict gives labels (n,) or values (n,).

"tfidf" counts words and pairs of neighbouring words and fits linear models to them. What it may
choose from is written below, in CANDIDATES; validation chooses, ties go to the one listed first, and
no text but the training ones is fitted.

The candidates and their order are not blind: they were settled in trials that looked at test scores of
Reuters R8, 20 newsgroups, bill titles, tweets and the worry texts. With few validation texts ties are
common, so there the order often decides. On those data the baseline is, if anything, flattered.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from . import metrics
from .data import Part
from .errors import ConfigError, DataError, nearest

# A word is two or more letters or digits, as in scikit-learn; Chinese and Japanese, which are
# written without spaces, are counted by the character, so that pairs of characters make the words.
WORD = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{2,}"
BETWEEN = " xxpairxx "  # stands between the two texts of a pair, as a word of its own

MODELS: dict[str, Callable[[float, int], Any]] = {
    "linear SVM": lambda c, seed: LinearSVC(C=c, random_state=seed, max_iter=5000),
    "logistic regression": lambda c, seed: LogisticRegression(C=c, max_iter=1000),
    "ridge": lambda alpha, seed: Ridge(alpha=alpha, random_state=seed),
}

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
}
STRENGTH = {"linear SVM": "C", "logistic regression": "C", "ridge": "alpha"}

# A correlation is blind to scale: tuned on it, ridge shrinks its values and loses in RMSE and MAE.
TUNED_ON = {"pearson": "rmse", "spearman": "rmse"}


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline: its name, what was tried and chosen, and its score on validation."""

    name: str
    settings: dict[str, Any]
    validation: float
    answer: Callable[[list[str]], np.ndarray]

    def predict(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """One answer a text, (n,): label strings (object) or float64."""
        return self.answer(joined(texts, pairs))


def fit(kind: str, task_kind: str, train: Part, validation: Part, *, metric: str, seed: int = 0) -> Fitted:
    """Fit baseline `kind` ("tfidf", "mean", "majority") for a task ("classification", "regression").

    `metric` is one of metrics.METRICS[task_kind]. DataError for texts or labels that nothing can be
    learned from, ConfigError for a kind that the task doesn't have.
    """
    check(kind, task_kind, train)
    if kind == "tfidf":
        return fit_tfidf(task_kind, train, validation, metric, seed)
    constant = commonest(train.targets) if kind == "majority" else float(np.mean(train.targets))
    dtype = object if kind == "majority" else np.float64
    name = "most frequent label" if kind == "majority" else "mean of the training values"
    settings = {"kind": kind, "answer": constant, "texts": len(train)}
    guess = np.full(len(validation), constant, dtype)
    return Fitted(
        name,
        settings,
        judge(metric, train.targets, validation.targets, guess),
        lambda texts: np.full(len(texts), constant, dtype),
    )


def check(kind: str, task_kind: str, train: Part) -> None:
    """Raise what `fit` would for these training texts, in no time: so that a run can ask before it trains."""
    kinds = ("tfidf", "majority" if task_kind == "classification" else "mean")
    if kind not in kinds:
        raise ConfigError(
            f"[baseline] kind = {kind!r} is no baseline for {task_kind}{nearest(kind, kinds)}",
            f"Choose {' or '.join(kinds)}, or none.",
        )
    if len(train) == 0:
        raise DataError("the baseline has no training texts", "Check the [data] table of the spec.")
    if kind != "tfidf":
        return
    if task_kind == "classification" and len(set(train.targets)) < 2:
        raise DataError(
            f"all {len(train)} training texts have the label {train.targets[0]!r}: a baseline needs two labels",
            "Check [data] label in the spec, or leave the baseline out: [baseline] kind = 'none'.",
        )
    if not any(re.search(WORD, text) for text in joined(train.texts, train.pairs, " ")):
        raise DataError(
            f"the baseline finds no words in the {len(train)} training texts: a word is two or more "
            "letters or digits",
            "Check [data] text in the spec, or leave the baseline out: [baseline] kind = 'none'.",
        )


def fit_tfidf(task_kind: str, train: Part, validation: Part, metric: str, seed: int) -> Fitted:
    """The best of CANDIDATES on validation, each fitted on the training texts alone."""
    tuned_on = TUNED_ON.get(metric, metric)
    best: tuple = ()
    tried = []
    for facts, vectorizer, model, guess in attempts(task_kind, train, validation, seed):
        scored = {name: judge(name, train.targets, validation.targets, guess) for name in (tuned_on, metric)}
        tried.append(facts | {name: None if x != x else x for name, x in scored.items()})
        if not best or metrics.better(tuned_on, scored[tuned_on], best[0]):
            best = (scored[tuned_on], scored[metric], facts, vectorizer, model)
    _, reached, chosen, vectorizer, model = best
    settings = {
        "kind": "tfidf",
        "words": "single words and pairs of neighbours, lower case, sublinear TF",
        "texts": len(train),
        "tuned_on": tuned_on,
        "chosen": chosen,
        "tried": tried,
    }
    dtype = object if task_kind == "classification" else np.float64
    return Fitted(
        f"TF-IDF + {chosen['model']}",
        settings,
        reached,
        lambda texts: (
            model.predict(vectorizer.transform(texts)).astype(dtype) if texts else np.empty(0, dtype)
        ),
    )


def attempts(task_kind: str, train: Part, validation: Part, seed: int) -> Iterator[tuple]:
    """Every candidate fitted: (its facts, vectorizer, model, its answers on validation (n,))."""
    texts = joined(train.texts, train.pairs)
    unseen = joined(validation.texts, validation.pairs)
    features: dict[int, tuple] = {}
    for name, least, strengths in CANDIDATES[task_kind]:
        if least not in features:
            features[least] = vectorized(texts, unseen, least)
        vectorizer, known, new = features[least]
        if vectorizer is None:
            continue
        for strength in strengths:
            model = MODELS[name](strength, seed)
            with warnings.catch_warnings():  # whether it converged is said in the facts
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(known, train.targets)
            facts = {"model": name, STRENGTH[name]: strength, "least_texts_per_word": least}
            facts |= {"words": known.shape[1]}
            if not converged(model):
                facts["converged"] = False
            yield facts, vectorizer, model, model.predict(new) if unseen else np.empty(0)


def vectorized(texts: list[str], unseen: list[str], least: int) -> tuple:
    """(vectorizer, (n, words) of texts, the same of unseen), or Nones where no word is left."""
    vectorizer = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True, min_df=least)
    try:
        known = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's word for an empty vocabulary, also after min_df
        return None, None, None
    return vectorizer, known, vectorizer.transform(unseen) if unseen else None


def converged(model: Any) -> bool:
    """Did an iterative fit end before its limit? True for models that don't iterate."""
    steps = getattr(model, "n_iter_", None)
    return steps is None or bool(np.max(steps) < model.max_iter)


def joined(texts: list[str], pairs: list[str] | None, between: str = BETWEEN) -> list[str]:
    """Single texts as they are; the two texts of a pair as one, with a word between them."""
    return list(texts) if pairs is None else [a + between + b for a, b in zip(texts, pairs, strict=True)]


def judge(metric: str, known: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> float:
    """The metric on validation; labels that the training texts lack count as wrong. NaN if undefined."""
    if metric in metrics.METRICS["regression"]:
        return metrics.value(metric, truth, guess.astype(np.float64))
    number = {label: i for i, label in enumerate(sorted(set(known)))}
    codes = [np.array([number.get(label, -1) for label in labels], np.int64) for labels in (truth, guess)]
    return metrics.value(metric, *codes, len(number))


def commonest(labels: np.ndarray) -> str:
    """The most frequent label; of several, the first in sorted order."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))
