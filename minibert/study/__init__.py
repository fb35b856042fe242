"""`minibert study`: from one spec and what is to be compared to a result that can be published.

In:  a TaskSpec with a [study] table, and a folder.   Out: Outcome; the folder holds every run, study.json, the page.

    plan       settings x numbers of labelled texts x splits x seeds, in the order that answers first
    before     weights to begin with: published, random, or trained further on the task's own texts
    rungs      the traditional methods, tuned on the same validation texts; features: what they read
    store      what each contestant answered to the test texts, not yet scored
    choose     on validation, and nowhere else
    seal       the choices are written down, and then the labels of the test part are read
    scores     means, intervals, paired tests (compare); further: other test tables; written: the files
    looked     what is looked at beside (honesty, near, levels, sureness, human), and what follows (verdicts, changes)
    series     all of these in their order

Nothing chooses by the test part: whatever learns or is chosen is given it without labels.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from .. import catalogue, data, spec, system
from ..data.parts import column
from ..errors import ConfigError, MiniBertError
from ..folder import LITTER, alone, read_json, remove
from ..kinds import each_label
from ..progress import say
from ..run import check_apart, look_ahead
from ..spec import Study, TaskSpec
from .choose import methods_for
from .plan import SIZES, Cell, Plan, check, make_settings, sizes_of
from .scores import ratings_of
from .series import FILES, FOLDERS, STUDY, Outcome, Series
from .store import locator


def study(task: TaskSpec, out: Path | str, *, overwrite: bool = False, resume: bool = False) -> Outcome:
    """Do all of it, with `resume` what of it is not done yet. Its exit code is 1 if any run failed.

    Raises MiniBertError where nothing can be begun: data, weights and methods are looked at first.
    """
    if resume and overwrite:
        raise ConfigError("a study is either resumed or overwritten, not both")
    if system.processes()[1] > 1:
        raise ConfigError("a study, each of whose runs takes several processes, is not one command's work")
    check(task)
    task, out = task.absolute({*catalogue.weights(), *catalogue.data_sets()}), Path(out).absolute()
    with system.Stop() as stop, contextlib.ExitStack() as held:
        try:
            with stop.at_once():
                old = check_free(task, out, overwrite, resume)
                looked = look(task)
                held.enter_context(alone(out))
        except system.Interrupted as signal:
            say(f"stopped on {signal} before the first run began; nothing was written")
            return Outcome(out, "stopped", 75, {})
        remove(old)
        return Series(*looked, out).all(stop)


def check_free(task: TaskSpec, out: Path, overwrite: bool, resume: bool) -> list[Path]:
    """What of an earlier study must go from `out`, and nothing else; ConfigError where it can't be used."""
    check_apart(task, out)
    if out.is_file():
        raise ConfigError(f"{out} is a file; a study needs a folder", "Choose another with --out.")
    held = sorted(p for p in out.iterdir() if p.name not in LITTER) if out.exists() else []
    old = read_json(out / STUDY)
    if resume:
        if not old:
            raise ConfigError(f"{out} holds no study that could be resumed", "Name its folder with --out.")
        changed = changes(spec.load(out / "spec.toml"), task)
        if changed:
            raise ConfigError(
                f"{out} can't be resumed with another spec: {'; '.join(changed)}",
                "Only [study] seeds, splits and examples may grow, and [human] and subgroup may change. Or choose another folder with --out.",
            )
        return []
    strange = [p.name for p in held if p.name not in (*FILES, *FOLDERS)]
    if strange or (held and not old):
        raise ConfigError(
            f"{out} holds files that are not of a study: {', '.join((strange or [p.name for p in held])[:5])}; "
            "nothing was touched",
            "Choose a new or empty folder with --out.",
        )
    if held and not overwrite:
        raise ConfigError(
            f"{out} already holds a study ({old['status']})",
            "Choose another folder with --out, go on with --resume, or replace it with --overwrite.",
        )
    return held


