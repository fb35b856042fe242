"""Pictures of a study: scores over labelled texts, calibration, coverage, repeated splits, settings side by side.

In:  numbers.   Out: Markup of one <svg> each, drawn as figures.py draws.

A disc is fine-tuning, a diamond the traditional method. Whatever else is drawn beside the two is thin and bears a
letter, which the list below the picture explains: so names of any length fit a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from .figures import Axis, axis, grid, mark, path, picture, stretched, tag, tick_labels
from .words import number, percent, span

HEIGHT = 360  # pixels of the learning curve, as in style.css: its labels are kept apart by them
LINE = 15  # pixels that a label needs
LONGEST = 28  # letters of a name beside a curve; the list has all of it
NEAREST = 0.17  # of the axis, between two numbers below it: "1,000" on a phone
BESIDE = {"ours": -0.03, "theirs": 0.03}  # of a lone number of texts, so that their intervals are both seen
SIGN = {"ours": "●", "theirs": "◆"}

Score = dict[str, Any]  # value, low, high


@dataclass(frozen=True)
class Curve:
    """One contestant over numbers of labelled texts.

    kind     ours, theirs; or thin and fine_tuned, traditional, frozen: what colour it has
    points   a Score each, with its size; `whole`: False where repetitions are still to come
    """

    kind: str
    key: str
    title: str
    points: list[Score]


@dataclass(frozen=True)
class Level:
    """What does not depend on labelled texts: a line across. kind: guess, floor, human."""

    kind: str
    key: str
    title: str
    score: Score


@dataclass
class Label:
    """A word at the right: from where on the picture it is drawn, and the height in pixels that it would have."""

    kind: str
    key: str
    title: str
    at: float  # share of the width where its line ends
    height: float
    placed: float = field(default=0.0)


def apart(wanted: Sequence[float], room: float, height: float) -> list[float]:
    """Places as near to the wanted ones as can be, `room` or more apart and within 0 to `height`.

    Those that are too near form a block around their mean (isotonic regression of what is left of the wanted
    places once each has its room). Too many for the height get less room each.
    """
    room = min(room, height / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        blocks.append((wanted[i] - rank * room, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    flat = [mean for mean, n in blocks for _ in range(n)]
    most = height - (len(wanted) - 1) * room
    out = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        out[i] = min(max(flat[rank], 0.0), most) + rank * room
    return out


def texts_axis(sizes: Sequence[int]) -> tuple[Axis, list[str]]:
    """A logarithmic axis of labelled texts with a tick a size, and what stands below each: "" where it is too near."""
    places = [math.log10(size) for size in sizes]
    wide = places[-1] - places[0] or 1.0
    x = Axis(places[0] - 0.06 * wide, places[-1] + 0.04 * wide, tuple(places))
    if len(places) == 1:
        x = Axis(places[0] - 0.5, places[0] + 0.5, tuple(places))
    shown = [f"{sizes[-1]:,}"]
    last = places[-1]
    for place, size in zip(places[-2::-1], sizes[-2::-1]):
        near = (last - place) / (x.high - x.low) < NEAREST
        shown.append("" if near else f"{size:,}")
        last = last if near else place
    return x, shown[::-1]


def learning(
    title: str, sizes: Sequence[int], curves: Sequence[Curve], levels: Sequence[Level], limits: tuple
) -> Markup:
    """Scores over numbers of labelled texts. Curves of kind ours and theirs have bands, and lie on top."""
    x, below = texts_axis(sizes)
    known = [point for curve in curves for point in curve.points] + [level.score for level in levels]
    broad = [p for c in curves if c.kind in SIGN for p in c.points] + [
        one.score for one in levels if one.kind == "human"
    ]
    ends = [p.get(end) for p in broad for end in ("low", "high")]
    y = axis([*ends, *(p["value"] for p in known)], pad=0.05, within=limits)
    drawn, marks, labels = [], [], []
    for level in levels:
        drawn += level_paths(level, x, y)
        labels.append(Label(level.kind, level.key, level.title, 1.0, down(level.score["value"], y)))
    for curve in sorted(curves, key=lambda one: (one.kind in SIGN, one.kind == "ours")):
        points = [(math.log10(p["size"]), p["value"]) for p in curve.points]
        main = curve.kind in SIGN
        drawn += [band(curve, x, y)] if main else []
        drawn.append(path(points, x, y, f"curve {curve.kind}" if main else f"curve thin {curve.kind}"))
        for (place, value), point in zip(points, curve.points):
            beside = BESIDE.get(curve.kind, 0.0) if len(sizes) == 1 else 0.0
            marks += marks_of(curve, x.place(place + beside), y, value, point, alone=len(points) == 1)
        labels.append(
            Label(curve.kind, curve.key, curve.title, share(points[-1][0], x), down(points[-1][1], y))
        )
    for label, place in zip(labels, apart([one.height for one in labels], LINE, HEIGHT)):
        label.placed = place
    said = "; ".join(
        f"{c.title}: " + ", ".join(f"{number(p['value'])} with {p['size']:,}" for p in c.points)
        for c in curves
    )
    level_said = "; ".join(f"{one.title}: {number(one.score['value'])}" for one in levels)
    return picture(
        title, "; ".join(filter(None, (said, level_said))), grid(x, y, below), stretched(*drawn),
        *(leader(label) for label in labels), *marks, *(word(label) for label in labels), kind="plot learning",
    )  # fmt: skip


def share(value: float, x: Axis) -> float:
    """A place on an axis, from 0 to 1."""
    return (value - x.low) / (x.high - x.low)


def down(value: float, y: Axis) -> float:
    """A height in pixels from the top of the learning curve."""
    return HEIGHT * (1 - share(value, y))


def level_paths(level: Level, x: Axis, y: Axis) -> list[Markup]:
    """A line across, with its interval where it is people's."""
    value, low, high = (level.score.get(name) for name in ("value", "low", "high"))
    out = []
    if level.kind == "human" and low is not None and high is not None:
        out.append(area([(x.low, low), (x.high, low)], [(x.low, high), (x.high, high)], x, y, "band human"))
    return [*out, path([(x.low, value), (x.high, value)], x, y, f"curve level {level.kind}")]


