"""The wheel: built, installed by itself, and run from the checkout and from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_setup_lists_every_folder_that_holds_code_or_data():
    text = (ROOT / "setup.py").read_text("utf-8")
    for folder in ("weights", "tasks"):
        assert f'"{folder}": (' in text
        assert not list((ROOT / folder).rglob("*.py")), f"{folder}/ holds data, no code"
    for package in (p.parent for p in (ROOT / "minibert").rglob("*") if p.suffix in (".j2", ".css", ".cpp")):
        assert f'"{".".join(package.relative_to(ROOT).parts)}"' in text


def test_the_build_system_is_named():
    assert "[build-system]" in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel of this checkout, unpacked by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "build", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)  # a build leaves files behind
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(folder),
            str(folder / "source"),
        ],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder / "site"),
            str(wheel),
        ],
        check=True,
    )
    return wheel, folder / "site"


@pytest.mark.slow
def test_the_wheel_holds_the_data(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    for folder in ("weights", "tasks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".toml", ".md", ".safetensors"):
                assert f"minibert/{path.relative_to(ROOT).as_posix()}" in names
    for path in (ROOT / "minibert").rglob("*"):
        if path.suffix in (".py", ".j2", ".css", ".cpp"):
            assert path.relative_to(ROOT).as_posix() in names
    assert not [n for n in names if n.startswith(("tests/", "docs/", "weights/"))]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["elsewhere", "the checkout"])
def test_an_installed_verb_runs(place, installed, tmp_path):
    where = ROOT if place == "the checkout" else tmp_path
    environment = {**os.environ, "PYTHONPATH": str(installed[1])}
    script = "import sys; sys.argv[0] = 'minibert'; from minibert.cli import app; app()"
    flags = ["-P"] if place == "the checkout" else []  # as the installed script does: the folder is not first
    for verb in (["weights", "list", "--json"], ["run", "no-such-task"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", script, *verb],
            cwd=where,
            env=environment,
            capture_output=True,
            text=True,
        )
        if verb[0] == "weights":
            assert done.returncode == 0, done.stderr
            assert "all-MiniLM-L6-v2" in {row["name"] for row in json.loads(done.stdout)}
        else:
            assert done.returncode == 2 and "reuters8" in done.stderr, done.stderr
    origin = subprocess.run(
        [sys.executable, *flags, "-c", "import minibert; print(minibert.__file__)"],
        cwd=where, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(origin.stdout.strip()).is_relative_to(installed[1])


@pytest.mark.slow
def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path):
    """There a folder called minibert stands first in Python's way: the clone, which is not the package."""
    unwanted = shutil.ignore_patterns(".*", "build", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "minibert", ignore=unwanted)
    venv.create(tmp_path / "venv", system_site_packages=True, with_pip=False)
    python = str(tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "-e", str(tmp_path / "minibert")], check=True)
    say = (
        "import minibert, minibert.catalogue as c; print(minibert.__file__); print(c.package_folder('tasks'))"
    )
    for folder in (tmp_path, tmp_path / "venv", tmp_path / "minibert"):
        done = subprocess.run([python, "-c", say], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [Path(line).parent.parent for line in done.stdout.split("\n")[:1]] == [tmp_path / "minibert"]
        assert Path(done.stdout.splitlines()[1]) == tmp_path / "minibert" / "tasks"


@pytest.mark.slow
def test_a_shadowed_package_finds_the_checkouts_data():
    done = subprocess.run(
        [sys.executable, "-m", "minibert", "weights", "list"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "all-MiniLM-L6-v2" in done.stdout
