"""From stored answers to what the page says: choices written down, labels read, everything scored at once.

In:  a Plan, the methods' names, the study's folder.   Out: what study.json holds beside how the study went.

Here alone the labels of the test part are read, and only after `Ledger.open` has written what was chosen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import answers, data, metrics
from ..data import Part, Splits
from ..data.splits import label_order
from ..data.tables import Table, read_table
from ..folder import ANSWERS, read_json
from ..kinds import KINDS, metrics_of
from ..metrics import HIGHER_IS_BETTER
from ..spec import TaskSpec
from . import compare, further, human, store, written
from .choose import best_run, cells_of, choices, folders, role, title
from .compare import Replicate
from .looked import looked_at
from .plan import Cell, Plan
from .seal import Ledger

NOT_PAIRED = dict.fromkeys(
    ("value", "low", "high", "p_bootstrap", "p_randomisation")
)  # no cell that both answered
SHOWN = 6  # texts on which the two differ, each way


@dataclass(frozen=True, eq=False)
class Scored:
    """Everything that was answered, beside the truth. `labels`: all that any contestant knows."""

    plan: Plan
    out: Path
    methods: tuple[str, ...]
    metric: str
    read: dict[Any, Any] = field(default_factory=dict, repr=False)
    rows: list[dict[str, Any]] = field(default_factory=list)  # the table of all contestants, once it is made

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """In the order of the page."""
        found = [facts["labels"] for p in self.out.glob("*/*/n-*/split-*") if (facts := store.facts_of(p))]
        return label_order({label for labels in found for label in labels}) if any(found) else ()

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """Of the kind, as far as these labels allow."""
        return metrics_of(self.kind, self.labels)

    @property
    def kind(self) -> str:
        """Of the task."""
        return self.plan.task.task.kind

    @functools.cached_property
    def everyone(self) -> dict[str, str]:
        """Each contestant's folder."""
        return folders(self.plan, list(self.methods))

    def splits(self, cell: Cell) -> Splits:
        """The parts of a cell, labels and all; read once."""
        if cell not in self.read:
            task = self.plan.task_of(cell)
            self.read[cell] = data.load_splits(task, store.locator(task))
        return self.read[cell]

    def test(self, cell: Cell) -> Part:
        """What is tested on in a cell."""
        return self.splits(cell).test

    def said(self, name: str, cell: Cell) -> store.Said | None:
        """What a contestant answered to the test part, or None; read once."""
        folder = self.out / self.everyone[name] / cell.folder
        if (name, cell) not in self.read and (folder / ANSWERS / "test.npy").is_file():
            self.read[name, cell] = store.get(folder, self.kind, self.test(cell), "test")
        return self.read.get((name, cell))

    def replicate(self, name: str, cell: Cell) -> Replicate | None:
        """Truth and answers of a cell in the form that metrics take."""
        said, truth = self.said(name, cell), self.test(cell).targets
        if said is None:
            return None
        known = answers.all_labels(self.kind, self.labels, truth) if KINDS[self.kind].many else self.labels
        pair = (answers.scored(self.kind, one, known) for one in (truth, said.targets))
        return Replicate(*pair, group=cell.split)

    def replicates(self, name: str, size: int) -> list[Replicate]:
        """Of all repetitions at one number of texts."""
        found = (self.replicate(name, cell) for cell in cells_of(self.plan, size))
        return [one for one in found if one is not None]

    def value(self, metric: str, one: Replicate) -> float:
        """A metric of one repetition; NaN where undefined."""
        return metrics.value(metric, one.truth, one.answers, len(self.labels) or None, self.kind)

    def mean(self, name: str, size: int, metric: str) -> dict[str, Any] | None:
        """A score over the repetitions, with its interval; None where nothing was answered. Drawn once."""
        if (name, size, metric) not in self.read:
            self.read[name, size, metric] = self.drawn(name, size, metric)
        return self.read[name, size, metric]

    def drawn(self, name: str, size: int, metric: str) -> dict[str, Any] | None:
        """The same, drawn now."""
        found = self.replicates(name, size)
        return (
            compare.mean_score(self.kind, metric, found, num_classes=len(self.labels) or None)
            if found
            else None
        )

    def fact(self, name: str, cell: Cell) -> dict[str, Any]:
        """answers.json of a cell, with the minutes of the run; {} where there is none."""
        folder = self.out / self.everyone[name] / cell.folder
        facts = store.facts_of(folder)
        return facts and facts | {
            "minutes": read_json(folder / "environment.json").get("minutes", facts.get("minutes"))
        }

    def facts(self, name: str, size: int) -> list[dict[str, Any]]:
        """The same of all repetitions at one number of texts, as far as they answered."""
        return [found for cell in cells_of(self.plan, size) if (found := self.fact(name, cell))]

    def role(self, name: str) -> str:
        """What a contestant is to the page."""
        return role(name)

    def title(self, name: str) -> str:
        """What it is called there."""
        return title(self.plan, name)


