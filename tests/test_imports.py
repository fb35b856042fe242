"""Who may import whom, as tables; what must stay in one file; and what starting up must not load."""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from .helpers import write_model

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minibert"
FILES = sorted(PACKAGE.rglob("*.py"))

# A unit is a file of minibert/, or a folder of it; what it may import of its own house. Lower in the
# list may use higher, never the other way round.
HOUSE = {
    "errors": "",
    "families": "",
    "names": "",
    "kinds": "",
    "answers": "kinds",
    "counts": "",
    "metrics": "counts",
    "progress": "",
    "config": "errors families",
    "flops": "config",
    "spec": "errors kinds",
    "system": "errors",
    "device": "errors",
    "wordrows": "",
    "lora": "errors",
    "recompute": "",
    "oracle": "errors",
    "batch": "errors",
    "processes": "batch",
    "several": "batch device errors processes progress system",
    "optim": "errors processes wordrows",
    "kernels": "batch device errors progress system",
    "compiled": "batch errors",
    "variants": "batch config",
    "dropout": "batch kernels",
    "trace": "batch errors kernels variants",
    "encoder": "batch config dropout errors kernels trace variants",
    "pooling": "batch errors",
    "heads": "batch config errors families pooling variants",
    "tokenize": "config errors progress",
    "align": "errors tokenize",
    "safefile": "config errors",
    "checkpoint": "config errors families names safefile system",
    "sentence": "config errors pooling safefile variants",
    "catalogue": "errors progress system",
    "folder": "errors system",
    "trackers": "errors folder progress",
    "saving": "checkpoint config device errors families folder lora sentence system tokenize",
    "model": "align answers batch checkpoint config device encoder errors kinds pooling saving tokenize trace system",
    "loading": "catalogue checkpoint config device encoder errors families folder heads model pooling saving sentence tokenize",
    "train": "device errors optim processes",
    "learner": "batch compiled device model tokenize",
    "standing": "errors model optim processes train",
    "resume": "standing device errors model processes progress spec system tokenize",
    "masking": "errors tokenize",
    "pretrain": "batch device errors loading masking model progress saving system train",
    "ask": "align batch errors loading model",
    "data": "counts errors spec kinds",
    "taggers": "",
    "linear": "answers data kinds",
    "baseline": "data errors metrics answers kinds taggers linear",
    "estimate": "data errors",
    "reading": "data errors kinds model spec tokenize",
    "outset": "answers compiled config data device errors kinds learner loading lora model processes recompute spec system tokenize train wordrows",
    "history": "device flops folder model progress spec train",
    "report": "catalogue errors metrics spec system counts kinds",
    "nonfinite": "",
    "mismatch": "",
    "diagnose": "report kinds metrics spec",
    "scratch": "baseline catalogue config data errors families metrics names spec tokenize",
    "course": "batch errors kernels loading metrics names scratch train",
}
# Where everything meets: these may import anything above, and none above may import them.
MEETING = {
    "__init__",
    "__main__",
    "bench",
    "cli",
    "estimator",
    "explain",
    "fit",
    "notebook",
    "predict",
    "results",
    "run",
    "speed",
    "study",
    "sweep",
    "verify",
}

# A package from elsewhere -> the units that may import it. Not listed: nobody may.
ELSEWHERE = {
    "torch": "batch compiled kernels dropout variants pooling sentence saving loading trace encoder heads processes several wordrows optim lora recompute oracle device train learner pretrain ask safefile checkpoint model verify fit standing resume outset speed nonfinite bench explain",
    "numpy": "bench kernels metrics train learner outset masking pretrain tokenize align model data linear baseline study fit predict results scratch answers counts taggers mismatch estimate estimator explain course",
    "pandas": "data predict results estimator notebook study",
    "sklearn": "linear taggers estimator",
    "safetensors": "safefile checkpoint sentence verify scratch resume",
    "scipy": "estimate scratch",
    "threadpoolctl": "bench",
    "tokenizers": "tokenize",
    "jinja2": "explain report",
    "markupsafe": "report",
    "matplotlib": "bench",
    "typer": "cli",
    "triton": "kernels",  # in triton_code.py alone, which is imported inside a function
}
# ... and inside a function only, because it is optional or slow to load.
INSIDE = {
    "transformers": "oracle",
    "torch": "course trackers",
    "jinja2": "bench",
    "pandas": "model",
    "scipy": "study",
    "rich": "progress",
    "openpyxl": "data",
    "pyarrow": "data predict",
    "tokenizers": "tokenize",
    "huggingface_hub": "catalogue",
    "flash_attn": "kernels",
    "xformers": "kernels",
    "vaderSentiment": "study",
}
# Modules and calls that stand in one file.
PLATFORM = {"fcntl", "msvcrt", "resource", "signal"}
PICKLES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


