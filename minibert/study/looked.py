"""What a study looks at beside its scores: the data, the answers, and what would change the result.

In:  everything scored (scores.py).   Out: "honesty", "verdicts" and "would_change" of study.json.

Each look is one that honesty.py, levels.py or sureness.py makes; here stands only what each is given: the parts of
the first split with all texts, and the answers of the setting that was chosen there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import answers
from ..data.parts import column
from ..data.propose import describe, group_columns
from ..kinds import KINDS
from . import changes, compare, honesty, levels, sureness, verdicts
from .choose import cells_of

WORST = 20  # copies and suspects that are kept by row; the rest is counted


def looked_at(s: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Every check on the chosen setting with all texts."""
    name = found["chosen"]["fine_tuned"]
    cells = cells_of(s.plan, s.plan.sizes[-1])
    splits = s.splits(cells[0])
    parts = (splits.train, splits.validation, splits.test)
    facts: dict[str, Any] = {"copies": honesty.copies(parts), "labels": honesty.label_shares(s.kind, parts)}
    for group in groups_of(s, splits.train.table):
        facts["groups"] = honesty.shared_groups(parts, group)
    if name:
        facts |= of_answers(s, name, cells, splits)
    told = verdicts.verdicts(facts)
    would = changes.what_would_change(changing(s, found, facts, name, cells)) if name else []
    return {
        "honesty": shortened(facts, s.labels, s.plan.task.data.keep_texts),
        "verdicts": told,
        "would_change": would,
    }


def groups_of(s: Any, table: Any) -> Iterator[str]:
    """The column that says whose a text is: the spec's, or else the first that looks like one."""
    d = s.plan.task.data
    if d.group:
        yield d.group
    elif likely := group_columns(describe(table), {d.text, d.pair, d.label}, len(table.frame)):
        yield likely[0].name


def of_answers(s: Any, name: str, cells: list[Any], splits: Any) -> dict[str, Any]:
    """What the answers of a contestant to the first split's test texts say of themselves."""
    first = s.replicate(name, cells[0])
    if first is None:
        return {}
    classes = len(s.labels) or None
    known = answers.all_labels(s.kind, s.labels, splits.test.targets) if KINDS[s.kind].many else s.labels
    train = answers.scored(s.kind, splits.train.targets, known)
    facts: dict[str, Any] = {
        "chance": levels.chance(s.kind, s.metrics, first.truth, first.answers, train, num_classes=classes),
        "cut": {
            part: one["truncated"]
            for part, one in s.fact(name, cells[0])["parts"].items()
            if part in ("train", "validation", "test")
        },
    }
    if s.plan.study.subgroup:
        column_ = s.plan.study.subgroup
        cells_ = column(splits.test.table, column_, "subgroup", "study")[splits.test.rows]
        facts["subgroups"] = {
            column_: levels.subgroups(
                s.kind, s.metric, first.truth, first.answers, cells_, num_classes=classes
            )
        }
    if s.kind == "regression":
        return facts | {"calibration_line": sureness.calibration_line(first.truth, first.answers)}
    probable = [
        p for cell in cells if cell.split == 0 and (p := s.said(name, cell).probable(known)) is not None
    ]
    if probable:
        facts["calibration"] = sureness.calibration(probable[0], first.truth)
    if probable and s.kind == "classification":
        facts["selective"] = sureness.selective(probable[0], first.truth)
        facts["suspects"] = sureness.noise_suspects(probable, first.truth, splits.test.rows)
    return facts


def changing(
    s: Any, found: dict[str, Any], facts: dict[str, Any], name: str, cells: list[Any]
) -> dict[str, Any]:
    """What changes.py asks for."""
    points = [{"examples": p["size"], **p} for p in found["best"]["fine_tuned"]]
    reps = [one for cell in cells if (one := s.replicate(name, cell))]
    out = {
        "metric": s.metric,
        "curve": points,
        "score": points[-1],
        "seeds": [s.value(s.metric, one) for one in reps if one.group == 0],  # other splits are other texts
        "suspects": facts.get("suspects") or {},
        "cut": facts.get("cut") or {},
    }
    last = next((one for one in found["comparisons"] if one["size"] == s.plan.sizes[-1]), None)
    if last:
        gap = last["scores"][s.metric]
        out["difference"] = {
            **gap,
            "n": points[-1]["n"] // s.plan.study.splits,
            "splits": s.plan.study.splits,
            "rival": s.title(last["theirs"]),
        }
    if found["human"] and (one := found["human"].get("one_against_rest", {}).get(s.metric)):
        out["ceiling"] = {"value": one["value"], "what": "one person beside the others"}
    known = {
        pair["place"]
        for row in facts["copies"]
        if (row["part"], row["of"]) == ("test", "train")
        for pair in row["pairs"]
    }
    if known and reps and s.plan.study.splits == 1:
        values = [s.value(s.metric, one) for one in compare.without(reps, known)]
        out["clean"] = {"texts": len(known), "value": float(np.mean(values))}
    return out


def shortened(facts: dict[str, Any], labels: tuple[str, ...], keep_texts: bool) -> dict[str, Any]:
    """The same with the first of long lists, and labels by name."""
    out = dict(facts)
    out["copies"] = [{**row, "pairs": row["pairs"][:WORST]} for row in facts["copies"]]
    if "groups" in facts:
        shown = facts["groups"]["groups"][: WORST if keep_texts else 0]  # names of people, as it may be
        out["groups"] = {**facts["groups"], "groups": shown}
    if "suspects" in facts:
        texts = [
            {**one, **{key: labels[one[key]] for key in ("label", "said")}}
            for one in facts["suspects"]["texts"][:WORST]
        ]
        out["suspects"] = {**facts["suspects"], "texts": texts}
    return out
