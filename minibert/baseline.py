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
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from . import metrics, taggers
from .answers import all_labels, indicator, rows, scored
from .data import Part
from .errors import ConfigError, DataError, nearest
from .kinds import KINDS, each_label, words_of

# A word is two or more letters or digits, as in scikit-learn; Chinese and Japanese, which are
# written without spaces, are counted by the character, so that pairs of characters make the words.
WORD = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{2,}"
BETWEEN = " xxpairxx "  # stands between the two texts of a pair, as a word of its own

MODELS: dict[str, Callable[[float, int], Any]] = {
    "linear SVM": lambda c, seed: LinearSVC(C=c, random_state=seed, max_iter=5000),
    "logistic regression": lambda c, seed: LogisticRegression(C=c, max_iter=1000),
    "ridge": lambda alpha, seed: Ridge(alpha=alpha, random_state=seed),
    "linear SVM a label": lambda c, seed: OneVsRest(LinearSVC(C=c, random_state=seed, max_iter=5000)),
    "balanced linear SVM a label": lambda c, seed: OneVsRest(
        LinearSVC(C=c, random_state=seed, max_iter=5000, class_weight="balanced")
    ),
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
    "multilabel": (  # a rare label is found by few SVMs that weigh all texts alike
        ("linear SVM a label", 2, (1.0, 3.0, 0.3)),
        ("balanced linear SVM a label", 2, (0.3, 0.1, 1.0)),
        ("linear SVM a label", 1, (1.0, 3.0, 0.3)),
    ),
}
STRENGTH = {"ridge": "alpha"}  # what the number is called; elsewhere C

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
        """One answer a text, (n,), as Part.targets has it."""
        return self.answer(joined(texts, pairs))


class OneVsRest(OneVsRestClassifier):
    """An SVM for each label, of tuples of labels; their indicator stays inside."""

    def fit(self, x: Any, targets: Any) -> OneVsRest:
        """Fit one SVM a label."""
        self.names = sorted({label for target in targets for label in target})
        return super().fit(x, indicator(targets, self.names).astype(int))

    def predict(self, x: Any) -> np.ndarray:
        """(n,) tuples of labels."""
        found = np.asarray(super().predict(x)).reshape(x.shape[0], -1)
        return rows(tuple(label for label, has in zip(self.names, row) if has) for row in found)


def fit(kind: str, task_kind: str, train: Part, validation: Part, *, metric: str, seed: int = 0) -> Fitted:
    """Fit baseline `kind` for a task's kind: one of its KINDS[task_kind].baselines.

    `metric` is one of metrics.METRICS[task_kind]. DataError for texts or labels that nothing can be
    learned from, ConfigError for a kind that the task doesn't have.
    """
    check(kind, task_kind, train)
    if kind in TUNED:
        return tune(kind, task_kind, train, validation, metric, seed)
    name, told, answer = FIXED[kind](train)
    settings = {"kind": kind, **told, "texts": len(train)}
    guess = answer(joined(validation.texts, validation.pairs))
    return Fitted(name, settings, judge(task_kind, metric, train.targets, validation.targets, guess), answer)


def majority(train: Part) -> tuple:
    """(name, settings, answer): the label that most training texts have."""
    constant = taggers.first(Counter(train.targets))
    return "most frequent label", {"answer": constant}, lambda texts: np.full(len(texts), constant, object)


def mean(train: Part) -> tuple:
    """(name, settings, answer): the mean of the training values."""
    constant = float(np.mean(train.targets))
    return "mean of the training values", {"answer": constant}, lambda texts: np.full(len(texts), constant)


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


def tune(kind: str, task_kind: str, train: Part, validation: Part, metric: str, seed: int) -> Fitted:
    """The best of the candidates on validation, each fitted on the training texts alone."""
    tuned_on = TUNED_ON.get(metric, metric)
    name, about, attempts = TUNED[kind]
    best: tuple = ()
    tried = []
    for facts, answer, guess in attempts(task_kind, train, validation, seed):
        scored = {
            name: judge(task_kind, name, train.targets, validation.targets, guess)
            for name in (tuned_on, metric)
        }
        tried.append(facts | {name: None if x != x else x for name, x in scored.items()})
        if not best or metrics.better(tuned_on, scored[tuned_on], best[0]):
            best = (scored[tuned_on], scored[metric], facts, answer)
    _, reached, chosen, answer = best
    settings = {
        "kind": kind,
        "words": about,
        "texts": len(train),
        "tuned_on": tuned_on,
        "chosen": chosen,
        "tried": tried,
    }
    return Fitted(f"{name} + {chosen['model']}", settings, reached, answer)


def tfidf_attempts(task_kind: str, train: Part, validation: Part, seed: int) -> Iterator[tuple]:
    """Every candidate fitted: (its facts, its answer to texts, its answers on validation (n,))."""
    texts = joined(train.texts, train.pairs)
    unseen = joined(validation.texts, validation.pairs)
    dtype = object if KINDS[task_kind].labels else np.float64
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
            facts = {"model": name, STRENGTH.get(name, "C"): strength, "least_texts_per_word": least}
            facts |= {"words": known.shape[1]}
            if not converged(model):
                facts["converged"] = False
            answer = functools.partial(answer_texts, vectorizer, model, dtype)
            yield facts, answer, model.predict(new) if unseen else np.empty(0, dtype)


def answer_texts(vectorizer: Any, model: Any, dtype: Any, texts: list[str]) -> np.ndarray:
    """What a fitted model says of texts, (n,)."""
    return model.predict(vectorizer.transform(texts)).astype(dtype) if texts else np.empty(0, dtype)


def word_attempts(task_kind: str, train: Part, validation: Part, seed: int) -> Iterator[tuple]:
    """The same for taggers of words."""
    texts, unseen = ([words_of(text) for text in part.texts] for part in (train, validation))
    for facts, tag in taggers.attempts(texts, train.targets, seed):
        answer = functools.partial(answer_words, tag)
        yield facts, answer, rows(tag(unseen))


def answer_words(tag: taggers.Tagger, texts: list[str]) -> np.ndarray:
    """What a tagger says of the words of texts, n tuples."""
    return rows(tag([words_of(text) for text in texts]))


# a baseline that validation tunes: its name, what it counts, its candidates
TUNED: dict[str, tuple[str, str, Callable[..., Iterator[tuple]]]] = {
    "tfidf": ("TF-IDF", "single words and pairs of neighbours, lower case, sublinear TF", tfidf_attempts),
    "words": ("Word features", "the word, its ends and shape, its neighbours, its place", word_attempts),
}


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


def judge(task_kind: str, metric: str, known: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> float:
    """The metric on validation; labels that the training targets lack count as wrong. NaN if undefined."""
    labels = sorted(set(each_label(task_kind, known)))
    names = all_labels(task_kind, labels, truth) if KINDS[task_kind].none else labels
    pair = [scored(task_kind, one, names) for one in (truth, guess)]
    return metrics.value(metric, *pair, len(labels) or None, task_kind)
