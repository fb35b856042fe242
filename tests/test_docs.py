"""The reading order names what exists; the README's commands parse; the drawing is the script's."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from unittest.mock import MagicMock

import pytest

from .pages import ROOT, script


def named_in(page: str) -> list[str]:
    return sorted(
        set(
            re.findall(
                r"`((?:minibert|tests|docs|weights|tasks)/[\w/.:-]+)`", (ROOT / page).read_text("utf-8")
            )
        )
    )


def test_the_hour_names_many_symbols():
    assert sum(":" in word for word in named_in("docs/hour.md")) > 20


DOCS = (
    "docs/hour.md",
    "docs/several.md",
    "docs/study.md",
    "docs/estimates.md",
    "docs/training.md",
    "docs/kernels.md",
    "docs/python.md",
    "docs/explain.md",
)
RUN = (
    "docs/shapes.md",
    "docs/numerics.md",
    "docs/gallery/README.md",
)  # pages of code: no command of ours there


COURSE = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "course").glob("*.md"))


@pytest.mark.parametrize("page", [*DOCS, *RUN, *COURSE, "README.md", "CONTRIBUTING.md"])
def test_every_file_and_symbol_named_exists(page):
    for word in named_in(page):
        path, _, symbol = word.partition(":")
        if "X" in path:  # tests/test_X.py stands for all
            continue
        assert (ROOT / path).exists(), f"{page} names {word}"
        if symbol:
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            found = importlib.import_module(module)
            for part in symbol.split("."):
                found = getattr(found, part)


def commands(page: str) -> list[str]:
    """Lines of code blocks that start with minibert."""
    lines = re.findall(r"^(?: {4}|\$ )?(minibert [^\n]+)$", (ROOT / page).read_text("utf-8"), re.M)
    return [line.split("#")[0].strip() for line in lines]


@pytest.mark.parametrize("page", [*DOCS, "docs/course/README.md", "README.md"])
def test_every_command_shown_is_one_that_the_program_has(page):
    from typer.main import get_command

    from minibert.cli import app

    verbs = get_command(app).commands
    shown = commands(page)
    assert shown
    for line in shown:
        words = line.split()[1:]
        command = verbs[words[0]]
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= known | {"--help"}, line


def test_the_readme_and_ci_run_the_same_commands():
    readme, ci = ((ROOT / name).read_text("utf-8") for name in ("README.md", ".ci/run"))
    assert "minibert run reuters8\n" in readme and "minibert run reuters8 " in ci
    assert "python -m pytest -n auto\n" in readme and "python -m pytest -n auto\n" in ci
    for shell in ("&&", "make ", "bash "):
        blocks = re.findall(r"```.*?```", readme, re.S)
        assert not any(shell in block for block in blocks), f"the README's commands need {shell!r}"


def test_the_readme_names_every_file_of_the_package():
    readme = (ROOT / "README.md").read_text("utf-8")
    tree = readme[readme.index("## The house") :]
    for path in sorted((ROOT / "minibert").rglob("*.py")):
        assert re.search(rf"\b{re.escape(path.name)}\b", tree) or path.name in (
            "__init__.py",
            "__main__.py",
        ), path.name


@pytest.mark.parametrize("name", ["pack", "tiles"])
def test_a_drawing_is_what_its_script_draws(name):
    assert (ROOT / "docs" / f"{name}.svg").read_text("utf-8") == script(f"draw_{name}").draw()


def test_the_tiles_that_are_drawn_give_the_softmax():
    """... and the kernel that the drawing names computes the same numbers."""
    import numpy as np

    drawn = script("draw_tiles")
    largest, _, _, total, sums = list(drawn.steps())[-1]
    weights = np.exp(drawn.SCORES) / np.exp(drawn.SCORES).sum()
    assert sums / total == pytest.approx(weights @ drawn.VALUES, rel=1e-12)
    assert largest + np.log(total) == pytest.approx(np.log(np.exp(drawn.SCORES).sum()), rel=1e-12)
    code = (ROOT / "minibert" / "kernels" / "tiled.py").read_text("utf-8")
    page = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    for name in ("most", "larger", "shrink", "probs", "total", "sums", "lse"):
        assert re.search(rf"\b{name}\b", code) and f"`{name}`" in page, name


def test_the_page_for_kernel_writers_names_every_kernel():
    from minibert.kernels import OURS

    page = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    assert not [name for name in OURS if f"`{name}`" not in page]


@pytest.mark.slow
def test_a_kernel_is_added_as_the_page_says(tmp_path, minilm):
    """Every step of "Add your kernel", to the letter: the file, the gate, the bench, and a run."""
    page = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    steps = page[page.index("# Add your kernel") :]
    mine, gate = re.findall(r"```python\n(.*?)```", steps, re.S)
    (tmp_path / "mine.py").write_text(mine, "utf-8")

    def done(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", env=env
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert "passed=True" in done("-c", gate)
    shown = re.findall(r"^minibert ([^\n]+)$", steps, re.M)
    assert [line.split()[0] for line in shown] == ["bench", "verify", "run"]
    for line in shown:
        few = ["--set", "train.epochs=1", "--set", "train.examples=40"] if line.startswith("run") else []
        out = done("-m", "minibert", *line.split(), *few)
        if line.startswith("bench"):
            rows = json.loads((tmp_path / "bench" / "attention.json").read_text("utf-8"))["rows"]
            mines = [row for row in rows if row["kernel"] == "mine"]
            assert mines and all(row["outcome"] == "ok" and row["verdict"] == "PASS" for row in mines), out
    environment = json.loads((tmp_path / "runs" / "reuters8" / "environment.json").read_text("utf-8"))
    assert "mine" in json.dumps(environment)


@pytest.mark.slow
def test_the_code_of_the_hour_runs(tmp_path):
    code = re.findall(r"((?:^    [^\n]*\n)+)", (ROOT / "docs" / "hour.md").read_text("utf-8"), re.M)
    block = next(c for c in code if "import minibert" in c)
    script = "\n".join(line[4:] for line in block.splitlines())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "layers.5.ffn_normed" in done.stdout


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_recipes_give_every_number_away(name, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "several.md").read_text("utf-8")
    recipe = next(code for code in re.findall(r"```python\n(.*?)```", page, re.S) if f"json, {name}" in code)
    events = [
        {"event": "step", "step": 1, "epoch": 1, "loss": 0.5, "grad_norm": None},
        {"event": "evaluation", "step": 1, "epoch": 1, "best": True, "loss": 0.4, "accuracy": 1.0},
    ]
    folder = tmp_path / "runs" / "reuters8"
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events), encoding="utf-8")
    package = MagicMock()
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    given = (package.init().log if name == "wandb" else package.log_metrics).call_args_list
    assert [call.args[0] for call in given] == [
        {"step/loss": 0.5},
        {"evaluation/loss": 0.4, "evaluation/accuracy": 1.0},
    ]
    assert all(call.kwargs == {"step": 1} for call in given)


def test_the_heart_of_the_encoder_is_quoted_as_it_is():
    quoted = re.findall(
        r"^    (hidden = .*|return self\..*)$", (ROOT / "docs" / "hour.md").read_text("utf-8"), re.M
    )
    code = (ROOT / "minibert" / "encoder.py").read_text("utf-8")
    assert len(quoted) == 2 and all(line in code for line in quoted)


def test_the_hour_leads_to_the_other_pages():
    page = (ROOT / "docs" / "hour.md").read_text("utf-8")
    for other in ("shapes.md", "numerics.md", "gallery/README.md", "kernels.md", "course/README.md"):
        assert f"]({other})" in page, other