class Import(NamedTuple):
    """One import: in which file, of what (relative names made absolute), and whether inside a function."""

    file: Path
    module: str
    inside: bool


def parent_of(file: Path, level: int) -> str:
    """The package that so many dots mean in this file."""
    parts = file.relative_to(ROOT).with_suffix("").parts[:-1]
    return ".".join(parts[: len(parts) - level + 1])


def imports(file: Path) -> list[Import]:
    found = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue  # never run
            if isinstance(child, ast.Import):
                found.extend(Import(file, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = parent_of(file, child.level) if child.level else ""
                module = ".".join(x for x in (base, child.module) if x)
                # "from . import a" names modules, "from .a import b" one
                names = [module] if child.module else [f"{module}.{alias.name}" for alias in child.names]
                found.extend(Import(file, name, inside) for name in names)
            visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(file.read_text(encoding="utf-8")), False)
    return found


def unit_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


ALL = [one for file in FILES for one in imports(file)]
OURS = [x for x in ALL if x.module.split(".")[0] == "minibert"]
THEIRS = [x for x in ALL if x.module.split(".")[0] not in {"minibert", *sys.stdlib_module_names}]


def test_every_unit_has_its_place():
    """A new file or folder needs a line in HOUSE, or stands in MEETING."""
    assert {unit_of(file) for file in FILES} == {*HOUSE, *MEETING}


@pytest.mark.parametrize("unit", HOUSE)
def test_a_unit_imports_what_its_line_allows(unit):
    used = {x.module.split(".")[1] for x in OURS if unit_of(x.file) == unit and x.module != "minibert"} - {
        unit
    }
    assert used <= set(HOUSE[unit].split())


def test_the_table_has_no_circles_and_no_idle_words():
    for unit, allowed in HOUSE.items():
        before = list(HOUSE)[: list(HOUSE).index(unit)]
        assert set(allowed.split()) <= set(before), f"{unit} stands above what it uses"
        used = {x.module.split(".")[1] for x in OURS if unit_of(x.file) == unit and "." in x.module}
        assert set(allowed.split()) <= used, f"{unit} is allowed more than it uses"


def test_packages_from_elsewhere_stand_where_they_may():
    for file, module, inside in THEIRS:
        package, unit = module.split(".")[0], unit_of(file)
        allowed = ELSEWHERE.get(package, "").split() + (INSIDE.get(package, "").split() if inside else [])
        assert unit in allowed, f"{file.relative_to(ROOT)} imports {package}" + " in a function" * inside


def test_the_tables_of_packages_have_no_idle_words():
    used = {(x.module.split(".")[0], unit_of(x.file), x.inside) for x in THEIRS}
    for table, inside in ((ELSEWHERE, False), (INSIDE, True)):
        listed = {(package, unit, inside) for package, units in table.items() for unit in units.split()}
        assert listed <= used, listed - used


def test_nothing_here_imports_tests_or_benchmarks():
    assert not [x for x in ALL if x.module.split(".")[0] in ("tests", "benchmarks")]


def test_what_differs_between_systems_stands_in_system():
    for file, module, _ in ALL:
        assert module.split(".")[0] not in PLATFORM or unit_of(file) == "system", file


def test_nothing_can_unpickle():
    assert not [x for x in ALL if x.module.split(".")[0] in PICKLES]


@functools.cache
def chains(file: Path) -> list[tuple[str, int]]:
    """Every a.b.c that is written in a file, and every name that is called, with its line."""
    out = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            out.append((ast.unparse(node), node.lineno))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            out.append((f"{node.func.id}()", node.lineno))
    return out


# How a chain begins or ends -> the one unit that may write it ("": none).
ONLY = {
    "torch.cuda": "device",
    "torch.backends.cuda": "device",
    "torch.backends.mps": "device",
    "torch.mps": "device",
    "os.fsync": "system",
    "os.fdatasync": "system",
    "torch.load": "",
    "torch.save": "",
    "np.load": "study",  # plain arrays, never pickled ones: store.py
    "numpy.load": "",
    "os.system": "",
    "eval()": "",
    "exec()": "",
    "compile()": "",
    "__import__()": "",
}


@pytest.mark.parametrize("start", ONLY)
def test_what_stands_in_one_file_only(start):
    found = {
        f"{file.relative_to(ROOT)}:{line}"
        for file in FILES
        if unit_of(file) != ONLY[start]
        for chain, line in chains(file)
        if chain == start or chain.startswith(f"{start}.")
    }
    assert not found


def test_the_reference_is_imported_by_its_own_tests_only():
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if file.parent.name != "reference":
            used = {x.module.split(".")[0] for x in imports(file)}
            assert not used & {"transformers", "sentence_transformers"}, file


WITHOUT = """
import sys
for name in ("transformers", "sentence_transformers"):
    sys.modules[name] = None  # importing it fails from now on, as where it isn't installed
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_the_fast_tests_need_no_reference():
    """Where it can't be imported all are found but its own, and its stored answers are there instead."""
    out = python(WITHOUT, str(ROOT / "tests"), "-k", "test_goldens and distilbert").splitlines()[-1]
    own = len(list((ROOT / "tests" / "reference").glob("test_*.py")))
    assert " passed" in out and f" {own} skipped" in out


# --- what starting up loads -----------------------------------------------------------------------

HEAVY = ["torch", "pandas", "numpy", "sklearn", "tokenizers", "safetensors", "huggingface_hub", "matplotlib"]
IMPORT = "import minibert\nassert minibert.__version__ and minibert.ConfigError\n"
HELP = """
from minibert.cli import app
for words in (["--help"], ["run", "--help"], ["weights", "--help"], ["--version"]):
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, words
"""


def python(code: str, *words: str) -> str:
    """Run code in a fresh interpreter, from a folder where no module lies; its output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, encoding="utf-8", env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_starting_up_loads_nothing_heavy(code):
    out = python(code + "import sys, json\nprint('\\n' + json.dumps(sorted(sys.modules)))")
    loaded = {name.split(".")[0] for name in json.loads(out.splitlines()[-1])}
    assert not loaded & set(HEAVY)


HIDDEN = """
import importlib, os, pkgutil, signal, sys
for name in ("fcntl", "resource", "msvcrt"):
    sys.modules[name] = None  # importing it fails from now on, as where it doesn't exist
for place, name in ((signal, "SIGHUP"), (os, "O_DIRECTORY")):
    if hasattr(place, name):
        delattr(place, name)
import minibert
for found in pkgutil.walk_packages(minibert.__path__, "minibert."):
    if not found.name.endswith(("__main__", "triton_code")):  # which needs the package triton
        importlib.import_module(found.name)
from minibert import system
with system.lock(sys.argv[2] + ".lock"), system.Stop() as stop:
    assert len(minibert.pack([[1, 2], [3]])) == 2
    model = minibert.load(sys.argv[1], device="cpu")
    before = model.predict(["the cat sat"])
    assert minibert.load(model.save(sys.argv[2]), device="cpu").predict(["the cat sat"]).equals(before)
print("done")
"""


@pytest.mark.slow
def test_it_runs_where_posix_modules_are_missing(tmp_path):
    folder = write_model(tmp_path / "in", head=3)
    assert python(HIDDEN, str(folder), str(tmp_path / "out")).strip() == "done"


def test_every_public_name_is_there():
    import minibert

    assert all(getattr(minibert, name) is not None for name in minibert.__all__)
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        _ = minibert.nonsense


@pytest.mark.slow
def test_loading_a_model_leaves_torchs_compiler_alone(tmp_path):
    """Its import takes longer than the weights: drawing an embedding on "meta" would bring it in."""
    write_model(tmp_path)
    code = f"import sys, minibert; minibert.load({str(tmp_path)!r}).embed(['a cat'], pooling='mean'); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
