"""Wrong answers to the exercises of chapters 7 to 9, each with a word of what must be said of it."""

from __future__ import annotations

import math

import numpy as np
import torch


def attention_backward(dc, q, k, v, P, mean=True, softmax=True, scale=None):
    dP = dc @ v.T
    dS = (P * (dP - mean * (dP * P).sum(-1, keepdims=True)) if softmax else dP) * (
        scale or q.shape[1] ** -0.5
    )
    return dS @ k, dS.T @ q, P.T @ dc


def swapped(dc, q, k, v, P):
    dq, dk, dv = attention_backward(dc, q, k, v, P)
    return dk, dq, dv


def mean_step(texts, batch_size, epochs):
    return math.ceil(epochs * texts / batch_size)


def draws(right, size=None, replace=True, levels=(2.5, 97.5)):
    rng = np.random.default_rng(1)
    means = [rng.choice(right, size or len(right), replace).mean() for _ in range(400)]
    return tuple(np.percentile(means, levels))


def places(train, test, plain):
    known = {plain(text) for text in train}
    return [i for i, text in enumerate(test) if plain(text) in known]


def kernel(q, k, v, layout, *, scale, dropout=None, whole=False, axis=-1):
    outputs = []
    for parts in zip(*(x.split([len(q)] if whole else layout.lengths) for x in (q, k, v))):
        q_text, k_text, v_text = (x.transpose(0, 1) for x in parts)
        outputs.append(((q_text @ k_text.mT * scale).softmax(axis) @ v_text).transpose(0, 1))
    return torch.cat(outputs)


def cut_off(q, k, v, layout, *, scale, dropout=None):
    """Right forward; no gradient comes back through the scores."""
    return kernel(q.detach() + 0 * q, k, v, layout, scale=scale)


def step(most, total, sums, scores, v, shrink_total=True, shrink_sums=True, keep=True):
    larger = max(most, scores.max())
    shrink, probs = np.exp(most - larger), np.exp(scores - larger)
    total, sums = total * shrink if shrink_total else total, sums * shrink if shrink_sums else sums
    return larger, keep * total + probs.sum(), keep * sums + probs @ v


WRONG: dict[str, list[tuple[object, str]]] = {
    "chapter7.1": [
        (lambda dy, x, W: (dy @ W, dy.T @ x, dy.mean(0)), "db is a mean"),
        (lambda dy, x, W: (dy @ W, dy.T @ x / len(x), dy.sum(0)), "dW is a mean"),
        (lambda dy, x, W: (dy @ W, x.T @ dy, dy.sum(0)), "dW has the shape"),
        (lambda dy, x, W: (dy @ np.abs(W), dy.T @ x, dy.sum(0)), "sum dy_no W_oi"),
        (lambda dy, x, W: (dy @ W, dy.T @ x, dy), "db has the shape"),
        (lambda dy, x, W: (dy @ W, dy.T @ x), "3 things"),
        (lambda dy, x, W: (None, None, None), "still None"),
    ],
    "chapter7.2": [
        (lambda *given: attention_backward(*given, scale=1.0), "1/√K"),
        (lambda *given: attention_backward(*given, mean=False), "mean of dP"),
        (lambda *given: attention_backward(*given, softmax=False), "softmax is passed over"),
        (lambda dc, q, k, v, P: (*attention_backward(dc, q, k, v, P)[:2], P @ dc), "transposed"),
        (swapped, "dq is another"),
    ],
    "chapter7.3": [
        (lambda g, rate: -rate * sum((a**2).sum() for a in g.values()), "sign"),
        (lambda g, rate: rate * math.sqrt(sum((a**2).sum() for a in g.values())), "length"),
        (lambda g, rate: sum((a**2).sum() for a in g.values()), "rate is missing"),
        (lambda g, rate: rate * sum(a.sum() for a in g.values()), "cancel"),
        (lambda g, rate: rate * sum((a**2).mean() for a in g.values()), "mean of the squares"),
    ],
    "chapter8.1": [
        (lambda texts, size, epochs: epochs * (texts // size), "round up"),
        (mean_step, "an epoch ends"),
        (lambda texts, size, epochs: math.ceil(texts / size), "one epoch"),
        (lambda texts, size, epochs: texts * epochs, "those are texts"),
    ],
    "chapter8.2": [
        (lambda right: draws(right, replace=False), "with replacement"),
        (lambda right: draws(right, levels=(25, 75)), "percentiles"),
        (lambda right: draws(right, levels=(5, 95)), "percentiles"),
        (lambda right: draws(right, levels=(0, 100)), "not all of them"),
        (lambda right: draws(right, size=10), "n texts"),
        (lambda right: draws(right)[::-1], "above"),
        (lambda right: draws(right)[0], "2 things"),
    ],
    "chapter8.3": [
        (lambda train, test: places(train, test, str), "capital letters"),
        (lambda train, test: places(train, test, str.lower), "doubled space"),
        (lambda train, test: places(train, test, lambda text: text.split()[0].lower()), "is no copy"),
        (lambda train, test: [text in train for text in test], "places are asked for"),
        (lambda train, test: [text for text in test if text in train], "counted from 0"),
        (lambda train, test: [i + 1 for i in (0, 1, 3)], "not found"),
    ],
    "chapter9.1": [
        (lambda lengths: sum(lengths) / (len(lengths) * max(lengths)), "share of real tokens"),
        (lambda lengths: len(lengths) * max(lengths) - sum(lengths), "their share"),
        (lambda lengths: len(lengths) * max(lengths) / sum(lengths) - 1, "for each real token"),
        (
            lambda lengths: 1 - sum(n * n for n in lengths) / (len(lengths) * max(lengths) ** 2),
            "those are scores",
        ),
        (lambda lengths: 1 - np.mean(lengths) / 512, "as wide as the longest"),
    ],
    "chapter9.2": [
        (
            lambda q, k, v, layout, *, scale: kernel(q, k, v, layout, scale=scale, whole=True),
            "see each other",
        ),
        (lambda q, k, v, layout, *, scale: kernel(q, k, v, layout, scale=1.0), "scale is missing"),
        (lambda q, k, v, layout, *, scale: kernel(q, k, v, layout, scale=scale, axis=-2), "over the keys"),
        (lambda q, k, v, layout, *, scale: kernel(q, k, v, layout, scale=scale).flatten(1), "shape"),
        (lambda q, k, v, layout, *, scale: kernel(q, k, v, layout, scale=scale).numpy(), "tensor"),
        (cut_off, "the gate: dq"),
        (lambda q, k, v: v, "stopped with TypeError"),
    ],
    "chapter9.3": [
        (lambda *given: step(*given, shrink_total=False), "the old `total`"),
        (lambda *given: step(*given, shrink_sums=False), "the old `sums`"),
        (lambda *given: step(*given, keep=False), "forgotten"),
        (
            lambda most, total, sums, scores, v: (scores.max(), *step(most, total, sums, scores, v)[1:]),
            "`most`",
        ),
        (lambda *given: step(*given)[1:], "3 things"),
    ],
}

# as in course_answers.py: solutions that need nothing of their page
ALONE = (
    *("chapter7.1", "chapter7.3", "chapter8.1", "chapter8.2", "chapter8.3"),
    *("chapter9.1", "chapter9.2", "chapter9.3"),
)
