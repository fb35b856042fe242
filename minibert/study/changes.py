"""What would change a result, in sentences: more texts, more labels, other seeds, better labels.

In:  facts, a dict; any may be absent.
Out: plain sentences, computed from them.

    metric        the name of the metric that these are about
    difference    {"value", "low", "high", "n"}: network minus best baseline, "rival": what that is called, and
                  "splits": over how many divisions of the data, if it is more than one
    curve         [{"examples", "value", "low", "high"}, ...]: the score by number of labelled texts
    seeds         the network's score by seed, on the same texts, [value, ...]
    score         {"value", "low", "high"}
    ceiling       {"value", "what": who reaches it}: what people reach
    clean         {"value", "texts"}: the score without so many test texts that stand in train
    suspects      sureness.noise_suspects(...)
    cut           {part: {"share_of_texts", ...}}, as data.json has it
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..metrics import HIGHER_IS_BETTER
from ..report.words import METRIC, count, number, percent, signed, span
from .verdicts import MANY_CUT, MANY_SUSPECTS

POWER = (
    1.96 + 0.84
) / 1.96  # standard errors to find a difference in four studies of five, over those of "just"
HOPELESS = 100  # times the test texts: nobody codes so many


def what_would_change(facts: Mapping[str, Any]) -> list[str]:
    """Plain sentences, computed from the facts; none where none of these would."""
    return [sentence for look in CHANGES for sentence in look(facts)]


def more_texts(facts: Mapping[str, Any]) -> list[str]:
    """A difference whose interval includes zero: how many test texts would show it, if it is real.

    The interval narrows with the root of their number. Found in four studies of five: 80 % power.
    """
    d = facts.get("difference") or {}
    if d.get("low") is None or not d["low"] <= 0 <= d["high"]:
        return []
    title, half = METRIC[facts["metric"]][0], (d["high"] - d["low"]) / 2
    start = (
        f"The difference to {d.get('rival', 'the baseline')} in {title}, {signed(d['value'])} "
        f"({span(d['low'], d['high'], signed)}), may be chance"
    )
    if d.get("splits", 1) > 1:  # an interval over divisions is as wide as these differ
        return [f"{start}: more divisions of the data than {d['splits']}, or more texts, would tell."]
    needed = d["n"] * (POWER * half / abs(d["value"])) ** 2 if d["value"] else math.inf
    if needed > HOPELESS * d["n"]:
        return [f"{start}, and it is too small for any number of test texts that one could code to show it."]
    return [
        f"{start}: if it is real, some {two_digits(needed):,} test texts instead of {d['n']:,} would show it, in four "
        "of five studies."
    ]


def two_digits(n: float) -> int:
    """Rounded up to two digits: 3,271 becomes 3,300."""
    unit = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return math.ceil(n / unit) * unit


def more_labels(facts: Mapping[str, Any]) -> list[str]:
    """The last two points of the learning curve: is it still rising?"""
    points = sorted(facts.get("curve") or (), key=lambda point: point["examples"])
    points = [point for point in points if None not in (point["value"], point["low"], point["high"])]
    if len(points) < 2:
        return []
    before, last = points[-2:]
    title, upward = METRIC[facts["metric"]][0], HIGHER_IS_BETTER[facts["metric"]]
    went = (
        f"From {before['examples']:,} to {last['examples']:,} labelled texts {title} went from "
        f"{number(before['value'])} to {number(last['value'])}"
    )
    if (last["low"] > before["value"]) if upward else (last["high"] < before["value"]):
        return [f"{went}, by more than chance: more labelled texts would most likely help further."]
    if (last["high"] < before["value"]) if upward else (last["low"] > before["value"]):
        return [
            f"{went}: it got worse with more labels, which needs a reason, such as labels by other coders."
        ]
    return [f"{went}, which may be chance: more labels of the same kind would change little."]


def other_seeds(facts: Mapping[str, Any]) -> list[str]:
    """Seeds that differ by as much as the lead over the baseline."""
    values = [value for value in facts.get("seeds") or () if value is not None]
    lead = (facts.get("difference") or {}).get("value")
    if len(values) < 2 or lead is None or max(values) - min(values) < abs(lead):
        return []
    return [
        f"Seeds alone move {METRIC[facts['metric']][0]} from {number(min(values))} to {number(max(values))}, as much as "
        f"the difference of {signed(lead)}: one seed could have shown the contrary."
    ]


def without_copies(facts: Mapping[str, Any]) -> list[str]:
    """What the score is without the test texts that stand in train."""
    clean, score = facts.get("clean") or {}, facts.get("score") or {}
    if not clean.get("texts") or clean.get("value") is None or score.get("value") is None:
        return []
    return [
        f"Without the {count(clean['texts'], 'test text')} known from train, {METRIC[facts['metric']][0]} is "
        f"{number(clean['value'])} instead of {number(score['value'])}."
    ]


def better_labels(facts: Mapping[str, Any]) -> list[str]:
    """A score near what people reach; labels that all seeds doubt."""
    said, score, ceiling = [], facts.get("score") or {}, facts.get("ceiling") or {}
    if ceiling.get("value") is not None and score.get("low") is not None:
        upward = HIGHER_IS_BETTER[facts["metric"]]
        reached = score["high"] >= ceiling["value"] if upward else score["low"] <= ceiling["value"]
        title = METRIC[facts["metric"]][0]
        if reached:
            said.append(
                f"{title}, {number(score['value'])} ({span(score['low'], score['high'])}), is within chance of what "
                f"{ceiling['what']} reaches, {number(ceiling['value'])}: better labels, by more raters a text, would "
                "change more than a better network."
            )
    suspects = facts.get("suspects") or {}
    if suspects.get("count") and suspects["count"] >= MANY_SUSPECTS * suspects["n"]:
        share = suspects["count"] / suspects["n"]
        said.append(
            f"If the {count(suspects['count'], 'label')} that the network contradicts most surely are wrong, accuracy is "
            f"{number(share)} higher than it seems."
        )
    return said


def longer_texts(facts: Mapping[str, Any]) -> list[str]:
    """Test texts that were not read whole."""
    cut = (facts.get("cut") or {}).get("test") or {}
    if cut.get("share_of_texts", 0) < MANY_CUT:
        return []
    return [
        f"{percent(cut['share_of_texts'])} of the test texts were not read whole: more [model] max_tokens, or "
        'truncation = "head+tail", may change the score.'
    ]


CHANGES = (more_texts, more_labels, other_seeds, without_copies, better_labels, longer_texts)
