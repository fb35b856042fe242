"""A study as it goes: every method and every run in their order, then the choices, then the scores.

In:  a Plan, the methods' names, a folder.   Out: Outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, data, report, spec, system
from ..data import Part
from ..data.withheld import SealBroken, withheld, without_labels
from ..errors import EnvironmentProblem, MiniBertError
from ..folder import LOCK, MODEL, STATUS, finite, read_json, read_status, remove
from ..progress import say
from ..run import run
from ..spec import TaskSpec
from ..sweep import how
from . import before, rungs, scores, store
from .choose import best_run, choices, standings
from .plan import Cell, Plan, Setting, stored_as
from .seal import FILE as SEAL
from .store import locator

STUDY = "study.json"
FOLDERS = ("runs", "methods", "weights")
FILES = (
    STUDY,
    SEAL,
    "spec.toml",
    "report.html",
    "summary.csv",
    "predictions.csv",
    "methods.md",
    "model_card.md",
)
DONE = ("completed", "diverged")


@dataclass(frozen=True)
class Outcome:
    """Where a study ended: its folder, study.json's word, the exit code, and study.json's table."""

    folder: Path
    status: str
    exit_code: int
    table: dict[str, Any]


class Series:
    """A study as it goes. `problems`: what went wrong, by who and where."""

    def __init__(self, plan: Plan, methods: list[str], notes: list[str], out: Path):
        self.plan, self.methods, self.notes, self.out = plan, methods, notes, out
        self.problems: dict[str, str] = {}
        self.work = Work(plan)
        self.vectors: rungs.Vectors | None = None
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        old = read_json(out / STUDY)
        self.started, self.spent = old.get("started", now), old.get("minutes") or 0.0
        self.began = time.monotonic()

    def all(self, stop: system.Stop) -> Outcome:
        """Every run and every method, and then the scores."""
        try:
            return self.walk(stop)
        except BaseException as problem:
            with contextlib.suppress(MiniBertError):  # a full disk must not hide what happened
                self.write("failed", str(problem) or repr(problem))
            raise

    def walk(self, stop: system.Stop) -> Outcome:
        """The same, step by step."""
        self.write("running")
        last: Cell | None = None
        for cell, place in self.plan.jobs():
            if cell != last:
                self.traditional(cell, stop)
                last = cell
            if stop.requested or not self.fine_tune(cell, place):
                return self.stopped()
        if stop.requested:
            return self.stopped()
        return self.finish()

    def traditional(self, cell: Cell, stop: system.Stop) -> None:
        """Fit every method on a cell's texts, and store what it answers."""
        todo = [n for n in self.methods if not store.facts_of(self.folder(n, cell))]
        if not todo:
            return
        task = self.plan.task_of(cell)
        splits, cache = withheld(data.load_splits(task, locator(task)), task.data.label), rungs.Cache()
        parts = {"validation": splits.validation, "test": splits.test, **self.further(splits.labels)}
        say(f"traditional methods: {told(cell)}")
        for name in todo:
            if stop.requested:
                return
            try:
                fitted = rungs.fit(
                    name, task.task.kind, splits.train, splits.validation, spec.scored_metric(task, splits.labels),
                    task.train.seed, vectors=self.vectors_of(task), names=self.plan.study.names, cache=cache,
                )  # fmt: skip
                began = time.monotonic()
                found = {part: answered(fitted, one) for part, one in parts.items()}
                seconds = time.monotonic() - began
            except SealBroken:
                raise
            except Exception as problem:  # a bug of one method must not cost the others
                self.problems[f"{name}, {told(cell)}"] = said(problem)
                say(f"{name}: {said(problem)}")
                continue
            if rungs.METHODS[name].needs:  # as if no other cell had had the vectors made
                texts = [t for one in parts.values() for some in (one.texts, one.pairs or ()) for t in some]
                seconds = max(seconds, self.vectors_of(task).cost(texts))
            facts = {
                "title": fitted.title, "settings": fitted.settings, "validation": fitted.validation,
                "learned_from": len(splits.train), "minutes": fitted.minutes,
                "seconds_for_answers": seconds, "answered": sum(map(len, parts.values())),
            }  # fmt: skip
            store.put(self.folder(name, cell), task.task.kind, fitted.labels, found, facts)

    def folder(self, name: str, cell: Cell) -> Path:
        """Of a method in a cell."""
        return self.out / "methods" / name / cell.folder

    def vectors_of(self, task: TaskSpec) -> rungs.Vectors:
        """Embeddings of texts by the published weights, kept from cell to cell."""
        m = task.model
        if self.vectors is None:
            self.vectors = rungs.Vectors(
                m.weights, max_tokens=m.max_tokens, truncation=m.truncation, device=task.train.device
            )
        return self.vectors

    def further(self, labels: tuple[str, ...]) -> dict[str, Part]:
        """The further test tables by the name they are stored under, their labels withheld."""
        return {name: opened(labels) for name, opened in self.openers().items()}

    def openers(self) -> dict[str, Callable[[tuple[str, ...]], Part]]:
        """The same, each still to be opened for labels that a model knows."""

        def opener(word: str) -> Callable[[tuple[str, ...]], Part]:
            def opened(labels: tuple[str, ...]) -> Part:
                task = self.plan.task
                part = data.further_part(task, word, locator(task), labels, [])
                return dataclasses.replace(without_labels(part, task.data.label), name=stored_as(word))

            return opened

        return {stored_as(word): opener(word) for word in self.plan.study.transfer}

    def fine_tune(self, cell: Cell, place: int) -> bool:
        """Do one run, unless it is done; whether to go on. What goes wrong with it costs no other run."""
        setting = self.plan.settings[place]
        folder = self.out / "runs" / setting.folder / cell.folder
        if read_status(folder) in DONE:  # another time, one that diverged would come to the same
            if read_status(folder) == "diverged":
                self.problems[f"{setting.name}, {told(cell)}"] = read_json(folder / STATUS).get("message", "")
            self.work.done(None)
            return True
        say(f"run {self.work.count + 1} of {self.work.total}: {setting.name}, {told(cell)}{self.work.left()}")
        began, reason = time.monotonic(), ""
        try:
            task = self.plan.task_of(cell, setting)
            weights = self.weights(cell, setting, task)
            task = dataclasses.replace(task, model=dataclasses.replace(task.model, weights=weights))
            if run(task, folder, unscored=self.openers(), **how(folder)).status == "stopped":
                return False
        except system.Interrupted:
            return False
        except SealBroken:
            raise
        except Exception as problem:  # a bug that one setting meets must not cost the night's others
            reason = said(problem)
        if reason:
            self.problems[f"{setting.name}, {told(cell)}"] = reason
            say(f"{setting.name}, {told(cell)}: {reason}")
            gc.collect()  # what the error's traceback held
        system.give_back_memory()
        self.work.done((time.monotonic() - began) / 60)
        self.let_go()
        self.write("running")
        return True

    def weights(self, cell: Cell, setting: Setting, task: TaskSpec) -> str:
        """What a setting begins with; made on first use, once for each split of the data."""
        name = Path(task.model.weights).name
        out = self.out / "weights" / f"{name}-{setting.pretraining.replace('+', '-')}-split-{cell.split}"
        if setting.pretraining == "published":
            return task.model.weights
        whole = self.plan.task_of(Cell(self.plan.whole, cell.split, 0))
        splits = withheld(data.load_splits(whole, locator(whole)), whole.data.label)
        seeded = dataclasses.replace(task, train=self.plan.task.train)  # the same for all seeds
        return before.prepared(out, seeded, setting.pretraining, splits, self.plan.study.pretraining_epochs)

    def let_go(self, chosen: str | None = None) -> None:
        """Delete the models that nobody will ask for: with keep = "chosen" all but the best so far of each setting on
        all texts, and at the end (`chosen`) of the chosen one alone."""
        keep = self.plan.study.keep
        if keep == "all":
            return
        models = {p.parent: p for p in self.out.glob(f"runs/*/n-*/split-*/{MODEL}")}
        names = [s for s in self.plan.settings if chosen in (None, s.name)] if keep == "chosen" else []
        best = {best_run(self.plan, self.out, setting) for setting in names}
        remove(p for folder, p in models.items() if folder not in best)

    def write(self, status: str, message: str = "", **found: Any) -> dict[str, Any]:
        """study.json and the page, as far as they go."""
        who = system.me() if status == "running" else {}
        table = {
            "name": self.plan.task.task.name, "kind": self.plan.task.task.kind, "status": status, "message": message,
            "minibert": __version__, "started": self.started, "done": self.work.count, "planned": self.work.total,
            "sizes": list(self.plan.sizes), "whole": self.plan.whole, "seeds": self.plan.study.seeds,
            "splits": self.plan.study.splits, "notes": self.notes, "problems": self.problems,
            "minutes": self.spent + (time.monotonic() - self.began) / 60,
            "so_far": standings(self.plan, self.methods, self.out), **who, **found,
        }  # fmt: skip
        text = json.dumps(finite(table), indent=1, ensure_ascii=False) + "\n"
        system.write_text(self.out / "spec.toml", self.plan.task.to_toml())
        system.write_text(self.out / STUDY, text)
        report.write_study(self.out)
        return table

    def stopped(self) -> Outcome:
        """End where it is, on request."""
        message = f"stopped with {self.work.count} of {self.work.total} runs done; go on with: minibert study {system.typed(self.out)} --resume"
        found = self.write("stopped", message)
        say(message)
        return Outcome(self.out, "stopped", 75, found)

    def finish(self) -> Outcome:
        """Choose, read the labels, score, and say that all is done; unless no network can be chosen: the labels are
        then left unread, so that what is mended and resumed is not scored a second time."""
        failed = len(self.problems)
        if not all(one["fine_tuned"] for one in choices(self.plan, self.methods, self.out)["sizes"]):
            message = f"{failed} of the runs and methods failed, and nothing was scored: mend it, and go on with --resume"
            return Outcome(self.out, "failed", 1, self.write("failed", message))
        say("scoring")
        table = scores.scored(self.plan, self.methods, self.out)
        self.let_go(table["chosen"]["fine_tuned"])
        found = self.write("completed", f"{failed} of the runs and methods failed" if failed else "", **table)
        with contextlib.suppress(EnvironmentProblem):  # Windows removes no file that is open
            remove([self.out / LOCK])
        return Outcome(self.out, "completed", 1 if failed else 0, found)


