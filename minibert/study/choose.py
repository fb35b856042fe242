"""What is chosen, by validation scores alone: a setting and a traditional method for each number of labelled texts.

In:  a Plan and the answers' facts on disk.   Out: standings, choices; no label of the test part is asked for.

A contestant stands by the mean of its validation scores over splits and seeds. One that failed in a cell can't be
chosen there: the mean of those that went well would flatter it.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..metrics import HIGHER_IS_BETTER
from ..spec import scored_metric
from . import rungs, store
from .plan import Cell, Plan, Setting

ROLES = {"frozen": "frozen", "zero-shot": "guess"}  # of methods that are no traditional ones; else a floor


def methods_for(
    kind: str, asked: tuple[str, ...], names: dict[str, str] | None, labels: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """(the methods that fit, in the order of the ladder; why others don't, in sentences). ConfigError for one that was
    asked for by name and can't be had."""
    fit, missing = [], []
    for name in asked or rungs.methods_of(kind):
        reason = rungs.why_not(name, kind, names, labels)
        if reason and asked:
            raise ConfigError(
                f"[study] methods: {reason}", f"Choose among {', '.join(rungs.methods_of(kind))}."
            )
        (missing if reason else fit).append(f"{reason}." if reason else name)
    return fit, missing


def folders(plan: Plan, methods: list[str]) -> dict[str, str]:
    """Each contestant's name and its folder below the study's: fine-tuned settings, then methods."""
    fine = {one.name: f"runs/{one.folder}" for one in plan.settings}
    return fine | {name: f"methods/{name}" for name in methods}


def role(name: str) -> str:
    """What a contestant is to the page: "fine_tuned", "traditional", "frozen", "guess" or "floor"."""
    if name not in rungs.METHODS:
        return "fine_tuned"
    return "traditional" if rungs.METHODS[name].is_traditional else ROLES.get(name, "floor")


def title(plan: Plan, name: str) -> str:
    """What it is called there."""
    if name in rungs.METHODS:
        return rungs.METHODS[name].title
    weights = Path(plan.task.model.weights).name
    return f"{weights}, fine-tuned" if name == "fine-tuned" else f"fine-tuned, {name}"


def metric_of(plan: Plan, out: Path) -> str:
    """The score that chooses: that of the kind, or the one that the spec names."""
    labels = next((facts["labels"] for p in out.glob("*/*/n-*/split-*") if (facts := store.facts_of(p))), ())
    return scored_metric(plan.task, labels)


def standings(plan: Plan, methods: list[str], out: Path) -> dict[str, Any]:
    """{"metric", "rows": [{"name", "size", "validation", "runs", "planned"}]} of all that has answered so far."""
    metric, rows = metric_of(plan, out), []
    for name, folder in folders(plan, methods).items():
        for size in plan.sizes:
            cells = [cell for cell in plan.cells() if cell.size == size]
            known = [store.facts_of(out / folder / cell.folder).get("validation") for cell in cells]
            values = [one[metric] for one in known if one and one.get(metric) is not None]
            whole = len(values) == len(cells)
            rows.append({"name": name, "title": title(plan, name), "role": role(name), "size": size, "validation": statistics.fmean(values) if values else None,
                         "runs": len(values), "planned": len(cells), "whole": whole})  # fmt: skip
    return {"metric": metric, "rows": rows}


def choices(plan: Plan, methods: list[str], out: Path) -> dict[str, Any]:
    """For each number of texts the fine-tuned setting and the traditional method with the best mean validation score,
    and what everyone's was; None where nobody can be chosen."""
    found = standings(plan, methods, out)
    sign = -1 if HIGHER_IS_BETTER[found["metric"]] else 1
    fine = {one.name for one in plan.settings}
    traditional = {name for name in methods if rungs.METHODS[name].is_traditional}
    out_ = {"metric": found["metric"], "sizes": []}
    for size in plan.sizes:
        rows = [row for row in found["rows"] if row["size"] == size and row["whole"]]

        def best(names: set[str], rows: list[dict[str, Any]] = rows) -> str | None:
            able = [row for row in rows if row["name"] in names and not math.isnan(row["validation"])]
            return min(able, key=lambda row: sign * row["validation"])["name"] if able else None

        out_["sizes"].append(
            {
                "size": size,
                "fine_tuned": best(fine),
                "traditional": best(traditional),
                "validation": {row["name"]: row["validation"] for row in rows},
            }
        )
    return out_


def best_run(plan: Plan, out: Path, setting: Setting) -> Path | None:
    """The folder of a setting's run on all texts whose own validation score is the best so far."""
    metric = metric_of(plan, out)
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    seen: list[tuple[float, Path]] = []
    for cell in cells_of(plan, plan.sizes[-1]):
        folder = out / "runs" / setting.folder / cell.folder
        value = (store.facts_of(folder).get("validation") or {}).get(metric)
        if value is not None:
            seen.append((sign * value, folder))
    return min(seen)[1] if seen else None


def cells_of(plan: Plan, size: int) -> list[Cell]:
    """The repetitions at one number of texts."""
    return [cell for cell in plan.cells() if cell.size == size]
