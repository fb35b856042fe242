"""Checkpoints of a run that goes on: the state of training at a step, whole or not at all, and never a pickle.

In:  tensors by file, numbers, and what the run is (spec, data, weights), by which a stranger is refused.
Out: RUN/checkpoints/step-00001234/, or what a good one holds. (Published weights are checkpoint.py's.)

A checkpoint is written under a passing name, each file synced, MANIFEST.json with every file's size and
sha256 last, then the folder renamed: a process killed anywhere leaves the one before. A finished fold leaves
fold-0001/, its test answers. When the run completes, all of it goes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import device, system
from .errors import ConfigError, EnvironmentProblem, WeightsError
from .model import Model
from .processes import ALONE, World
from .progress import say
from .spec import TaskSpec
from .standing import FILES, Course, Reached
from .tokenize import FILES as TOKENIZER

if TYPE_CHECKING:
    import numpy as np

    from .data import Splits

FORMAT = 1  # of a checkpoint's files; a newer one is refused
MANIFEST, STATE = "MANIFEST.json", "state.json"
STEP, FOLD = "step-", "fold-"
FREE = (
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep",
    "device",
    "trackers",
    "parallel",
)  # of [train]: change nothing that is learned
# ... and these only the last digits, where memory is short; on a card other numbers are dropped, too, as its
# generator draws one micro-batch after the other
MEMORY = ("tokens_per_microbatch", "recompute")
DIGITS = "the rest may differ in the last digits"
COARSER = "the rest is computed in that; for one format on all devices, set [train] dtype before a run begins"

Tensors = dict[str, dict[str, Tensor]]


# --- one checkpoint -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose files are all there and unharmed."""

    path: Path
    facts: dict[str, Any]

    def tensors(self, *names: str) -> Tensors:
        """The tensors of some files, in memory of their own; {} for a file that had none to hold."""
        files = {name: self.path / f"{name}.safetensors" for name in names}
        return {
            name: {k: t.clone() for k, t in load_file(file).items()} if file.exists() else {}
            for name, file in files.items()
        }


