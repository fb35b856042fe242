"""Wrong answers to the course's exercises, as learners give them, each with a word of what must be said of it."""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from . import course_learning_answers


def shortest_first(word, vocabulary):
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        fits = [e for e in range(start + 1, len(word) + 1) if mark + word[start:e] in vocabulary]
        if not fits:
            return ["[UNK]"]
        pieces.append(mark + word[start : fits[0]])
        start = fits[0]
    return pieces


def greedy(word, vocabulary, mark="##", unknown=None):
    pieces, start = [], 0
    while start < len(word):
        sign = mark if start else ""
        for end in range(len(word), start, -1):
            if sign + word[start:end] in vocabulary:
                break
        else:
            return unknown or [*pieces, "[UNK]"]
        pieces.append(sign + word[start:end])
        start = end
    return pieces


def softmax(scores, axis=-1):
    exps = np.exp(scores - scores.max(axis, keepdims=True))
    return exps / exps.sum(axis, keepdims=True)


def layer_norm(x, w, b, eps, axis=-1, ddof=0, outside=0.0):
    centred = x - x.mean(axis, keepdims=True)
    return w * centred / (np.sqrt(x.var(axis, keepdims=True, ddof=ddof) + eps) + outside) + b


# name -> three or more of (answer, a word that the message must hold)
WRONG: dict[str, list[tuple[object, str]]] = {
    "chapter1.1": [
        (shortest_first, "longest"),
        (lambda word, vocabulary: greedy(word, {x.strip("#") for x in vocabulary}, ""), "'unaffable' became"),
        (greedy, "one [UNK], all of it"),
        (lambda word: [word], "2 arguments"),
    ],
    "chapter1.2": [
        (lambda lengths: np.arange(sum(lengths)), "begins again"),
        (lambda lengths: np.concatenate([np.arange(1, n + 1) for n in lengths]), "position 0"),
        (lambda lengths: [range(max(lengths)) for _ in lengths], "shape"),
    ],
    "chapter2.1": [
        (lambda i, table: (table @ table[i]).argmax(), "long"),
        (lambda i, table: i, "itself"),
        (lambda i, table: np.argmin(table @ table[i]), "opposite"),
        (lambda i, table: table[2], "shape"),
    ],
    "chapter2.2": [
        (lambda x, w, b, eps: layer_norm(x, w, b, eps, axis=0), "last axis"),
        (lambda x, w, b, eps: layer_norm(x, w, b, eps, ddof=1), "D - 1"),
        (lambda x, w, b, eps: layer_norm(x, w, b, 0, outside=eps), "outside"),
        (lambda x, w, b, eps: layer_norm(x, w, b, 0), "eps is missing"),
        (lambda x, w, b, eps: layer_norm(x, 1, 0, eps), "w and b"),
        (lambda x, w, b, eps: w * (x - x.mean()) / x.std() + b, "token by token"),
    ],
    "chapter3.1": [
        (lambda q, k: softmax(q @ k.T / 2, 0), "the keys, the last axis"),
        (lambda q, k: softmax(q @ k.T), "too large"),
        (lambda q, k: softmax(q @ k.T / 4), "√K is meant"),
        (lambda q, k: softmax(k @ q.T / 2), "queries"),
        (lambda q, k: q @ k.T / 2, "exp"),
        (lambda q, k: np.exp(q @ k.T / 2), "sums to"),
        (lambda q, k: np.exp(q @ k.T / 2) / np.exp(q @ k.T / 2).sum(1, keepdims=True), "not finite"),
        (lambda q, k: softmax(q.T @ k), "shape"),
    ],
    "chapter3.2": [
        ([4.0, 0.0], '"river"'),
        ([0.0, 1.0], "too short"),
        ([0.0, -9.0], "0.00"),
        ([0.0, 0.0], "asks nothing"),
        ("she", "array"),
    ],
    "chapter3.3": [(64, "variance"), (1, "added up"), (0.125, "scale"), (32, "root")],
    "chapter4.1": [
        (lambda x, H: x.reshape(H, len(x), -1), "of every token"),
        (lambda x, H: x.reshape(len(x), -1, H).transpose(2, 0, 1), "next to one another"),
        (lambda x, H: x.reshape(len(x), H, -1), "shape"),
    ],
    "chapter4.2": [((8, 1), "in this order"), ((0, 2), "back"), ((2, 9), "another one"), (8, "shape")],
    "chapter5.1": [
        (lambda x, y, w, b, eps: x + layer_norm(y, w, b, eps), "then added"),
        (lambda x, y, w, b, eps: layer_norm(x, w, b, eps) + y, "normalises the sum"),
        (lambda x, y, w, b, eps: layer_norm(y, w, b, eps), "residual"),
        (lambda x, y, w, b, eps: x + y, "LayerNorm isn't"),
        (lambda x, y, w, b, eps: layer_norm(x + y, w, b, eps, axis=0), "each token alone"),
    ],
    "chapter5.2": [
        (lambda x: np.maximum(x, 0), "ReLU"),
        (lambda x: x / (1 + np.exp(-x)), "SiLU"),
        (lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), "tanh"),
        (lambda x: 0.5 * x * (1 + erf(x)), "√2"),
        (lambda x: 0.5 * (1 + erf(x / np.sqrt(2))), "multiplied by x"),
    ],
    "chapter5.3": [
        (7_084_800, "LayerNorms"),
        (7_080_960, "biases of the linear"),
        (7_077_888, "large matrices"),
        (4_722_432, "feed-forward alone"),
        (7_000_000, "off by"),
    ],
    "chapter6.1": [
        (lambda hidden: hidden[0] / np.linalg.norm(hidden[0]), "first token"),
        (lambda hidden: hidden.mean(0), "the length is"),
        (lambda hidden: hidden.max(0) / np.linalg.norm(hidden.max(0)), "largest"),
        (
            lambda hidden: (hidden / np.linalg.norm(hidden, axis=1, keepdims=True)).mean(0),
            "the mean comes first",
        ),
        (lambda hidden: hidden.mean(1), "shape"),
    ],
    "chapter6.2": [
        (lambda lengths: np.ones((sum(lengths), sum(lengths)), bool), "other texts too"),
        (lambda lengths: np.tril(np.ones((sum(lengths), sum(lengths)))), "both ways"),
        (lambda lengths: np.eye(sum(lengths)), "only itself"),
        (lambda lengths: np.ones((len(lengths), max(lengths))), "shape"),
    ],
}
WRONG |= course_learning_answers.WRONG

# Exercises whose solution on the page needs nothing of the page before it, and no weights: the fast tests look at them.
ALONE = (
    tuple(
        f"chapter{n}"
        for n in ("1.1", "1.2", "2.1", "2.2", "3.1", "3.3", "4.1", "5.1", "5.2", "5.3", "6.1", "6.2")
    )
    + course_learning_answers.ALONE
)

# Exercises whose check needs published weights.
WEIGHTS = ("chapter4.2",)
