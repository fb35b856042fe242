"""What tests of pages share: a page's code blocks with what they print, scripts of docs/ as modules."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent


def script(name: str, folder: Path = ROOT / "docs") -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))  # as where it is run: one script draws with another's shapes
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def blocks(page: str) -> list[tuple[str, str]]:
    """(code, what stands below it as printed) of each pair of blocks of a page."""
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    return [(code, shown) for code, shown in found]


def ran(code: str, names: dict) -> str:
    """What a block prints; `names` are those that blocks above it made."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "<page>", "exec"), names)
    return out.getvalue()


NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def alike(shown: str, printed: str) -> None:
    """Assert the same lines: words to the letter, numbers within one of the last digit that is shown.

    Rounding in another order, on another processor, may turn a last digit.
    """
    assert [words(line) for line in shown.splitlines()] == [words(line) for line in printed.splitlines()]
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        mantissa, _, exponent = a.partition("e")
        last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        assert abs(float(a) - float(b)) <= (last * 1.001 if "." in a or exponent else 0), (
            f"{a} is shown, {b} printed"
        )


def words(line: str) -> list[str]:
    return NUMBER.sub("#", line).split()