def write(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Write a checkpoint, all or nothing: EnvironmentProblem on a full disk. A good one that is there stays."""
    part = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        if path.exists():
            with contextlib.suppress(WeightsError):
                read(path)
                return  # the same step of the same run
            shutil.rmtree(path)
        part.mkdir(parents=True)
        for name, some in tensors.items():
            if some:
                write_tensors(part / f"{name}.safetensors", some)
        system.write_text(part / STATE, json.dumps(facts, indent=1) + "\n")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": system.sha256(p)} for p in part.iterdir()}
        system.write_text(
            part / MANIFEST, json.dumps({"format": FORMAT, "files": dict(sorted(files.items()))}, indent=1)
        )
        part.rename(path)
        for folder in path.parents[:2]:
            system.fsync_folder(folder)
    except OSError as problem:
        raise system.disk_problem(path, problem) from problem
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_room(path: Path, tensors: Tensors) -> None:
    """Refuse a checkpoint that would leave no room for the model, which is saved before checkpoints go."""
    sizes = {name: sum(t.nbytes for t in some.values()) for name, some in tensors.items()}
    needed = sum(sizes.values()) + sizes.get("model", 0)
    free = shutil.disk_usage(next(p for p in path.parents if p.is_dir())).free
    if free < needed:
        raise EnvironmentProblem(
            f"{path} and the model take {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            "Make room, or lower [train] keep.",
        )


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file; what shares memory in the model is written apart."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        shared = tensor.data_ptr() in seen and tensor.numel() > 0
        seen.add(tensor.data_ptr())
        own[name] = tensor.detach().clone() if shared else tensor.detach().contiguous()
    with system.replacing(path) as part:
        try:
            save_file(own, part)
        except SafetensorError as problem:
            raise system.disk_problem(path, problem) from problem


def read(path: Path) -> Saved:
    """Hash every file of a checkpoint against its manifest. WeightsError says what is wrong."""

    def table(file: Path) -> dict[str, Any]:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{file.name} holds no object")
        return found

    try:
        manifest = table(path / MANIFEST)
        if manifest["format"] > FORMAT:
            raise ConfigError(f"{path} was written by a newer minibert", "Upgrade minibert.")
        for name, wanted in manifest["files"].items():
            file = path / Path(name).name
            if (size := file.stat().st_size) != wanted["bytes"]:
                raise ValueError(f"{name} has {size:,} bytes, not {wanted['bytes']:,}")
            if system.sha256(file) != wanted["sha256"]:
                raise ValueError(f"{name} has another sha256 than it was written with")
        return Saved(path, table(path / STATE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise WeightsError(f"{path} is damaged: {problem}") from None


# --- all checkpoints of a run ---------------------------------------------------------------------


@dataclass
class Checkpoints:
    """RUN/checkpoints: when one is due, which are kept, and which one to go on from.

    started    when the run began, and `before`: the seconds that it ran until it was interrupted
    version    minibert's
    made_of    the splits and the model that it began with
    resumed    facts of a good checkpoint, where the run goes on
    world      the processes of the run, of which the first writes
    """

    folder: Path
    task: TaskSpec
    started: str
    version: str
    made_of: tuple[list[Splits], Model] | None = None
    before: float = 0.0
    resumed: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    known: dict[Path, Saved | None] = field(default_factory=dict)
    world: World = ALONE

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """What `identify` says, once: a short run never needs it."""
        return identify(*self.made_of)

    @property
    def seconds(self) -> float:
        """How long the run has run, interruptions left out."""
        return self.before + time.monotonic() - self.begun

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after this step."""
        t = self.task.train
        by_clock = t.checkpoint_minutes > 0 and time.monotonic() - self.saved >= 60 * t.checkpoint_minutes
        return by_clock or (t.checkpoint_steps > 0 and step % t.checkpoint_steps == 0)

    def save(self, course: Course) -> None:
        """Save where a training is, and let older ones go. A full disk is told; it doesn't end the run."""
        tensors = course.tensors()  # of several processes all take part
        if not self.world.first:
            self.saved = time.monotonic()
            return
        facts = self.facts(course.fold) | {"course": course.facts()}
        path = self.folder / f"{STEP}{course.state.step:08}"
        if self.write(path, tensors, facts):
            older = [p for p in self.paths(STEP) if p.name <= path.name]
            self.remove(p for p in self.paths(STEP) if p not in older[: self.task.train.keep])

    def finish(self, fold: int, test: np.ndarray, reached: Reached) -> None:
        """Save what a finished fold came to; its steps are needed no more."""
        if not self.world.first:
            return
        facts = self.facts(fold) | {"reached": asdict(reached)}
        if self.write(self.folder / f"{FOLD}{fold:04}", {"test": {"test": torch.tensor(test)}}, facts):
            self.remove(self.paths(STEP))

    def facts(self, fold: int) -> dict[str, Any]:
        """What every checkpoint says of its run."""
        made = {"minibert": self.version, "torch": torch.__version__, "device": str(self.made_of[1].device)}
        made |= {name: str(word) for name, word in self.world.facts().items() if name != "backend"}
        t = self.task.train
        made |= {"number format": device.number_format(t.dtype, self.made_of[1].device, t.force_dtype)}
        made |= {"threads": str(torch.get_num_threads()), "matrix products by": device.products()}
        run = {"spec": self.task.table(), "identity": self.identity, "started": self.started}
        return {"fold": fold, **run, "seconds": self.seconds, "made": made}

    def write(self, path: Path, tensors: Tensors, facts: dict[str, Any]) -> bool:
        """Whether it could be written; what went wrong is told."""
        self.known.pop(path, None)
        try:
            check_room(path, tensors)
            write(path, tensors, facts)
        except EnvironmentProblem as problem:
            say(f"no checkpoint was saved: {problem}")
            return False
        finally:
            self.saved = time.monotonic()
        return True

    def paths(self, kind: str) -> list[Path]:
        """Those of a kind, damaged ones too, the newest first."""
        return sorted(self.folder.glob(f"{kind}*"), reverse=True)

    def any(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self.paths(STEP) or self.paths(FOLD))

    def remove(self, paths: Iterable[Path]) -> None:
        """Let checkpoints go, each out of sight first, so that no half of one is ever found."""
        for path in list(paths):
            gone = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            with contextlib.suppress(OSError):
                path.rename(gone)
                shutil.rmtree(gone)

    def good(self, path: Path) -> Saved | None:
        """A checkpoint that can be gone on from; a damaged one is told, once."""
        if path.exists() and path not in self.known:
            try:
                self.known[path] = read(path)
            except WeightsError as problem:
                say(f"{problem.message}; it is passed over")
                self.known[path] = None
        return self.known.get(path)

    def restore(self, course: Course) -> None:
        """Put a training where its newest good checkpoint was; without one it stays at its beginning."""
        found = (self.good(path) for path in self.paths(STEP))
        saved = next((one for one in found if one and one.facts["fold"] == course.fold), None)
        if saved:
            course.restore(saved.facts["course"], saved.tensors(*FILES))

    def fold(self, number: int) -> Saved | None:
        """What a finished fold came to."""
        return self.good(self.folder / f"{FOLD}{number:04}")

    # --- going on ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on with the run that is here. ConfigError where there is nothing, or where its spec is another."""
        for rest in self.folder.glob(".*") if self.world.first else ():
            shutil.rmtree(rest, ignore_errors=True)
        paths = [*self.paths(STEP), *self.paths(FOLD)]
        found = next((one for one in map(self.good, paths) if one), None)
        if found is None:
            why = f"none of its {len(paths)} checkpoints is whole" if paths else "it holds no checkpoint"
            raise ConfigError(
                f"{self.folder.parent} can't be resumed: {why}", "Begin again with --overwrite."
            )
        changed = differences(found.facts["spec"], json.loads(json.dumps(self.task.table())))
        if changed:
            raise ConfigError(
                f"{self.folder.parent} can't be resumed with another spec: {'; '.join(changed)}",
                "Take the run's own: give its folder as SPEC. Or choose another folder with --out.",
            )
        self.resumed = found.facts
        self.started, self.before = found.facts["started"], found.facts["seconds"]

    def check(self) -> None:
        """Refuse to go on with other data or weights than the run began with; tell what else has changed."""
        before, now = self.resumed["identity"], self.identity
        # An older version's checkpoint has no line for the config and the tokenizer, and is not held to any.
        asked = {**before, **now} if "[model] config.json" in before else before
        changed = [name for name in asked if before.get(name) != now.get(name)]
        if changed:
            raise ConfigError(
                f"{self.folder.parent} can't be resumed: since it began, this has changed: {'; '.join(changed)}",
                "Put it back as it was, or begin again with --overwrite.",
            )
        for name, word in self.facts(0)["made"].items():
            then = self.resumed["made"].get(name, word)
            if word != then:
                say(f"{name} was {then} and is now {word}: {COARSER if name == 'number format' else DIGITS}")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of two specs that differ, and that may not."""
    out = []
    for table in {**old, **new}:
        then, now = old.get(table, {}), new.get(table, {})
        for name in {**then, **now}:
            if then.get(name) != now.get(name) and not (table == "train" and name in FREE + MEMORY):
                out.append(f"[{table}] {name} is {now.get(name)!r}, was {then.get(name)!r}")
    return out


def identify(splits: list[Splits], model: Model) -> dict[str, str]:
    """What a run is made of, as sha256 by name: its tables, which row is in which part, the weights it begins with,
    their config and tokenizer."""
    rows = hashlib.sha256()
    out = {}
    for split in splits:
        for part in (split.train, split.validation, split.test):
            out[f"[data] {part.name}"] = part.table.sha256
            rows.update(part.rows.astype("int64").tobytes())
    out["which row is in which part"] = rows.hexdigest()
    source = Path(model.report.source)
    others = [source / name for name in ("config.json", *TOKENIZER)]
    files = {f"[model] weights, {path.name}": path for path in sorted(source.glob("*.safetensors"))}
    files |= {f"[model] {path.name}": path for path in others if path.is_file()}
    return out | {name: system.sha256(path) for name, path in files.items()}
