"""What `minibert estimate` prints: a row for each estimate, and what to mind.

In:  the document of files.py.   Out: rows of a table, lines of text
"""

from __future__ import annotations

from typing import Any


def rows(document: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each estimate, cells as they are read."""
    asked = document["asked"]
    title = "coefficient of" if regression(asked) else "mean" if asked.get("mean") else "share of"
    return [
        {title: one["of"]}
        | ({asked["by"]: one["group"]} if "group" in one else {})
        | {
            "naive": interval(one["naive"]),
            "coded only": interval(one["coded_only"]),
            "corrected": interval(one["corrected"]),
            "texts": f"{one['texts']:,}",
            "coded": f"{one['coded']:,}",
        }
        for one in document["estimates"]
    ]


def notes(document: dict[str, Any]) -> list[str]:
    """What the numbers are, what they stand on, and what was found odd."""
    asked = document["asked"]
    how = f"drawn with the probabilities in {asked['chance']}" if asked.get("chance") else "a random sample"
    agree = document["agreement"]
    out = [
        "Naive takes predictions for codes; its interval (95 %, like all here) knows nothing of their errors."
    ]
    if "same" in agree:
        out.append(f"Classifier and coder agree on {agree['same']:.1%} of the coded texts.")
    if "correlation" in agree:
        out.append(f"Predictions and codes correlate by {agree['correlation']:.3f} on the coded texts.")
    out.append(
        f"Corrected holds if the coded texts are {how} of these texts, and had no part in training or choosing "
        "the classifier. It does not hold for texts that were picked, or trained on."
    )
    if asked.get("corpus_only"):
        out.append(
            "The intervals are for these very texts: another corpus from the same source would differ."
        )
    elif document["coded"] > document["texts"] / 20 and not regression(asked):
        out.append("The intervals are for the source of these texts; for these alone: --corpus-only.")
    if not asked.get("share") and not asked.get("mean") and len(document["estimates"]) > 1:
        out.append("Each share is corrected by itself, so that they need not sum to exactly 1.")
    return out + [f"Mind: {note}" for note in document["notes"]]


def regression(asked: dict[str, Any]) -> bool:
    """Whether a regression was asked for."""
    return bool(asked.get("on") or asked.get("outcome"))


def interval(one: dict[str, float]) -> str:
    """ "0.231 (0.216 to 0.247)": as many digits as the interval's width makes useful."""
    wide = one["high"] - one["low"]
    digits = 3
    while wide and digits < 8 and wide < 10.0 ** (1 - digits):
        digits += 1
    value, low, high = (f"{one[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})" if wide else value
