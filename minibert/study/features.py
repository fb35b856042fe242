"""Texts as rows of numbers, each distinct text computed once: embeddings, and what a dictionary counts.

In:  texts.   Out: (n, F) rows in the order of the texts, and the seconds they took.

Vectors are embeddings with published weights, which nothing here trains. Looks are how long a text is and how
its words and marks are spread, and, where the extra `vader` is installed, what VADER says of it: a dictionary
of English with rules for negation and emphasis (Hutto & Gilbert, ICWSM 2014).
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..linear import WORD
from ..loading import load

MARKS = ("!", "?", ",", "...", '"')
VADER = ("neg", "neu", "pos", "compound")


class Rows:
    """A row of numbers for each text, computed once for each distinct one: `compute` takes texts to (n, F)."""

    def __init__(self, compute: Callable[[list[str]], np.ndarray]):
        self.compute = compute
        self.known: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(n, F) for one text or more."""
        if new := [text for text in dict.fromkeys(texts) if text not in self.known]:
            start = time.perf_counter()
            self.known |= zip(new, self.compute(new))
            self.seconds |= dict.fromkeys(new, (time.perf_counter() - start) / len(new))
        return np.stack([self.known[text] for text in texts])

    def of(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """(n, F); of pairs (n, 2 F), the rows of both texts side by side."""
        return self(texts) if pairs is None else np.hstack([self(texts), self(pairs)])

    def cost(self, texts: list[str]) -> float:
        """The seconds that these texts took when they were computed, each distinct one counted once."""
        return sum(self.seconds[text] for text in dict.fromkeys(texts))


class Vectors(Rows):
    """Embeddings of texts with published weights, which are loaded when the first text needs them.

    source       a catalogue name, a folder or a hub id, as for minibert.load
    max_tokens   the longest text; None: as the model's files say
    truncation   what stays of a longer one; a text has one vector, so for "window" its head stays
    """

    def __init__(
        self, source: str, *, max_tokens: int | None = None, truncation: str = "head", device: str = "auto"
    ):
        super().__init__(self.embed)
        self.source, self.max_tokens, self.device = source, max_tokens, device
        self.truncation = "head" if truncation == "window" else truncation

    @functools.cached_property
    def model(self) -> Any:
        """The weights, loaded."""
        model = load(self.source, head=None, device=self.device)
        model.reading["truncation"] = self.truncation
        if self.max_tokens is not None:
            model.reading["max_tokens"] = min(self.max_tokens, model.config.max_tokens)
        return model

    @property
    def pooling(self) -> str | None:
        """None: as the model's files say. Where they say nothing, the mean over a text's tokens."""
        return None if self.model.embedder else "mean"

    def embed(self, texts: list[str]) -> np.ndarray:
        """(n, D) float32, computed afresh."""
        return self.model.embed(texts, pooling=self.pooling)

    def of(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """(n, D); of pairs u, v (n, 4 D): u, v, |u - v|, u * v, as in InferSent (arXiv 1705.02364)."""
        if pairs is None:
            return self(texts)
        u, v = self(texts), self(pairs)
        return np.hstack([u, v, abs(u - v), u * v])

    def cosines(self, texts: list[str], others: list[str]) -> np.ndarray:
        """(n, C) of every text with each of the others."""
        u, v = (unit(self(some)) for some in (texts, others))
        return u @ v.T

    @property
    def settings(self) -> dict[str, Any]:
        """What the vectors are, for a report."""
        return {"weights": self.source, "pooling": self.pooling or "as published"} | {
            key: self.model.reading[key] for key in ("max_tokens", "truncation")
        }


def unit(rows: np.ndarray) -> np.ndarray:
    """(n, F) rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def looks(texts: list[str]) -> np.ndarray:
    """(n, F): lengths and marks, and VADER's four scores where it is installed."""
    judge = vader()
    found = [
        [*spread(text), *(map(judge.polarity_scores(text).get, VADER) if judge else ())] for text in texts
    ]
    return np.array(found, np.float64)


def spread(text: str) -> list[float]:
    """How long a text is (as logarithms), how its words and letters are spread, and which marks it has."""
    words, ends = re.findall(WORD, text.lower()), re.findall(r"[.!?\u3002\uff01\uff1f]+", text)
    lengths = [math.log1p(n) for n in (len(text), len(words), len(ends))]
    shares = [
        sum(map(len, words)) / max(len(words), 1),
        len(words) / max(len(ends), 1),
        len(set(words)) / max(len(words), 1),
        sum(letter.isupper() for letter in text) / max(len(text), 1),
        sum(letter.isdigit() for letter in text) / max(len(text), 1),
    ]
    return [*lengths, *shares, *(math.log1p(text.count(mark)) for mark in MARKS)]


@functools.cache
def vader() -> Any:
    """VADER, or None where its package is missing."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        return None
    return SentimentIntensityAnalyzer()