class Work:
    """How much is done, and how long the rest may take: a run's time grows with the texts that it reads."""

    def __init__(self, plan: Plan):
        self.plan, self.count, self.minutes, self.read = plan, 0, 0.0, 0.0
        self.costs = [self.cost(cell) for cell, _ in plan.jobs()]

    @property
    def total(self) -> int:
        """How many runs there are to be."""
        return len(self.costs)

    def cost(self, cell: Cell) -> float:
        """Texts that a run reads, one read without learning from it counted as a third."""
        return self.plan.task.train.epochs * cell.size + self.plan.whole / 6

    def done(self, minutes: float | None) -> None:
        """One more; None: it was done before this study went on."""
        if minutes is not None:
            self.minutes, self.read = self.minutes + minutes, self.read + self.costs[self.count]
        self.count += 1

    def left(self) -> str:
        """In words; "" before the first run has ended."""
        if not self.read:
            return ""
        minutes = sum(self.costs[self.count :]) * self.minutes / self.read
        return f" (some {minutes:.0f} minutes left)" if minutes >= 1 else " (about a minute left)"


def answered(fitted: rungs.Fitted, part: Part) -> np.ndarray:
    """Probabilities (n, C) where a method has them, else targets (n,)."""
    found = fitted.probabilities(part.texts, part.pairs)
    return fitted.answer(part.texts, part.pairs) if found is None else found


def said(problem: Exception) -> str:
    """What went wrong; of a bug also what kind."""
    return str(problem) if isinstance(problem, MiniBertError) else repr(problem)


def told(cell: Cell) -> str:
    """A cell in words."""
    return f"{cell.size:,} labelled texts, split {cell.split}, seed {cell.seed}"
