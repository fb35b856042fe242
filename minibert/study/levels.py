"""What a score is read against: answers that need no reading, and the scores of subgroups.

In:  answers on test texts beside what is true, as metrics.py takes them.
Out: plain dicts and lists for JSON, None for what is undefined.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..metrics import HIGHER_IS_BETTER, checked, draws, interval, null, score, value, weighted
from .compare import holm, two_sided

SHUFFLES = 1000
SHUFFLES_OF_WORDS = 100  # entities are counted text by text, which takes its time
RESAMPLES = 2000
# One answer for so many texts, while fewer than so many have it: as diagnose.py has it.
ALL_ALIKE, NOT_MOST = 0.97, 0.9
HARDLY = 0.01  # of the spread of true values: answers that spread less are all the same
FEWEST = 10  # texts: the same answer for fewer may be right
LEAST = 20  # texts of a subgroup: fewer have no interval worth reading
MOST_GROUPS = 20


# Without reading ----------------------------------------------------------------------------------


def chance(
    kind: str,
    names: Sequence[str],
    truth: Any,
    answers: Any,
    train: Any,
    num_classes: int | None = None,
    shuffles: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """What needs no reading: always the commonest answer of training, and answers dealt out to the wrong texts.

    train   what is true of the training texts, in the form of `truth`
    {"alike": the share of texts with the commonest answer, "most": the share with the commonest truth,
     "constant": whether the answers are (nearly) all the same and the truth is not, "n",
     "metrics": {name: {"value", "majority", "chance", "low", "high", "p"}}}
    chance, low, high   mean and 95 % of the metric where the answers are shuffled; p: how often it is as good then
    """
    truth, answers = checked(kind, truth, answers, num_classes)
    rng = np.random.default_rng(seed)
    shuffles = shuffles or (SHUFFLES_OF_WORDS if kind == "tokens" else SHUFFLES)
    dealt = [_shuffled(kind, answers, rng) for _ in range(shuffles)]
    plain = MAJORITY[kind](train, truth)
    found = {}
    for name in names:
        point = value(name, truth, answers, num_classes, kind)
        drawn = np.array([value(name, truth, one, num_classes, kind) for one in dealt])
        low, high = interval(drawn)
        sign = 1 if HIGHER_IS_BETTER[name] else -1
        as_good = int((sign * drawn >= sign * point - 1e-12).sum())
        defined = not (math.isnan(low) or math.isnan(point))
        found[name] = {
            "value": null(point),
            "majority": null(value(name, truth, plain, num_classes, kind)),
            "chance": float(np.nanmean(drawn)) if defined else None,
            "low": null(low),
            "high": null(high),
            "p": (as_good + 1) / (shuffles + 1) if defined else None,
        }
    return _alike(kind, truth, answers) | {"n": len(truth), "metrics": found}


def _shuffled(kind: str, answers: Any, rng: np.random.Generator) -> Any:
    """The answers in another order; tags are shuffled among all words."""
    if kind != "tokens":
        return answers[rng.permutation(len(answers))]
    tags = [tag for text in answers for tag in text]
    dealt = iter([tags[i] for i in rng.permutation(len(tags))])
    return [tuple(next(dealt) for _ in text) for text in answers]


def _alike(kind: str, truth: Any, answers: Any) -> dict[str, Any]:
    """How much of the answers is the same, and how much of the truth. Of values: how little they spread."""
    if kind == "regression":
        spread = float(np.std(truth)) if len(truth) else 0.0
        alike = 1 - min(1.0, float(np.std(answers)) / spread) if spread else 1.0
        return {"alike": alike, "most": 0.0 if spread else 1.0, "constant": spread > 0 and alike > 1 - HARDLY}
    alike, most = (_commonest(kind, each) for each in (answers, truth))
    # ... or all alike, however many texts have that answer
    constant = (alike >= ALL_ALIKE and most < NOT_MOST) or (alike == 1 and most < 1)
    return {"alike": alike, "most": most, "constant": constant and len(truth) >= FEWEST}


def _commonest(kind: str, answers: Any) -> float:
    """The share of the commonest answer."""
    each = {
        "classification": lambda: answers.tolist(),
        "multilabel": lambda: map(tuple, answers.tolist()),
        "tokens": lambda: (tag for text in answers for tag in text),
    }[kind]()
    counts = Counter(each)
    return max(counts.values(), default=0) / max(counts.total(), 1)


def _commonest_tag(train: Any, truth: Any) -> list[tuple[str, ...]]:
    tag = Counter(tag for text in train for tag in text).most_common(1)[0][0]
    return [(tag,) * len(text) for text in truth]


# Answers that know what is true of train, and of the test texts their number only.
MAJORITY: dict[str, Callable[[Any, Any], Any]] = {
    "classification": lambda train, truth: np.full(len(truth), np.bincount(train).argmax()),
    "regression": lambda train, truth: np.full(len(truth), np.mean(train)),
    "multilabel": lambda train, truth: np.repeat(np.mean(train, axis=0)[None] >= 0.5, len(truth), axis=0),
    "tokens": _commonest_tag,
}


# Subgroups ----------------------------------------------------------------------------------------


def subgroups(
    kind: str,
    name: str,
    truth: Any,
    answers: Any,
    values: Sequence[str],
    num_classes: int | None = None,
    least: int = LEAST,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """A metric for each value of a column, and whether it is another than that of all other texts.

    values   the column's cell for each test text; empty cells are a group without a name
    {"metric", "score": of all texts,
     "groups": [{"value", "n", "score": {"value", "low", "high", "n"}, "difference": {"value", "low", "high"}, "p"},
                ...], the largest first,
     "merged": {"groups": how many, "n"} or None}
    Values with fewer than `least` texts, and all but the 20 commonest, are one group, the last, whose value is None.
    difference: to all other texts; p is corrected for the number of groups.
    """
    truth, answers = checked(kind, truth, answers, num_classes)
    places: dict[str | None, list[int]] = defaultdict(list)
    for place, cell in enumerate(values):
        places[cell.strip()].append(place)
    if sum(map(len, places.values())) != len(truth):
        raise ValueError(f"there are {len(truth)} texts and {sum(map(len, places.values()))} cells")
    order = sorted(places, key=lambda cell: (-len(places[cell]), cell))
    small = [cell for rank, cell in enumerate(order) if rank >= MOST_GROUPS or len(places[cell]) < least]
    groups = {cell: places[cell] for cell in order if cell not in set(small)}
    if small:
        groups[None] = sorted(place for cell in small for place in places[cell])
    rows = [
        {"value": cell, **_apart(kind, name, truth, answers, np.array(own), num_classes, resamples, seed)}
        for cell, own in groups.items()
    ]
    for row, p in zip(rows, holm(row["p"] for row in rows)):
        row["p"] = p
    whole = score(kind, truth, answers, num_classes=num_classes, names=[name], resamples=resamples, seed=seed)
    merged = {"groups": len(small), "n": len(groups[None])} if small else None
    return {"metric": name, "score": whole[name].as_dict(), "groups": rows, "merged": merged}


def _apart(
    kind: str,
    name: str,
    truth: Any,
    answers: Any,
    own: np.ndarray,
    num_classes: int | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The score of some texts, and its difference to that of all others, which are drawn by themselves."""
    others = np.setdiff1d(np.arange(len(truth)), own)
    sides = [weighted(kind, name, _pick(truth, places), _pick(answers, places)) for places in (own, others)]
    pair = _pick(truth, own), _pick(answers, own)
    here = score(kind, *pair, num_classes=num_classes, names=[name], resamples=resamples, seed=seed)[name]
    drawn, points = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for side, (metric, places) in enumerate(zip(sides, (own, others))):
            parts = [metric(weights) for weights in draws(len(places), resamples, [seed, side])]
            drawn.append(np.concatenate([np.empty(0), *parts]))
            points.append(float(metric(np.ones((1, len(places))))[0]) if len(places) else math.nan)
    enough = len(drawn[0]) == len(drawn[1])  # none are drawn of fewer than two texts
    apart = drawn[0] - drawn[1] if enough else np.empty(0)
    low, high = interval(apart)
    difference = {"value": null(points[0] - points[1]), "low": null(low), "high": null(high)}
    return {"n": len(own), "score": here.as_dict(), "difference": difference, "p": two_sided(apart)}


def _pick(x: Any, places: np.ndarray) -> Any:
    return [x[i] for i in places] if isinstance(x, list) else x[places]
