"""What a reader should know before believing a score, in sentences.

In:  facts, a dict: what honesty.py, levels.py and sureness.py return, by the names below. Any may be absent.
Out: verdicts, a dict each.

    name          what it holds
    copies        honesty.copies(...)
    groups        honesty.shared_groups(...)
    labels        honesty.label_shares(...)
    chance        levels.chance(...)
    calibration   sureness.calibration(...)
    subgroups     {column: levels.subgroups(...)}
    suspects      sureness.noise_suspects(...)
    cut           {part: {"texts", "share_of_texts", "share_of_tokens"}}, as data.json has it

A check is silent where all is well: chance alone makes none speak but in 1 of 20 to 100 sound studies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..metrics import HIGHER_IS_BETTER, better
from ..report.words import METRIC, count, number, percent, signed, span

ONE_IN_20, ONE_IN_100 = 0.05, 0.01
MANY_COPIES = 0.01  # of a part's texts: fewer hardly move its score
APART = 0.05  # of the labels of a part are distributed otherwise: less matters to nobody
ILL_CALIBRATED, BADLY = 0.05, 0.1  # mean distance between confidence and accuracy
MANY_SUSPECTS = 0.01  # of the test texts
MANY_CUT = 0.1  # of a part's texts: check.py warns from there on

Said = list[tuple[str, str, str]]  # check, severity, sentence


def verdicts(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """[{"check", "severity", "sentence"}, ...], warnings first.

    severity   "warning": the score can't be taken as it is; "info": to be known
    check      duplicates, near_duplicates, groups, labels, constant, chance, majority, calibration, subgroups,
               suspects or cut
    """
    said = [one for name, look in LOOKS.items() if facts.get(name) for one in look(facts[name])]
    said.sort(key=lambda one: one[1] != "warning")
    return [{"check": check, "severity": grave, "sentence": sentence} for check, grave, sentence in said]


def of_copies(rows: Sequence[Mapping[str, Any]]) -> Said:
    """Texts of a part that stand in a part before it."""
    said: Said = []
    for row in rows:
        for check, key, how in (
            ("duplicates", "exact", "word for word"),
            ("near_duplicates", "near", "nearly word for word"),
        ):
            if row[key]:
                share = row[key] / row["texts"]
                stand = "stands" if row[key] == 1 else "stand"
                sentence = (
                    f"{row[key]:,} of {count(row['texts'], row['part'] + ' text')} ({percent(share)}) {stand} in "
                    f"{row['of']}, {how}: a score on them is one of memory."
                )
                said.append((check, "warning" if share >= MANY_COPIES else "info", sentence))
    return said


def of_groups(found: Mapping[str, Any]) -> Said:
    """Authors in two parts."""
    return [
        (
            "groups",
            "warning",
            f"{rows:,} of {count(found['texts'][part], part + ' text')} share their {found['column']} with a part "
            f"before: {count(found['count'], 'value')} of that column in more than one part. What was learned may be "
            f'whose text it is. [data] group = "{found["column"]}" keeps them together.',
        )
        for part, rows in found["rows"].items()
        if rows
    ]


def of_labels(found: Mapping[str, Any]) -> Said:
    """Parts whose labels are distributed differently."""
    return [
        (
            "labels",
            "warning",
            f"The labels of {row['part']} are distributed otherwise than those of {row['of']}: "
            f"{percent(row['distance'])} of them would have to be others; chance explains "
            f"{percent(row['by_chance'])}. Do the parts come from one source and time?",
        )
        for row in found["distances"]
        if row["p"] is not None and row["p"] <= ONE_IN_100 and row["distance"] >= APART
    ]


def of_chance(found: Mapping[str, Any]) -> Said:
    """One answer for all; a score that shuffled answers reach; one that is no better than the commonest answer."""
    if found["constant"]:
        alike = f"{percent(found['alike'])} of the answers are the same, and {percent(found['most'])} of what is true"
        alike = (
            alike if found["most"] else "All answers are nearly the same"
        )  # of values, which have no commonest
        return [("constant", "warning", f"{alike}: nothing was learned.")]
    tested = {name: one for name, one in found["metrics"].items() if one["p"] is not None}
    for name, one in list(tested.items())[:1]:
        if one["p"] > ONE_IN_20:
            return [
                (
                    "chance",
                    "warning",
                    f"{METRIC[name][0]} is {number(one['value'])}, and answers dealt out to the wrong texts reach "
                    f"{span(one['low'], one['high'])}: that is chance.",
                )
            ]
    for name, one in found["metrics"].items():
        known = one["value"] is not None and one["majority"] is not None
        if known and not better(name, one["value"], one["majority"]):
            return [
                (
                    "majority",
                    "warning",
                    f"{METRIC[name][0]} is {number(one['value'])}; always giving the commonest answer of "
                    f"train reaches {number(one['majority'])}.",
                )
            ]
    return []


def of_calibration(found: Mapping[str, Any]) -> Said:
    """Probabilities that are not what they say."""
    error, by_chance = found["ece"]["value"], found["by_chance"]["high"]
    if error is None or error < ILL_CALIBRATED or error <= by_chance:
        return []
    lean = "too sure" if found["surplus"] > 0 else "not sure enough"
    sentence = (
        f"Probabilities are off by {percent(error)} on average (chance alone: up to {percent(by_chance)}), the "
        f"answers {lean}: don't read them as shares."
    )
    return [("calibration", "warning" if error >= BADLY else "info", sentence)]


def of_subgroups(columns: Mapping[str, Mapping[str, Any]]) -> Said:
    """Groups of texts whose score is worse than that of all others."""
    said: Said = []
    for column, found in columns.items():
        for row in found["groups"]:
            apart, higher = row["difference"], HIGHER_IS_BETTER[found["metric"]]
            if row["p"] is None or row["p"] > ONE_IN_100 or row["value"] is None:
                continue
            if (apart["value"] > 0) == higher:  # the others are worse
                continue
            sentence = (
                f"{METRIC[found['metric']][0]} is {number(row['score']['value'])} on the {count(row['n'], 'text')} "
                f"with {column} “{row['value']}”, {signed(apart['value'])} beside all others "
                f"({span(apart['low'], apart['high'], signed)})."
            )
            said.append(("subgroups", "warning", sentence))
    return said


def of_suspects(found: Mapping[str, Any]) -> Said:
    """Labels that all seeds contradict."""
    if not found["count"] or found["count"] < MANY_SUSPECTS * found["n"]:
        return []
    seeds = "the network is" if found["seeds"] == 1 else f"all {found['seeds']} seeds are"
    sentence = (
        f"Of {count(found['count'], 'test text')} {seeds} sure that the label is another: read them again."
    )
    return [("suspects", "info", sentence)]


def of_cut(parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """Parts of which many texts were not read whole."""
    return [
        (
            "cut",
            "info",
            f"{count(cut['texts'], part + ' text')} ({percent(cut['share_of_texts'])}) were not read whole: "
            f"{percent(cut['share_of_tokens'])} of all tokens were cut.",
        )
        for part, cut in parts.items()
        if cut["share_of_texts"] >= MANY_CUT
    ]


# A fact's name -> what is said of it, in the order of the page.
LOOKS: dict[str, Callable[[Any], Said]] = {
    "copies": of_copies,
    "groups": of_groups,
    "labels": of_labels,
    "chance": of_chance,
    "calibration": of_calibration,
    "subgroups": of_subgroups,
    "suspects": of_suspects,
    "cut": of_cut,
}
