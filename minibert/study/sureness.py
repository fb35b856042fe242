"""What the probabilities of answers are worth: calibration, giving the surest answers only, doubtful labels.

In:  probabilities on test texts beside what is true.
Out: plain dicts and lists for JSON, None for what is undefined.

Regression has no probabilities: `calibration_line` says how its values lean, and there are no surest answers, for
want of a number that says how sure one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..metrics import checked, draws, interval, null

BINS = 10
RESAMPLES = 2000
POINTS = 50  # of a curve
SURE = 0.9  # the probability from which all seeds are sure


class Binned(NamedTuple):
    """Answers in bins of like sureness, summed by text: (n, bins) each."""

    counts: np.ndarray
    hits: np.ndarray  # how many are right
    hopes: np.ndarray  # how many should be, by their probabilities

    def error(self, weights: np.ndarray) -> np.ndarray:
        """The expected calibration error of each resample: weights (R, n) -> (R,)."""
        gaps = np.abs(weights @ (self.hopes - self.hits))  # (R, bins)
        return gaps.sum(axis=1) / (weights @ self.counts).sum(axis=1)


def calibration(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Whether of the answers that are 80 % sure 80 % are right.

    probabilities (n, C)    truth (n,) class numbers: a text's answer counts; or (n, C) bool: each of its labels does
    {"binning": "equal mass", "bins": [{"from", "to", "n", "confidence", "accuracy", "low", "high"}, ...],
     "ece": {"value", "low", "high", "n"}, "by_chance": {"value", "high"}, "surplus": mean confidence - accuracy}
    Bins hold about as many answers each; equally sure ones share a bin. The expected calibration error is the mean
    distance between confidence and accuracy over the bins. It is above 0 by chance alone, and its interval too high:
    `by_chance` is what it would be if the probabilities were true, its mean and what 1 in 20 exceed.
    """
    sure, right = _answers(probabilities, truth)  # (n, K) each
    if not sure.size:
        return {"binning": "equal mass", "bins": [], "ece": {"value": None, "low": None, "high": None, "n": 0},
                "by_chance": {"value": None, "high": None}, "surplus": None}  # fmt: skip
    n, edges = len(sure), np.unique(np.quantile(sure, np.arange(1, bins) / bins))
    filled, place = np.unique(np.searchsorted(edges, sure.ravel(), side="left"), return_inverse=True)
    place, size = place.ravel(), len(filled)
    flat = np.repeat(np.arange(n), sure.shape[1]) * size + place
    sums = (np.bincount(flat, x.ravel().astype(float), n * size) for x in (np.ones_like(sure), right, sure))
    found = Binned(*(x.reshape(n, size) for x in sums))
    drawn, shares = [np.empty(0)], [np.empty((0, size))]
    with np.errstate(divide="ignore", invalid="ignore"):
        for weights in draws(n, resamples, seed):
            drawn.append(found.error(weights))
            shares.append((weights @ found.hits) / (weights @ found.counts))  # (R, bins)
    low, high = interval(np.concatenate(drawn))
    bounds = [interval(one) for one in np.concatenate(shares).T]
    counts, hits, hopes = (x.sum(axis=0) for x in found)  # (bins,) each
    by_chance = _error_by_chance(sure.ravel(), place, counts, resamples // 4, seed)
    rows = [
        {
            "from": float(sure.ravel()[place == i].min()),
            "to": float(sure.ravel()[place == i].max()),
            "n": int(counts[i]),
            "confidence": float(hopes[i] / counts[i]),
            "accuracy": float(hits[i] / counts[i]),
            "low": null(bounds[i][0]),
            "high": null(bounds[i][1]),
        }
        for i in range(size)
    ]
    error = {"value": float(found.error(np.ones((1, n)))[0]), "low": null(low), "high": null(high), "n": n}
    surplus = float((hopes.sum() - hits.sum()) / counts.sum())
    return {
        "binning": "equal mass",
        "bins": rows,
        "ece": error,
        "by_chance": by_chance,
        "surplus": surplus,
    }


def _answers(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How sure each answer is and whether it is right: (n, K) each, K = 1 where a text has one answer."""
    probabilities, truth = np.asarray(probabilities, float), np.asarray(truth)
    several = truth.shape == probabilities.shape and truth.dtype == bool
    if probabilities.ndim != 2 or not (several or truth.shape == probabilities.shape[:1]):
        raise ValueError(f"probabilities {probabilities.shape} must be (n, C), and truth, {truth.shape}, (n,) class "
                         "numbers or (n, C) true or false")  # fmt: skip
    if several:
        return probabilities, truth
    if not len(truth):
        return np.empty((0, 1)), np.empty((0, 1), bool)
    return probabilities.max(axis=1)[:, None], (probabilities.argmax(axis=1) == truth)[:, None]


def _error_by_chance(
    sure: np.ndarray, place: np.ndarray, counts: np.ndarray, rounds: int, seed: int
) -> dict[str, float]:
    """The calibration error of answers that are right exactly as often as they are sure."""
    rng, size = np.random.default_rng([seed, 1]), len(counts)
    hopes = np.bincount(place, sure, size)
    drawn = []
    for _ in range(max(rounds, 1)):
        hits = np.bincount(place, (rng.random(len(sure)) < sure).astype(float), size)
        drawn.append(np.abs(hopes - hits).sum() / counts.sum())
    return {"value": float(np.mean(drawn)), "high": float(np.quantile(drawn, 0.95))}


def calibration_line(
    truth: np.ndarray, predicted: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The line truth = intercept + slope * predicted: {"slope", "intercept": {"value", "low", "high"}, "n"}.

    Slope 1 and intercept 0 are answers that do not lean; a slope below 1 says that high ones are too high and low
    ones too low. None where all answers are the same.
    """
    truth, predicted = checked("regression", truth, predicted, None)
    middle = float(np.mean(predicted)) if len(predicted) else 0.0
    p = predicted - middle
    features = np.stack([p, truth, p * p, p * truth], axis=1)  # (n, 4)

    def line(weights: np.ndarray) -> np.ndarray:
        """(2, R): slope and intercept."""
        mp, mt, pp, pt = (weights @ features / weights.sum(axis=1, keepdims=True)).T
        spread = pp - mp**2
        slope = np.where(spread > 1e-12 * pp, (pt - mp * mt) / spread, np.nan)
        return np.stack([slope, mt - slope * (mp + middle)])

    with np.errstate(divide="ignore", invalid="ignore"):
        points = line(np.ones((1, len(truth))))[:, 0] if len(truth) else np.full(2, np.nan)
        drawn = [np.empty((2, 0)), *(line(weights) for weights in draws(len(truth), resamples, seed))]
    out: dict[str, Any] = {"n": len(truth)}
    for name, point, values in zip(("slope", "intercept"), points, np.concatenate(drawn, axis=1)):
        low, high = interval(values)
        out[name] = {"value": null(point), "low": null(low), "high": null(high)}
    return out


def selective(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How accurate the answers are if only the surest are given.

    probabilities (n, C)    truth (n,) class numbers
    {"curve": [{"coverage", "accuracy", "least": how sure the least sure of them is}, ...], "area", "accuracy", "n"}
    area   the mean accuracy over all coverages: no more than `accuracy` where sureness says nothing
    Of equally sure answers none comes first: as many of them count as right as of all of them are.
    """
    sure, right = (x[:, 0] for x in _answers(probabilities, np.asarray(truth).reshape(-1)))
    n = len(sure)
    if not n:
        return {"curve": [], "area": None, "accuracy": None, "n": 0}
    levels, place = np.unique(-sure, return_inverse=True)  # the surest first
    ends = np.cumsum(np.bincount(place))
    given = np.arange(1, n + 1)
    hits = np.interp(given, [0, *ends], [0, *np.cumsum(np.bincount(place, right.astype(float)))])
    accuracy, least = hits / given, -levels[np.searchsorted(ends, given)]
    shown = np.unique(np.linspace(1, n, POINTS).round().astype(int)) - 1
    return {
        "curve": [
            {"coverage": float(given[i] / n), "accuracy": float(accuracy[i]), "least": float(least[i])}
            for i in shown
        ],
        "area": float(accuracy.mean()),
        "accuracy": float(accuracy[-1]),
        "n": n,
    }


def noise_suspects(
    probabilities: Sequence[np.ndarray], truth: np.ndarray, rows: Sequence[int], sure: float = SURE
) -> dict[str, Any]:
    """Texts of which every seed is sure that their label is another: the label may be the mistake.

    probabilities   (n, C) for each seed     truth (n,) class numbers     rows (n,) row numbers in the table
    {"sure", "seeds", "n", "count", "texts": [{"place", "row", "label", "said", "probability"}, ...]}
    label, said     class numbers; probability: of what was said, the mean over the seeds; the surest first
    Labels that the network can't know (-1) are no suspects.
    """
    every = np.stack([np.asarray(one, float) for one in probabilities])  # (seeds, n, C)
    truth = np.asarray(truth)
    if every.shape[1] != len(truth) or len(rows) != len(truth):
        raise ValueError(f"probabilities {every.shape}, {len(truth)} labels and {len(rows)} rows do not fit")
    said = every.argmax(axis=2)  # (seeds, n)
    known = (truth >= 0) & (truth < every.shape[2])
    agreed = (said == said[0]).all(axis=0) & (every.max(axis=2) >= sure).all(axis=0)
    places = np.flatnonzero(agreed & known & (said[0] != truth))
    mean = every.max(axis=2).mean(axis=0)
    texts = [
        {"place": int(i), "row": int(rows[i]), "label": int(truth[i]), "said": int(said[0, i]),
         "probability": float(mean[i])}
        for i in sorted(places, key=lambda i: (-mean[i], rows[i]))
    ]  # fmt: skip
    return {"sure": sure, "seeds": len(every), "n": len(truth), "count": len(texts), "texts": texts}
