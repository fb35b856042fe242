"""A run folder: who may write into it, and the files that a run leaves.

In:  a folder's path.   Out: an open RunFolder that one process owns; files are written all or nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import system
from .errors import ConfigError, EnvironmentProblem

STATUS = "status.json"
FILES = (
    "metrics.json",
    "history.jsonl",
    "predictions.csv",
    "baseline.csv",
    "report.html",
    "methods.md",
    "spec.toml",
    "environment.json",
    "data.json",
    "diagnosis.json",
    "answers.json",
    STATUS,
)
MODEL, CHECKPOINTS, TENSORBOARD = "model", "checkpoints", "tensorboard"
ANSWERS = "answers"  # of a run within a study: what it says of each part, not yet scored
SUMMARY = "summary.json"  # of a folder that holds several runs
LOCK = ".lock"
LITTER = (
    ".DS_Store",
    "desktop.ini",
    "Thumbs.db",
    LOCK,
)  # what file managers, and killed runs, leave in folders
CHECKPOINT = re.compile(
    r"(step|fold)-\d+|\.(step|fold)-\d+\.\w+\.(part|old)|" + "|".join(map(re.escape, LITTER))
)
STATUSES = ("running", "completed", "stopped", "failed", "diverged")


def model_of(folder: Path) -> Path:
    """The model of a run folder; any other folder is returned as it is."""
    if not (folder / "spec.toml").is_file() or (folder / "config.json").is_file():
        return folder
    if (folder / SUMMARY).is_file():
        one = read_json(folder / SUMMARY).get("model") or "seed-0"
        raise ConfigError(f"{folder} holds several runs", f"Name one of them, such as {folder / one}.")
    if not (folder / MODEL).is_dir():
        raise ConfigError(f"{folder} is a run folder without {MODEL}/: the run did not get so far")
    return folder / MODEL


class RunFolder:
    """The folder of one run. Made new, with `overwrite` cleared of an earlier run's own files, or with `resume`
    that run's own again."""

    ours = True  # whether this process writes it

    def __init__(self, path: Path | str, overwrite: bool = False, resume: bool = False):
        self.path = Path(path).absolute()
        self.history = self.path / "history.jsonl"
        self.listeners: list[Callable[[dict[str, Any]], None]] = []  # each is given every event
        if resume:
            check_unfinished(self.path)
            remove(p for p in self.path.iterdir() if is_leftover(p.name))
        else:
            remove(check_folder(self.path, overwrite))
            self.claim()
        self.status("running")

    def finish(self, **facts: Any) -> None:
        """Say that the run is completed, and let go of what only an unfinished one needs."""
        self.status("completed", **facts)
        for rest in (self.path / CHECKPOINTS, self.path / LOCK):
            with contextlib.suppress(EnvironmentProblem):  # Windows removes no file that is open
                remove([rest] if rest.exists() else [])

    def claim(self) -> None:
        """Make the folder this run's. Of two that start together one creates the file; the other is refused."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / STATUS).touch(exist_ok=False)
        except FileExistsError:
            raise ConfigError(
                f"another run has just begun in {self.path}", "Choose another folder with --out."
            ) from None
        except OSError as problem:
            raise system.disk_problem(self.path / STATUS, problem) from problem

    def status(self, status: str, **facts: Any) -> None:
        """Write status.json; "completed" is written last of all, "running" says by whom."""
        self.json(STATUS, {"status": status, **(system.me() if status == "running" else {}), **facts})

    def text(self, name: str, text: str) -> None:
        """A text file."""
        system.write_text(self.path / name, text)

    def json(self, name: str, table: Any) -> None:
        """A JSON file; what is not a number becomes null, which JSON can say."""
        system.write_text(self.path / name, json.dumps(finite(table), indent=2, ensure_ascii=False) + "\n")

    def event(self, event: str, **facts: Any) -> None:
        """A line of history.jsonl, in one write, so that a killed run leaves at most one torn line."""
        facts = finite({"event": event, **facts})
        line = json.dumps(facts, ensure_ascii=False) + "\n"
        try:
            with open(self.history, "a", encoding="utf-8", newline="\n") as file:
                file.write(line)
        except OSError as problem:
            raise system.disk_problem(self.history, problem) from problem
        for hear in self.listeners:
            hear(facts)

    def cut_history(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Cut history.jsonl back to the events that are to be kept; a torn line is none."""
        lines = []
        with contextlib.suppress(FileNotFoundError):
            lines = self.history.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        system.write_text(
            self.history, "".join(line for line in lines if (event := event_of(line)) and keep(event))
        )