def scored(plan: Plan, methods: list[str], out: Path) -> dict[str, Any]:
    """Choose, seal, score. The order of these three is the point of this file."""
    made = choices(plan, methods, out)
    ledger = Ledger(out)
    ledger.open(
        made,
        [p for folder in folders(plan, methods).values() for p in out.glob(f"{folder}/n-*/*/answers/*.npy")],
    )
    s = Scored(plan, out, tuple(methods), made["metric"])
    last = made["sizes"][-1]
    setting = next((one for one in plan.settings if one.name == last["fine_tuned"]), None)
    best = best_run(plan, out, setting) if setting else None
    s.rows.extend(table(s, made))
    found = {
        "metric": s.metric,
        "metrics": list(s.metrics),
        "choices": made,
        "chosen": {
            "fine_tuned": last["fine_tuned"],
            "traditional": last["traditional"],
            "folder": best.relative_to(out).as_posix() if best else None,
        },
        "curve": [curve(s, name) for name in s.everyone],
        "best": {who: best_of(s, made, who) for who in ("fine_tuned", "traditional")},
        "comparisons": comparisons(s, made),
        "table": s.rows,
        "repeated": repeated(s, made) if plan.study.splits > 1 else None,
        "differ": differ(s, last),
        "human": ceiling(s),
        "transfer": further.scored(s, last),
    }
    correct_for_number(found)
    opened = ledger.openings[-1]
    found["seal"] = {
        "openings": len(ledger.openings),
        "at": opened["at"],
        "choices_sha256": opened["choices_sha256"],
        "answers": len(opened["answers"]),
        "problems": ledger.problems(choices(plan, methods, out)),
    }
    found |= looked_at(s, found)
    written.summary(s)
    if best:
        written.predictions(s, best)
    return found


def point(s: Scored, name: str, size: int) -> dict[str, Any] | None:
    """A contestant at one number of texts, on the metric that chooses."""
    found, facts = s.mean(name, size, s.metric), s.facts(name, size)
    if found is None:
        return None
    known = [one["validation"].get(s.metric) for one in facts]
    return {
        "size": size,
        **{key: found[key] for key in ("value", "low", "high", "n")},
        "runs": len(facts),
        "validation": average(known),
        "minutes": average(one["minutes"] for one in facts),
        "learned_from": facts[0].get("learned_from"),
    }


