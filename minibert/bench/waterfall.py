"""The rows of `minibert bench encoder`: what the rounds come to, and the table that people read.

In:  rows that know what they are about, what the harness timed.   Out: the same rows filled in; text.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from .case import outcome
from .clock import Timed
from .ratios import Ratio, speedup
from .table import number

CEILING = "products alone"
EMPTY: dict[str, Any] = {
    "outcome": "ok", "why": "", "tokens_per_second": None, "share_of_ceiling": None, "error": None,
    "cosine": None, "verdict": "", "speedup": None, "baseline": "", "gain": None, "ours_over_it": None,
    "settings": {}, "rounds": [],
}  # fmt: skip

Row = dict[str, Any]


def row(step: str, what: str, kind: str, **known: Any) -> Row:
    """A row that knows what it is about; kind: ours, peer or ceiling."""
    return {"step": step, "what": what, "kind": kind, **EMPTY, **known}


def fill(rows: list[Row], timed: Mapping[str, Timed], tokens: int) -> None:
    """Fill in times and ratios. Over what is wrong, and of it, there is no ratio."""
    for one in rows:
        if one["step"] in timed and (problem := timed[one["step"]].problem):
            one["outcome"], one["why"] = outcome(problem)
    ran = [one for one in rows if one["outcome"] == "ok"]
    ms = {one["step"]: timed[one["step"]].rounds for one in ran}
    holds = [one for one in ran if one["verdict"] != "FAIL"]
    ours = [one for one in holds if one["kind"] == "ours"]
    fastest = min(ours, key=lambda one: statistics.median(ms[one["step"]].values()), default=None)
    for one in ran:
        mine = ms[one["step"]]
        one["rounds"] = [x / 1e3 for x in mine.values()]
        speeds = np.quantile([tokens / seconds for seconds in one["rounds"]], [0.2, 0.5, 0.8])
        one["tokens_per_second"] = dict(zip(("p20", "p50", "p80"), speeds.tolist()))
        if CEILING in ms:
            limit = ms[CEILING]
            one["share_of_ceiling"] = statistics.median(limit[n] / mine[n] for n in mine if n in limit)
    for one in holds if ours else ():
        one |= {"baseline": ours[0]["step"], "speedup": plain(speedup(ms[one["step"]], ms[ours[0]["step"]]))}
        if one["kind"] == "peer":
            one["ours_over_it"] = plain(speedup(ms[fastest["step"]], ms[one["step"]]))
    for before, one in zip(ours, ours[1:]):
        one["gain"] = plain(speedup(ms[one["step"]], ms[before["step"]]))


def plain(ratio: Ratio | None) -> dict[str, float] | None:
    """As it stands in a row; None where the rounds are too few to say."""
    return ratio and {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def lines(document: Row) -> list[dict[str, str]]:
    """Each row's cells as text."""
    return [
        {
            "step": one["step"],
            "tokens/s [p20, p80]": speed(one["tokens_per_second"]),
            "of ceiling": number(one["share_of_ceiling"], ".0%"),
            "times naive": ratio(one["speedup"]),
            "times the step before": ratio(one["gain"]),
            "our fastest over it": ratio(one["ours_over_it"]),
            "error": number(one["error"], ".1e"),
            "cosine": number(one["cosine"], ".4f"),
            "verdict": one["verdict"] if one["outcome"] == "ok" else one["outcome"],
            "": one["what"] if one["outcome"] == "ok" else one["why"],
        }
        for one in document["rows"]
    ]


def speed(found: Mapping[str, float] | None) -> str:
    """Tokens a second with their spread."""
    return "{p50:,.0f} [{p20:,.0f}, {p80:,.0f}]".format(**found) if found else "-"


def ratio(found: Mapping[str, float] | None) -> str:
    """A ratio with its interval."""
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**found) if found else "-"


def footnotes(document: Row) -> list[str]:
    """What must be known of the table."""
    texts, seen, asked = document["texts"], document["conditions"], document["settings"]
    busy = [f"{seen[word]:.0%} {what}" for word, what in (("others", "other processes"), ("steal", "stolen"))
            if seen.get(word) is not None]  # fmt: skip
    return [
        f"{texts['texts']:,} texts of {asked['texts']}, {texts['tokens']:,} tokens, on average {texts['mean']:.0f}, "
        f"at most {texts['longest']}; {asked['model']}, float32; {asked['rounds']} rounds",
        f"{seen['cpu']}, {seen['cpu_capability']}, {seen['threads']} threads, torch {seen['versions']['torch']}; "
        f"{', '.join(busy) or 'load unknown'}",
        "ceiling: the time of the encoder's products alone. Ratios: medians within rounds, with their interval of 95 %; "
        "of fewer than six rounds there is none",
    ]
