"""`minibert explain`: a page on which every number of a real model can be followed, from text to answer.

In:  a Model and a text.   Out: one HTML file that opens anywhere, without a network.

    story.py         everything the page shows, as one table of numbers from Encoder.trace
    measures.py      read off a trace: parts of sums, rollout, what becomes of a vector with depth
    changes.py       heads, layers, positions taken out
    outcome.py       what comes out, as numbers that can be compared
    attribution.py   which tokens carried the answer
    lens.py          what a masked-language head says, at the end and on the way
    sources.py       the lines of code that compute each stage, taken from the files themselves
    live.py          the same page with a small server behind it that runs the model
    page.html.j2, page.css, page.js, draw.js    the page
"""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from ..errors import DataError
from ..model import Model
from ..system import write_text
from .story import LONGEST, tell

HERE = Path(__file__).parent


def explain(
    model: Model, text: str, pair: str | None = None, *, max_tokens: int = LONGEST, live: bool = False
) -> str:
    """The page, as text of one HTML file. `max_tokens`: what is longer is cut, and the page says so."""
    return page(tell(model, text, pair, max_tokens=max_tokens, live=live))


def write(
    model: Model, text: str, out: Path | str, pair: str | None = None, *,
    max_tokens: int = LONGEST, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write the page to a file; DataError where it exists and `overwrite` isn't asked for."""
    out = Path(out)
    check_place(out, overwrite)
    write_text(out, explain(model, text, pair, max_tokens=max_tokens))
    return out


def check_place(out: Path, overwrite: bool) -> None:
    """Found out before the work: DataError where the page can't be written."""
    if out.is_dir() or not out.parent.is_dir():
        raise DataError(
            f"{out} can't be written: " + ("it is a folder" if out.is_dir() else "no such folder")
        )
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists already", "Take another --out, or --overwrite.")


def page(story: dict) -> str:
    """A story as a page. Texts reach the page as JSON alone, in which no "<" stands."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    told = json.dumps(story, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return pages.get_template("page.html.j2").render(story=story, told=safe)