def changes(old: TaskSpec, new: TaskSpec) -> list[str]:
    """Keys of two specs that differ, and that may not: seeds, splits and examples of [study] may grow."""
    out, grown = [], ("seeds", "splits", "examples", "keep", "subgroup", "names")
    for table in {**old.table(), **new.table()}:
        then, now = old.table().get(table, {}), new.table().get(table, {})
        for name in {**then, **now}:
            free = (table == "study" and name in grown) or table == "human" or name == "keep_texts"
            if then.get(name) != now.get(name) and not free:
                out.append(f"[{table}] {name} is {now.get(name)!r}, was {then.get(name)!r}")
    before, after = old.study or Study(), new.study or Study()
    for name in ("seeds", "splits"):
        if getattr(after, name) < getattr(before, name):
            out.append(f"[study] {name} was {getattr(before, name)} and can't become less")
    if lost := set(before.examples or SIZES) - set(after.examples or SIZES):
        out.append(f"[study] examples had {min(lost)}, which can't be left out")
    return out


def look(task: TaskSpec) -> tuple[Plan, list[str], list[str]]:
    """(the plan, the methods beside it, what was left out in sentences), after a look at the data, and at the weights
    of every setting."""
    asked = task.study or Study()
    empty = Plan(task, asked, (), (), 0)
    splits = data.load_splits(empty.task_of(Cell(0, 0, 0)), locator(task))
    least = 2 * len(set(each_label(task.task.kind, splits.train.targets))) or 10
    sizes, notes = sizes_of(task, splits.whole, least)
    plan = Plan(task, asked, make_settings(task), sizes, splits.whole)
    methods, missing = methods_for(task.task.kind, asked.methods, asked.names, splits.labels)
    for word in asked.transfer:
        further = data.further_part(task, word, locator(task), splits.labels, notes)
        if further.table.sha256 in (splits.train.table.sha256, splits.validation.table.sha256):
            raise ConfigError(
                f"[study] transfer: {word} is a table that is learned from or chosen by",
                "A score on such texts means nothing: name another.",
            )
    if asked.subgroup:
        column(splits.test.table, asked.subgroup, "subgroup", "study")
    if task.human:
        ratings_of(task, splits.test.table)
    problems = []
    for setting in plan.settings:
        try:
            look_ahead(plan.task_of(Cell(sizes[0], 0, 0), setting))
        except MiniBertError as problem:
            problems.append(f"  {setting.name}: {problem}")
    if problems:
        raise ConfigError(
            "some settings can't be run, and nothing was begun:\n" + "\n".join(dict.fromkeys(problems))
        )
    return plan, methods, [*splits.notes, *notes, *missing]


def headline(outcome: Outcome) -> str:
    """What a study came to, in a line for each number of texts, and where its page is."""
    lines, metric = [], outcome.table["metric"]
    for one in outcome.table["comparisons"]:
        found = one["scores"][metric]
        gap = " to ".join("?" if found[k] is None else f"{found[k]:+.3f}" for k in ("low", "high"))
        lines.append(
            f"{one['size']:,} labelled texts: {metric} {number(found['ours'])} ({one['ours']}), {number(found['theirs'])} "
            f"({one['theirs']}); difference {number(found['value'], '+')} ({gap})"
        )
    if not lines:
        for one in outcome.table["best"]["fine_tuned"]:
            lines.append(f"{one['size']:,} labelled texts: {metric} {number(one['value'])} ({one['name']})")
    lines += [f"Mind: {one['sentence']}" for one in outcome.table["verdicts"] if one["severity"] != "info"]
    lines += [f"Mind: {who}: {why}" for who, why in outcome.table["problems"].items()]
    return "\n".join([*lines, f"report: {outcome.folder / 'report.html'}"])


def number(value: float | None, sign: str = "") -> str:
    """Three decimals, or a question mark."""
    return "?" if value is None else f"{value:{sign}.3f}"
