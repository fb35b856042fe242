"""Print and draw five findings on all-MiniLM-L6-v2, which findings.py measures.

Run: python docs/gallery/draw.py previous|separators|scaling|order|senses|all [--out FOLDER] [--sentences FILE]
"""

import argparse
from pathlib import Path

import findings
import numpy as np
from findings import DEPTHS, HEADS, HERE, LAYERS
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, INK, QUIET, GRID = "#11609f", "#a94e06", "#1c2126", "#59626b", "#e4e1da"
SHADES = LinearSegmentedColormap.from_list("blue", ["#f4f6f8", BLUE])
DASHED = {"color": INK, "lw": 1, "ls": (0, (4, 3))}  # what chance, or a head that looks evenly, would give


def previous(m: dict) -> Figure:
    figure, (top, low) = panels(1.25)
    grid(top, m["before"].mean(1), 2 * findings.even(), "Weight on the previous word, all 72 heads")
    distances = list(m["profile"])
    low.bar(distances, m["profile"].values(), 0.62, color=BLUE, label=findings.named(m["first"]))
    low.plot(distances, m["middle"].values(), "o", color=ORANGE, label="the middle of 72 heads")
    low.axhline(findings.even(), **DASHED, label="evenly on all tokens")
    low.set_xticks(distances, [f"{d:+d}" if d else "itself" for d in distances])
    low.set_ylim(0, 1.05)
    label(low, "Where that head looks", "distance in words", "weight")
    low.legend(frameon=False, loc="upper right")
    return figure


def separators(m: dict) -> Figure:
    figure, (top, low) = panels(1.25)
    grid(top, (m["start"] + m["end"]).mean(1), 0.5, "Weight of words on [CLS] and [SEP], all 72 heads")
    layers, (weight, share) = np.arange(LAYERS), (m["start"].mean(1), m["collected"])
    for side, numbers, colour, name in (
        (-0.19, weight, BLUE, "weight on [CLS]"),
        (0.19, share, ORANGE, "share of what is collected"),
    ):
        low.bar(layers + side, numbers.reshape(LAYERS, HEADS).mean(1), 0.36, color=colour, label=name)
    low.axhline(findings.even(), **DASHED, label="evenly")
    low.set_ylim(0, 0.95)
    label(low, "Much looked at, little taken", "layer", "mean of 12 heads")
    low.legend(frameon=False, loc="upper right", ncols=3, columnspacing=1, handlelength=1.4)
    return figure


def scaling(m: dict) -> Figure:
    figure, (top, low) = panels(1)
    ranks, order = np.arange(1, 11), np.argsort(-m["with"]["breadth"])
    for side, which, colour, mark, name in (
        (-0.19, "with", BLUE, "o", "scaled"),
        (0.19, "without", ORANGE, "D", "not scaled"),
    ):
        top.bar(ranks + side, m[which]["ranks"], 0.36, color=colour, label=name)
        low.plot(m[which]["breadth"][order], mark, ms=4, color=colour)
    top.axhline(1 / m["tokens"], **DASHED, label="evenly on all tokens")
    top.set_xticks(ranks)
    label(top, "The weights of a look, from the largest down", "rank of the weight", "mean of all looks")
    top.legend(frameon=False)
    low.axhline(m["tokens"], **DASHED)
    low.set_ylim(0, m["tokens"] + 1.5)
    low.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    low.set_xticks([])
    label(
        low,
        "How many tokens a head looks at",
        "72 heads, from the widest to the narrowest",
        "tokens in a look",
    )
    return figure


