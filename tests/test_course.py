"""The course: pages, notebooks and checks agree; every chapter runs, and prints what its page says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minibert
from minibert import course
from minibert.errors import DataError

from .course_answers import ALONE, WEIGHTS, WRONG

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "course"
PAGES = sorted(FOLDER.glob("[0-9]_*.md"))
NAMES = sorted(course.exercises())
CHECKED = [pytest.param(name, marks=pytest.mark.slow) if name in WEIGHTS else name for name in NAMES]

spec = importlib.util.spec_from_file_location("course_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def blocks(page: Path, kind: str) -> list[str]:
    return [one.body for one in build.pieces(page.read_text("utf-8")) if one.kind == kind]


def asked(code: str) -> list[str]:
    """The exercises that a block hands an answer to."""
    return re.findall(r'check\("(chapter\d\.\d)"', code)


# --- pages and notebooks --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_what_its_page_makes(page):
    assert page.with_suffix(".ipynb").read_text("utf-8") == build.notebook(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_form_that_the_course_promises(page):
    """Its exercises, each asked and solved; a picture at its end, with words for who can't see it."""
    text, number = page.read_text("utf-8"), page.stem[0]
    named = re.findall(rf"^### Exercise ({number}\.\d): ", text, re.M)
    solutions = blocks(page, "python solution")
    assert 1 <= len(named) <= 3
    assert [name for code in blocks(page, "python") for name in asked(code)] == [f"chapter{n}" for n in named]
    assert [name for code in solutions for name in asked(code)] == [f"chapter{n}" for n in named]
    assert all(code.startswith("# your turn") for code in blocks(page, "python") if asked(code))
    assert text.count("<details><summary>Solution</summary>\n\n```python solution\n") == len(solutions)
    (picture,) = re.findall(rf"!\[.{{30,}}\]\((pictures/{page.stem}\.png)\)", text)
    assert f'plt.savefig("{page.stem}.png"' in blocks(page, "python")[-1]
    assert (FOLDER / picture).stat().st_size < 120_000
    assert page.stem in (FOLDER / "README.md").read_text("utf-8")


def test_every_exercise_stands_on_its_page():
    found = [n for page in PAGES for code in blocks(page, "python") for n in asked(code)]
    assert sorted(found) == NAMES == sorted(WRONG)


def test_a_page_is_written_again_as_it_was():
    """Cutting and joining loses nothing, and outputs that stay the same change nothing."""
    for page in PAGES:
        text = page.read_text("utf-8")
        assert build.written(build.pieces(text)) == text
        said = [one.body if one else "" for one in build.outputs(build.pieces(text))]
        assert build.refreshed(text, said) == text, page.name


def test_outputs_are_replaced_and_a_solution_is_hidden():
    page = (
        "# One\n\n```python\nprint(2)\n```\n\n```output varies\n1\n```\n\nThen\n\n"
        "```python\nx = 1\n```\n\n![what is seen](pictures/1_x.png)\n\n"
        "<details><summary>Solution</summary>\n\n```python solution\nx = 2\n```\n\n</details>\n"
    )
    fresh = build.refreshed(page, ["2 \n\n", ""])
    assert fresh == page.replace("\n1\n", "\n2\n")
    cells = json.loads(build.notebook(fresh))["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "markdown", "code", "markdown"]
    last = "".join(cells[-1]["source"])
    assert last.startswith("<details>") and "```python\nx = 2\n```" in last and "pictures" not in last


# --- checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALONE)
def test_a_solution_is_accepted(name, capsys):
    page = next(page for page in PAGES if page.stem[0] == name.split(".")[0][-1])
    (code,) = [code for code in blocks(page, "python solution") if asked(code) == [name]]
    exec(code, {"minibert": minibert, "np": np})
    assert capsys.readouterr().out.startswith(f"{name}: right. ")


@pytest.mark.parametrize("name", CHECKED)
def test_wrong_answers_are_refused_with_the_reason(name, capsys):
    assert len(WRONG[name]) >= 3
    for answer, word in WRONG[name]:
        assert course.check(name, answer) is False
        said = capsys.readouterr().out
        assert said.startswith(f"{name}: not yet. ") and word.lower() in said.lower(), said


@pytest.mark.parametrize("name", CHECKED)
def test_whatever_is_handed_in_gets_a_sentence(name, capsys):
    assert course.check(name, None) is False
    assert course.EXERCISES[name].expects in capsys.readouterr().out
    for odd in ("", "x", 7.5, [], [[1], [2, 3]], {}, object(), lambda: 1, lambda *_: "x", print):
        assert course.check(name, odd) is False
    said = capsys.readouterr().out
    assert said.count("not yet. ") == 10 and "?." not in said


def test_an_unknown_exercise_is_named():
    with pytest.raises(DataError, match="chapter1.9"):
        minibert.course.check("chapter1.9", 1)


def test_importing_the_course_loads_nothing_heavy():
    code = "import minibert, sys; minibert.course; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


# --- running it -----------------------------------------------------------------------------------

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def same(printed: str, shown: str) -> bool:
    """Words equal; numbers within 1 %, or one unit of the last place that is shown."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown))
    return all(abs(float(a) - float(b)) <= max(0.01 * abs(float(b)), 1.01 * unit(b)) for a, b in pairs)


def unit(number: str) -> float:
    """One unit of the last place shown: 0.01 for 3.25; 0 for a whole number, which is a count."""
    digits, _, power = number.partition("e")
    places = len(digits.partition(".")[2])
    return 10.0 ** (int(power or 0) - places) if places else 0.0


def test_numbers_are_compared_and_words_too():
    assert same("r 0.567 of 100\n", "r 0.568  of 100") and same("x -0.00", "x 0.00")
    assert not same("r 0.56", "r 0.59") and not same("a 1", "b 1") and not same("1 1", "1")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_chapter_runs_from_top_to_bottom(page, minilm, tmp_path, monkeypatch):
    """In a fresh kernel, in under two minutes; what it prints is what the page shows; solutions are accepted."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    solutions, cells = iter(blocks(page, "python solution")), []
    for cell in book.cells:
        cells.append(cell)
        for _ in range(cell.source.count("<details>")):  # a solution, on a copy of the names
            cells.append(
                nbformat.v4.new_code_cell(f"exec({next(solutions)!r}, {{**globals()}})", id="solution")
            )
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"
    book.cells = cells
    nbformat.validate(book)
    client = nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    start = time.perf_counter()
    client.execute()
    assert time.perf_counter() - start < 120
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    said = {cell.id: "".join(o.text for o in cell.outputs if o.get("name") == "stdout") for cell in code}
    own = [cell for cell in code if not cell.source.startswith("exec(")]
    for cell in code:
        assert cell in own or ": right. " in said[cell.id], said[cell.id]
    for cell, shown in zip(own, build.outputs(build.pieces(page.read_text("utf-8"))), strict=True):
        printed = said[cell.id]
        if shown is None or shown.kind == "output":
            assert same(printed, shown.body if shown else ""), f"{cell.source}\n{printed}"
    assert any("image/png" in o.get("data", {}) for o in own[-1].outputs), "the picture is not shown"
    assert (tmp_path / f"{page.stem}.png").stat().st_size > 5000
