"""Traditional taggers: a linear SVM on what a word and its neighbours look like, and the commonest tag of a word.

In:  sentences as lists of words, and their tags.   Out: functions from sentences to tuples of tags.

The features are the usual ones of taggers before neural networks: the word itself, in lower case, its first
and last one to three letters, its shape (Xxx, dd), the same of its neighbours in short, and its place.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.svm import LinearSVC

Sentence = Sequence[str]
Tagger = Callable[[Sequence[Sentence]], list[tuple[str, ...]]]

CANDIDATES = (
    (1, (0.3, 1.0, 0.1)),
    (2, (0.3, 1.0)),
)  # in how many words a feature must stand, C: in this order
SHAPES = ((r"[A-Z]", "X"), (r"[a-z]", "x"), (r"[0-9]", "d"), (r"(.)\1{2,}", r"\1\1"))
EDGE = "\n"  # stands beyond both ends of a sentence; no word holds it


def shape(word: str) -> str:
    """Capitals, small letters and digits, long runs cut to two: "McDonald's2" -> XxXxx'xd."""
    for pattern, letter in SHAPES:
        word = re.sub(pattern, letter, word)
    return word


def features(words: Sentence) -> Iterator[list[str]]:
    """What is known of each word of a sentence, as strings."""
    padded = [EDGE, EDGE, *words, EDGE, EDGE]
    for i, word in enumerate(words):
        low, around = word.lower(), padded[i : i + 5]
        found = ["always", f"word {word}", f"low {low}", f"shape {shape(word)}", f"place {min(i, 2)}"]
        found += [f"starts {low[:n]}" for n in (1, 2, 3)] + [f"ends {low[-n:]}" for n in (1, 2, 3)]
        for step, other in zip((-2, -1, 1, 2), around[:2] + around[3:]):
            found.append(f"{step} {other.lower()}")
            if abs(step) == 1:
                found += [f"{step} shape {shape(other)}", f"{step} ends {other.lower()[-3:]}"]
        yield [*found, f"pair {around[1].lower()} {low}", f"pair {low} {around[3].lower()}"]


def as_given(found: list[str]) -> list[str]:
    """The features of a word are a list already: nothing is cut."""
    return found


def attempts(
    texts: Sequence[Sentence], targets: Sequence[tuple[str, ...]], seed: int
) -> Iterator[tuple[dict[str, Any], Tagger]]:
    """Every candidate fitted: (its facts, the tagger)."""
    tags = np.array([tag for sentence in targets for tag in sentence], dtype=object)
    known = [found for words in texts for found in features(words)]
    for least, strengths in CANDIDATES:
        vectorizer = CountVectorizer(analyzer=as_given, binary=True, min_df=least, dtype=np.float64)
        matrix = vectorizer.fit_transform(known)  # (words, features)
        for strength in strengths:
            model = LinearSVC(C=strength, random_state=seed, max_iter=2000)
            with warnings.catch_warnings():  # whether it converged is said in the facts
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(matrix, tags)
            facts = {"model": "linear SVM", "C": strength, "least_words_per_feature": least}
            facts |= {"features": matrix.shape[1]}
            if np.max(model.n_iter_) >= model.max_iter:
                facts["converged"] = False
            yield facts, tagger(vectorizer, model)


def tagger(vectorizer: CountVectorizer, model: LinearSVC) -> Tagger:
    """A fitted model as a function of sentences."""

    def tag(texts: Sequence[Sentence]) -> list[tuple[str, ...]]:
        found = [one for words in texts for one in features(words)]
        if not found:
            return [() for _ in texts]
        said = model.predict(vectorizer.transform(found))
        ends = np.cumsum([len(words) for words in texts])
        return [tuple(said[end - len(words) : end]) for words, end in zip(texts, ends)]

    return tag


def most_frequent(texts: Sequence[Sentence], targets: Sequence[tuple[str, ...]]) -> Tagger:
    """The tag that a word had most often; of a word that never stood there, the commonest tag of all."""
    seen: dict[str, Counter] = {}
    everywhere: Counter = Counter()
    for words, tags in zip(texts, targets):
        everywhere.update(tags)
        for word, tag in zip(words, tags):
            seen.setdefault(word, Counter())[tag] += 1
    usual = {word: first(counts) for word, counts in seen.items()}
    other = first(everywhere)
    return lambda texts: [tuple(usual.get(word, other) for word in words) for words in texts]


def first(counts: Counter) -> str:
    """The most frequent; of several, the first in sorted order."""
    return min(counts, key=lambda label: (-counts[label], label))
