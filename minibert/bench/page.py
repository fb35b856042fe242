"""The page of a file of results: pictures, table, conditions, in one HTML file; and the pictures as PNGs beside it.

In:  the dict of attention.json or encoder.json, a folder.   Out: NAME.html and a PNG for each picture.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from ..system import replacing, write_text
from .pictures import PICTURES, Results, left_out
from .table import cut_short, short

DOTS = 160  # of a PNG, an inch
TITLES = {"attention": "Attention kernels", "encoder": "Reading texts, step by step"}


def write(results: Results, lines: list[dict[str, str]], folder: Path) -> Path:
    """Draw all pictures, write them and the page, with these lines as its table; returns the page's path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    shown = []
    for picture in PICTURES[results["verb"]]:
        figure = picture.draw(results)
        if figure is not None:
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=DOTS)
            with replacing(folder / f"{picture.name}.png") as part:
                part.write_bytes(file.getvalue())
            shown.append(
                (
                    picture,
                    base64.b64encode(file.getvalue()).decode("ascii"),
                    round(96 * figure.get_figwidth()),
                )
            )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("page.html.j2").render(
        title=TITLES[results["verb"]], results=results, shown=shown, left_out=left_out(results),
        spoken=spoken, lines=filled(lines), cut=cut_short(results), settings=settings(results),
    )  # fmt: skip
    path = folder / f"{results['verb']}.html"
    write_text(path, text)
    return path


def settings(results: Results) -> dict[str, Any]:
    """As they were asked for; files without their folders, which say more of a person than of a measurement."""
    found = dict(results["settings"])
    if "shapes" in found:
        found["shapes"] = ["x".join(map(str, shape)) for shape in found["shapes"]]
    if "lengths" in found:
        found["lengths"] = [short(name) for name in found["lengths"]]
    return found


def filled(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without the columns in which nothing stands."""
    names = [name for name in (lines[0] if lines else ()) if {line[name] for line in lines} - {"", "-"}]
    return [{name: line[name] for name in names} for line in lines]


def spoken(value: Any) -> str:
    """A condition or setting in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {spoken(v)}" for key, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return " ".join(map(spoken, value)) or "none"
    return (
        "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) or "none"
    )