def order(m: dict) -> Figure:
    figure, (top, low) = panels(1)
    top.plot(DEPTHS, m["right"], "o-", color=BLUE, label="positions as they are")
    top.plot(DEPTHS, m["mixed"], "D-", color=ORANGE, label="positions shuffled")
    top.plot(DEPTHS, m["lot"], **DASHED, label="places by lot")
    top.set_ylim(-0.25, 1.05)
    label(top, "Can a word's place be read off its vector?", "layers passed", "R² of a probe")
    top.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.8))
    low.plot(DEPTHS, m["same"], "D-", color=ORANGE, label="a word and itself, positions shuffled")
    low.plot(DEPTHS, m["neighbours"], **DASHED, label="two words of a sentence")
    low.set_ylim(0, 1.05)
    label(low, "How far shuffling moves a word's vector", "layers passed", "cosine")
    low.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.72))
    return figure


def senses(m: dict) -> Figure:
    figure = Figure(figsize=(6, 6), layout="constrained")
    top, low = figure.subfigures(2, 1, height_ratios=(1.3, 1))
    axis = top.subplots()
    axis.plot(DEPTHS, m["word"], color=BLUE, lw=0.8, alpha=0.25)
    axis.plot(DEPTHS, m["word"].mean(1), "o-", color=BLUE, label="the word (faint: each of 8)")
    axis.plot(DEPTHS, m["stop"].mean(1), "D-", color=ORANGE, label="the full stop of the sentence")
    axis.axhline(0.5, **DASHED)
    axis.set_ylim(0.1, 1.04)
    label(axis, "Sentences given to the right sense (dashed: by lot)", "layers passed", "share")
    axis.legend(frameon=False, loc="lower right")
    axes = low.subplots(1, 3)
    for panel, depth, (states, second) in zip(axes, (0, 1, 6), m["bank"]):
        flat = main_axes(states)
        panel.plot(*flat[~second].T, "o", color=BLUE, ms=7, alpha=0.75, mew=0, label="money")
        panel.plot(*flat[second].T, "D", color=ORANGE, ms=6.5, alpha=0.75, mew=0, label="river")
        panel.set(xticks=[], yticks=[])
        panel.margins(0.15)
        panel.set_title(f"“bank”, depth {depth}", fontsize=11, color=INK, loc="left")
        panel.spines[:].set_color(GRID)
    low.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    return figure


def main_axes(states: np.ndarray) -> np.ndarray:
    """(n, D) -> (n, 2): the two directions in which these vectors differ most."""
    u, s, _ = np.linalg.svd(states - states.mean(0), full_matrices=False)
    return (u * s)[:, :2]


def panels(top: float) -> tuple[Figure, np.ndarray]:
    """Two axes, one above the other, the upper one `top` times as high."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    return figure, figure.subplots(2, 1, height_ratios=(top, 1))


def label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, loc="left", fontsize=12, color=INK, pad=8)
    axis.set_xlabel(x, color=QUIET)
    axis.set_ylabel(y, color=QUIET)
    axis.tick_params(colors=QUIET, length=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GRID)


def grid(axis: Axes, values: np.ndarray, marked: float, title: str) -> None:
    """All heads, a row a layer; those above `marked` with their number."""
    values = values.reshape(LAYERS, HEADS)
    axis.imshow(values, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if value > marked:
            colour = "white" if value > 0.5 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9.5, color=colour)
    axis.set_xticks(range(HEADS))
    axis.set_yticks(range(LAYERS))
    axis.set_xticks(np.arange(HEADS + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(LAYERS + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", lw=2)
    label(axis, title, "head", "layer")
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)


DRAWN = {draw.__name__: draw for draw in (previous, separators, scaling, order, senses)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("finding", choices=[*DRAWN, "all"])
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the pictures; this one if absent")
    parser.add_argument("--sentences", type=Path, help="a file of your own with one sentence a line")
    asked = parser.parse_args()
    findings.SENTENCES = asked.sentences or findings.SENTENCES
    for name in DRAWN if asked.finding == "all" else [asked.finding]:
        measured = getattr(findings, f"measure_{name}")()
        print(*getattr(findings, f"say_{name}")(measured), sep="\n")
        DRAWN[name](measured).savefig(asked.out / f"{name}.png", dpi=170)


if __name__ == "__main__":
    main()
