"""Pictures as inline SVG, drawn by hand: they follow the page's width, colours and font.

In:  numbers.   Out: Markup of one <svg> each.

Every place is a percentage of the plot, so a picture is fluid in both directions while text, lines
and dots keep their size; what must be a path lives in a nested <svg> that is stretched. Colours are
classes that style.css fills from its variables, so light, dark and print need no second drawing.
Marks differ in shape as well as colour: a disc is the network, a diamond the baseline.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from .words import number

Points = Sequence[tuple[float, float]]
MOST_POINTS = 400  # of a curve: more than the pixels of a phone can't be seen
MOST_DOTS = 4000  # of a scatter
LAYERS = 6  # of dots, each seen through the next


def tag(name: str, *inside: Any, **attributes: Any) -> Markup:
    """An element; `_` in attribute names stands for `-`, and all text and values are escaped."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(v)}"' for key, v in attributes.items())
    return Markup(f"<{name}{said}>{''.join(str(escape(part)) for part in inside)}</{name}>")


@dataclass(frozen=True)
class Axis:
    """From which value to which an axis runs, and where its ticks stand."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float, flip: bool = False) -> str:
        """A value as a percentage of the axis; flipped for y, which grows upwards."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * (1 - share if flip else share):.2f}%"


def axis(values: Iterable[float], *, ticks: int = 5, pad: float = 0.06, within: tuple = (None, None)) -> Axis:
    """An axis that holds all finite values with some room, with round ticks; `within` limits the room."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = pad * (high - low) or abs(high) * pad or 0.5
    low, high = low - room, high + room
    low = max(low, within[0]) if within[0] is not None and min(known or [0]) >= within[0] else low
    high = min(high, within[1]) if within[1] is not None and max(known or [0]) <= within[1] else high
    step = round_step((high - low) / ticks)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return Axis(low, high, tuple(round((first + i) * step, 12) for i in range(count)))


def round_step(size: float) -> float:
    """The one of 1, 2, 5, 10 times a power of ten that is nearest to `size` as a ratio."""
    power = 10.0 ** math.floor(math.log10(size))
    return min((m * power for m in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / size)))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks as text, all with the decimals that the finest needs."""
    if len(ticks) < 2:
        return [number(t) for t in ticks]
    decimals = max(0, -math.floor(math.log10(abs(ticks[1] - ticks[0])) + 1e-9))
    return [f"{t:,.{decimals}f}".replace("-", "−") for t in ticks]


def picture(title: str, said: str, *inside: Any, kind: str = "plot") -> Markup:
    """An <svg> with a title and a description for those who don't see it."""
    return tag(
        "svg", tag("title", title), tag("desc", said), *inside, class_=kind, role="img", aria_label=title
    )


def stretched(*paths: Any) -> Markup:
    """Paths in a square of 1000 by 1000 that is stretched over the plot; strokes keep their width."""
    return tag("svg", *paths, viewBox="0 0 1000 1000", preserveAspectRatio="none", class_="stretched")


def path(points: Points, x: Axis, y: Axis, kind: str) -> Markup:
    """A curve through points; a gap where a value is not finite."""
    out, pen = [], "M"
    for px, py in points:
        if not math.isfinite(py):
            pen = "M"
            continue
        across = 1000 * (px - x.low) / (x.high - x.low)
        down = 1000 * (y.high - py) / (y.high - y.low)
        out.append(f"{pen}{across:.1f} {down:.1f}")
        pen = "L"
    return tag("path", d=" ".join(out), class_=kind, vector_effect="non-scaling-stroke")


def dots(points: Points, x: Axis, y: Axis, kind: str) -> Markup:
    """Many small dots as zero-length strokes with round ends: a fifth of the bytes of circles.

    Within one path overlapping dots don't add up, so the dots take turns in LAYERS paths.
    """
    layers = []
    for layer in range(LAYERS):
        out = []
        for px, py in points[layer::LAYERS]:
            across = 1000 * (px - x.low) / (x.high - x.low)
            down = 1000 * (y.high - py) / (y.high - y.low)
            out.append(f"M{across:.0f} {down:.0f}h0")
        layers.append(tag("path", d="".join(out), class_=kind, vector_effect="non-scaling-stroke"))
    return Markup("").join(layers)


