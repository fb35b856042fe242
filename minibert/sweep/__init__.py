"""More runs than one: a task with several seeds, or a grid of settings, each a run folder of its own.

In:  a Plan and a folder.   Out: Outcome; the folder holds the runs, summary.json, summary.csv and report.html.

Each setting is run once before any gets its second seed, and the summary is written anew after each run. A run
that fails or diverges is a row of it and ends nothing but itself.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import time
from pathlib import Path
from typing import Any

from .. import __version__, catalogue, report, spec, system
from ..errors import ConfigError, EnvironmentProblem, MiniBertError, WeightsError
from ..folder import CHECKPOINTS, LOCK, SUMMARY, alone, read_json, read_status, remove
from ..progress import say
from ..resume import read
from ..run import Outcome, run
from . import summary
from .checks import DONE, check_free, check_resumable, check_same, look_at_all
from .plan import Plan, grid, make_plan
from .summary import row_of, summarise, write_summary


def planned(
    source: str, changes: dict[str, str], seeds: int | None, words: list[str], again: bool
) -> tuple[Plan, Path]:
    """What the command line asks for, and the folder it goes to unless another is named.

    With `again`, `source` may be the folder of such runs: what is not said anew stays as it was.
    """
    known, folder = {*catalogue.weights(), *catalogue.data_sets()}, Path(source)
    if not (again and (folder / SUMMARY).is_file()):
        task = spec.load(catalogue.locate_task(source), changes)
        folder = Path("runs") / f"{task.task.name}-{'sweep' if words else 'seeds'}"
        return make_plan(task, seeds, words, known), folder
    old, task = read_json(folder / SUMMARY), spec.load(folder / "spec.toml", changes)
    numbers = tuple(range(seeds)) if seeds else tuple(old["seeds"])
    if words:
        return make_plan(task, len(numbers) if len(numbers) > 1 else None, words, known), folder
    return grid(task, numbers, old["swept"], known), folder


def sweep(plan: Plan, out: Path | str, *, overwrite: bool = False, resume: bool = False) -> Outcome:
    """Run all of a plan, with `resume` what of it is not done yet. Its exit code is 1 if any run failed.

    Raises MiniBertError where nothing can be begun: every setting's data and model are looked at first.
    """
    if resume and overwrite:
        raise ConfigError("runs are either resumed or overwritten, not both")
    if system.processes()[1] > 1:
        raise ConfigError(
            "several runs, each in several processes, are not one command's work",
            "Start it without torchrun, or each run by itself: --set train.seed=1 --out runs/NAME/seed-1.",
        )
    out = Path(out).absolute()
    with system.Stop() as stop, contextlib.ExitStack() as held:
        try:
            with stop.at_once():
                if resume:
                    check_resumable(plan, out)
                    held.enter_context(alone(out))
                else:
                    check_free(plan, out, overwrite)
                first = read_json(out / SUMMARY)["seeds"][0] if resume else plan.seeds[0]
                made_of, facts = look_at_all(plan, first)
                if resume:
                    check_same(plan, out, made_of)
                else:
                    held.enter_context(alone(out))
        except system.Interrupted as signal:
            say(f"stopped on {signal} before the first run began; nothing was written")
            return Outcome(out, "stopped", 75, {})
        if not resume:
            remove(check_free(plan, out, overwrite))  # again, now that nobody else can write here
        series = Series(plan, out, {"made_of": made_of, **facts})
        series.write("running")
        for place, seed in plan.runs():
            if stop.requested or not series.run(place, seed):
                return series.stopped()
        return series.finish()


def headline(outcome: Outcome) -> str:
    """What the runs came to, in words for a terminal."""
    return summary.headline(outcome.metrics, outcome.folder / "report.html")


class Series:
    """The runs of a plan as they come in. `facts`: what the summary says beside their scores."""

    def __init__(self, plan: Plan, out: Path, facts: dict[str, Any]):
        self.plan, self.out = plan, out
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.facts = {
            "started": read_json(out / SUMMARY).get("started", now),
            "minibert": __version__,
            **facts,
        }
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        for place, seed in plan.runs():  # of a plan that is resumed
            if read_status(self.folder(place, seed)) in DONE:
                self.rows[place, seed] = row_of(self.folder(place, seed), seed)

    def folder(self, place: int, seed: int) -> Path:
        """Of one run."""
        return self.out / self.plan.folder(place, seed)

    def run(self, place: int, seed: int) -> bool:
        """Do one run, unless it is done; whether to go on. What goes wrong with it is its row's."""
        if (place, seed) in self.rows:
            return True
        folder, reason, began = self.folder(place, seed), "", time.monotonic()
        name = ", ".join(filter(None, (self.plan.settings[place].name, f"seed {seed}")))
        say(f"run {len(self.rows) + 1} of {self.planned}: {name}")
        try:
            if run(self.plan.spec(place, seed), folder, **how(folder)).status == "stopped":
                return False
        except MiniBertError as problem:
            reason = str(problem)
        except Exception as problem:  # a bug that one setting meets must not cost the night's others
            reason = repr(problem)
        if reason:
            gc.collect()  # what the error's traceback held
        system.give_back_memory()
        self.rows[place, seed] = row_of(folder, seed, reason)
        self.rows[place, seed]["minutes"] = (
            self.rows[place, seed]["minutes"] or (time.monotonic() - began) / 60
        )
        if reason:
            say(f"{name}: {self.rows[place, seed]['status']}: {reason}")
        self.write("running")
        return True

    @property
    def planned(self) -> int:
        """How many runs there are to be."""
        return len(self.plan.settings) * len(self.plan.seeds)

    def write(self, status: str, message: str = "") -> dict[str, Any]:
        """The summary and its page, as far as they go."""
        found = summarise(self.plan, self.rows, self.facts["metric"])
        who = system.me() if status == "running" else {}
        minutes = sum(row["minutes"] or 0 for row in self.rows.values())
        found |= {
            "status": status,
            "message": message,
            "planned": self.planned,
            "minutes": minutes,
            **self.facts,
        }
        write_summary(self.out, found | who)
        system.write_text(self.out / "spec.toml", self.plan.task.to_toml())
        report.write_several(self.out)
        return found

    def stopped(self) -> Outcome:
        """End where it is, on request."""
        message = f"stopped with {len(self.rows)} of {self.planned} runs done; go on with: minibert run {system.typed(self.out)} --resume"
        found = self.write("stopped", message)
        say(message)
        return Outcome(self.out, "stopped", 75, found)

    def finish(self) -> Outcome:
        """Say that all is done."""
        failed = sum(row["status"] != "completed" for row in self.rows.values())
        found = self.write("completed", f"{failed} of {self.planned} runs failed" if failed else "")
        with contextlib.suppress(EnvironmentProblem):  # Windows removes no file that is open
            remove([self.out / LOCK])
        return Outcome(self.out, "completed", 1 if failed else 0, found)


def how(folder: Path) -> dict[str, bool]:
    """How to begin a run: afresh, from a checkpoint, or over what is left of it."""
    for path in folder.glob(f"{CHECKPOINTS}/*-*"):
        with contextlib.suppress(WeightsError, ConfigError):
            read(path)
            return {"resume": True}
    return {"overwrite": True} if folder.exists() else {}
