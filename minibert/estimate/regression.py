"""Regression where the classifier's answer is the outcome, or one of the columns that explain it.

In:  y (m,) and X (m, p): outcome and columns with the predictions in them, of every text; coded (n,) the places
     of the coded texts, and true_y (n,), true_X (n, p) what of these is otherwise by the codes.
Out: an Estimate for each coefficient, the constant first

The same formula as for a share, with coefficients in the place of shares, whichever side the prediction is on.
Standard errors are a sandwich's (HC1 in a regression of codes alone), so the spread may differ between texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .correction import MODELS, by_t, correct, sampled
from .shares import Estimate, miscounted, naive, plain

ENOUGH = 5  # coded texts a coefficient at the least
EVENTS = 10  # coded texts of the rarer outcome a coefficient, below which a logistic regression is rough


def regression(
    y: np.ndarray,
    X: np.ndarray,
    coded: np.ndarray,
    *,
    true_y: np.ndarray | None = None,
    true_X: np.ndarray | None = None,
    model: str = "ols",
    names: Sequence[str] = (),
    chance: np.ndarray | None = None,
    corpus_only: bool = False,
) -> list[Estimate]:
    """Coefficients of y on a constant and X. model: "ols", or "logit" for an outcome from 0 to 1.

    true_y where the outcome is predicted, true_X where one of the columns is. The rest as of `share`.
    """
    y, X = np.asarray(y, float), with_constant(X)
    coded = np.asarray(coded)
    names = ("constant", *(names or (f"x{i}" for i in range(1, X.shape[1]))))
    sample = sampled(len(y), coded, chance)
    own_y = y[coded] if true_y is None else np.asarray(true_y, float)
    own_X = X[coded] if true_X is None else with_constant(true_X)
    places = {"by the codes": (own_y, own_X), "by the predictions of the coded texts": (y[coded], X[coded]),
              "over all texts": (y, X)}  # fmt: skip
    weights = sample.weights, sample.weights, np.ones(len(y))
    fits = []
    for (where, (outcome, columns)), w in zip(places.items(), weights):
        check(outcome, columns, names, where, model)
        fits.append(MODELS[model](outcome, columns, w))
    codes, _, everywhere = fits
    fixed = correct(*fits, sample, corpus_only)
    apart = [*zip(naive(everywhere, corpus_only), plain(codes, sample, corpus_only))]
    degrees = sample.effective - X.shape[1] - 1
    notes = (*rough(own_y, X.shape[1], model), *miscounted(sample))
    return [
        Estimate(name, *apart[j], by_t(fixed.value[j], fixed.variance[j], degrees), float(fixed.weight[j]),
                 len(y), len(coded), () if j else notes)
        for j, name in enumerate(names)
    ]  # fmt: skip


def with_constant(X: np.ndarray) -> np.ndarray:
    """Columns (m, p - 1) with a one before each row."""
    X = np.asarray(X, float)
    return np.concatenate([np.ones((len(X), 1)), X.reshape(len(X), -1)], axis=1)


def check(y: np.ndarray, X: np.ndarray, names: Sequence[str], where: str, model: str) -> None:
    """Refuse what has no answer: too few texts, one outcome, columns that say the same."""
    if model not in MODELS:
        raise ValueError(f"model: {' or '.join(MODELS)}, not {model!r}")
    if len(y) != len(X) or len(names) != X.shape[1]:
        raise ValueError(f"{where}: y {y.shape}, X {X.shape}, {len(names)} names")
    if not (np.isfinite(y).all() and np.isfinite(X).all()):
        raise DataError(f"{where}, a number is missing or not finite")
    if len(y) < ENOUGH * X.shape[1]:
        raise DataError(
            f"{len(y)} coded texts are too few for {X.shape[1]} coefficients: {ENOUGH * X.shape[1]} are the least",
            "Code more texts, or leave columns out.",
        )
    if (y == y[0]).all():
        raise DataError(f"{where}, the outcome is {y[0]:g} in every text: nothing to explain")
    if model == "logit" and not ((y >= 0) & (y <= 1)).all():
        raise DataError(f"{where}, the outcome is not between 0 and 1", "Take --model ols.")
    sizes = np.sqrt((X**2).sum(axis=0))
    scaled = X / np.where(sizes > 0, sizes, 1)
    if np.linalg.matrix_rank(scaled) == X.shape[1]:
        return
    j = next(j for j in range(X.shape[1]) if np.linalg.matrix_rank(scaled[:, : j + 1]) <= j)
    raise DataError(
        f"{where}, {names[j]} is the same in every text, or follows from the columns before it",
        "Leave it out, or code more texts.",
    )


def rough(y: np.ndarray, p: int, model: str) -> tuple[str, ...]:
    """A note where a logistic regression has few of the rarer outcome."""
    rarer = min(y.sum(), len(y) - y.sum())
    if model != "logit" or rarer >= EVENTS * (p - 1):
        return ()
    return (
        f"the rarer outcome stands in {rarer:g} coded texts, under {EVENTS} a column: intervals are rough.",
    )