def mark(x: str, y: str, kind: str) -> Markup:
    """A disc (ours, best) or a diamond (theirs) at a place."""
    if kind == "theirs":
        return tag(
            "svg", tag("path", d="M0-6L6 0 0 6-6 0z", class_="mark theirs"), x=x, y=y, overflow="visible"
        )
    return tag("circle", cx=x, cy=y, r=5.5 if kind == "ours" else 4, class_=f"mark {kind}")


def ring(x: str, y: str) -> Markup:
    """A ring around a mark."""
    return tag("circle", cx=x, cy=y, r=9, class_="ring")


def grid(x: Axis, y: Axis, x_labels: Sequence[str] | None = None) -> Markup:
    """Horizontal lines with their values at the left, values of x below."""
    out = []
    for value, text in zip(y.ticks, tick_labels(y.ticks)):
        at = y.place(value, flip=True)
        out.append(tag("line", x1="0", x2="100%", y1=at, y2=at, class_="grid"))
        out.append(tag("text", text, x="0", dx="-8", y=at, dy="0.35em", text_anchor="end"))
    for value, text in zip(x.ticks, x_labels or tick_labels(x.ticks)):
        at = x.place(value)
        out.append(tag("line", x1=at, x2=at, y1="100%", y2="100%", class_="tick"))
        out.append(tag("text", text, x=at, y="100%", dy="1.5em", text_anchor="middle"))
    return Markup("").join(out)


