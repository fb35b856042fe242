"""Whether one contestant is better than another: means over replicates, paired differences, p values.

In:  Replicates of a contestant: one training each, tested; those of one group were tested on the same texts.
Out: plain dicts for JSON, None for what is undefined.

A **group** is one split of the data, its replicates differ in the seed and share its test texts. What could have
come out differently is drawn: the test texts of each split, by a bootstrap, for all its seeds together. Seeds, and
splits, differ in part because they were tested on so many texts only, which the bootstrap has already counted; what
they differ by beyond that is added as a draw from Student's t with as many degrees of freedom as they allow. (To
draw seeds and texts one inside the other counts that part twice: between equal contestants with three seeds it found
a difference in none of 400 studies where 20 are due, this in 14. Where seeds differ by much, two of them can't say
so reliably: then it is 42 with two seeds, 31 with three, 23 with five.) With one split and one seed it is the
bootstrap of metrics.py, and nothing is known of other seeds.

Two tests of "no difference", both two-sided:
- bootstrap: how many of the resampled differences lie beyond zero, twice the smaller side. It agrees with the
  interval, and it is about splits, seeds and texts.
- approximate randomisation (Noreen 1989; Yeh 2000, "More accurate tests for the statistical significance of
  result differences"): the two answers to a text change sides by a coin, for all seeds of a split together; how
  often is the difference as large as the one found? It is about texts alone: these networks, other texts.

Both take the texts of two groups for different ones. Splits of one table share many: five that test a quarter each
find a difference between equal contestants in 18 studies of 100. There `corrected_interval` stands in their place.

Many comparisons find something by chance. `holm` corrects for their number (Holm 1979).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..counts import Weighted
from ..metrics import CHUNK, MOST_UNDEFINED, checked, interval, null, resampled, weighted

RESAMPLES, SWAPS = 2000, 5000
EQUAL = 1e-9  # of scores and differences: what rounding makes of equal ones, and more


@dataclass(frozen=True)
class Replicate:
    """One training, tested: what is true of n texts and what was answered, as metrics.py takes them.

    group   its split. Replicates of a group have the same test texts in the same order, so the same `truth`.
    """

    truth: Any
    answers: Any
    group: Hashable = 0


def mean_score(
    kind: str,
    name: str,
    replicates: Sequence[Replicate],
    num_classes: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean of a metric over replicates: {"value", "low", "high", "n", "replicates"}; n counts test texts."""
    groups = _groups(kind, replicates, num_classes)
    scores = {key: _columns(kind, name, truth, answers) for key, (truth, answers) in groups.items()}
    drawn = _bootstrap(scores, _sizes(groups), resamples, seed)
    low, high = interval(drawn)
    return {
        "value": null(_mean(scores, _sizes(groups))),
        "low": null(low),
        "high": null(high),
        "n": sum(n for n, _ in _sizes(groups).values()),
        "replicates": len(replicates),
    }


def paired(
    kind: str,
    name: str,
    ours: Sequence[Replicate],
    theirs: Sequence[Replicate],
    num_classes: int | None = None,
    resamples: int = RESAMPLES,
    swaps: int = SWAPS,
    seed: int = 0,
) -> dict[str, Any]:
    """Ours minus theirs: {"value", "low", "high", "p_bootstrap", "p_randomisation", "n"}.

    Both need the same groups with the same texts, and as many replicates in each, which are paired in their order;
    or theirs has one that stands for all, as what knows no seed has. ValueError otherwise.
    """
    mine, other = (_groups(kind, each, num_classes) for each in (ours, theirs))
    _check_pairs(mine, other)
    differences = {}
    for key, (truth, answers) in mine.items():
        one, two = _columns(kind, name, truth, answers), _columns(kind, name, truth, other[key][1])
        differences[key] = lambda weights, one=one, two=two: one(weights) - two(weights)  # (R, S)
    drawn = _bootstrap(differences, _sizes(mine), resamples, seed)
    low, high = interval(drawn)
    return {
        "value": null(_mean(differences, _sizes(mine))),
        "low": null(low),
        "high": null(high),
        "p_bootstrap": two_sided(drawn),
        "p_randomisation": _randomised(kind, name, mine, other, swaps, seed),
        "n": sum(n for n, _ in _sizes(mine).values()),
    }


def without(replicates: Iterable[Replicate], places: Iterable[int]) -> list[Replicate]:
    """The same answers less the texts at these places, such as those that stand in train, too."""
    gone = set(places)

    def kept(x: Any) -> Any:
        left = [i for i in range(len(x)) if i not in gone]
        return x[left] if isinstance(x, np.ndarray) else [x[i] for i in left]

    return [replace(one, truth=kept(one.truth), answers=kept(one.answers)) for one in replicates]


