"""Scores with 95 % intervals, differences between two models, tables by class. NumPy only.

In:  truth and predicted of n texts, as their kind has them:
       classification  (n,) int64 class numbers        multilabel  (n, C) bool, which labels a text has
       regression      (n,) float64 values             tokens      n tuples of tags, one tag a word
Out: Score(value, low, high, n) a metric, plain dicts and arrays.

Intervals are percentile bootstraps over texts: draw n texts with replacement, score, repeat, and
take the 2.5th and 97.5th percentile. A resample is a row of weights: how often each text was drawn.
So every metric is written once, as `metric(truth, predicted) -> function of weights (R, n) -> (R,)`;
the score itself is the same function with all weights 1.

macro_f1 is the mean F1 over the classes (or tags) that occur in truth or prediction, of several labels a
text over all of them, a division by zero counting as 0: scikit-learn's f1_score(average="macro",
zero_division=0). r2 is the coefficient of determination. What is undefined (a constant has no correlation)
is NaN here and null in JSON.

Words of one sentence are no independent draws, so tokens too are resampled by texts: each text gives its
counts, and a resample adds up the counts of the texts it drew. Entities are counted as the CoNLL script
`conlleval` counts them: right is one whose first word, last word and type are all right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .counts import COUNTS, RATES, Tags, Weighted, label_counts, macro, micro, rates, tag_counts, type_counts

HIGHER_IS_BETTER = {
    "accuracy": True,
    "macro_f1": True,
    "pearson": True,
    "spearman": True,
    "rmse": False,
    "mae": False,
    "r2": True,
    "micro_f1": True,
    "exact": True,
    "entity_f1": True,
    "entity_precision": True,
    "entity_recall": True,
}
LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval
MOST_UNDEFINED = 0.05  # an interval needs this much of its resamples defined: at most 1 in 20 is not
CHUNK = 2**20  # weights held at once: 8 MB


@dataclass(frozen=True)
class Score:
    """A metric on n texts and its 95 % interval; NaN where undefined, and then `note` says why."""

    value: float
    low: float
    high: float
    n: int
    note: str = ""

    def as_dict(self) -> dict[str, float | int | str | None]:
        """For JSON: NaN becomes None; `note` only where there is one."""
        bounds = {name: null(getattr(self, name)) for name in ("value", "low", "high")}
        return bounds | {"n": self.n} | ({"note": self.note} if self.note else {})


def score(
    kind: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Score]:
    """The metrics `names` of a kind, or all it has, each with its interval.

    truth, predicted: see above. Classes: `truth` may hold -1 or numbers from `num_classes` on, for labels
    that the model can't know; these are always wrong. ValueError for other shapes or numbers.
    """
    truth, predicted = checked(kind, truth, predicted, num_classes)
    note = _note(kind, truth, predicted)
    table = {name: weighted(kind, name, truth, predicted) for name in names or METRICS[kind]}
    drawn = _bootstrap(table, len(truth), resamples, seed)
    out = {}
    for name, metric in table.items():
        low, high = interval(drawn[name])
        point = _point(metric, len(truth))
        why = note if math.isnan(point) or kind in ONE_ANSWER else ""
        out[name] = Score(point, low, high, len(truth), why or ("" if low == low else TOO_FEW))
    return out


def difference(
    kind: str,
    truth: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Ours minus theirs by metric: {"value", "low", "high"}, None where undefined.

    The bootstrap is paired: both are scored on each resample, so that texts hard for both cancel.
    """
    mine, yours = (checked(kind, truth, one, num_classes) for one in (ours, theirs))
    wanted = names or METRICS[kind]
    tables = [{name: weighted(kind, name, *pair) for name in wanted} for pair in (mine, yours)]
    both = {(i, name): metric for i, table in enumerate(tables) for name, metric in table.items()}
    drawn = _bootstrap(both, len(truth), resamples, seed)
    out = {}
    for name in wanted:
        low, high = interval(drawn[0, name] - drawn[1, name])
        point = _point(both[0, name], len(truth)) - _point(both[1, name], len(truth))
        out[name] = {"value": null(point), "low": null(low), "high": null(high)}
    return out


