"""What a row of a race says, what its rounds come to, and tables of it.

In:  rows, each one contestant's result in one round.   Out: numbers with intervals; Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
Interval = tuple[float, float, float]  # value, low, high; of a single round low and high are NaN

SECONDS, TEXTS, TOKENS, CELLS, CPU = range(5)  # of a step, as contestant.Clock notes it


# --- what a row says


def counted(row: Row) -> np.ndarray:
    """(steps, 5): all steps but the first, or the first `warm`, which compile and fill caches."""
    return np.array(row["steps"][row.get("warm", 1) :] or row["steps"])


def rate(row: Row, of: int = TEXTS, per: int = SECONDS, tokenise: bool = False) -> float:
    """Texts or tokens a second of the clock, or of the processors; with the time of tokenising if asked."""
    total = counted(row).sum(0)
    return float(total[of] / (total[per] + (row["tokenise"] if tokenise else 0)))


def padding(row: Row) -> float:
    """Which share, in per cent, of the cells that were computed held no token."""
    total = counted(row).sum(0)
    return float(100 * (1 - total[TOKENS] / total[CELLS]))


def peak_share(row: Row, flops: float, peak: float) -> float:
    """In per cent, what `flops` a token come to of the most that a card does a second."""
    return 100 * rate(row, of=TOKENS) * flops / peak


def step_seconds(row: Row) -> float:
    """Of a step, on average."""
    return float(counted(row)[:, SECONDS].mean())


def over(before: str) -> Callable[[Row], float]:
    """MB at the peak, over what was held before."""
    return lambda row: row["memory"]["peak"] - row["memory"][before]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    """How far losses differ, step by step, relative to theirs."""
    ours, theirs = np.array(ours), np.array(theirs)
    return np.abs(ours - theirs) / np.abs(theirs)


# --- what rounds come to


def by_round(rows: Iterable[Row], name: str, number: Callable[[Row], float]) -> dict[int, float]:
    """A contestant's number in each round that it finished."""
    found = {row["round"]: number(row) for row in rows if row["name"] == name and "error" not in row}
    return dict(sorted(found.items()))


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Round by round, ours by theirs."""
    return [ours[n] / theirs[n] for n in ours if n in theirs]


def median(values: Iterable[float], resamples: int = 10_000) -> Interval:
    """The median, and its 95 % interval by drawing the rounds anew."""
    values = np.array(list(values), dtype=float)
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan, np.nan
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def typical(rows: list[Row], name: str, number: Callable[[Row], float]) -> Interval:
    """A contestant's median over rounds."""
    return median(by_round(rows, name, number).values())


def compared(rows: list[Row], ours: str, theirs: str, number: Callable[[Row], float]) -> Interval:
    """The median of ratios, ours by theirs, each within a round."""
    return median(ratios(by_round(rows, ours, number), by_round(rows, theirs, number)))


def mean(values: Iterable[float]) -> Interval:
    """The mean, and its 95 % interval by Student's t."""
    from scipy import stats

    values = np.array(list(values), dtype=float)
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan, np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


# --- tables


def shown(found: Interval, digits: int = 2) -> str:
    """A number with its interval, as far as there are such."""
    value, low, high = (f"{x:,.{digits}f}" if x == x else "" for x in found)
    return f"{value} ({low} to {high})" if low else value or "-"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