def holm(ps: Iterable[float | None]) -> list[float | None]:
    """p values so adjusted that, of all of them together, one in 20 studies finds any below 0.05 by chance.

    None, for what could not be tested, stays None and does not count.
    """
    ps = list(ps)
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    out: list[float | None] = [None] * len(ps)
    most = 0.0
    for rank, (p, place) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * p))
        out[place] = most
    return out


def corrected_interval(differences: Sequence[float], test_share: float) -> dict[str, float | None]:
    """The mean of differences over repeated splits of one table: {"value", "low", "high", "p"}.

    differences   one a split     test_share   test texts over those that are trained on or tested
    Splits of one table share most of their texts, so that a plain t interval is too narrow: the variance of the
    mean is s^2 (1/J + test/train) instead of s^2/J (Nadeau and Bengio 2003, "Inference for the generalization
    error"). None for the interval of fewer than two splits.
    """
    from scipy.special import stdtr, stdtrit  # of Student's t: the distribution and its inverse

    if not 0 < test_share < 1:
        raise ValueError(f"test_share {test_share} must lie between 0 and 1")
    found = np.asarray(differences, float)
    splits, value = len(found), float(found.mean()) if len(found) else math.nan
    if splits < 2 or math.isnan(value):
        return {"value": null(value), "low": None, "high": None, "p": None}
    error = float(found.std(ddof=1)) * math.sqrt(1 / splits + test_share / (1 - test_share))
    half = float(stdtrit(splits - 1, 0.975)) * error
    t = abs(value) / error if error else (math.inf if value else 0.0)
    return {"value": value, "low": value - half, "high": value + half, "p": 2 * float(stdtr(splits - 1, -t))}


def two_sided(drawn: np.ndarray) -> float | None:
    """The p value of "zero" by resampled differences (R,); None where more than 1 in 20 are undefined."""
    defined = _defined(drawn)
    if not len(defined):
        return None
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(defined) + 1))


# What they stand on -------------------------------------------------------------------------------

Groups = dict[
    Hashable, tuple[Any, list[Any]]
]  # what is true of a group's texts; the answers of its replicates
Sizes = dict[Hashable, tuple[int, int]]  # how many texts and how many replicates
Columns = dict[Hashable, Callable[[np.ndarray], np.ndarray]]  # weights (R, n) -> (R, S), S replicates


def _groups(kind: str, replicates: Sequence[Replicate], num_classes: int | None) -> Groups:
    """Replicates by group, in the form of their kind; ValueError where a group's texts are not the same."""
    if not replicates:
        raise ValueError("there is no replicate to score")
    groups: Groups = {}
    for one in replicates:
        truth, answers = checked(kind, one.truth, one.answers, num_classes)
        kept = groups.setdefault(one.group, (truth, []))
        if not _same(kept[0], truth):
            raise ValueError(f"the replicates of group {one.group!r} were not tested on the same texts")
        kept[1].append(answers)
    return groups


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, list):
        return one == two
    return np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _check_pairs(mine: Groups, other: Groups) -> None:
    if set(mine) != set(other):
        raise ValueError(f"groups differ: {sorted(map(str, mine))} and {sorted(map(str, other))}")
    for key, (truth, answers) in mine.items():
        if not _same(truth, other[key][0]):
            raise ValueError(f"in group {key!r} the two were not tested on the same texts")
        if len(other[key][1]) not in (1, len(answers)):
            raise ValueError(
                f"group {key!r} has {len(answers)} replicates of ours and {len(other[key][1])} of theirs: "
                "as many, or one of theirs, can be paired"
            )


def _sizes(groups: Groups) -> Sizes:
    return {key: (len(truth), len(answers)) for key, (truth, answers) in groups.items()}


