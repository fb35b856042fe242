"""Draw docs/tiles.svg: attention of one query over six keys, a block of two keys at a time, number by number.

Every number is computed here, with the names of minibert/kernels/tiled.py. Run: python docs/draw_tiles.py
"""

from math import exp, log
from pathlib import Path

from draw_pack import FILLS, QUIET, rect, text

SCORES = [1.0, 2.0, 3.0, 0.5, 2.5, 1.5]  # of one query, scaled; a block is KEYS of them
VALUES = [4.0, 1.0, 2.0, 8.0, 3.0, 6.0]  # one number a key, where a head has K
KEYS = 2
CELL, HIGH, LEFT, WIDE = 64, 34, 40, 1040


def steps():
    """What tiled.py's loop holds after each block: (larger, shrink, probs, total, sums)."""
    most, total, sums = float("-inf"), 0.0, 0.0
    for start in range(0, len(SCORES), KEYS):
        scores, values = SCORES[start : start + KEYS], VALUES[start : start + KEYS]
        larger = max(most, *scores)
        shrink = exp(most - larger)
        probs = [exp(score - larger) for score in scores]
        total = total * shrink + sum(probs)
        sums = sums * shrink + sum(p * v for p, v in zip(probs, values))
        most = larger
        yield larger, shrink, probs, total, sums


def row(y, name, numbers, fills):
    """A named row of cells."""
    out = [text(LEFT, y + 22, name, weight="bold")]
    for place, (number, fill) in enumerate(zip(numbers, fills)):
        x = LEFT + 90 + place * CELL
        out += [rect(x, y, CELL, HIGH, fill), text(x + CELL / 2, y + 22, f"{number:g}", 14, "middle")]
    return out


def forward(y):
    """The blocks one below the other."""
    fills = [FILLS[i // KEYS] for i in range(len(SCORES))]
    out = [text(LEFT, y, "Forward: three blocks of keys, and what is kept between them", 17, weight="bold")]
    out += row(y + 20, "scores", SCORES, fills) + row(y + 20 + HIGH, "values", VALUES, fills)
    heads = ["block", "larger", "shrink", "probs", "total", "sums"]
    columns = [LEFT, LEFT + 70, LEFT + 150, LEFT + 235, LEFT + 375, LEFT + 670]
    top = y + 122
    out += [text(x, top, word, 14, weight="bold", fill=QUIET) for x, word in zip(columns, heads)]
    before = (0.0, 0.0)
    for number, (larger, shrink, probs, total, sums) in enumerate(steps()):
        line = top + 30 + number * HIGH
        gain = sum(probs)
        weighed = sum(p * v for p, v in zip(probs, VALUES[number * KEYS :]))
        out += [rect(LEFT - 6, line - 22, WIDE - 2 * LEFT + 12, HIGH - 4, FILLS[number], FILLS[number])]
        cells = [
            str(number + 1), f"{larger:g}", f"{shrink:.3f}", ", ".join(f"{p:.3f}" for p in probs),
            f"{before[0]:.3f} · {shrink:.3f} + {gain:.3f} = {total:.3f}",
            f"{before[1]:.3f} · {shrink:.3f} + {weighed:.3f} = {sums:.3f}",
        ]  # fmt: skip
        out += [text(x, line, word) for x, word in zip(columns, cells)]
        before = total, sums
    larger, _, _, total, sums = list(steps())[-1]
    line = top + 30 + 3 * HIGH + 14
    out += [
        text(LEFT, line, f"out = sums / total = {sums / total:.3f}", 15, weight="bold"),
        text(LEFT + 270, line, f"lse = most + log(total) = {larger + log(total):.3f}", 15, weight="bold"),
        text(LEFT + 560, line, "kept for the backward pass: these two, no probabilities", 14, fill=QUIET),
    ]
    return out


def backward(y):
    """Each probability again, from its score and lse alone."""
    larger, _, _, total, _ = list(steps())[-1]
    lse = larger + log(total)
    fills = [FILLS[i // KEYS] for i in range(len(SCORES))]
    probs = [round(exp(score - lse), 3) for score in SCORES]
    out = [
        text(LEFT, y, "Backward: the probabilities once more, in any order of the blocks", 17, weight="bold")
    ]
    out += row(y + 20, "probs", probs, fills)
    out += [
        text(LEFT + 90 + 6 * CELL + 20, y + 34, "= exp(scores - lse); they add up to 1", 14),
        text(LEFT + 90 + 6 * CELL + 20, y + 54, "no running maximum, nothing to scale down", 13, fill=QUIET),
    ]
    return out


def draw() -> str:
    """The whole picture."""
    body = "\n".join([*forward(40), *backward(358)])
    words = "Softmax and the weighted mean of values, two keys at a time, with the running maximum, total and sums"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} 440" role="img" '
        f'font-family="system-ui, sans-serif" aria-label="{words}">\n'
        f'<rect width="{WIDE}" height="440" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("tiles.svg").write_text(draw(), encoding="utf-8")
