"""What a file of results looks like: one function a picture, and the table of them.

In:  the dict of attention.json or encoder.json.   Out: matplotlib figures, or None where there is nothing to draw.

Only rows that are right are drawn as fast: what failed the gate, ran out of memory or can't be done is named
under the picture instead. A kernel has the same colour and mark in every picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import lines, patches, ticker
from matplotlib.figure import Figure

from .table import short

Row = dict[str, Any]
Results = dict[str, Any]

# Okabe and Ito's colours, which stay apart for colour-blind eyes, and three of Tol's; marks differ as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288", "#882255", "#999933")
MARKS = "osD^vP*X<>hp"
INK, QUIET, GRID, GOOD, BAD = "#1c2126", "#59626b", "#e4e1da", "#11609f", "#a12525"
LIMIT = 2.0  # the gate's
DIRECTIONS = ("forward", "backward", "both")


class Picture(NamedTuple):
    """A picture's file name, title, caption, and what draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Results], Figure | None]


def speed(results: Results) -> Figure | None:
    """Speed over length: a row of panels for each direction, equal lengths at the left, ragged ones at the right."""
    rows = right(results)
    ways = [way for way in DIRECTIONS if any(row["direction"] == way for row in rows)]
    sides = [side for side in (False, True) if any(ragged(row) == side for row in rows)]
    if len({row["lengths"]["longest"] for row in rows}) < 2:  # no curve, and the table says it better
        return None
    figure, axes = panels(
        len(ways), len(sides), "longest text, tokens", f"{unit(results)} of useful arithmetic"
    )
    looks = look(rows)
    for row_of_axes, way in zip(axes, ways):
        for axis, side in zip(row_of_axes, sides):
            some = [row for row in rows if row["direction"] == way and ragged(row) == side]
            for name, points in curves(
                some, lambda row: row["lengths"]["longest"], lambda row: speed_of(row, results)
            ):
                draw_line(axis, points, name, looks)
            logarithmic(axis, sorted({row["lengths"]["longest"] for row in some}))
            axis.set_ylim(bottom=0)
            axis.set_title(f"{way}, {'ragged' if side else 'equal'} lengths", loc="left")
    legend(figure, looks)
    return figure


def memory(results: Results) -> Figure | None:
    """Most memory over length, both logarithmic: the slope says how it grows."""
    rows = [row for row in right(results) if row.get("peak_mem")]
    longest = {
        way: {row["lengths"]["longest"] for row in rows if row["direction"] == way} for way in DIRECTIONS
    }
    ways = [way for way in DIRECTIONS if len(longest[way]) > 1]
    if not ways:
        return None
    figure, axes = panels(1, len(ways), "longest text, tokens", "MB above what stood before")
    looks = look(rows)
    for axis, way in zip(axes[0], ways):
        some = [row for row in rows if row["direction"] == way]
        slopes = {}
        for name, points in curves(
            some, lambda row: row["lengths"]["longest"], lambda row: row["peak_mem"] / 1e6
        ):
            draw_line(axis, points, name, looks)
            if len(points) > 1:
                x, y = np.log([p[0] for p in points]), np.log([max(p[1], 1e-3) for p in points])
                slopes[name] = float(np.polyfit(x, y, 1)[0])
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        logarithmic(axis, sorted(longest[way]))
        axis.set_title(way, loc="left")
        told = "slopes: " + ", ".join(f"{name} {slope:.1f}" for name, slope in slopes.items())
        axis.text(0.0, -0.24, wrapped(told, 70), transform=axis.transAxes, va="top", color=QUIET, fontsize=9)
    legend(figure, looks)
    return figure


