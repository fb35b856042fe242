"""What is looked at before the first of several runs: the folder, and every setting's data and model.

In:  a Plan and a folder.   Out: what there is to know of it, or one error that tells all that is wrong.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .. import spec, system
from ..data import Splits
from ..errors import ConfigError, MiniBertError
from ..folder import LITTER, SUMMARY, check_folder, is_leftover, read_json, read_status
from ..progress import say
from ..resume import differences, identify
from ..run import check_apart, look_ahead
from .plan import Plan
from .summary import TABLE

FILES = (SUMMARY, TABLE, "report.html", "spec.toml")
DONE = ("completed", "diverged")  # another time, such a run would come to the same


def look_at_all(plan: Plan, seed: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What each setting is made of with this seed, as sha256 by name; which metric chooses, which parts differ.

    Everything that bad input would end a run with is raised here, of all settings together.
    """
    made_of, rows, metric = [], {"validation": set(), "test": set()}, ""
    problems: list[tuple[str, MiniBertError]] = []
    if len(plan.settings) > 1:
        say(f"looking at the data and models of {len(plan.settings)} settings")
    for place, setting in enumerate(plan.settings):
        try:
            made, names, found = look_at(plan, place, seed)
        except MiniBertError as problem:
            problems.append((setting.name, problem))
            continue
        made_of.append(made)
        metric = metric or spec.chosen_metric(plan.task, names)
        for part in rows:
            rows[part].add(found[part])
    told = {str(problem) for _, problem in problems}
    if len(told) == 1 and len(problems) == len(plan.settings):
        raise problems[0][1]
    if told:
        words = "\n".join(f"  {name}: {problem}" for name, problem in problems)
        raise ConfigError(f"some settings can't be run, and nothing was begun:\n{words}")
    return made_of, {"metric": metric, "unequal": [part for part, found in rows.items() if len(found) > 1]}


def look_at(plan: Plan, place: int, seed: int) -> tuple[dict[str, str], tuple[str, ...], dict[str, str]]:
    """What one run is made of, its labels, and which rows choose and test; its data and model are let go of."""
    splits, model, encoded = look_ahead(plan.spec(place, seed))
    encoded.wait()
    rows = {part: hash_of(splits, part) for part in ("validation", "test")}
    return identify(splits, model), splits[0].labels, rows


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
