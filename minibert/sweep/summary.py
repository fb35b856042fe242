"""What several runs came to: a row each, mean and spread over the seeds, and which setting validation chose.

In:  run folders.   Out: summary.json's table, and summary.csv.

A setting is chosen by the mean, over seeds, of its best validation score; the test scores have no say in it.
One with a run that failed can't be chosen: the mean of those that went well would flatter it. While runs are
still to come, settings are compared on the seeds that all of them have.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import system
from ..folder import STATUS, SUMMARY, event_of, finite, read_json
from ..metrics import HIGHER_IS_BETTER
from ..spec import brief
from .plan import Plan, Setting, short

TABLE = "summary.csv"
ENDS = ("completed", "failed", "diverged")
PARTS = (
    "test",
    "baseline",
    "difference",
)  # of metrics.json: the network's test scores, and what stands beside


def row_of(folder: Path, seed: int, reason: str = "") -> dict[str, Any]:
    """One run as numbers; `reason`: why it has none."""
    status, scores = read_json(folder / STATUS), read_json(folder / "metrics.json")
    parts = read_json(folder / "data.json").get("parts") or {}
    found = {
        "seed": seed,
        "status": status.get("status") if status.get("status") in ENDS else "failed",
        "reason": reason or ("" if status.get("status") == "completed" else status.get("message", "")),
        "minutes": read_json(folder / "environment.json").get("minutes"),
        "best_epoch": status.get("best_epoch"),
        "validation": validation_of(folder),
    }
    if found["status"] != "completed":
        return found
    other = scores.get("baseline") or {}
    tables = {"test": scores["test"], "baseline": other.get("test") or {}, "difference": scores["difference"]}
    found |= {part: {name: one["value"] for name, one in table.items()} for part, table in tables.items()}
    return found | {
        "n": {name: one["n"] for name, one in scores["test"].items()},
        "baseline_name": other.get("name", ""),
        "texts": {name: part["rows"] for name, part in parts.items()},
    }


def validation_of(folder: Path) -> dict[str, float | None]:
    """The scores of the best epoch on validation; of a cross-validation, their means over the folds."""
    try:
        lines = (folder / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines(True)
    except OSError:
        return {}
    best = {one.get("fold", 0): one for one in map(event_of, lines) if one.get("best")}
    names = [name for name in next(iter(best.values()), {}) if name == "loss" or name in HIGHER_IS_BETTER]
    return {name: mean(one.get(name) for one in best.values()) for name in names}


def mean(values: Iterable[float | None]) -> float | None:
    """None where one is undefined."""
    values = list(values)
    return None if None in values or not values else statistics.fmean(values)


def spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Mean, standard deviation (over n - 1), smallest and largest of what is defined, and how many that are."""
    known = [v for v in values if v is not None]
    if not known:
        return {"mean": None, "deviation": None, "min": None, "max": None, "n": 0}
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "deviation": deviation, "min": min(known), "max": max(known),
            "n": len(known)}  # fmt: skip