def roofline(results: Results) -> Figure | None:
    """Achieved speed over arithmetic intensity, under what memory and arithmetic allow."""
    rows = [row for row in right(results) if row.get("bytes")]
    roof = (results.get("peak") or {}).get("gbps")
    dtypes = [d for d in dict.fromkeys(row["dtype"] for row in rows) if peak_of(results, d)]
    if not dtypes or not roof:
        return None
    figure, axes = panels(1, len(dtypes), "operations a byte", unit(results))
    looks, factor = look(rows), scale_of(results)
    for axis, dtype in zip(axes[0], dtypes):
        some = [row for row in rows if row["dtype"] == dtype]
        top = peak_of(results, dtype)
        xs = [row["flops"] / row["bytes"] for row in some]
        span = np.geomspace(min([*xs, top * 1e12 / (roof * 1e9)]) / 2, max(xs) * 2, 200)
        axis.plot(span, np.minimum(top, span * roof / 1e3) * factor, color=INK, linewidth=1.5)
        for row, x in zip(some, xs):
            colour, mark = looks[row["kernel"]]
            axis.plot(x, row["tflops"] * factor, mark, color=colour, alpha=0.8, markersize=6)
        axis.set_xscale("log")
        axis.set_yscale("log")
        for which in (axis.xaxis, axis.yaxis):
            which.set_major_locator(
                ticker.LogLocator(subs=(1, 2, 5))
            )  # an axis may be less than a decade long
            which.set_minor_formatter(ticker.NullFormatter())
            which.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        bytes_told = f"{roof:,.0f}" if roof >= 100 else f"{roof:.3g}"
        axis.set_title(f"{dtype}: {top * factor:.3g} {unit(results)}, {bytes_told} GB/s", loc="left")
    legend(figure, looks)
    return figure


def padding(results: Results) -> Figure | None:
    """Useful tokens a second over the share of padding that a rectangle would have."""
    rows = of_one_length(row for row in right(results) if row["direction"] in ("both", "forward"))
    ways = [
        way for way in ("forward", "both") if len({share(row) for row in rows if row["direction"] == way}) > 1
    ]
    if not ways:
        return None
    figure, axes = panels(
        1, len(ways), "share of padding in a rectangle of all texts", "useful tokens a second"
    )
    looks = look(rows)
    for axis, way in zip(axes[0], ways):
        some = [row for row in rows if row["direction"] == way]
        for name, points in curves(
            some, share, lambda row: 1e3 * row["lengths"]["tokens"] / row["latency"]["p50"]
        ):
            draw_line(axis, points, name, looks)
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_ylim(bottom=0)
        axis.set_title(way, loc="left")
    legend(figure, looks)
    return figure


def errors(results: Results) -> Figure | None:
    """How wrong each kernel is, in units of plain PyTorch's error."""
    rows = [row for row in results["rows"] if any(known(v) for v in (row.get("errors") or {}).values())]
    names = list(dict.fromkeys(row["kernel"] for row in rows))
    if not names:
        return None
    parts = [p for p in ("output", "dq", "dk", "dv") if any(known(row["errors"].get(p)) for row in rows)]
    figure, axes = panels(1, 1, "error in units of plain PyTorch's in the same dtype", "", width=9.0)
    axis, ticks = axes[0][0], []
    figure.set_size_inches(9.0, 1.4 + 0.42 * len(names))
    for place, name in enumerate(reversed(names)):
        values = {p: [row["errors"][p] for row in rows if row["kernel"] == name and known(row["errors"].get(p))] for p in parts}  # fmt: skip
        for offset, (part, found) in enumerate(values.items()):
            at = place + 0.27 - 0.18 * offset
            if found:
                axis.plot([min(found), max(found)], [at, at], color=COLOURS[offset], linewidth=2)
                axis.plot(np.median(found), at, MARKS[offset], color=COLOURS[offset], markersize=6, label=part if not place else "")  # fmt: skip
        ticks.append(name)
    axis.axvline(LIMIT, color=BAD, linewidth=1.5, linestyle="--")
    axis.text(LIMIT, len(names) - 0.45, " FAIL beyond", color=BAD, va="top", fontsize=9)
    axis.set_yticks(range(len(ticks)), ticks)
    axis.set_xlim(left=0)
    axis.set_ylim(-0.6, len(names) - 0.3)
    axis.legend(frameon=False, ncols=len(parts), loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def best(results: Results) -> Figure | None:
    """Which kernel is fastest for which texts, and how much faster than the next."""
    rows = right(results)
    across = list(dict.fromkeys(row["lengths"]["name"] for row in rows))
    down = list(dict.fromkeys(map(case, rows)))
    if not rows or len({row["kernel"] for row in rows}) < 2:
        return None
    figure, axes = panels(1, 1, "", "", width=2.6 + 1.35 * len(across))
    axis, looks = axes[0][0], look(rows)
    figure.set_size_inches(max(6.0, 3.2 + 1.35 * len(across)), 1.2 + 0.5 * len(down))
    for y, key in enumerate(down):
        for x, lengths in enumerate(across):
            some = [row for row in rows if row["lengths"]["name"] == lengths and case(row) == key]
            if not some:
                continue
            first, *others = sorted(some, key=lambda row: row["latency"]["p50"])
            lead = f"\n{times(others[0], first):.2f} x" if others else ""
            colour = looks[first["kernel"]][0]
            axis.add_patch(patches.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, alpha=0.25))
            axis.text(x, y, first["kernel"] + lead, ha="center", va="center", fontsize=9, color=INK)
    axis.set_xticks(range(len(across)), map(short, across))
    names = [f"{h} x {k}, {dtype}, {f'dropout {p:g}, ' if p else ''}{way}" for h, k, dtype, p, way in down]
    axis.set_yticks(range(len(down)), names)
    axis.set_xlim(-0.5, len(across) - 0.5)
    axis.set_ylim(len(down) - 0.5, -0.5)
    axis.grid(False)
    return figure