def value(
    name: str, truth: np.ndarray, predicted: np.ndarray, num_classes: int | None = None, kind: str = ""
) -> float:
    """One metric, without an interval; NaN where undefined. `kind`: the first that has it where absent."""
    kind = kind or next((kind for kind, table in METRICS.items() if name in table), "")
    if name not in METRICS.get(kind, ()):
        raise ValueError(f"{name!r} is none of {', '.join(METRICS.get(kind, HIGHER_IS_BETTER))}")
    truth, predicted = checked(kind, truth, predicted, num_classes)
    return _point(weighted(kind, name, truth, predicted), len(truth))


def average(metrics: Sequence[Weighted], n: int, *, resamples: int = 2000, seed: int = 0) -> Score:
    """The mean of several metrics of the same n texts, such as one of METRICS for each of several raters.

    All are scored on each resample, so the interval is that of the mean.
    """
    drawn = _bootstrap(dict(enumerate(metrics)), n, resamples, seed)
    point = float(np.mean([_point(metric, n) for metric in metrics]))
    low, high = interval(np.mean(list(drawn.values()), axis=0))
    return Score(point, low, high, n, "" if low == low else TOO_FEW)


def better(name: str, new: float | None, old: float | None) -> bool:
    """Is `new` strictly better than `old`? NaN and None are worse than anything, and never better."""
    if new is None or math.isnan(new):
        return False
    if old is None or math.isnan(old):
        return True
    return new > old if HIGHER_IS_BETTER[name] else new < old