def intervals(title: str, ours: dict, theirs: dict, name_theirs: str) -> Markup:
    """A metric's value and interval, the baseline's below it, on one scale."""
    shown = [(kind, s) for kind, s in (("ours", ours), ("theirs", theirs)) if s.get("value") is not None]
    x = axis([s.get(k) for _, s in shown for k in ("value", "low", "high")], ticks=4, pad=0.1)
    out, said = [], []
    for value, text in zip(x.ticks, tick_labels(x.ticks)):
        at = x.place(value)
        out.append(tag("line", x1=at, x2=at, y1="0", y2="100%", class_="grid"))
        out.append(tag("text", text, x=at, y="100%", dy="1.4em", text_anchor="middle"))
    for i, (kind, score) in enumerate(shown):
        y = f"{100 * (i + 1) / (len(shown) + 1):.1f}%"
        if score.get("low") is not None:
            ends = {"x1": x.place(score["low"]), "x2": x.place(score["high"]), "y1": y, "y2": y}
            out.append(tag("line", **ends, class_=f"span {kind}"))
        out.append(mark(x.place(score["value"]), y, kind))
        who = "the network" if kind == "ours" else name_theirs
        said.append(
            f"{who}: {number(score['value'])}, {number(score.get('low'))} to {number(score.get('high'))}"
        )
    return picture(f"{title} with 95 % intervals", "; ".join(said), *out, kind="intervals")


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: means of neighbours, so that no peak is drawn that isn't there."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size or 1)]
    return [(sum(p[0] for p in g) / len(g), sum(p[1] for p in g) / len(g)) for g in groups]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Each value as the mean of its neighbourhood of a twentieth of the curve."""
    reach = max(1, len(points) // 40)
    around = [points[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [(points[i][0], sum(p[1] for p in near) / len(near)) for i, near in enumerate(around)]


def loss_curve(
    steps: Points, evaluations: Points, ends: Sequence[tuple[float, str]], kept: float | None
) -> Markup:
    """Training loss by step with its smoothed form, validation loss at the end of each epoch.

    ends   (step, epoch as text) of the epochs, which label the x axis
    kept   the step of the epoch whose weights were kept, which is ringed
    """
    steps = thinned([(s, v) for s, v in steps if math.isfinite(v)])
    evaluations = [(s, v) for s, v in evaluations if math.isfinite(v)]
    x = Axis(0, max([s for s, _ in [*steps, *evaluations]], default=1), tuple(at for at, _ in ends))
    y = axis([0.0, *(v for _, v in [*steps, *evaluations])], pad=0.03, within=(0, None))
    curves = [path(evaluations, x, y, "curve validation")] if len(evaluations) > 1 else []
    if len(steps) > 1:
        curves = [path(steps, x, y, "curve raw"), path(smoothed(steps), x, y, "curve train"), *curves]
    marks = [mark(x.place(s), y.place(v, True), "validation") for s, v in evaluations]
    marks += [ring(x.place(s), y.place(v, True)) for s, v in evaluations if s == kept]
    said = f"Training loss over {len(steps)} points, validation loss at {len(evaluations)} epochs."
    return picture(
        "Loss in training and on validation",
        said,
        grid(x, y, [e for _, e in ends]),
        stretched(*curves),
        *marks,
    )


def metric_curve(title: str, scores: Points, best: float | None, limits: tuple) -> Markup:
    """A metric on validation by epoch, the best one ringed."""
    scores = [(e, v) for e, v in scores if v is not None and math.isfinite(v)]
    epochs = [e for e, _ in scores] or [1]
    every = max(1, math.ceil(len(epochs) / 10))
    x = Axis(min(epochs) - 0.5, max(epochs) + 0.5, tuple(epochs[every - 1 :: every]))
    y = axis([v for _, v in scores], pad=0.08, within=limits)
    curve = [path(scores, x, y, "curve validation")] if len(scores) > 1 else []
    marks = []
    for epoch, value in scores:
        at = x.place(epoch), y.place(value, True)
        if epoch == best:
            marks.append(ring(*at))
        marks.append(mark(*at, "validation"))
    said = "; ".join(f"epoch {e:g}: {number(v)}" for e, v in scores)
    labels = [f"{e:g}" for e in x.ticks]
    return picture(f"{title} on validation by epoch", said, grid(x, y, labels), stretched(*curve), *marks)


def scatter(points: Points) -> Markup:
    """Predicted against true values, with the line on which they would be equal."""
    both = axis([v for point in points for v in point])
    line = path([(both.low, both.low), (both.high, both.high)], both, both, "curve guide")
    cloud = dots(some(points), both, both, density(len(points)))
    return picture(
        "Predicted values against true values",
        f"{len(points)} texts. True value across, predicted value upwards; on the diagonal they are equal.",
        *(grid(both, both), stretched(line, cloud)),
        kind="plot square",
    )


def errors(points: Points, bins: int = 24) -> Markup:
    """How often predicted less true value has which size: bars with round edges, zero being one of them."""
    values = [said - true for true, said in points]
    width = round_step((max(values) - min(values)) / bins or 1.0)
    counts = Counter(math.floor(v / width) for v in values)
    first, last = min(counts), max(counts)
    x, y = axis([first * width, (last + 1) * width], pad=0.02), axis([0, max(counts.values())], pad=0.05)
    y = Axis(0, y.high, tuple(t for t in y.ticks if t >= 0 and t == int(t)))
    bars = []
    for place, n in sorted(counts.items()):
        left, right = (1000 * (edge * width - x.low) / (x.high - x.low) for edge in (place, place + 1))
        top = 1000 * (y.high - n) / y.high
        bars.append(
            tag(
                "rect",
                x=f"{left:.1f}",
                y=f"{top:.1f}",
                width=f"{right - left:.1f}",
                height=f"{1000 - top:.1f}",
            )
        )
    zero = tag("line", x1=x.place(0), x2=x.place(0), y1="0", y2="100%", class_="curve guide")
    said = f"{len(values)} texts in steps of {number(width)}; the fullest holds {max(counts.values())}."
    return picture(
        "How often an error has which size",
        said,
        grid(x, y),
        stretched(*bars),
        zero,
        kind="plot square histogram",
    )


def density(n: int) -> str:
    """The class of dots: the more there are, the smaller and fainter."""
    return "dots few" if n < 300 else "dots many" if n < 1500 else "dots crowd"


def some(points: Points) -> Points:
    """At most MOST_DOTS points, evenly taken from the whole."""
    return points[:: math.ceil(len(points) / MOST_DOTS) or 1]
