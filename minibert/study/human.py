"""How far people agree: one rater against the others, so that a model's score is read against what people reach.

In:  a table of single raters' answers: a row a rating ("long"), or a row a text with a column a rater ("wide").
Out: Ratings, (n, R) with gaps; a dict for JSON with what one rater reaches, Krippendorff's alpha, each rater
     against the others, and how reliable the raters' mean is.

Two things to know when a model's score stands beside this. A model is scored against the mean of all raters,
one rater against the mean of the others only, so the line lies a little lower than it might. And a model that
learned from the means of many raters may well pass it: one person is noisier than the mean of several. The
ceiling then is the square root of the mean's reliability, which no answers can pass but by chance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..counts import Weighted
from ..data.parts import column, number
from ..data.tables import Table
from ..errors import DataError
from ..metrics import METRICS, average
from ..metrics import value as scored

DRAWS = 10  # times that one rater of each text is drawn by chance
LEVELS = ("nominal", "ordinal", "interval")  # of measurement: what it means that two answers differ


@dataclass(frozen=True)
class Ratings:
    """What R raters said of n texts.

    values   (n, R) float64, NaN where a rater said nothing of a text; of labels their numbers in `labels`
    raters   R names; () where nobody knows who said what, and a text's answers stand in any order
    labels   names of the classes; () where answers are numbers
    """

    values: np.ndarray
    raters: tuple[str, ...]
    labels: tuple[str, ...]


def read_ratings(
    table: Table,
    kind: str,
    *,
    id: str = "",
    rater: str = "",
    value: str = "",
    columns: Sequence[str] = (),
    texts: Collection[str] | None = None,
) -> Ratings:
    """The ratings that a table holds, of kind "classification" (labels) or "regression" (numbers).

    Long: `value` is the column of the answer, `id` of the text, `rater` of who gave it ("": not known).
    Wide: `columns` are the raters' columns. A single one may hold a text's answers as a list, [2, 3, 1], by
    raters that are not known. An empty cell is no answer. DataError where the columns can't be this.
    `texts`: of a long table the ids that count, where it holds ratings of texts that the task lacks.
    """
    if bool(value) == bool(columns):
        raise DataError("[human] needs value (a row a rating) or columns (a row a text): one of them.")
    if value and not id:
        raise DataError("[human] value needs id, the column that says which text was rated.")
    if value:
        cells, raters = from_long(table, id, rater, value, texts)
    else:
        cells, raters = from_wide(table, columns)
    labels: tuple[str, ...] = ()
    if kind == "classification":
        labels = tuple(sorted({cell for row in cells for cell in row if cell}))
    codes = {label: float(i) for i, label in enumerate(labels)}
    width = max(len(row) for row in cells)
    values = np.full((len(cells), width), np.nan)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if cell:
                values[i, j] = codes[cell] if labels else to_number(cell, table)
    return Ratings(values, raters, labels)


def from_long(
    table: Table, id: str, rater: str, value: str, wanted: Collection[str] | None
) -> tuple[list[list[str]], tuple[str, ...]]:
    """(answers of each text, raters' names) of a table with a row a rating."""
    texts, answers = column(table, id, "id", "human"), column(table, value, "value", "human")
    rows: dict[str, dict[Any, str]] = {}
    who = column(table, rater, "rater", "human") if rater else [None] * len(texts)
    for place, (text, name, answer) in enumerate(zip(texts, who, answers)):
        if wanted is not None and text not in wanted:
            continue
        row = rows.setdefault(text, {})
        if name in row and rater:
            raise DataError(
                f"{table.path}: {table.where(place)} is a second rating of text {text!r} by rater {name!r}.",
                "Leave one of them out, or leave [human] rater out if that column is no rater's name.",
            )
        row[name if rater else len(row)] = answer.strip()
    if not rows:
        raise DataError(f"{table.path}: its column {id} names none of the task's texts.")
    if not rater:
        return [list(row.values()) for row in rows.values()], ()
    raters = tuple(dict.fromkeys(who))
    return [[row.get(name, "") for name in raters] for row in rows.values()], raters


def from_wide(table: Table, columns: Sequence[str]) -> tuple[list[list[str]], tuple[str, ...]]:
    """(answers of each text, raters' names) of a table with a row a text."""
    held = [column(table, name, "columns", "human") for name in columns]
    if len(columns) > 1:
        return [[cell.strip() for cell in row] for row in zip(*held)], tuple(columns)
    cells = []
    for place, cell in enumerate(held[0]):
        try:
            found = json.loads(cell or "[]", parse_int=str, parse_float=str)
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise DataError(
                f"{table.path}: {table.where(place)} has {columns[0]} = {cell[:80]!r}, no list such as [2, 3, 1].",
                "Name two columns or more in [human] columns, or one whose cells are lists.",
            )
        cells.append([str(answer).strip() for answer in found])
    return cells, ()


def to_number(cell: str, table: Table) -> float:
    """The number of a cell; DataError where it is none."""
    found = number(cell)
    if found is None:
        raise DataError(f"{table.path}: a rating is {cell[:80]!r}, no finite number.")
    return found


# --- what they come to ----------------------------------------------------------------------------


def agreement(
    ratings: Ratings, *, draws: int = DRAWS, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """How far raters agree, on the texts that two or more rated; DataError where there are none.

    one_against_rest    of each text one rater, drawn by chance, against the mean (of labels the majority) of
                        the others; the mean of `draws` such drawings, with the bootstrap interval over texts
    alpha               Krippendorff's, by level of measurement; of labels nominal only
    leave_one_out       each rater against the others, where raters are known by name
    reliability         of the mean of a text's answers: its halves' correlation, stepped up (numbers only)
    """
    values = ratings.values
    values = values[np.sum(~np.isnan(values), axis=1) > 1]
    if len(values) < 2:
        raise DataError("agreement needs two texts or more that were rated twice or more")
    rng = np.random.default_rng(seed)
    counts = np.sum(~np.isnan(values), axis=1)
    pairs = [one_and_rest(values, drawn(values, rng), ratings.labels, rng) for _ in range(draws)]
    names = measures(ratings)
    against = {
        name: average([of(rest, one) for one, rest in pairs], len(values), resamples=resamples, seed=seed)
        for name, of in names.items()
    }
    return {
        "n": len(values),
        "ratings": int(counts.sum()),
        "raters": len(ratings.raters) or None,
        "raters_a_text": [int(counts.min()), float(counts.mean()), int(counts.max())],
        "one_against_rest": {name: score.as_dict() for name, score in against.items()},
        "alpha": {level: alpha(values, level) for level in (LEVELS[:1] if ratings.labels else LEVELS)},
        "leave_one_out": leave_one_out(replace(ratings, values=values), rng),
        "reliability": None if ratings.labels else halves(values, draws, rng),
    }


def measures(ratings: Ratings) -> dict[str, Callable[[np.ndarray, np.ndarray], Weighted]]:
    """By name, metrics of (the others, one rater)."""
    if ratings.labels:
        return {**METRICS["classification"], "kappa": kappa}
    return {name: METRICS["regression"][name] for name in ("pearson", "spearman", "rmse", "mae")}


def drawn(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64: of each text one of its raters."""
    return np.where(np.isnan(values), -1, rng.random(values.shape)).argmax(axis=1)


def one_and_rest(
    values: np.ndarray, who: np.ndarray, labels: Sequence[str], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(what rater `who` of each text said, what the others did): (n,) each, float64, or class numbers."""
    rows, rest = np.arange(len(values)), values.copy()
    one = values[rows, who]
    rest[rows, who] = np.nan
    if not labels:
        return one, np.nanmean(rest, axis=1)
    votes = np.stack([np.sum(rest == i, axis=1) for i in range(len(labels))], axis=1)  # (n, C)
    tied = rng.random(votes.shape)  # below 1: decides between labels with as many votes
    return one.astype(np.int64), (votes + tied).argmax(axis=1)


def kappa(truth: np.ndarray, predicted: np.ndarray) -> Weighted:
    """Cohen's kappa: agreement beyond what the two's shares of labels would give by chance."""
    classes = np.arange(max(truth.max(), predicted.max()) + 1)
    right = (truth == predicted).astype(float)
    theirs, ours = ((x[:, None] == classes).astype(float) for x in (truth, predicted))  # (n, C)

    def of(weights: np.ndarray) -> np.ndarray:
        n = weights.sum(axis=1)
        chance = ((weights @ theirs) * (weights @ ours)).sum(axis=1) / n**2
        return (weights @ right / n - chance) / (1 - chance)

    return of


def leave_one_out(ratings: Ratings, rng: np.random.Generator) -> list[dict[str, Any]]:
    """{"rater", "n", a score} of each known rater against the others, on the texts that this one rated."""
    name = "accuracy" if ratings.labels else "pearson"
    out = []
    for place, rater in enumerate(ratings.raters):
        rated = ratings.values[~np.isnan(ratings.values[:, place])]
        found = math.nan
        if len(rated):
            one, rest = one_and_rest(rated, np.full(len(rated), place), ratings.labels, rng)
            found = scored(name, rest, one)
        out.append({"rater": rater, "n": len(rated), name: None if math.isnan(found) else found})
    return out


def halves(values: np.ndarray, draws: int, rng: np.random.Generator) -> float | None:
    """Reliability of the mean of a text's answers: r of the means of random halves, by Spearman and Brown.

    r of two halves is that of means of half as many answers; 2 r / (1 + r) is that of all.
    """
    found = []
    for _ in range(draws):
        order = np.where(np.isnan(values), np.inf, rng.random(values.shape)).argsort(axis=1).argsort(axis=1)
        sides = [np.nanmean(np.where(order % 2 == side, values, np.nan), axis=1) for side in (0, 1)]
        r = scored("pearson", *sides)
        found.append(2 * r / (1 + r) if r > -1 else math.nan)
    mean = float(np.mean(found))
    return None if math.isnan(mean) else mean


def alpha(values: np.ndarray, level: str) -> float | None:
    """Krippendorff's alpha of ratings (n, R) with gaps: 1 all agree, 0 as by chance; None if all are the same.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: 1 - observed over expected disagreement,
    over every two answers to one text, each text counting as often as it was rated, and over every two of all.
    """
    values = values[np.sum(~np.isnan(values), axis=1) > 1]
    given = ~np.isnan(values)
    times = given.sum(axis=1)  # (n,) answers to each text
    known, which, often = np.unique(values[given], return_inverse=True, return_counts=True)
    if level == "nominal":
        same = (values[:, :, None] == values[:, None, :]).sum(axis=(1, 2))
        apart, everywhere = times**2 - same, times.sum() ** 2 - np.sum(often**2)
    else:  # squared distances, of the numbers or of their ranks, which are counted to the middle of equal answers
        scale = known if level == "interval" else often.cumsum() - often / 2
        scaled = np.zeros_like(values)
        scaled[given] = (scale - scale.mean())[which]
        apart = 2 * (times * np.sum(scaled**2, axis=1) - scaled.sum(axis=1) ** 2)
        everywhere = 2 * (times.sum() * np.sum(scaled**2) - scaled.sum() ** 2)
    if len(known) < 2:
        return None
    return float(1 - (times.sum() - 1) * np.sum(apart / (times - 1)) / everywhere)