def per_class(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """For each label: {"label", "precision", "recall", "f1", "n", "said"}; n counts texts in truth, said in answers.

    A ratio without anything below the line is 0, as in scikit-learn with zero_division=0.
    """
    truth, predicted = checked("classification", truth, predicted, len(labels))
    rows = []
    for i, label in enumerate(labels):
        right = int(np.sum((truth == i) & (predicted == i)))
        said, n = int(np.sum(predicted == i)), int(np.sum(truth == i))
        ratios = {"precision": (right, said), "recall": (right, n), "f1": (2 * right, said + n)}
        rows.append(
            {"label": label}
            | {k: a / b if b else 0.0 for k, (a, b) in ratios.items()}
            | {"n": n, "said": said}
        )
    return rows


def per_label(
    what: str,
    truth: np.ndarray | Sequence[Tags],
    predicted: np.ndarray | Sequence[Tags],
    labels: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict]:
    """The table of per_class for several labels a text and for words, with the interval of F1: `low`, `high`.

    what: "multilabel", `labels` being the names of the columns; "tags", by the tags of words; "entities", by
    the types of entities. n counts texts, words or entities in truth, said those in answers.
    """
    kind = "multilabel" if what == "multilabel" else "tokens"
    counts = COUNTS[what](*checked(kind, truth, predicted, None), labels)
    of = {name: rates(counts, name) for name in RATES}
    points = {name: rate(np.ones((1, len(truth))))[0] for name, rate in of.items()}  # (C,) each
    drawn = [of["f1"](weights) for weights in draws(len(truth), resamples, seed)]  # (R, C) each
    bounds = (
        np.percentile(np.concatenate(drawn), LEVELS, axis=0) if drawn else np.full((2, len(labels)), np.nan)
    )
    n, said = counts.true.sum(axis=0), counts.said.sum(axis=0)
    return [
        {"label": label, **{name: float(points[name][i]) for name in RATES}, "n": int(n[i]), "said": int(said[i]),
         "low": null(bounds[0, i]), "high": null(bounds[1, i])}
        for i, label in enumerate(labels)
    ]  # fmt: skip


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often class j was said of class i: (C, C) int64, rows truth, columns prediction.

    Texts whose label the model can't know have no row: the sum falls short of n by their number.
    """
    truth, predicted = checked("classification", truth, predicted, num_classes)
    known = (truth >= 0) & (truth < num_classes)
    flat = truth[known] * num_classes + predicted[known]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)  # (C, C)


# The metrics ------------------------------------------------------------------------------------


def _accuracy(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    right = (truth == predicted).astype(float)
    return lambda weights: weights @ right / weights.sum(axis=1)


def _macro_f1(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    names, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    true, said = np.split(codes, 2)
    right = true == said

    def of(weights: np.ndarray) -> np.ndarray:
        hits = _sum_by(weights * right, true, len(names))  # (R, C)
        seen = _sum_by(weights, true, len(names)) + _sum_by(weights, said, len(names))  # (R, C)
        f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return f1.sum(axis=1) / (seen > 0).sum(axis=1)

    return of


def _pearson(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    t, p = _centred(truth), _centred(predicted)
    features = np.stack([t, p, t * t, p * p, t * p], axis=1)  # (n, 5)

    def of(weights: np.ndarray) -> np.ndarray:
        mt, mp, tt, pp, tp = (weights @ features / weights.sum(axis=1, keepdims=True)).T
        vt, vp = _spread(tt, mt), _spread(pp, mp)
        return np.clip((tp - mt * mp) / np.sqrt(vt * vp), -1, 1)

    return of


def _spearman(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    """Pearson's r of the ranks, ties at their mean rank, ranked anew in every resample."""
    places = [np.unique(x, return_inverse=True)[1] for x in (truth, predicted)]

    def of(weights: np.ndarray) -> np.ndarray:
        n = weights.sum(axis=1, keepdims=True)  # (R, 1)
        ranks = []
        for place in places:
            drawn = _sum_by(weights, place, place.max() + 1)  # (R, distinct values)
            ranks.append((drawn.cumsum(axis=1) - drawn / 2 - n / 2)[:, place])  # (R, n), mean exactly 0
        t, p = ranks
        vt, vp = (np.einsum("rn,rn,rn->r", weights, x, x) for x in ranks)
        return np.clip(np.einsum("rn,rn,rn->r", weights, t, p) / np.sqrt(vt * vp), -1, 1)

    return of


def _rmse(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    squares = (truth - predicted) ** 2
    return lambda weights: np.sqrt(weights @ squares / weights.sum(axis=1))


def _mae(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    sizes = np.abs(truth - predicted)
    return lambda weights: weights @ sizes / weights.sum(axis=1)


def _r2(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    largest = np.abs(truth - truth.mean()).max() or 1.0
    t = _centred(truth)
    features = np.stack([t, t * t, ((truth - predicted) / largest) ** 2], axis=1)  # (n, 3)

    def of(weights: np.ndarray) -> np.ndarray:
        mean, square, error = (weights @ features / weights.sum(axis=1, keepdims=True)).T
        return 1 - error / _spread(square, mean)

    return of


METRICS: dict[str, dict[str, Callable[..., Weighted]]] = {
    "classification": {"accuracy": _accuracy, "macro_f1": _macro_f1},
    "regression": {"pearson": _pearson, "spearman": _spearman, "rmse": _rmse, "mae": _mae, "r2": _r2},
    "multilabel": {
        "micro_f1": lambda t, p: micro(label_counts(t, p), "f1"),
        "macro_f1": lambda t, p: macro(label_counts(t, p)),
        "exact": lambda t, p: _accuracy((t == p).all(axis=1), np.ones(len(t), bool)),
    },
    "tokens": {
        "entity_f1": lambda t, p: micro(type_counts(t, p), "f1"),
        "entity_precision": lambda t, p: micro(type_counts(t, p), "precision"),
        "entity_recall": lambda t, p: micro(type_counts(t, p), "recall"),
        "accuracy": lambda t, p: micro(tag_counts(t, p), "recall"),  # a word has one tag: the share right
        "macro_f1": lambda t, p: macro(tag_counts(t, p), seen_only=True),
    },
}
ONE_ANSWER = ("classification",)  # kinds of which it is worth saying that every truth is the same
RATIOS = ("pearson", "spearman", "r2")  # divide by a spread, so they need two texts that differ


# What they stand on -------------------------------------------------------------------------------


def weighted(kind: str, name: str, truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    """The metric `name` as a function of weights, or a function that is NaN where it is undefined."""
    broken = kind == "regression" and not (np.isfinite(truth).all() and np.isfinite(predicted).all())
    if len(truth) < (2 if name in RATIOS else 1) or broken:
        return lambda weights: np.full(len(weights), np.nan)
    return METRICS[kind][name](truth, predicted)


def _point(metric: Weighted, n: int) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(metric(np.ones((1, n)))[0])


def _bootstrap(metrics: dict, n: int, resamples: int, seed: int) -> dict:
    """Each metric on the same resamples: key -> (resamples,)."""
    out: dict = {key: [np.empty(0)] for key in metrics}
    with np.errstate(divide="ignore", invalid="ignore"):
        for weights in draws(n, resamples, seed):
            for key, metric in metrics.items():
                out[key].append(metric(weights))
    return {key: np.concatenate(parts) for key, parts in out.items()}


def draws(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[np.ndarray]:
    """Weights (R, n) of all resamples, a chunk of rows at a time; nothing for fewer than two texts."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(n, 1))
    for start in range(0, resamples if n > 1 else 0, rows):
        size = min(rows, resamples - start)
        yield resampled(rng, size, n)


def resampled(rng: np.random.Generator, rows: int, n: int) -> np.ndarray:
    """(rows, n) weights: how often each of n texts is in as many draws with replacement."""
    drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]  # (R, n)
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of resampled scores; NaN where more than 1 in 20 are undefined."""
    defined = drawn[~np.isnan(drawn)]
    if len(defined) == 0 or len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
        return math.nan, math.nan
    low, high = np.percentile(defined, LEVELS)
    return float(low), float(high)


def _sum_by(weights: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Weights (R, n) summed over the texts of each group: (R, groups)."""
    flat = group + groups * np.arange(len(weights))[:, None]  # (R, n)
    summed = np.bincount(flat.ravel(), weights=weights.ravel(), minlength=len(weights) * groups)
    return summed.reshape(len(weights), groups)


def _centred(x: np.ndarray) -> np.ndarray:
    """x less its mean, scaled to at most 1: large means and tiny units cost no digits."""
    x = x - x.mean()
    return x / (np.abs(x).max() or 1.0)


def _spread(square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The variance E[x^2] - E[x]^2, and NaN where x is constant up to rounding."""
    variance = square - mean**2
    return np.where(variance > 1e-12 * square, variance, np.nan)


ONE_LABEL = "every text has the same true label"
TOO_FEW = "no interval: it needs two texts, and a metric defined on at least 95 % of the resamples"


def _note(kind: str, truth: np.ndarray, predicted: np.ndarray) -> str:
    """Why a metric is undefined, or what to know of one that is not; '' for ordinary data."""
    if len(truth) < 2:
        return f"{len(truth)} texts are too few" if len(truth) == 0 else "one text is too few"
    if kind == "classification":
        return ONE_LABEL if (truth == truth[0]).all() else ""
    if kind != "regression":
        return ""
    for name, x in (("true values", truth), ("predictions", predicted)):
        if not np.isfinite(x).all():
            return f"some {name} are not finite numbers"
        if np.isnan(_spread(np.mean(_centred(x) ** 2), np.mean(_centred(x)))):
            return f"the {name} are all the same"
    return ""


def checked(kind: str, truth: Any, predicted: Any, num_classes: int | None) -> tuple[Any, Any]:
    """Both in the form of their kind; ValueError where shapes, types or class numbers can't be right."""
    if kind not in METRICS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(METRICS)}")
    return CHECKS[kind](truth, predicted, num_classes)


def _shaped(truth: Any, predicted: Any, shape: str) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.ndim != (2 if "C" in shape else 1) or truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must both have shape {shape}")
    return truth, predicted


def _checked_classes(truth: Any, predicted: Any, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = _shaped(truth, predicted, "(n,)")
    for name, x in (("truth", truth), ("predicted", predicted)):
        if x.dtype.kind not in "iu" and len(x):
            raise ValueError(f"{name} must hold class numbers, not {x.dtype}")
    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
    most = predicted.max(initial=-1)
    if predicted.min(initial=0) < 0 or (num_classes is not None and most >= num_classes):
        raise ValueError(f"predicted holds class {most} or a negative one: there are {num_classes} classes")
    return truth, predicted


def _checked_values(truth: Any, predicted: Any, num_classes: None) -> tuple[np.ndarray, np.ndarray]:
    return tuple(x.astype(np.float64) for x in _shaped(truth, predicted, "(n,)"))


def _checked_labels(truth: Any, predicted: Any, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = _shaped(truth, predicted, "(n, C)")
    if truth.dtype != bool or predicted.dtype != bool:
        raise ValueError(f"truth {truth.dtype} and predicted {predicted.dtype} must say true or false")
    return truth, predicted


def _checked_tags(truth: Any, predicted: Any, num_classes: int | None) -> tuple[list[Tags], list[Tags]]:
    truth, predicted = ([tuple(text) for text in texts] for texts in (truth, predicted))
    lengths = [[len(text) for text in texts] for texts in (truth, predicted)]
    if lengths[0] != lengths[1]:
        raise ValueError("truth and predicted must hold the same texts, with a tag for each of their words")
    return truth, predicted


CHECKS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "classification": _checked_classes,
    "regression": _checked_values,
    "multilabel": _checked_labels,
    "tokens": _checked_tags,
}


def null(x: float) -> float | None:
    """For JSON: None for NaN."""
    return None if math.isnan(x) else float(x)