def band(curve: Curve, x: Axis, y: Axis) -> Markup:
    """The intervals of a curve as an area; nothing where fewer than two points have one."""
    known = [p for p in curve.points if p.get("low") is not None and p.get("high") is not None]
    if len(known) < 2:
        return Markup("")
    low, high = ([(math.log10(p["size"]), p[end]) for p in known] for end in ("low", "high"))
    return area(low, high, x, y, f"band {curve.kind}")


def area(low: Sequence[tuple], high: Sequence[tuple], x: Axis, y: Axis, kind: str) -> Markup:
    """What lies between two curves, in the square of 1000 by 1000 of `stretched`."""
    corners = [(1000 * share(px, x), 1000 * (1 - share(py, y))) for px, py in [*low, *high[::-1]]]
    return tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), class_=kind)


def marks_of(curve: Curve, at: str, y: Axis, value: float, point: Score, *, alone: bool) -> list[Markup]:
    """A point's mark; where it is the only one of its curve, with its interval as a line."""
    if curve.kind not in SIGN:
        return [tag("circle", cx=at, cy=y.place(value, True), r=2.5, class_=f"dot {curve.kind}")]
    out = [upright(at, y, point, curve.kind)] if alone else []
    hollow = " hollow" if not point.get("whole", True) else ""
    return [*out, tag("g", mark(at, y.place(value, True), curve.kind), class_=f"at{hollow}")]


def upright(at: str, y: Axis, point: Score, kind: str) -> Markup:
    """An interval as an upright line."""
    if point.get("low") is None or point.get("high") is None:
        return Markup("")
    ends = {"y1": y.place(point["low"], True), "y2": y.place(point["high"], True)}
    return tag("line", x1=at, x2=at, **ends, class_=f"span {kind}")


def leader(label: Label) -> Markup:
    """A hair line from where a curve ends to its label."""
    height, placed = (f"{100 * one / HEIGHT:.2f}%" for one in (label.height, label.placed))
    slant = tag("svg", tag("line", x1="2", x2="14", y1=height, y2=placed, class_="leader"), x="100%", width="16",
                height="100%", overflow="visible")  # fmt: skip
    if label.at >= 1:
        return slant
    return tag("line", x1=f"{100 * label.at:.2f}%", x2="100%", y1=height, y2=height, class_="leader") + slant