def of_setting(setting: Setting, folder: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A setting's runs, and the spread of each of their scores."""
    done = [row for row in rows if row["status"] == "completed"]
    out = {"values": setting.values, "name": setting.name, "folder": folder, "runs": rows}
    for part in ("validation", *PARTS):
        names = dict.fromkeys(name for row in done for name in row[part])
        out[part] = {name: spread(row[part].get(name) for row in done) for name in names}
    return out


def chosen(settings: list[dict[str, Any]], metric: str) -> list[int]:
    """Which settings are the best on validation, the best first; [] while there is nothing to compare."""
    sound = [
        place
        for place, one in enumerate(settings)
        if one["runs"] and all(row["status"] == "completed" for row in one["runs"])
    ]
    seeds = [{row["seed"] for row in settings[place]["runs"]} for place in sound]
    shared = set.intersection(*seeds) if seeds else set()

    def rank(place: int) -> tuple[float, float]:
        """Lower is better; of equal scores the lower loss."""
        rows = [row["validation"] for row in settings[place]["runs"] if row["seed"] in shared]
        return badness({name: mean(row.get(name) for row in rows) for name in (metric, "loss")}, metric)

    ranked = sorted(sound, key=rank) if shared else []
    return [place for place in ranked if rank(place)[0] < math.inf]


def badness(validation: dict[str, float | None], metric: str) -> tuple[float, float]:
    """What to sort by, the best first: the metric, and of equal ones the loss; what is undefined comes last."""
    score, loss = (validation.get(name) for name in (metric, "loss"))
    score = math.inf if score is None else -score if HIGHER_IS_BETTER.get(metric) else score
    return score, math.inf if loss is None else loss


def summarise(plan: Plan, rows: dict[tuple[int, int], dict[str, Any]], metric: str) -> dict[str, Any]:
    """All of it as one table. `rows`: (which setting, which seed) -> its row; `metric` chooses."""
    settings = []
    for place, setting in enumerate(plan.settings):
        own = [
            rows[place, seed] | {"folder": plan.folder(place, seed)}
            for seed in plan.seeds
            if (place, seed) in rows
        ]
        settings.append(of_setting(setting, plan.folders[place], own))
    ranked = chosen(settings, metric)
    best = settings[ranked[0]] if ranked else None
    model = min(best["runs"], key=lambda row: badness(row["validation"], metric)) if best else None
    return {
        "name": plan.task.task.name,
        "kind": plan.task.task.kind,
        "seeds": list(plan.seeds),
        "swept": plan.swept,
        "metric": metric,
        "ranked": ranked,
        "chosen": {"values": best["values"], "name": best["name"], "folder": best["folder"]}
        if best
        else None,
        "model": model["folder"] if model else None,
        "settings": settings,
    }


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    """summary.json and summary.csv, each all or nothing."""
    system.write_text(out / SUMMARY, json.dumps(finite(summary), indent=2, ensure_ascii=False) + "\n")
    with system.replacing(out / TABLE) as part, open(part, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(csv_rows(finite(summary)))


def csv_rows(summary: dict[str, Any]) -> list[list[Any]]:
    """A line a run: what was set, what it came to. Empty cells are undefined."""
    runs = [(one, row) for one in summary["settings"] for row in one["runs"]]
    columns = [(part, name) for part in ("validation", *PARTS)
               for name in dict.fromkeys(n for _, row in runs for n in row.get(part, {}))]  # fmt: skip
    heads = [*map(short, summary["swept"]), "seed", "status", *("_".join(c) for c in columns)]
    lines = [[*heads, "best_epoch", "minutes", "folder", "reason"]]
    for one, row in runs:
        set_to = [one["values"][key] for key in summary["swept"]]
        cells = [row.get(part, {}).get(name) for part, name in columns]
        set_to = [v if isinstance(v, (int, float, str)) else brief(v) for v in set_to]
        lines.append([*set_to, row["seed"], row["status"], *cells, row["best_epoch"], row["minutes"],
                      row["folder"], row["reason"]])  # fmt: skip
    return lines


def headline(summary: dict[str, Any], page: Path) -> str:
    """What all came to: a line a metric, or a table of settings and which one validation chose."""
    swept, settings, metric = summary["swept"], summary["settings"], summary["metric"]
    names = dict.fromkeys(name for one in settings for name in one["test"])
    lines = []
    if swept:
        heads = ["setting", f"validation {metric}", *(f"test {name}" for name in names), "runs"]
        table = [heads]
        for one in settings:
            done = sum(row["status"] == "completed" for row in one["runs"])
            cells = [told(one["validation"].get(metric)), *(told(one["test"].get(name)) for name in names)]
            table.append([one["name"], *cells, f"{done} of {len(one['runs'])}"])
        wide = [max(len(row[i]) for row in table) for i in range(len(heads))]
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, wide)).rstrip() for row in table]
        best = summary["chosen"]
        lines.append(f"chosen on validation: {best['name'] if best else 'none, for want of scores'}")
    for name in () if swept else names:
        one = settings[0]
        ours = one["test"][name]
        if not ours["n"]:
            lines.append(f"{name}: undefined on these texts")
            continue
        line = (
            f"{name} {told(ours)} on average over {ours['n']} seeds, {ours['min']:.3f} to {ours['max']:.3f}"
        )
        if (other := one["baseline"].get(name)) and other["n"]:
            line += f"; baseline {told(other)}; difference {told(one['difference'][name], '+')}"
        lines.append(line)
    if summary["message"]:
        lines.append(f"Mind: {summary['message']}")
    return "\n".join([*lines, f"report: {page}"])


def told(spread: dict[str, float | None] | None, sign: str = "") -> str:
    """A mean and how far it spreads."""
    if not spread or spread["mean"] is None:
        return "-"
    mean = f"{spread['mean']:{sign}.3f}"
    return mean if spread["deviation"] is None else f"{mean} (sd {spread['deviation']:.3f})"