def waterfall(results: Results) -> Figure | None:
    """Tokens a second from the naive encoder to the fastest, with the peers and the ceiling."""
    rows = [row for row in results["rows"] if row["outcome"] == "ok" and row["verdict"] != "FAIL"]
    ceiling = next((row for row in rows if row["kind"] == "ceiling"), None)
    bars = [row for kind in ("ours", "peer") for row in rows if row["kind"] == kind]
    if not bars:
        return None
    figure, axes = panels(1, 1, "useful tokens a second", "", width=9.0)
    axis = axes[0][0]
    figure.set_size_inches(9.0, 1.3 + 0.36 * len(bars))
    for place, row in enumerate(bars):
        rate, ours = row["tokens_per_second"], row["kind"] == "ours"
        axis.barh(place, rate["p50"], 0.7, color=GOOD if ours else "#c9c3b6")
        axis.plot([rate["p20"], rate["p80"]], [place, place], color=INK, linewidth=1.5)
        portion = f"  {rate['p50']:,.0f}" + (
            f", {100 * row['share_of_ceiling']:.0f} %" if known(row["share_of_ceiling"]) else ""
        )
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the ceiling's line may run behind it
        axis.text(rate["p80"], place, portion, va="center", fontsize=9, color=INK, bbox=paper, zorder=3)
    if ceiling:
        top = ceiling["tokens_per_second"]["p50"]
        axis.axvline(top, color=BAD, linestyle="--", linewidth=1.5)
        axis.text(top, -0.75, "matrix products alone ", color=BAD, ha="right", fontsize=9)
    axis.set_yticks(range(len(bars)), [row["step"] for row in bars])
    axis.set_ylim(len(bars) - 0.4, -1.1)
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.margins(x=0.18)
    axis.grid(False, axis="y")
    return figure


PICTURES = {
    "attention": (
        Picture("best", "Which is fastest where", "The fastest kernel of those that passed the gate, and how many times as fast as the next one.", best),
        Picture("speed", "Speed over length", "Arithmetic counts useful scores only (no padding), so a kernel that computes padding shows less.", speed),
        Picture("memory", "Memory over length", "A slope of 1: memory grows with the length of a text; of 2: with its square.", memory),
        Picture("padding", "Padding", "What a rectangle would pad costs padded kernels time and packed ones nothing.", padding),
        Picture("roofline", "Roofline", "The line is what memory (slanted) and arithmetic (flat) allow, measured in the same run; a mark is a kernel on some texts.", roofline),
        Picture("errors", "How wrong", "From the smallest to the largest over all cases, the mark at the median.", errors),
    ),
    "encoder": (
        Picture("waterfall", "From the naive encoder to the fastest", "Medians over rounds; the thin line is from the 20th to the 80th percentile. Percent: of the matrix products alone.", waterfall),
    ),
}  # fmt: skip


# --- rows -----------------------------------------------------------------------------------------


