"""Words counted, and linear models fitted on them or on any other rows of numbers.

In:  Parts, or the Features of their texts.   Out: of each candidate its facts, a function from texts to targets
(n,), and its answers on validation. Nothing here looks at validation's targets.

The names of the models are what reports call them. `strength` is C or alpha: see STRENGTH.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from .answers import indicator, rows
from .data import Part
from .kinds import KINDS

# A word is two or more letters or digits, as in scikit-learn; Chinese and Japanese, which are
# written without spaces, are counted by the character, so that pairs of characters make the words.
WORD = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{2,}"
BETWEEN = " xxpairxx "  # stands between the two texts of a pair, as a word of its own
WORDS = "single words and pairs of neighbours, lower case, sublinear TF"  # what is counted

MODELS: dict[str, Callable[[float, int], Any]] = {
    "linear SVM": lambda c, seed: LinearSVC(C=c, random_state=seed, max_iter=5000),
    "logistic regression": lambda c, seed: LogisticRegression(C=c, max_iter=1000),
    "ridge": lambda alpha, seed: Ridge(alpha=alpha, random_state=seed),
    "linear SVM a label": lambda c, seed: OneVsRest(LinearSVC(C=c, random_state=seed, max_iter=5000)),
    "balanced linear SVM a label": lambda c, seed: OneVsRest(
        LinearSVC(C=c, random_state=seed, max_iter=5000, class_weight="balanced")
    ),
    # of the ladder of a study alone (study/rungs.py)
    "naive Bayes": lambda alpha, seed: MultinomialNB(alpha=alpha),
    "complement naive Bayes": lambda alpha, seed: ComplementNB(alpha=alpha),
    "ridge classifier": lambda alpha, seed: RidgeClassifier(alpha=alpha, random_state=seed),
    "ridge of scaled features": lambda alpha, seed: make_pipeline(StandardScaler(), Ridge(alpha=alpha)),
    "logistic regression a label": lambda c, seed: OneVsRest(LogisticRegression(C=c, max_iter=1000)),
}
# What the strength of these models is called; of the others C.
STRENGTH = dict.fromkeys(
    ("ridge", "ridge classifier", "ridge of scaled features", "naive Bayes", "complement naive Bayes"),
    "alpha",
)


@dataclass(frozen=True)
class Features:
    """Texts as rows of numbers: those of training and of validation (None: no texts), and of any others.

    facts: what is told of them beside a model that was fitted on them
    """

    known: Any
    unseen: Any
    of: Callable[[list[str], list[str] | None], Any]
    facts: dict[str, Any]


@dataclass(frozen=True)
class OnFeatures:
    """A model of scikit-learn that was fitted on features, as a function of texts."""

    of: Callable[[list[str], list[str] | None], Any]
    model: Any
    dtype: Any

    def __call__(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """What it says of texts, (n,)."""
        return self.said(self.of(texts, pairs) if len(texts) else None)

    def said(self, features: Any) -> np.ndarray:
        """The same of their features; None: no texts."""
        return (
            np.empty(0, self.dtype) if features is None else self.model.predict(features).astype(self.dtype)
        )

    def probabilities(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray | None:
        """(n, C), the labels of training in sorted order; None where the model has none."""
        if not hasattr(self.model, "predict_proba"):
            return None
        labels = len(getattr(self.model, "names", self.model.classes_))
        found = self.model.predict_proba(self.of(texts, pairs)) if len(texts) else np.empty((0, labels))
        return found[:, -labels:].astype(np.float64)  # of a lone label its absence has a column too


class OneVsRest(OneVsRestClassifier):
    """A model for each label, of tuples of labels; their indicator stays inside."""

    def fit(self, x: Any, targets: Any) -> OneVsRest:
        """Fit one model a label."""
        self.names = sorted({label for target in targets for label in target})
        return super().fit(x, indicator(targets, self.names).astype(int))

    def predict(self, x: Any) -> np.ndarray:
        """(n,) tuples of labels."""
        found = np.asarray(super().predict(x)).reshape(x.shape[0], -1)
        return rows(tuple(label for label, has in zip(self.names, row) if has) for row in found)


class Counted:
    """TF-IDF of training and validation texts, made once for all models that are fitted on it.

    seconds   what making it took, by the least number of texts that a word stands in
    """

    def __init__(self, train: Part, validation: Part):
        self.train, self.validation = train, validation
        self.made: dict[int, Features | None] = {}
        self.seconds: dict[int, float] = {}

    def features(self, least: int) -> Features | None:
        """Words that stand in `least` training texts or more, counted; None where there are none."""
        if least not in self.made:
            start = time.perf_counter()
            self.made[least] = self.make(least)
            self.seconds[least] = time.perf_counter() - start
        return self.made[least]

    def make(self, least: int) -> Features | None:
        """The same, afresh."""
        unseen = joined(self.validation.texts, self.validation.pairs)
        vectorizer, known, new = vectorized(joined(self.train.texts, self.train.pairs), unseen, least)
        if vectorizer is None:
            return None
        facts = {"least_texts_per_word": least, "words": known.shape[1]}
        return Features(known, new, lambda texts, pairs: vectorizer.transform(joined(texts, pairs)), facts)


def counted_attempts(candidates: tuple, counted: Counted, task_kind: str, seed: int) -> Iterator[tuple]:
    """Every candidate fitted on words. candidates: (model, in how many training texts a word must stand, strengths)."""
    for name, least, strengths in candidates:
        features = counted.features(least)
        if features is not None:
            yield from attempts(name, strengths, features, counted.train.targets, task_kind, seed)


def attempts(
    name: str, strengths: tuple, features: Features, targets: np.ndarray, task_kind: str, seed: int
) -> Iterator[tuple]:
    """A model fitted with each of its strengths: (its facts, its answer to texts, its answers on validation)."""
    for strength in strengths:
        model = MODELS[name](strength, seed)
        with warnings.catch_warnings():  # whether it converged is said in the facts
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features.known, targets)
        facts = {"model": name, STRENGTH.get(name, "C"): strength, **features.facts}
        if not converged(model):
            facts["converged"] = False
        answer = OnFeatures(features.of, model, object if KINDS[task_kind].labels else np.float64)
        yield facts, answer, answer.said(features.unseen)


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
    every = [getattr(one, "estimator", one) for one in getattr(model, "estimators_", [model])]
    return all(
        one.n_iter_ is None or np.max(one.n_iter_) < one.max_iter for one in every if hasattr(one, "n_iter_")
    )


def joined(texts: list[str], pairs: list[str] | None, between: str = BETWEEN) -> list[str]:
    """Single texts as they are; the two texts of a pair as one, with a word between them."""
    return list(texts) if pairs is None else [a + between + b for a, b in zip(texts, pairs, strict=True)]
