"""More runs than one: a task with several seeds, or a grid of settings, each a run folder of its own.

In:  a Plan and a folder.   Out: Outcome; the folder holds the runs, summary.json, summary.csv and report.html.

Each setting is run once before any gets its second seed, and the summary is written anew after each run. A run
that fails or diverges is a row of it and ends nothing but itself.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from .. import __version__, catalogue, report, spec, system
from ..data import Splits
from ..errors import ConfigError, EnvironmentProblem, MiniBertError, WeightsError
from ..folder import (
    CHECKPOINTS,
    LITTER,
    LOCK,
    SUMMARY,
    alone,
    check_folder,
    is_leftover,
    read_json,
    read_status,
    remove,
)
from ..progress import say
from ..resume import differences, identify, read
from ..run import Outcome, check_apart, look_ahead, run
from . import summary
from .plan import Plan, grid, make_plan
from .summary import TABLE, row_of, summarise, write_summary

FILES = (SUMMARY, TABLE, "report.html", "spec.toml")
DONE = ("completed", "diverged")  # another time, such a run would come to the same


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
        self.rows[place, seed] = row_of(folder, seed, reason)
        self.rows[place, seed]["minutes"] = (
            self.rows[place, seed]["minutes"] or (time.monotonic() - began) / 60
        )
        if reason:
            gc.collect()  # what the error's traceback held is gone before the next run takes its memory
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
        named = f'"{self.out}"' if " " in str(self.out) else self.out
        message = f"stopped with {len(self.rows)} of {self.planned} runs done; go on with: minibert run {named} --resume"
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


# --- before the first run -------------------------------------------------------------------------


def look_at_all(plan: Plan, seed: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What each setting is made of with this seed, as sha256 by name; which metric chooses, which parts differ.

    Everything that bad input would end a run with is raised here, of all settings together.
    """
    made_of, rows, metric = [], {"validation": set(), "test": set()}, ""
    problems: dict[str, MiniBertError] = {}
    if len(plan.settings) > 1:
        say(f"looking at the data and models of {len(plan.settings)} settings")
    for place, setting in enumerate(plan.settings):
        try:
            splits, model, _ = look_ahead(plan.spec(place, seed))
        except MiniBertError as problem:
            problems[setting.name] = problem
            continue
        made_of.append(identify(splits, model))
        metric = metric or spec.chosen_metric(plan.task, splits[0].labels)
        for part, found in rows.items():
            found.add(hash_of(splits, part))
    told = {str(problem) for problem in problems.values()}
    if len(told) == 1 and len(problems) == len(plan.settings):
        raise next(iter(problems.values()))
    if told:
        words = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        raise ConfigError(f"some settings can't be run, and nothing was begun:\n{words}")
    return made_of, {"metric": metric, "unequal": [part for part, found in rows.items() if len(found) > 1]}


def hash_of(splits: list[Splits], part: str) -> str:
    """sha256 of which rows of which table a part holds."""
    found = hashlib.sha256()
    for one in splits:
        some = getattr(one, part)
        found.update(some.table.sha256.encode() + some.rows.astype("int64").tobytes())
    return found.hexdigest()


def check_free(plan: Plan, out: Path, overwrite: bool) -> list[Path]:
    """What of earlier runs must go from `out`, and nothing else; ConfigError where the folder is not free."""
    for setting in plan.settings:
        check_apart(setting.task, out)
    if out.is_file():
        raise ConfigError(f"{out} is a file; runs need a folder", "Choose another with --out.")
    held = sorted(p for p in out.iterdir() if p.name not in LITTER) if out.exists() else []
    if not held:
        return []
    old = read_json(out / SUMMARY)
    runs = [p for p in (*out.glob("seed-*"), *out.glob("*=*/seed-*")) if p.is_dir()]
    tops = {out / p.relative_to(out).parts[0] for p in runs}
    strange = [
        p.name for p in held if p not in tops and p.name not in FILES and not is_leftover(p.name, FILES)
    ]
    inside = [p for top in tops - {*runs} for p in top.iterdir() if p.name not in LITTER]
    strange += [f"{p.parent.name}/{p.name}" for p in inside if p not in runs]
    if strange or not old:
        raise ConfigError(
            f"{out} holds files that are not of several runs: {', '.join((strange or FILES)[:5])}; nothing was touched",
            "Choose a new or empty folder with --out.",
        )
    if not overwrite:
        raise ConfigError(
            f"{out} already holds runs ({old['status']})",
            "Choose another folder with --out, go on with --resume, or replace them with --overwrite.",
        )
    if system.alive(old):
        raise ConfigError(
            f"another process is writing runs into {out} right now", "Choose another with --out."
        )
    for one in runs:
        check_folder(one, overwrite)
    return held


def check_resumable(plan: Plan, out: Path) -> None:
    """Refuse to go on with what is not there, is another task, or is done. A plan may have grown."""
    old = read_json(out / SUMMARY)
    if not old:
        raise ConfigError(f"{out} holds no runs that could be resumed", "Name their folder with --out.")
    changed = differences(spec.load(out / "spec.toml").table(), plan.task.table())
    if changed:
        raise ConfigError(
            f"{out} can't be resumed with another spec: {'; '.join(changed)}",
            "Take its own: give the folder as SPEC. Or choose another folder with --out.",
        )
    names = {name: json.loads(json.dumps(one.values)) for name, one in zip(plan.folders, plan.settings)}
    lost = [one["name"] for one in old["settings"] if names.get(one["folder"]) != one["values"]]
    lost += [f"seed {seed}" for seed in old["seeds"] if seed not in plan.seeds]
    if lost:
        raise ConfigError(
            f"{out} holds runs that are not asked for now: {', '.join(lost)}",
            "Seeds and values may be added, not left out. Or choose another folder with --out.",
        )
    if all(read_status(out / plan.folder(place, seed)) in DONE for place, seed in plan.runs()):
        raise ConfigError(
            f"{out} is done: there is nothing to resume", "More seeds or values may be asked for."
        )


def check_same(plan: Plan, out: Path, made_of: list[dict[str, str]]) -> None:
    """Refuse to go on where data or weights are others than the runs that are done were made of."""
    old = read_json(out / SUMMARY)
    now = dict(zip(plan.folders, made_of))
    changed = [
        name
        for setting, before in zip(old["settings"], old["made_of"])
        for name in before
        if before[name] != now[setting["folder"]].get(name)
    ]
    if changed:
        raise ConfigError(
            f"{out} can't be resumed: since it began, this has changed: {'; '.join(dict.fromkeys(changed))}",
            "Put it back as it was, or begin again with --overwrite.",
        )