def word(label: Label) -> Markup:
    """A letter or a sign, and where there is room the name."""
    long = len(label.title) > LONGEST
    title = label.title.removeprefix("fine-tuned, ") if long else label.title  # its colour says so
    short = title if len(title) <= LONGEST else title[: LONGEST - 1] + "…"
    key = tag("tspan", label.key, class_=f"letter {label.kind}")
    name = tag("tspan", f" {short}", class_="name strong" if label.kind in SIGN else "name")
    return tag("text", key, name, x="100%", dx="18", y=f"{100 * label.placed / HEIGHT:.2f}%", dy="0.35em")


def calibration(bins: Sequence[dict[str, Any]]) -> Markup:
    """How often answers of a confidence are right: a bin's mean confidence across, the share that is right upwards."""
    lowest = min(min(one["confidence"], one["accuracy"], one.get("low") or 1.0) for one in bins)
    both = axis([math.floor(10 * lowest) / 10, 1.0], ticks=5, pad=1e-9, within=(0, 1))
    line = path([(both.low, both.low), (both.high, both.high)], both, both, "curve guide")
    joined = path([(one["confidence"], one["accuracy"]) for one in bins], both, both, "curve ours")
    marks = []
    for one in bins:
        marks.append(upright(both.place(one["confidence"]), both, one, "ours"))
        marks.append(mark(both.place(one["confidence"]), both.place(one["accuracy"], True), "ours"))
    said = "; ".join(
        f"{one['n']:,} answers of confidence {number(one['confidence'], 2)}: {number(one['accuracy'], 2)} right"
        for one in bins
    )
    title = "How often answers of a confidence are right"
    return picture(title, said, grid(both, both), stretched(line, joined), *marks, kind="plot square")


def coverage(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """Accuracy over the share of texts that is answered, the surest first: (share, accuracy)s."""
    x = Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))
    y = axis([value for _, value in points], pad=0.08, within=(0, 1))
    end = mark(x.place(points[-1][0]), y.place(points[-1][1], True), "ours")
    said = ", ".join(f"{number(value)} at {percent(share)}" for share, value in points)
    labels = [f"{100 * t:.0f} %" for t in x.ticks]
    return picture(
        title, said, grid(x, y, labels), stretched(path(points, x, y, "curve ours")), end, kind="plot square"
    )


def differences(title: str, rows: Sequence[dict[str, Any]]) -> Markup:
    """Differences over repeated splits, a column a number of texts: a dot a split, mean and interval beside them."""
    x = Axis(-0.5, len(rows) - 0.5, tuple(range(len(rows))))
    y = axis([0.0, *(v for row in rows for v in (*row["differences"], row["low"], row["high"]))], pad=0.06)
    zero = tag("line", x1="0", x2="100%", y1=y.place(0, True), y2=y.place(0, True), class_="zero")
    out, said = [], []
    for place, row in enumerate(rows):
        at = x.place(place)
        out += [
            tag("circle", cx=at, cy=y.place(v, True), r=4, class_="seed ours beside")
            for v in row["differences"]
        ]
        out.append(upright(at, y, row, "ours"))
        out += [mark(at, y.place(row["value"], True), "ours")] if row["value"] is not None else []
        said.append(f"{row['size']:,} texts: {number(row['value'])} ({span(row['low'], row['high'])})")
    return picture(title, "; ".join(said), grid(x, y, [f"{row['size']:,}" for row in rows]), zero, *out)


def lane(score: Score, x: Axis, kind: str, guide: float | None = None) -> Markup:
    """One value with its interval on a scale that its neighbours share; `guide`: a value to read it against."""
    lines = [tag("line", x1=x.place(t), x2=x.place(t), y1="0", y2="100%", class_="grid") for t in x.ticks]
    if guide is not None:
        lines.append(
            tag("line", x1=x.place(guide), x2=x.place(guide), y1="0", y2="100%", class_="curve guide")
        )
    if score.get("low") is not None and score.get("high") is not None:
        ends = {"x1": x.place(score["low"]), "x2": x.place(score["high"])}
        lines.append(tag("line", **ends, y1="50%", y2="50%", class_=f"span {kind}"))
    shown = mark(x.place(score["value"]), "50%", kind) if score.get("value") is not None else ""
    return tag("svg", *lines, shown, class_="lane", aria_hidden="true")


def scale(x: Axis) -> Markup:
    """The numbers below lanes."""
    words = [
        tag("text", text, x=x.place(t), y="1em", text_anchor="middle")
        for t, text in zip(x.ticks, tick_labels(x.ticks))
    ]
    return tag("svg", *words, class_="lane scale", aria_hidden="true")
