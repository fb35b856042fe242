"""The correction: one formula for shares, means and regression coefficients, and its intervals.

In:  a plain estimate three times, each a Fit: of the coded texts by their codes, of the same texts by their
     predictions, of all texts by their predictions; and the Sample that says which texts are coded.
Out: the corrected estimate, its variance, and how much the predictions counted.

    corrected = codes of the coded + weight * (predictions of all - predictions of the coded)

With weight 1 the classifier's error, measured where both are known, is taken off what it says everywhere; with
weight 0 the predictions are left aside. Here the weight is the one that makes the variance smallest, so that
good predictions narrow the interval and bad ones are ignored. Of a mean, all texts as likely to be coded, this
is PPI++ to the letter (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, its unlabelled texts being those
not coded), and the regression estimator of survey sampling; of coefficients it is the estimator of Chen and Chen
(2000, JRSS B 62, 449), which is PPI++ to first order. With sampling probabilities each coded text counts as
1 / probability texts, as in design-based supervised learning (Egami et al. 2023, arXiv 2306.04746).

Here m texts, n of them coded, p coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, expit, stdtrit

from ..errors import DataError

LEAST = 20  # coded texts: below that no interval is worth its name
Z = 1.959963984540054  # the normal's 97.5th percentile: all intervals are of 95 %
STEPS = 50  # of Newton's method, which takes five to ten where there is an answer


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class Fit(NamedTuple):
    """A plain estimate (p,), and how far each text pulls it: value moves by its weight's share of pull (m, p)."""

    value: np.ndarray
    pull: np.ndarray


@dataclass(frozen=True)
class Sample:
    """Which texts are coded.

    texts    m, how many there are
    coded    (n,) their places
    chance   (n,) how likely each was to be drawn
    weights  (n,) how many texts each stands for: 1 / chance, scaled to sum to m
    even     whether all were as likely
    """

    texts: int
    coded: np.ndarray
    chance: np.ndarray
    weights: np.ndarray
    even: bool

    @property
    def effective(self) -> float:
        """As how many equally likely texts these count (Kish); n where they are."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def sampled(texts: int, coded: np.ndarray, chance: np.ndarray | None = None) -> Sample:
    """A Sample, or a DataError where it can't be one. `chance` (n,): None where all were as likely."""
    coded = np.asarray(coded)
    n = len(coded)
    if coded.ndim != 1 or (n and coded.dtype.kind not in "iu"):
        raise ValueError("coded: (n,) whole numbers, the places of the coded texts")
    if n < LEAST:
        raise DataError(
            f"{n} coded texts are too few to correct with: {LEAST} are the least", "200 and more are useful."
        )
    if len(np.unique(coded)) < n or coded.min() < 0 or coded.max() >= texts:
        raise ValueError(f"coded: places from 0 to {texts - 1}, each at most once")
    even = chance is None
    chance = np.full(n, n / texts) if even else np.asarray(chance, float)
    if chance.shape != (n,) or not ((chance > 0) & (chance <= 1)).all():
        raise DataError("a sampling probability must be over 0 and at most 1, for every coded text")
    weights = 1 / chance
    return Sample(texts, coded, chance, weights * texts / weights.sum(), even)


# The plain estimates ------------------------------------------------------------------------------


def average(y: np.ndarray, weights: np.ndarray) -> Fit:
    """The mean of y (m,) as a Fit."""
    value = weights @ y / weights.sum()
    return Fit(np.array([value]), (y - value)[:, None])


def least_squares(y: np.ndarray, X: np.ndarray, weights: np.ndarray) -> Fit:
    """Coefficients of y (m,) on X (m, p)."""
    square = X.T @ (weights[:, None] * X)
    value = np.linalg.solve(square, X.T @ (weights * y))
    return Fit(value, np.linalg.solve(square / weights.sum(), (X * (y - X @ value)[:, None]).T).T)


def logit(y: np.ndarray, X: np.ndarray, weights: np.ndarray) -> Fit:
    """The same of a logistic regression; y from 0 to 1. DataError where it has no finite answer."""
    value = np.zeros(X.shape[1])
    for _ in range(STEPS):
        said = expit(X @ value)
        slope = weights * said * (1 - said)
        square = X.T @ (slope[:, None] * X)
        try:
            step = np.linalg.solve(square, X.T @ (weights * (y - said)))
        except np.linalg.LinAlgError:
            break
        if not np.isfinite(step).all():
            break
        value = value + step
        if np.abs(X @ step).max() < 1e-9:
            return Fit(value, np.linalg.solve(square / weights.sum(), (X * (y - said)[:, None]).T).T)
    raise DataError(
        "the logistic regression has no finite answer: some column tells all texts of one outcome apart",
        "Leave a column out, code more texts, or take --model ols.",
    )


MODELS = {"ols": least_squares, "logit": logit}


# The correction -----------------------------------------------------------------------------------


class Corrected(NamedTuple):
    """Estimates (p,), their variances (p,), and how much the predictions counted (p,)."""

    value: np.ndarray
    variance: np.ndarray
    weight: np.ndarray


def correct(codes: Fit, said: Fit, everywhere: Fit, sample: Sample, corpus_only: bool = False) -> Corrected:
    """Codes of the coded texts, predictions of them, predictions of all: the corrected estimate.

    The weight is a regression's: of the codes' pull on that of the predictions, over the coded texts.
    """
    w = sample.weights
    both, alone = w @ (codes.pull * said.pull), w @ said.pull**2  # (p,) each
    moves = alone > 1e-12 * (everywhere.pull**2).sum(axis=0)  # else they were all the same
    weight = np.divide(both, alone, out=np.zeros_like(both), where=moves)
    value = codes.value + weight * (everywhere.value - said.value)
    left = codes.pull - weight * said.pull
    used = codes.pull.shape[1] + 1  # a coefficient each, and the weight
    return Corrected(value, variance(left, codes.pull, sample, used, corpus_only), weight)


def variance(
    left: np.ndarray, own: np.ndarray, sample: Sample, used: int, corpus_only: bool = False
) -> np.ndarray:
    """Of estimates (p,): as some of the texts were coded and not others; as these texts came and not others.

    left   (n, p) what predictions leave over of each coded text's pull
    own    (n, p) the pull of its code
    used   numbers that were fitted: a residual is smaller than an error by n - used over n
    `corpus_only` leaves out the second part: what is asked is of these texts alone.
    """
    w, n = sample.weights, len(sample.coded)
    coding = (w**2 * (1 - sample.chance)) @ left**2
    coming = 0 if corpus_only else w @ own**2
    return (coding + coming) / sample.texts**2 * n / (n - used)


def by_t(value: float, variance: float, degrees: float) -> Interval:
    """value +- t * standard error; `degrees` of freedom."""
    reach = stdtrit(max(degrees, 1.0), 0.975) * math.sqrt(variance)
    return Interval(float(value), float(value - reach), float(value + reach))


def binomial(share: float, n: float) -> tuple[float, float]:
    """Jeffreys' interval of a share of n texts, which holds where a share is near 0 or 1.

    n may be broken, as texts that count more or less than one make it, or infinite.
    """
    if math.isinf(n):
        return share, share
    yes, no = share * n, (1 - share) * n
    low = betaincinv(yes + 0.5, no + 0.5, 0.025) if yes > 1e-9 else 0.0
    high = betaincinv(yes + 0.5, no + 0.5, 0.975) if no > 1e-9 else 1.0
    return min(float(low), share), max(float(high), share)
