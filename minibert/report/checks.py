"""The honesty checks of a study, laid out: what was looked for, what was found, and the numbers behind it.

In:  study.json's "honesty" and "verdicts"; every check may be absent.   Out: what study.html.j2 shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import plots, words
from .words import count, number, percent, signed, span

if TYPE_CHECKING:
    from .study import Study

# a fact of "honesty", what was looked for, the checks that speak of it
LOOKED_FOR = (
    ("copies", "texts of one part that stand in another", ("duplicates", "near_duplicates")),
    ("groups", "groups that stand in two parts", ("groups",)),
    ("labels", "parts whose labels are distributed differently", ("labels",)),
    ("chance", "answers no better than chance, or all the same", ("constant", "chance", "majority")),
    ("calibration", "probabilities that are not what they say", ("calibration",)),
    ("subgroups", "groups of texts that fare otherwise", ("subgroups",)),
    ("suspects", "labels that all seeds contradict", ("suspects",)),
    ("cut", "texts that were not read whole", ("cut",)),
)
ORDER = ("error", "warning", "info")
MOST_ROWS = 12  # of a table of copies or suspects


def looked(s: Study, limits: dict[str, tuple]) -> dict[str, Any]:
    """Findings, what was looked for without finding anything, and each check's numbers."""
    facts, said = s.t.get("honesty") or {}, s.t.get("verdicts") or []
    spoken = {one["check"] for one in said}
    return {
        "found": sorted(
            said, key=lambda one: ORDER.index(one["severity"]) if one["severity"] in ORDER else len(ORDER)
        ),
        "calm": not any(one["severity"] in ORDER[:2] for one in said),
        "silent": [title for key, title, names in LOOKED_FOR if facts.get(key) and not spoken & set(names)],
        "copies": copies(facts.get("copies") or []),
        "groups": groups(facts.get("groups") or {}),
        "labels": facts.get("labels"),
        "chance": chance(s, facts.get("chance") or {}),
        "calibration": calibration(facts.get("calibration") or {}),
        "line": line(facts.get("calibration_line") or {}),
        "selective": selective(facts.get("selective") or {}),
        "subgroups": [subgroup(column, one) for column, one in (facts.get("subgroups") or {}).items()],
        "suspects": suspects(facts.get("suspects") or {}),
        "cut": facts.get("cut"),
    }


def copies(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Copies by pair of parts, and the most alike pairs by row number."""
    if not rows:
        return None
    pairs = [{**pair, "part": one["part"], "of": one["of"]} for one in rows for pair in one["pairs"]]
    alike = sum(one["exact"] + one["near"] for one in rows)
    return {
        "rows": rows,
        "pairs": pairs[:MOST_ROWS],
        "more": max(0, alike - MOST_ROWS),
        "threshold": rows[0]["threshold"],
    }


def groups(found: dict[str, Any]) -> str:
    """Whether a group stands in two parts, in a sentence."""
    if not found:
        return ""
    if not found["count"]:
        return f"No value of “{found['column']}” stands in two parts."
    named = [
        f"“{one['group']}” ({', '.join(f'{n:,} in {part}' for part, n in one['rows'].items())})"
        for one in found["groups"][:5]
    ]
    more = "; and others" if found["count"] > 5 else ""
    stand = "stands" if found["count"] == 1 else "stand"
    return f"{count(found['count'], 'value')} of “{found['column']}” {stand} in more than one part: {'; '.join(named)}{more}."


def chance(s: Study, found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(metric's title, what was reached and what needs no reading), the one that chooses first."""
    known = found.get("metrics") or {}
    return [(words.METRIC[name][0], known[name]) for name in s.metrics if name in known]


def calibration(found: dict[str, Any]) -> dict[str, Any] | None:
    """The picture, and what it comes to."""
    if not found.get("bins"):
        return None
    error, by_chance, surplus = found["ece"], found["by_chance"], found["surplus"]
    lean = "too sure of themselves" if surplus > 0 else "not sure enough"
    within = by_chance.get("high") is not None and error["value"] <= by_chance["high"]
    told = (
        f"The expected calibration error is {number(error['value'])} ({span(error['low'], error['high'])}): on average so far "
        "lie confidence and the share of right answers apart. "
    )
    told += (
        f"Perfect probabilities would show up to {number(by_chance['high'])} by chance alone, so this is as good as can be told."
        if within
        else f"By chance alone it would be at most {number(by_chance.get('high'))}; the answers are {lean}, by {number(abs(surplus))}."
    )
    return {"picture": plots.calibration(found["bins"]), "told": told}


def line(found: dict[str, Any]) -> str:
    """How predicted values lean, in a sentence or two."""
    slope = found.get("slope") or {}
    if slope.get("value") is None:
        return ""
    told = f"Where predictions differ by 1, true values differ by {number(slope['value'], 2)} ({span(slope['low'], slope['high'])})"
    if slope.get("low") is None or slope["low"] <= 1 <= slope["high"]:
        return f"{told}: no lean that these texts would show."
    lean = "spread too far" if slope["value"] < 1 else "lie too close together"
    return f"{told}: the predictions {lean}."


def selective(found: dict[str, Any]) -> dict[str, Any] | None:
    """The picture, and what leaving out the unsure answers gains."""
    points = [(one["coverage"], one["accuracy"]) for one in found.get("curve") or []]
    if len(points) < 2:
        return None
    half = min(points, key=lambda one: abs(one[0] - 0.5))
    told = f"Of the surest half of the answers {percent(half[1])} are right, of all {percent(points[-1][1])}."
    return {"picture": plots.coverage("Accuracy if only the surest answers are given", points), "told": told}


def subgroup(column: str, found: dict[str, Any]) -> dict[str, Any]:
    """Scores of the groups of a column, with names for those without one."""
    merged = found.get("merged") or {}
    rows = [
        {
            **one,
            "name": one["value"]
            or (f"{merged.get('groups', 0):,} smaller groups" if one["value"] is None else "(empty)"),
        }
        for one in found["groups"]
    ]
    return {
        "column": column,
        "title": words.METRIC[found["metric"]][0],
        "score": found["score"],
        "rows": rows,
    }


def suspects(found: dict[str, Any]) -> dict[str, Any] | None:
    """Texts whose label may be the mistake."""
    if not found:
        return None
    seeds = "the network is" if found["seeds"] == 1 else f"all {found['seeds']} seeds are"
    sure = f"sure (by {percent(found['sure'])} or more) that the label is another"
    some = f"Of {found['count']:,} of the {count(found['n'], 'test text')} {seeds} {sure}: the label may be the mistake."
    told = some if found["count"] else f"There is no test text of which {seeds} {sure}."
    return {"told": told, "texts": found["texts"][:MOST_ROWS], "more": max(0, found["count"] - MOST_ROWS)}


def gap(one: dict[str, Any]) -> str:
    """+0.032 (+0.010 to +0.051)."""
    return f"{signed(one.get('value'))} ({span(one.get('low'), one.get('high'), signed)})"