def average(values: Any) -> float | None:
    """The mean of what is known."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def curve(s: Scored, name: str) -> dict[str, Any]:
    """A contestant over the numbers of texts."""
    points = [found for size in s.plan.sizes if (found := point(s, name, size))]
    return {"name": name, "title": s.title(name), "role": s.role(name), "points": points}


def best_of(s: Scored, made: dict[str, Any], who: str) -> list[dict[str, Any]]:
    """The same of whoever was chosen at each number of texts."""
    chosen = [(one["size"], one[who]) for one in made["sizes"] if one[who]]
    return [{"name": name, **found} for size, name in chosen if (found := point(s, name, size))]


def paired(s: Scored, ours: str, theirs: str, size: int, metric: str) -> dict[str, Any] | None:
    """Ours less theirs in the cells that both answered. Over several splits, which share texts, by how much these
    differ, "p_splits" its p: drawing or swapping texts takes splits for independent, and finds too much."""
    if s.plan.study.splits > 1:
        gaps, found = over_splits(s, ours, theirs, size, metric)
        return (
            NOT_PAIRED | {k: found[k] for k in ("value", "low", "high")} | {"p_splits": found["p"]}
            if gaps
            else None
        )
    pairs = [(s.replicate(ours, cell), s.replicate(theirs, cell)) for cell in cells_of(s.plan, size)]
    both = [pair for pair in pairs if None not in pair]
    if not both:
        return None
    mine, yours = zip(*both)
    return compare.paired(s.kind, metric, list(mine), list(yours), num_classes=len(s.labels) or None)


def comparisons(s: Scored, made: dict[str, Any]) -> list[dict[str, Any]]:
    """The chosen fine-tuned setting beside the chosen traditional method, at each number of texts."""
    out = []
    for one in made["sizes"]:
        ours, theirs, size = one["fine_tuned"], one["traditional"], one["size"]
        if not (ours and theirs):
            continue
        found = {}
        for metric in s.metrics:
            means = {
                who: s.mean(name, size, metric)["value"] for who, name in (("ours", ours), ("theirs", theirs))
            }
            found[metric] = means | (paired(s, ours, theirs, size, metric) or NOT_PAIRED)
        out.append({"size": size, "ours": ours, "theirs": theirs, "scores": found})
    return out


def table(s: Scored, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Every contestant with all texts, the best on validation first within its role, beside the chosen setting."""
    last, rows = made["sizes"][-1], []
    for name in s.everyone:
        facts = s.facts(name, last["size"])
        if not facts:
            continue
        against = None
        if last["fine_tuned"] and name != last["fine_tuned"]:
            against = paired(s, name, last["fine_tuned"], last["size"], s.metric)
        rows.append(
            {
                "name": name,
                "title": s.title(name),
                "role": s.role(name),
                "validation": last["validation"].get(name),
                "scores": {metric: s.mean(name, last["size"], metric) for metric in s.metrics},
                "minutes": average(one["minutes"] for one in facts),
                "seconds_per_1000": average(
                    per_thousand(s, one, cell) for one, cell in zip(facts, cells_of(s.plan, last["size"]))
                ),
                "against": against,
            }
        )
    sign = -1 if HIGHER_IS_BETTER[s.metric] else 1
    roles = list(dict.fromkeys(row["role"] for row in rows))

    def place(row: dict[str, Any]) -> tuple[int, float]:
        score = row["validation"]
        return roles.index(row["role"]), np.inf if score is None else sign * score

    return sorted(rows, key=place)


def per_thousand(s: Scored, facts: dict[str, Any], cell: Cell) -> float | None:
    """Seconds to answer a thousand texts."""
    if "seconds_for_answers" in facts:
        return 1000 * facts["seconds_for_answers"] / max(facts["answered"], 1)
    return (
        1000 * facts["seconds_for_test"] / max(len(s.test(cell)), 1)
        if facts.get("seconds_for_test")
        else None
    )


def correct_for_number(found: dict[str, Any]) -> None:
    """Holm's correction over every comparison of the page on the metric that chooses. The chosen traditional method
    with all texts stands twice on the page, and counts once."""
    compared = {one["size"]: one["scores"][found["metric"]] for one in found["comparisons"]}
    twice = next((row for row in found["table"] if row["name"] == found["chosen"]["traditional"]), {})
    tests = [
        *compared.values(),
        *(row["against"] for row in found["table"] if row["against"] and row is not twice),
    ]
    by = "p_splits" if found["repeated"] is not None else "p_randomisation"
    known = [one for one in tests if one.get(by) is not None]
    for one, p in zip(known, compare.holm([one[by] for one in known])):
        one["p_holm"] = p
    if twice.get("against"):
        twice["against"]["p_holm"] = compared[found["choices"]["sizes"][-1]["size"]].get("p_holm")
    found["tests"] = len(known)


def over_splits(
    s: Scored, ours: str, theirs: str, size: int, metric: str
) -> tuple[list[float], dict[str, float | None]]:
    """(the difference in each split, their mean with an interval over splits that knows how far their texts overlap)."""
    cells, gaps = cells_of(s.plan, size), []
    for split in range(s.plan.study.splits):
        pairs = [[s.replicate(n, c) for n in (ours, theirs)] for c in cells if c.split == split]
        values = [[s.value(metric, one) for one in pair] for pair in pairs if None not in pair]
        if values:
            gaps.append(float(np.mean([a - b for a, b in values])))
    # The share of all texts that is tested: who learns from fewer shares fewer of them, not more.
    tested = len(s.test(cells[0]))
    return gaps, compare.corrected_interval(gaps, tested / (tested + s.plan.whole))


