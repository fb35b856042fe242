"""Pictures of several runs: how scores spread over seeds, and how they follow a swept key.

In:  numbers.   Out: Markup of one <svg> each, drawn as figures.py draws.

A small faint dot is one run, a line its setting's mean give or take a standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .figures import Axis, axis, grid, mark, path, picture, ring, stretched, tag, tick_labels
from .words import number

MOST_LETTERS = 30  # of all labels below a picture; more are slanted
LONGEST = 22  # letters of a slanted label

Spread = dict[str, Any]  # mean, deviation, min, max, n


@dataclass(frozen=True)
class Column:
    """What stands above one value of a swept key: a score a run, their spread, the baseline's mean."""

    label: str
    values: list[float]
    spread: Spread
    theirs: float | None = None
    failed: bool = False
    chosen: bool = False


def around(spread: Spread) -> tuple[float, float] | None:
    """The mean less and plus a standard deviation, or None where there is none."""
    if spread.get("mean") is None or spread.get("deviation") is None:
        return None
    return spread["mean"] - spread["deviation"], spread["mean"] + spread["deviation"]


def strip(title: str, groups: Sequence[tuple[str, str, list[float], Spread]]) -> Markup:
    """A row for the network and one for the baseline: (kind, who, a score a seed, their spread)."""
    groups = [group for group in groups if group[2]]
    ends = [end for *_, spread in groups for end in around(spread) or ()]
    x = axis([*ends, *(v for _, _, values, _ in groups for v in values)], ticks=4, pad=0.1)
    out, said = [], []
    for value, text in zip(x.ticks, tick_labels(x.ticks)):
        at = x.place(value)
        out.append(tag("line", x1=at, x2=at, y1="0", y2="100%", class_="grid"))
        out.append(tag("text", text, x=at, y="100%", dy="1.4em", text_anchor="middle"))
    for i, (kind, who, values, spread) in enumerate(groups):
        y = f"{100 * (i + 1) / (len(groups) + 1):.1f}%"
        if reach := around(spread):
            ends = {"x1": x.place(reach[0]), "x2": x.place(reach[1]), "y1": y, "y2": y}
            out.append(tag("line", **ends, class_=f"span {kind}"))
        if len(values) > 1:  # above the line, which would hide them
            out += [tag("circle", cx=x.place(v), cy=y, r=4, class_=f"seed {kind} above") for v in values]
        out.append(mark(x.place(spread["mean"]), y, kind))
        said.append(f"{who}: " + ", ".join(number(v) for v in values))
    return picture(f"{title}, a dot for each seed", "; ".join(said), *out, kind="intervals tall")


def by_value(title: str, columns: Sequence[Column], y: Axis, *, joined: bool) -> Markup:
    """Scores over the values of a swept key, side by side in even steps. joined   a line through the means"""
    x = Axis(-0.5, len(columns) - 0.5, tuple(range(len(columns))))
    slanted = sum(len(one.label) for one in columns) > MOST_LETTERS
    out: list[Any] = [grid(x, y, [""] * len(columns) if slanted else [one.label for one in columns])]
    out += [slanted_label(one.label, x.place(i)) for i, one in enumerate(columns) if slanted]
    means = [(i, one.spread["mean"] if one.values else math.nan) for i, one in enumerate(columns)]
    if joined:
        out.append(stretched(path(means, x, y, "curve validation")))
    said = []
    for i, one in enumerate(columns):
        at = x.place(i)
        if one.failed:
            out.append(tag("text", "×", x=at, y="100%", dy="-0.4em", text_anchor="middle", class_="failed"))
        if one.theirs is not None:
            out.append(mark(at, y.place(one.theirs, True), "theirs"))
        if not one.values:
            said.append(f"{one.label}: no score")
            continue
        if reach := around(one.spread):
            low, high = max(reach[0], y.low), min(reach[1], y.high)
            ends = {"x1": at, "x2": at, "y1": y.place(low, True), "y2": y.place(high, True)}
            out.append(tag("line", **ends, class_="span ours"))
        dots = one.values if len(one.values) > 1 else []
        out += [tag("circle", cx=at, cy=y.place(v, True), r=4, class_="seed ours beside") for v in dots]
        if one.chosen:
            out.append(ring(at, y.place(one.spread["mean"], True)))
        out.append(mark(at, y.place(one.spread["mean"], True), "ours"))
        said.append(f"{one.label}: {number(one.spread['mean'])}" + " (chosen)" * one.chosen)
    return picture(title, "; ".join(said), *out, kind="plot slanted" if slanted else "plot")


def slanted_label(text: str, at: str) -> Markup:
    """A label that runs up to its tick from the lower left."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    word = tag("text", short, tag("title", text), transform="rotate(-35)", text_anchor="end", dy="1em")
    return tag("svg", word, x=at, y="100%", overflow="visible")


def shared_axis(panels: Sequence[Sequence[Column]], limits: tuple) -> Axis:
    """One scale of y for pictures that stand side by side."""
    columns = [one for panel in panels for one in panel]
    ends = [end for one in columns for end in around(one.spread) or ()]
    values = [v for one in columns for v in (*one.values, one.theirs)]
    low, high = limits
    ends = [end for end in ends if (low is None or end >= low) and (high is None or end <= high)]
    return axis([*values, *ends], pad=0.08, within=limits)