def remove(paths: Iterable[Path]) -> None:
    """Delete files and folders of a run."""
    for old in list(paths):
        try:
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        except OSError as problem:
            raise system.disk_problem(old, problem) from problem


class Onlooker(RunFolder):
    """A run folder that another process writes."""

    ours = False

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()

    def status(self, status: str, **facts: Any) -> None:
        """The other process does."""

    def text(self, name: str, text: str) -> None:
        """The other process does."""

    def event(self, event: str, **facts: Any) -> None:
        """The other process does."""

    def cut_history(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """The other process does."""


class Nowhere(Onlooker):
    """No folder: nobody writes what is learned in memory."""

    path = None

    def __init__(self) -> None:
        """There is nothing to open."""


def event_of(line: str) -> dict[str, Any]:
    """A line of history.jsonl; {} for a torn one."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and line.endswith("\n") else {}


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a run folder against other processes; ConfigError where one holds it."""

    def refuse() -> None:
        raise ConfigError(
            f"another process is writing a run into {path} right now",
            "Wait until it has ended, or choose another folder with --out.",
        )

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(system.lock(path / LOCK, refuse))
        except OSError as problem:
            raise system.disk_problem(path / LOCK, problem) from problem
        yield


def check_unfinished(path: Path) -> None:
    """Refuse to resume what is no run, or a completed one."""
    status = read_status(path)
    if status not in STATUSES:
        raise ConfigError(f"{path} holds no run that could be resumed", "Name its folder with --out.")
    if status == "completed":
        raise ConfigError(
            f"{path} holds a completed run: there is nothing to resume",
            "Choose another folder with --out, or replace the run with --overwrite.",
        )


def check_folder(path: Path, overwrite: bool) -> list[Path]:
    """What of an earlier run must go from `path`, and nothing else; ConfigError where the folder is not free."""
    if path.is_file():
        raise ConfigError(f"{path} is a file; a run needs a folder", "Choose another with --out.")
    held = sorted(p for p in path.iterdir() if p.name not in LITTER) if path.exists() else []
    if not held:
        return []
    status = path / STATUS
    begun = status.is_file() and not status.stat().st_size  # killed as it began
    if not (begun or read_status(path) in STATUSES):
        raise ConfigError(
            f"{path} holds files that are not a run's; nothing was touched",
            "Choose a new or empty folder with --out.",
        )
    if not overwrite:
        raise ConfigError(
            f"{path} already holds a run ({read_status(path)})",
            "Choose another folder with --out, or replace the run with --overwrite"
            + ("." if read_status(path) == "completed" else ", or go on with it with --resume."),
        )
    if system.alive(read_json(status)):
        raise ConfigError(
            f"another process is writing a run into {path} right now", "Choose another folder with --out."
        )
    own = (*FILES, MODEL, CHECKPOINTS, TENSORBOARD, ANSWERS)
    strange = [p.name for p in held if p.name not in own and not is_leftover(p.name)]
    strange += [
        f"{p.parent.name}/{p.name}" for p in path.glob(f"{CHECKPOINTS}/*") if not CHECKPOINT.fullmatch(p.name)
    ]
    strange += [
        str(p.relative_to(path))
        for p in path.glob(f"{TENSORBOARD}/**/*")
        if p.is_file() and not p.name.startswith("events.out.tfevents.") and p.name not in LITTER
    ]
    if strange:
        raise ConfigError(
            f"{path} holds files beside the run's own: {', '.join(strange[:5])}; nothing was touched",
            "Move them away, or choose another folder with --out.",
        )
    return held


def is_leftover(name: str, of: Collection[str] = (*FILES, MODEL, ANSWERS)) -> bool:
    """Whether a killed run left it: a file or model half written under a passing name."""
    found = re.fullmatch(r"\.(.+)\.\w+\.(part|old)", name)
    return bool(found) and found[1] in of


def read_status(path: Path) -> str:
    """The word in a folder's status.json, or "unreadable"."""
    return str(read_json(path / STATUS).get("status", "unreadable"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or {} where there is none to be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finite(value: Any) -> Any:
    """The same structure with NaN and infinities as None, and NumPy's numbers as Python's."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