def known(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def case(row: Row) -> tuple[Any, ...]:
    """What a kernel is timed on, but for the texts."""
    return row["heads"], row["width"], row["dtype"], row["dropout"], row["direction"]


def times(slow: Row, fast: Row) -> float:
    """How many times as long one takes: the median within rounds, where both ran in all of them."""
    if len(slow["rounds"]) != len(fast["rounds"]):
        return slow["latency"]["p50"] / fast["latency"]["p50"]
    return float(np.median(np.divide(slow["rounds"], fast["rounds"])))


def right(results: Results) -> list[Row]:
    """The rows that may be called fast."""
    return [row for row in results["rows"] if row["outcome"] == "ok" and row["verdict"] != "FAIL"]


def left_out(results: Results) -> list[str]:
    """What isn't drawn, and why: one line for each kernel and reason."""
    found: dict[tuple[str, str], int] = {}
    for row in results["rows"]:
        name = row.get("kernel", row.get("step"))
        why = f"FAIL: {row['why']}" if row["verdict"] == "FAIL" else f"{row['outcome']}: {row['why']}"
        if row["outcome"] != "ok" or row["verdict"] == "FAIL":
            found[name, why.removesuffix(": ")] = found.get((name, why.removesuffix(": ")), 0) + 1
    return [f"{name} ({count} x): {why}" for (name, why), count in found.items()]


def of_one_length(rows: Iterable[Row]) -> list[Row]:
    """Those of the longest text that most distributions share, as in uniform:512, zipf:512: of like arithmetic."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        form, _, longest = row["lengths"]["name"].partition(":")
        if longest.isdigit():
            found.setdefault(longest, []).append(row)
    return max(found.values(), key=lambda some: len({share(row) for row in some}), default=[])


def ragged(row: Row) -> bool:
    """Whether a rectangle of its texts would have padding."""
    return share(row) > 0


def share(row: Row) -> float:
    """The share of padding that a rectangle of its texts would have."""
    return row["lengths"]["padding_share"]


def peak_of(results: Results, dtype: str) -> float | None:
    """TFLOP/s of matrix products, measured in the same run."""
    return ((results.get("peak") or {}).get(dtype) or {}).get("tflops")


def scale_of(results: Results) -> float:
    """What TFLOP/s are multiplied by: a processor has a thousandth of a card's."""
    return 1.0 if max((row["tflops"] or 0 for row in right(results)), default=0) >= 1 else 1e3


def unit(results: Results) -> str:
    """TFLOP/s or GFLOP/s."""
    return "TFLOP/s" if scale_of(results) == 1 else "GFLOP/s"


def speed_of(row: Row, results: Results) -> float:
    """In `unit`."""
    return row["tflops"] * scale_of(results)


def curves(rows: Iterable[Row], x: Callable[[Row], float], y: Callable[[Row], float]) -> list[tuple[str, list[tuple[float, float]]]]:  # fmt: skip
    """For each kernel its points from left to right; of several at one place, the median."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if known(y(row)):
            found.setdefault(row["kernel"], {}).setdefault(x(row), []).append(y(row))
    return [
        (name, [(at, float(np.median(v))) for at, v in sorted(points.items())])
        for name, points in found.items()
    ]


# --- looks ----------------------------------------------------------------------------------------


def look(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """kernel -> (colour, mark), by its place among all names."""
    names = sorted({row["kernel"] for row in rows})
    return {name: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, name in enumerate(names)}


def panels(down: int, across: int, x: str, y: str, width: float | None = None) -> tuple[Figure, np.ndarray]:
    """A figure with so many panels, their axes named at the border only."""
    figure = Figure(
        figsize=(width or 5.2 * across + 1.6, 3.6 * down + 0.6), layout="constrained", facecolor="white"
    )
    axes = figure.subplots(down, across, squeeze=False)
    for axis in axes.flat:
        axis.grid(True, color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(QUIET)
        axis.tick_params(colors=QUIET, labelsize=9)
        axis.title.set_size(11)
    for axis in axes[-1]:
        axis.set_xlabel(x, color=QUIET)
    for axis in axes[:, 0]:
        axis.set_ylabel(y, color=QUIET)
    return figure, axes


def draw_line(
    axis: Any, points: Sequence[tuple[float, float]], name: str, looks: dict[str, tuple[str, str]]
) -> None:
    """A kernel's curve."""
    colour, mark = looks[name]
    axis.plot(*zip(*points), mark + "-", color=colour, linewidth=1.8, markersize=6, label=name)


def logarithmic(axis: Any, places: Sequence[float]) -> None:
    """x in powers of two, labelled where there are points."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(places, [f"{place:,}" for place in places])
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def legend(figure: Figure, looks: dict[str, tuple[str, str]]) -> None:
    """All kernels at the right, once."""
    handles = [lines.Line2D([], [], color=c, marker=m, linewidth=1.8, label=n) for n, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=10)


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` letters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