def repeated(s: Scored, made: dict[str, Any]) -> list[dict[str, Any]]:
    """The difference of those who were chosen in each split, and its interval."""
    out = []
    for one in made["sizes"]:
        ours, theirs, size = one["fine_tuned"], one["traditional"], one["size"]
        if not (ours and theirs):
            continue
        for metric in s.metrics:
            gaps, interval = over_splits(s, ours, theirs, size, metric)
            out.append({"size": size, "metric": metric, "differences": gaps, **interval})
    return out


def differ(s: Scored, last: dict[str, Any]) -> dict[str, Any] | None:
    """Where the chosen setting and the chosen traditional method part ways, text by text, with all texts."""
    ours, theirs = last["fine_tuned"], last["traditional"]
    if not (ours and theirs):
        return None
    cells = [cell for cell in cells_of(s.plan, last["size"]) if cell.split == 0]
    test = s.test(cells[0])
    errors = {
        name: np.mean([wrong(s, name, cell) for cell in cells if s.said(name, cell)], axis=0)
        for name in (ours, theirs)
    }
    gap = errors[theirs] - errors[ours]  # above 0: ours is nearer
    if KINDS[s.kind].labels:
        right = {name: errors[name] < 0.5 for name in errors}
        counts = {
            "both": int((right[ours] & right[theirs]).sum()),
            "ours": int((right[ours] & ~right[theirs]).sum()),
            "theirs": int((~right[ours] & right[theirs]).sum()),
            "neither": int((~right[ours] & ~right[theirs]).sum()),
        }
    else:
        counts = {"ours": int((gap > 0).sum()), "theirs": int((gap < 0).sum())}
    order = np.argsort(-gap, kind="stable")
    said = {name: answers.written(s.kind, s.said(name, cells[0]).targets) for name in errors}
    truth = answers.written(s.kind, test.targets)

    def shown(places: Any) -> list[dict[str, Any]]:
        return [
            {"row": int(test.rows[i]), "text": test.texts[i] if s.plan.task.data.keep_texts else "", "truth": cell_of(truth[i]),
             "ours": cell_of(said[ours][i]), "theirs": cell_of(said[theirs][i])}
            for i in places
        ]  # fmt: skip

    return {
        "n": len(test),
        "counts": counts,
        "ours": shown([i for i in order[:SHOWN] if gap[i] > 0]),
        "theirs": shown([i for i in order[::-1][:SHOWN] if gap[i] < 0]),
    }


def wrong(s: Scored, name: str, cell: Cell) -> np.ndarray:
    """(n,) how wrong each answer is: the distance of numbers, else 0 or 1."""
    said, truth = s.said(name, cell).targets, s.test(cell).targets
    if not KINDS[s.kind].labels:
        return np.abs(said - truth)
    return np.array([a != b for a, b in zip(said, truth)], float)


def cell_of(value: Any) -> str:
    """A target for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ceiling(s: Scored) -> dict[str, Any] | None:
    """How far people agree, where single ratings are to be had; of those texts that the task has, where ids say so."""
    task = s.plan.task
    if task.human is None:
        return None
    ratings = ratings_of(task, s.test(next(s.plan.cells())).table)
    found = human.agreement(ratings) | {"note": task.human.note}
    return found if task.data.keep_texts else found | {"leave_one_out": []}  # raters by name


def ratings_of(task: TaskSpec, own: Table) -> human.Ratings:
    """The single ratings that [human] names; of the texts of the task's `own` table, where it has a column of ids."""
    h = task.human
    table = read_table(store.locator(task)(h.source), separator=h.separator, columns=h.header)
    kind = "classification" if KINDS[task.task.kind].labels else "regression"
    texts = set(own.frame[h.id]) if h.id in own.frame else None
    return human.read_ratings(
        table, kind, id=h.id, rater=h.rater, value=h.value, columns=h.columns, texts=texts
    )
