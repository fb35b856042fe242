"""Draw docs/pack.svg: three texts as a pack, and as the padded rectangle with its mask.

Run: python docs/draw_pack.py
"""

from html import escape
from pathlib import Path

TEXTS = [
    ["[CLS]", "he", "won", "the", "race", "[SEP]"],
    ["[CLS]", "why", "?", "[SEP]"],
    ["[CLS]", "no", "[SEP]"],
]
# Blue, orange and green that stay apart for colour-blind eyes (Okabe and Ito), light enough for text.
FILLS = ["#bcdcf2", "#f6d7a8", "#b7e0cf"]
INK, QUIET, PAD, LINE = "#1b1f24", "#57606a", "#f0f1f3", "#8c959f"
CELL, HIGH, LEFT = 62, 34, 40
SMALL = 15  # a cell of the score grids


def rect(x, y, w, h, fill, stroke=LINE, width=1):
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def text(x, y, words, size=13, anchor="start", fill=INK, weight="normal"):
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def cell(x, y, word, fill):
    return rect(x, y, CELL, HIGH, fill) + text(x + CELL / 2, y + 22, word, 13, "middle")


def pack(y):
    out = [text(LEFT, y, "The pack: every cell is a real token, N = 13", 16, weight="bold")]
    x, top, n = LEFT, y + 34, 0
    out.append(
        text(LEFT, y + 22, "cu_seqlens = [0, 6, 10, 13]: where each text begins, and the end", 13, fill=QUIET)
    )
    for words, fill in zip(TEXTS, FILLS):
        for place, word in enumerate(words):
            out += [
                cell(x, top, word, fill),
                text(x + CELL / 2, top + HIGH + 17, str(place), 12, "middle", QUIET),
            ]
            x += CELL
            n += 1
        out.append(
            f'<line x1="{x}" y1="{top - 5}" x2="{x}" y2="{top + HIGH + 5}" stroke="{INK}" stroke-width="3"/>'
        )
    out.append(text(x + 10, top + HIGH + 17, "positions", 12, fill=QUIET))
    return out


def rectangle(y):
    out = [text(LEFT, y, "The rectangle: B = 3 by T = 6, of which 5 cells are padding", 16, weight="bold")]
    out.append(
        text(LEFT, y + 22, "and beside it the mask that tells attention which cells are real", 13, fill=QUIET)
    )
    longest = max(map(len, TEXTS))
    for row, (words, fill) in enumerate(zip(TEXTS, FILLS)):
        top = y + 34 + row * HIGH
        for place in range(longest):
            real = place < len(words)
            out.append(
                cell(LEFT + place * CELL, top, words[place] if real else "[PAD]", fill if real else PAD)
            )
            x = LEFT + longest * CELL + 48 + place * 34
            out += [
                rect(x, top, 34, HIGH, fill if real else PAD),
                text(x + 17, top + 22, "1" if real else "0", 13, "middle"),
            ]
    return out


def scores(y):
    out = [text(LEFT, y, "What attention computes, for each head", 16, weight="bold")]
    out.append(text(LEFT, y + 22, "pack: 6·6 + 4·4 + 3·3 = 61 scores", 13, fill=QUIET))
    x, top = LEFT, y + 34
    for words, fill in zip(TEXTS, FILLS):
        size = len(words)
        out += [
            rect(x + c * SMALL, top + r * SMALL, SMALL, SMALL, fill) for r in range(size) for c in range(size)
        ]
        x += size * SMALL + 24
    x = LEFT + 6 * CELL + 48
    out.append(text(x, y + 22, "rectangle: 3 · 6·6 = 108 scores, 47 of them for nothing", 13, fill=QUIET))
    for words, fill in zip(TEXTS, FILLS):
        size = len(words)
        for r in range(6):
            for c in range(6):
                out.append(
                    rect(x + c * SMALL, top + r * SMALL, SMALL, SMALL, fill if max(r, c) < size else PAD)
                )
        x += 6 * SMALL + 24
    return out


def draw() -> str:
    """The whole picture."""
    body = "\n".join([*pack(40), *rectangle(176), *scores(360)])
    words = "Three texts as one pack of 13 tokens, and as a padded rectangle of 18 cells with its mask"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 500" role="img" '
        f'font-family="system-ui, sans-serif" aria-label="{words}">\n'
        f'<rect width="950" height="500" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("pack.svg").write_text(draw(), encoding="utf-8")