def _columns(kind: str, name: str, truth: Any, answers: list[Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The metric of each replicate of a group: weights (R, n) -> (R, S)."""
    of = [weighted(kind, name, truth, one) for one in answers]
    return lambda weights: np.stack([metric(weights) for metric in of], axis=1)


def _mean(scores: Columns, sizes: Sizes) -> float:
    """Over all replicates of all groups, each text counting once. A difference with one of theirs: over ours."""
    total = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for key, of in scores.items():
            total += float(of(np.ones((1, sizes[key][0]))).sum())
    return total / sum(seeds for _, seeds in sizes.values())


def _chunks(sizes: Sizes, rows: int, per_text: int = 1) -> Iterator[int]:
    """`rows` resamples as counts of which each holds little memory; none where a group has fewer than two texts."""
    most, least = max(n for n, _ in sizes.values()), min(n for n, _ in sizes.values())
    step = max(1, CHUNK // max(per_text * most, 1))
    for start in range(0, rows if least > 1 else 0, step):
        yield min(step, rows - start)


def _bootstrap(scores: Columns, sizes: Sizes, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) means over replicates, as other texts, seeds and splits might have given them."""
    rng = np.random.default_rng(seed)
    tables = {key: [np.empty((0, seeds))] for key, (_, seeds) in sizes.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        points = [of(np.ones((1, sizes[key][0])))[0] for key, of in scores.items()]  # (S,) each
        for rows in _chunks(sizes, resamples):
            for key, of in scores.items():
                tables[key].append(of(resampled(rng, rows, sizes[key][0])))
    drawn = [np.concatenate(parts) for parts in tables.values()]  # (R, S) each
    rows, replicates = len(drawn[0]), sum(len(one) for one in points)
    if not rows:
        return np.empty(0)
    of_seeds, of_splits = _beyond_texts(points, drawn)
    shares = np.array([len(one) for one in points]) / replicates
    noise = np.zeros(rows)
    if of_seeds:
        noise += math.sqrt(of_seeds / replicates) * rng.standard_t(replicates - len(points), rows)
    if of_splits:
        noise += math.sqrt(of_splits * (shares**2).sum()) * rng.standard_t(len(points) - 1, rows)
    return sum(one.sum(axis=1) for one in drawn) / replicates + noise


def _beyond_texts(points: list[np.ndarray], drawn: list[np.ndarray]) -> tuple[float, float]:
    """The variance of seeds within a split, and of splits, that their test texts do not explain; at least 0.

    points   the scores of each split, (S,)     drawn   these on resampled texts, (R, S)
    """
    free, of_seeds, of_splits = sum(len(one) - 1 for one in points), 0.0, 0.0
    if free:
        found = sum(((one - one.mean()) ** 2).sum() for one in points)
        apart = (one - one.mean(axis=1, keepdims=True) for one in drawn)
        of_seeds = max(0.0, float(found - sum(_variance(one, 0).sum() for one in apart)) / free)
    if len(points) > 1:
        within = [_variance(one.mean(axis=1)) + of_seeds / one.shape[1] for one in drawn]
        of_splits = max(0.0, float(np.var([one.mean() for one in points], ddof=1) - np.mean(within)))
    return of_seeds, of_splits


def _variance(x: np.ndarray, axis: int | None = None) -> Any:
    """Of what is defined; NaN, in silence, where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanvar(x, axis=axis)


def _randomised(kind: str, name: str, mine: Groups, other: Groups, swaps: int, seed: int) -> float | None:
    """The share of coin throws after which the difference is as large as the one found, which is one of them.

    Both contestants' answers stand in one list, each text twice; a throw gives one half of them weight 1 in the
    first contestant's score and the other half in the second's. So the metrics need no form of their own for it.
    """
    sizes, rng = _sizes(mine), np.random.default_rng([seed, 1])
    both = {key: list(_both(kind, name, *mine[key], other[key][1])) for key in mine}
    out = [_swapped(both, {key: np.zeros((1, n)) for key, (n, _) in sizes.items()})]
    for rows in _chunks(sizes, swaps, per_text=2):
        coins = {key: rng.integers(2, size=(rows, n)).astype(float) for key, (n, _) in sizes.items()}
        out.append(_swapped(both, coins))
    found, drawn = abs(out[0][0]), _defined(np.abs(np.concatenate([np.empty(0), *out[1:]])))
    if math.isnan(found) or not len(drawn):
        return None
    as_large = drawn >= found - EQUAL * (drawn.max() + _size(both, sizes))
    return float((as_large.sum() + 1) / (len(drawn) + 1))


def _both(kind: str, name: str, truth: Any, ours: list[Any], theirs: list[Any]) -> Iterator[Weighted]:
    """For each pair of replicates the metric on the answers of both, ours before theirs: weights (R, 2n)."""
    for place, one in enumerate(ours):
        two = theirs[place if len(theirs) > 1 else 0]
        if isinstance(truth, list):
            yield weighted(kind, name, truth + truth, one + two)
        else:
            yield weighted(kind, name, np.concatenate([truth, truth]), np.concatenate([one, two]))


def _swapped(both: dict[Hashable, list[Weighted]], coins: dict[Hashable, np.ndarray]) -> np.ndarray:
    """(R,) mean differences where the answers whose coin (R, n) is 1 have changed sides."""
    total = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for key, pairs in both.items():
            first, second = (np.hstack([1 - side, side]) for side in (coins[key], 1 - coins[key]))  # (R, 2n)
            total = total + sum(metric(first) - metric(second) for metric in pairs)
    return total / sum(map(len, both.values()))


def _size(both: dict[Hashable, list[Weighted]], sizes: Sizes) -> float:
    """How large the scores are, which their rounding goes by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = [
            metric(np.ones((1, 2 * sizes[key][0])))[0] for key, pairs in both.items() for metric in pairs
        ]
    return float(np.abs(np.nan_to_num(scores)).max())


def _defined(drawn: np.ndarray) -> np.ndarray:
    """Those that are no NaN; none where that is more than 1 in 20 of them."""
    defined = drawn[~np.isnan(drawn)]
    return defined if len(defined) >= (1 - MOST_UNDEFINED) * len(drawn) else defined[:0]
