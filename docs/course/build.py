"""Refresh the course: every page's outputs and picture, and the notebook beside it.

Run: python docs/course/build.py              all chapters
     python docs/course/build.py 3_one_head   one of them

A page, N_name.md, is the one source. Its ```python blocks run in order in one process, with pictures/ as the
working directory; what a block prints stands below it in an ```output block (```output varies: on another
machine it is different). A ```python solution block runs too, but on a copy of the names, so that nothing behind
it can lean on it; it must be accepted by its check. In the notebook a solution is text, hidden by default.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
BLOCK = re.compile(r"^```(python|python solution|output|output varies)\n(.*?)^```\n", re.M | re.S)
PICTURE = re.compile(r"^!\[.*\]\(pictures/.*\)\n\n?", re.M)  # a notebook shows what its own code draws


class Piece(NamedTuple):
    """A stretch of a page: kind is "text", or what stands behind the block's three backticks."""

    kind: str
    body: str


def pages() -> list[Path]:
    """The chapters, in order."""
    return sorted(FOLDER.glob("[0-9]_*.md"))


def pieces(page: str) -> list[Piece]:
    """A page cut into text and blocks; put together again by `written`."""
    texts, kinds, bodies = (BLOCK.split(page)[i::3] for i in range(3))
    found = [Piece("text", texts[0])]
    for kind, body, text in zip(kinds, bodies, texts[1:]):
        found += [Piece(kind, body), Piece("text", text)]
    return found


def written(found: list[Piece]) -> str:
    """Pieces as a page."""
    return "".join(body if kind == "text" else f"```{kind}\n{body}```\n" for kind, body in found)


def without_outputs(found: list[Piece]) -> list[Piece]:
    """The pieces that a person wrote: no output, and not the blank line above it."""
    kept: list[Piece] = []
    for one in found:
        if not one.kind.startswith("output"):
            kept.append(one)
        elif not kept[-1].body.strip():
            kept.pop()
    return kept


def outputs(found: list[Piece]) -> list[Piece | None]:
    """For each python block the output that stands below it, or None."""
    below: list[Piece | None] = []
    for one in found:
        if one.kind == "python":
            below.append(None)
        elif one.kind.startswith("output"):
            below[-1] = one
    return below


def executed(code: str, names: dict, where: str) -> str:
    """What the code prints; names it makes are added to `names`."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, where, "exec"), names)
    return said.getvalue()


def run(page: Path) -> list[str]:
    """What each python block of a page prints. SystemExit where a solution is not accepted by its check."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names, said = {"__name__": "__main__"}, []
    (FOLDER / "pictures").mkdir(exist_ok=True)
    with contextlib.chdir(FOLDER / "pictures"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")  # plt.show(), for notebooks
        for i, (kind, code) in enumerate(pieces(page.read_text("utf-8"))):
            where = f"{page.name}, piece {i}"
            if kind == "python":
                said.append(executed(code, names, where))
            elif kind == "python solution" and ": right." not in (told := executed(code, {**names}, where)):
                raise SystemExit(f"{where}: this solution is not accepted: {told}\n{code}")
    plt.close("all")
    return said


def refreshed(page: str, said: list[str]) -> str:
    """The page with these outputs below its python blocks."""
    found, fresh = pieces(page), []
    before, new = iter(outputs(found)), iter(said)
    for one in without_outputs(found):
        fresh.append(one)
        if one.kind == "python":
            old, output = next(before), next(new)
            if output:
                fresh += [Piece("text", "\n"), Piece(old.kind if old else "output", tidy(output))]
    return written(fresh)


def tidy(output: str) -> str:
    """Without spaces at the ends of lines, and with one line break at its end."""
    return "\n".join(line.rstrip() for line in output.strip("\n").split("\n")) + "\n"


def notebook(page: str) -> str:
    """The page as a notebook, nothing run yet: text and code in cells, solutions as hidden text."""
    cells: list[dict] = []
    for kind, body in without_outputs(pieces(page)):
        if kind == "python":
            cells.append({"cell_type": "code", "execution_count": None, "outputs": [], "source": body})
            continue
        body = PICTURE.sub("", body) if kind == "text" else f"```python\n{body}```\n"
        if cells and cells[-1]["cell_type"] == "markdown":
            cells[-1]["source"] += body
        else:
            cells.append({"cell_type": "markdown", "source": body})
    cells = [cell for cell in cells if cell["source"].strip()]
    for i, cell in enumerate(cells):
        lines = cell["source"].strip("\n").splitlines(keepends=True)
        cell |= {"id": f"cell-{i}", "metadata": {}, "source": lines}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def build(page: Path) -> None:
    """Run a page; write it again with what it printed, and its notebook."""
    start = time.perf_counter()
    source = refreshed(page.read_text("utf-8"), run(page))
    page.write_text(source, "utf-8", newline="\n")
    page.with_suffix(".ipynb").write_text(notebook(source), "utf-8", newline="\n")
    print(f"{page.name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wanted = sys.argv[1:] or [page.stem for page in pages()]
    for name in wanted:
        build(FOLDER / f"{Path(name).stem}.md")
