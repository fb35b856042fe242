"""The page of a study: what came out, at how many labelled texts, and what that rests on.

In:  a folder with study.json and spec.toml.   Out: what study.html.j2 sees.

study.json has scores only once everything has run and been chosen; until then it holds validation scores, and the
page says so. checks.py lays out what the checks found, written.py writes the prose for a paper.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from markupsafe import Markup

from ..errors import DataError
from ..kinds import KINDS
from ..metrics import HIGHER_IS_BETTER, METRICS
from . import checks, figures, plots, tables, words
from .plots import SIGN, Curve, Level
from .read import Run, read_run, table
from .words import count, signed, span

ROLES = {
    "fine_tuned": "fine-tuned",
    "traditional": "traditional",
    "frozen": "frozen embeddings",
    "guess": "no labels used",
    "floor": "reads nothing",
}
MARKS = {"fine_tuned": "ours", "traditional": "theirs"}  # a role's mark in a picture
MOST_CURVES = 12  # beside the two that lead; the others stand in the table
ALL = [
    *ascii_lowercase,
    *(a + b for a, b in itertools.product(ascii_lowercase, repeat=2)),
]  # letters of curves


@dataclass(frozen=True)
class Study:
    """study.json, and the spec as it was run."""

    run: Run
    t: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where it stands."""
        return self.run.folder

    @property
    def scored(self) -> bool:
        """Whether the labels of the test part were read."""
        return bool(self.t.get("choices"))

    @property
    def metric(self) -> str:
        """What chooses, and leads the page."""
        return self.t["metric"] if self.scored else (self.t.get("so_far") or {}).get("metric", "")

    @property
    def metrics(self) -> list[str]:
        """All scores, that one first."""
        known = self.t.get("metrics") or METRICS[self.run.kind]
        return [self.metric, *(name for name in known if name != self.metric)]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every contestant with all labelled texts."""
        return self.t.get("table") or []

    @property
    def largest(self) -> int:
        """The largest number of labelled texts."""
        return max(self.t.get("sizes") or [0])

    @functools.cached_property
    def titles(self) -> dict[str, str]:
        """What each contestant is called."""
        told = [*(self.t.get("so_far") or {}).get("rows", ()), *(self.t.get("curve") or ()), *self.rows]
        return {one["name"]: one.get("title") or one["name"] for one in told}

    @functools.cached_property
    def roles(self) -> dict[str, str]:
        """What each contestant is."""
        told = [*(self.t.get("so_far") or {}).get("rows", ()), *(self.t.get("curve") or ()), *self.rows]
        return {one["name"]: one.get("role", "") for one in told}

    @property
    def most(self) -> str:
        """That number in words: all 1,868; 500 where more are to be had."""
        return f"{'all ' if self.largest == self.t.get('whole') else ''}{self.largest:,}"

    @property
    def repetitions(self) -> int:
        """How often each contestant learned from one number of texts."""
        return self.t.get("seeds", 1) * self.t.get("splits", 1)

    def tested(self, n: int) -> str:
        """How many texts `n` answers are to: 623 test texts; 1,074 test texts in each of 5 splits, which share some."""
        splits = self.t.get("splits", 1)
        each = count(round(n / splits), "test text")
        return f"{each} in each of {splits} splits" if splits > 1 else each

    def chosen(self, who: str) -> str | None:
        """Who was chosen with all labelled texts; who: fine_tuned, traditional."""
        return (self.t.get("chosen") or {}).get(who)

    def row(self, name: str | None) -> dict[str, Any]:
        """A contestant with all labelled texts; {} where there is none."""
        return next((one for one in self.rows if one["name"] == name), {})

    def title(self, name: str | None) -> str:
        """What a contestant is called."""
        return self.titles.get(name or "", name or "none")

    @functools.cached_property
    def best(self) -> Run | None:
        """The run whose model stays; None where its folder is not there."""
        named = (self.t.get("chosen") or {}).get("folder")
        return (
            read_run(self.folder / named) if named and (self.folder / named / "spec.toml").is_file() else None
        )

    @functools.cached_property
    def witness(self) -> Run:
        """The run that says what was read, where and with what: `best`, or where no model stayed any with as many texts."""
        places = [self.best.folder] if self.best else []
        places += sorted(p.parent for p in self.folder.glob(f"runs/*/n-{self.largest}/*/answers.json"))
        if not places:
            return self.run
        facts, found = table(places[0] / "answers.json"), self.best or self.run
        parts = {"train": {"rows": facts.get("learned_from")}, **(facts.get("parts") or {})}
        return replace(
            found,
            environment=found.environment or table(places[0] / "environment.json"),
            data=found.data or {"parts": parts},
        )


def read_study(folder: Path) -> Study:
    """Read a study's folder. DataError where it is none or a file is damaged."""
    if not (folder / "study.json").is_file():
        raise DataError(f"{folder} holds no study.json", "Name the folder that `minibert study` wrote.")
    return Study(read_run(folder), table(folder / "study.json"))


def context(folder: Path, limits: dict[str, tuple]) -> dict[str, Any]:
    """What the template sees. `limits`: metric -> the ends of its scale."""
    s = read_study(folder)
    seen = {
        "s": s, "t": s.t, "run": s.run, "kind": KINDS[s.run.kind], "name": s.run.spec.task.name, "lead": lead(s),
        "cautions": cautions(s), "curve": learning(s, limits), "about": about(s), "what": title(s.metric),
        "words": words, "tables": tables, "title": title, "p": p_value, "moment": moment, "ROLES": ROLES, "checks": checks,
    }  # fmt: skip
    if not s.scored:
        return seen
    return seen | {
        "forest": forest(s), "tests": tests(s), "repeated": repeated(s), "differ": differ(s), "sealed": sealed(s),
        "choice": choice(s), "people": people(s), "transfer": transfer(s), "cost": cost(s), "use": use(s),
        "looked": checks.looked(s, limits),
    }  # fmt: skip


# --- words ----------------------------------------------------------------------------------------


def title(metric: str) -> str:
    """A metric's name on the page."""
    return words.METRIC[metric][0] if metric in words.METRIC else metric.replace("_", " ")


def named(metric: str) -> str:
    """... and within a sentence."""
    return "accuracy" if metric == "accuracy" else title(metric)


def p_value(p: float | None) -> str:
    """0.034; < 0.001; a dash for none."""
    return words.ABSENT if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_said(p: float) -> str:
    """... with its letter."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def moment(written: str | None) -> str:
    """4 May 2031, 09:30 UTC."""
    try:
        at = datetime.fromisoformat(written or "")
    except ValueError:
        return written or "an unknown time"
    return f"{tables.day(written)}, {at:%H:%M} {at.tzname() or ''}".strip()


def joined(parts: Sequence[Any]) -> str:
    """A, B and C."""
    told = [f"{one:,}" if isinstance(one, int) else str(one) for one in parts]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}" if told else "none"


def verdict(metric: str, gap: dict[str, Any]) -> str:
    """better, worse, open, or '' where there is no interval: ours beside theirs."""
    return words.Line(metric, {}, {}, gap, None).verdict


def verdicts(s: Study) -> list[tuple[int, str]]:
    """(labelled texts, verdict) of each comparison."""
    return [(one["size"], verdict(s.metric, one["scores"][s.metric])) for one in s.t.get("comparisons") or []]


def lead(s: Study) -> Markup:
    """What was asked, what came out, and from how many labelled texts on."""
    if not s.scored:
        return under_way(s)
    row, other = s.row(s.chosen("fine_tuned")), s.row(s.chosen("traditional"))
    asked = Markup("The question: how well can “{}” be told from “{}”? ").format(s.run.label, s.run.text)
    if not row:
        return asked + "No setting could be chosen: none has a validation score from each of its runs."
    score, form = row["scores"][s.metric], "reached {name} <strong>{value}</strong> (95 % interval {spread})"
    first = Markup("With {} labelled texts {}{} {} on {}").format(
        s.most, row["title"], rank(s, "fine_tuned", "settings"), words.reached(named(s.metric), score, form),
        s.tested(score["n"]),
    )  # fmt: skip
    if not other:
        fitted = "could be chosen" if "traditional" in s.roles.values() else "was fitted"
        return asked + first + f". No traditional method {fitted}, so there is nothing to compare this with."
    beside = words.reached(title(s.metric), other["scores"][s.metric], "<strong>{value}</strong> ({spread})")
    first += Markup("; {}{} {}. ").format(
        other["title"], rank(s, "traditional", "traditional methods"), beside
    )
    return (asked + first + difference(s) + Markup(" {}").format(from_where(verdicts(s)))).strip()


def rank(s: Study, role: str, many: str) -> str:
    """That it was the best of several on validation; "" where there was no choice."""
    n = sum(one["role"] == role for one in s.rows)
    return (
        f", the best of {n} {many} on validation,"
        if n > 1
        else ", a traditional method,"
        if role == "traditional"
        else ""
    )


def difference(s: Study) -> Markup:
    """The difference with all texts, what its interval says, and what is left of it after correction."""
    found = next((one["scores"][s.metric] for one in s.t["comparisons"] if one["size"] == s.largest), None)
    if not found or found.get("value") is None:
        return Markup("Their difference is undefined.")
    meaning = {
        "better": "which excludes zero: fine-tuning is better on texts like these.",
        "worse": "which excludes zero: the traditional method is better on texts like these.",
        "open": "which includes zero: these texts do not tell which is better.",
        "": "and no interval could be computed.",
    }[verdict(s.metric, found)]
    said = Markup("The difference is <strong>{}</strong> ({}), {}").format(
        signed(found["value"]), span(found.get("low"), found.get("high"), signed), meaning
    )
    p = found.get("p_holm")
    if verdict(s.metric, found) in ("better", "worse") and p is not None and p >= 0.05:
        said += f" Corrected for the {count(s.t.get('tests') or 1, 'comparison')} of this page it may be chance ({p_said(p)})."
    return said + over_splits(s)


def over_splits(s: Study) -> str:
    """The same over repeated splits, whose interval knows that they share texts; "" where there is one split."""
    rows = [
        one for one in s.t.get("repeated") or [] if one["metric"] == s.metric and one["size"] == s.largest
    ]
    if not rows or rows[0]["low"] is None:
        return ""
    return f" That interval is over {count(s.t['splits'], 'split')}, allowing for the texts that they share."


def from_where(found: list[tuple[int, str]]) -> str:
    """From how many labelled texts on fine-tuning is better; "" for a single number of texts."""
    if len(found) < 2:
        return ""
    of = {word: [size for size, said in found if said == word] for word in ("better", "worse", "open", "")}
    sizes = [size for size, _ in found]
    if len(of["better"]) == len(found):
        return f"It is better at every number of labelled texts from {sizes[0]:,} to {sizes[-1]:,}."
    if len(of["open"]) == len(found):
        return f"Nor does it at any other number of labelled texts from {sizes[0]:,} on."
    tail = len(list(itertools.takewhile(lambda one: one[1] == "better", found[::-1])))
    rest = [
        f"with {joined(of['worse'])} the traditional method is" if of["worse"] else "",
        f"with {joined(of['open'] + of[''])} it is open which is" if of["open"] or of[""] else "",
    ]
    if tail:
        earlier = [size for size in of["better"] if size < sizes[-tail]]
        first = f"Fine-tuning is better from {sizes[-tail]:,} labelled texts on"
        first += f", and with {joined(earlier)}" if earlier else ""
    else:
        first = f"Fine-tuning is better with {joined(of['better'])} labelled texts" if of["better"] else ""
    out = "; ".join(filter(None, (first, *rest)))
    return f"{out[0].upper()}{out[1:]}."


def under_way(s: Study) -> Markup:
    """What is known before the test part was opened."""
    t = s.t
    sizes = joined(t.get("sizes") or [])
    who = Markup("{} is compared with other methods at {} labelled texts. ").format(
        s.run.spec.model.weights, sizes
    )
    done = f"{t.get('done', 0):,} of {count(t.get('planned', 0), 'run')} {'is' if t.get('planned') == 1 else 'are'} done. "
    return (
        who
        + done
        + "What stands here is on validation texts: the labels of the test part have not been read."
    )


def cautions(s: Study) -> list[str | Markup]:
    """What a reader must know first."""
    t, out = s.t, []
    if t.get("status") == "stopped" or (t.get("status") != "running" and not s.scored):
        message = t.get("message") or ""
        out.append(
            f"The study’s status is “{t.get('status', 'unknown')}”. {message[:1].upper()}{message[1:]}".strip()
        )
    out += [f"{problem[:1].upper()}{problem[1:]}." for problem in (t.get("seal") or {}).get("problems") or []]
    if t.get("problems"):
        out.append(f"{count(len(t['problems']), 'run or method', 'runs and methods')} failed and can’t be chosen where "
                   "that happened: the reasons stand below.")  # fmt: skip
    tested = (s.row(s.chosen("fine_tuned")).get("scores") or {}).get(s.metric, {}).get("n")
    if tested and tested < 100 * t.get("splits", 1):
        out.append(f"There are only {s.tested(tested)}: mind the intervals.")
    grave = [one for one in t.get("verdicts") or [] if one["severity"] == "error"]
    warned = sum(one["severity"] == "warning" for one in t.get("verdicts") or [])
    out += [one["sentence"] for one in grave]
    if warned:
        out.append(
            Markup('The checks have {}: <a href="#checks">what they found</a>.').format(
                count(warned, "warning")
            )
        )
    return out


# --- pictures and tables --------------------------------------------------------------------------


def learning(s: Study, limits: dict[str, tuple]) -> dict[str, Any] | None:
    """The learning curve with the list of what is drawn; None where there is no score yet."""
    drawn, levels = (tested if s.scored else validated)(s)
    sizes = sorted({point["size"] for one in drawn for point in one.points})
    if not sizes:
        return None
    left_out = len(drawn) - MOST_CURVES - sum(one.kind in SIGN for one in drawn)
    if left_out > 0:
        lead_ = [one for one in drawn if one.kind in SIGN]
        drawn = lead_ + ranked(s, [one for one in drawn if one.kind not in SIGN])[:MOST_CURVES]
    names = iter(ALL)
    drawn = [Curve(c.kind, SIGN.get(c.kind) or next(names), c.title, c.points) for c in drawn]
    levels = [Level(one.kind, next(names), one.title, one.score) for one in levels]
    part = "test" if s.scored else "validation"
    name = f"{title(s.metric)} on {part} texts by number of labelled texts"
    return {
        "part": part, "picture": plots.learning(name, sizes, drawn, levels, limits.get(s.metric, (0, None))),
        "curves": drawn, "levels": levels, "several": len(sizes) > 1, "left_out": max(0, left_out), "higher": HIGHER_IS_BETTER.get(s.metric, True),
        "open": any(not p.get("whole", True) for c in drawn for p in c.points),
    }  # fmt: skip


def ranked(s: Study, found: list[Curve]) -> list[Curve]:
    """The best at their largest number of texts first."""
    sign = -1 if HIGHER_IS_BETTER.get(s.metric, True) else 1
    return sorted(found, key=lambda one: (-one.points[-1]["size"], sign * one.points[-1]["value"]))


def tested(s: Study) -> tuple[list[Curve], list[Level]]:
    """What was chosen at each number of texts, everyone else, and what takes no labels."""
    out, levels, lone = [], [], set()
    for who, kind in MARKS.items():
        points = known((s.t.get("best") or {}).get(who) or [])
        names = {one["name"] for one in points}
        if points:
            lone |= names if len(names) == 1 else set()
            out.append(Curve(kind, "", best_title(s, who, names), points))
    for one in s.t.get("curve") or []:
        points = known(one["points"])
        if not points or (one["name"] in lone and one["role"] in MARKS):
            continue
        if one["role"] in ("guess", "floor"):
            levels.append(Level(one["role"], "", one["title"], points[-1]))
        else:
            out.append(Curve(one["role"], "", one["title"], points))
    reach = ((s.t.get("human") or {}).get("one_against_rest") or {}).get(s.metric) or {}
    if reach.get("value") is not None:
        levels.append(Level("human", "", "one person beside the others", reach))
    return out, levels


def best_title(s: Study, who: str, names: set[str]) -> str:
    """Who a leading curve is: a name, or that it was chosen anew at each number of texts."""
    if len(names) == 1:
        return s.title(next(iter(names)))
    return {"fine_tuned": "fine-tuned, chosen anew", "traditional": "traditional, chosen anew"}[who]


def known(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that have a score, from few texts to many."""
    return sorted((p for p in points if p.get("value") is not None), key=lambda p: p["size"])


def validated(s: Study) -> tuple[list[Curve], list[Level]]:
    """What validation says so far; which contestant will be chosen is not decided before the end."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in (s.t.get("so_far") or {}).get("rows") or []:
        by_name.setdefault(row["name"], []).append({**row, "value": row.get("validation")})
    found = [Curve(s.roles.get(name, ""), "", s.title(name), known(rows)) for name, rows in by_name.items()]
    found = [one for one in found if one.points]
    for role, kind in MARKS.items():  # so far the best of its kind leads
        mine = ranked(s, [one for one in found if one.kind == role])
        found = [Curve(kind, "", one.title, one.points) if mine and one is mine[0] else one for one in found]
    return found, []


def forest(s: Study) -> dict[str, Any]:
    """Every contestant with all texts on one scale, beside the setting that was chosen."""
    scores = [one["scores"].get(s.metric) or {} for one in s.rows]
    x = figures.axis([v.get(k) for v in scores for k in ("value", "low", "high")], ticks=5, pad=0.05)
    guide = (s.row(s.chosen("fine_tuned")).get("scores") or {}).get(s.metric, {}).get("value")
    drawn = [
        {"row": one, "score": score, "chosen": one["name"] in (s.chosen("fine_tuned"), s.chosen("traditional")),
         "picture": plots.lane(score, x, MARKS.get(one["role"], "other"), guide)}
        for one, score in zip(s.rows, scores)
    ]  # fmt: skip
    return {"rows": drawn, "scale": plots.scale(x)}


def tests(s: Study) -> list[dict[str, Any]]:
    """Each paired comparison, on every metric: the chosen setting beside the chosen method."""
    said = {
        "better": "Fine-tuning is better.", "worse": "The traditional method is better.",
        "open": "It is open which is better.", "": "Not to be told.",
    }  # fmt: skip
    return [
        {"metric": metric, "rows": [
            {**one, **one["scores"][metric], "ours_title": s.title(one["ours"]), "theirs_title": s.title(one["theirs"]),
             "verdict": said[verdict(metric, one["scores"][metric])]}
            for one in s.t.get("comparisons") or [] if metric in one["scores"]
        ]}
        for metric in s.metrics
    ]  # fmt: skip


def repeated(s: Study) -> list[dict[str, Any]]:
    """Differences over repeated splits of the data, a picture a metric."""
    out = []
    for metric in s.metrics:
        rows = [one for one in s.t.get("repeated") or [] if one["metric"] == metric and one["differences"]]
        if rows:
            drawn = plots.differences(f"Difference in {named(metric)} over splits", rows)
            out.append({"metric": metric, "rows": rows, "picture": drawn, "higher": HIGHER_IS_BETTER[metric]})
    return out


def differ(s: Study) -> dict[str, Any] | None:
    """Where the two part ways: shares of the texts, and texts to look at."""
    found = s.t.get("differ")
    if not found:
        return None
    counts = found["counts"]
    said = (
        {"both": "both right", "ours": "only fine-tuning right", "theirs": "only the traditional method right",
         "neither": "both wrong"}
        if "both" in counts
        else {"ours": "fine-tuning nearer", "theirs": "the traditional method nearer", "tie": "equally near"}
    )  # fmt: skip
    counts = counts if "both" in counts else {**counts, "tie": found["n"] - sum(counts.values())}
    bars = [
        (key, text, counts[key], counts[key] / max(found["n"], 1))
        for key, text in said.items()
        if counts.get(key)
    ]
    texts = [(who, head, [shown(one) for one in found.get(who) or []]) for who, head in (
        ("ours", "Fine-tuning right, the traditional method wrong" if "both" in counts else "Fine-tuning much nearer"),
        ("theirs", "The traditional method right, fine-tuning wrong" if "both" in counts else "The traditional method much nearer"),
    )]  # fmt: skip
    kept = any(one["text"] for *_, some in texts for one in some)
    return {"n": found["n"], "bars": bars, "texts": [one for one in texts if one[2]], "kept": kept}


def shown(one: dict[str, Any]) -> dict[str, Any]:
    """A text, cut, beside what is true and what was answered."""
    teaser, text, omitted = tables.cut(one.get("text") or "")
    return {**one, "teaser": teaser, "text": text, "omitted": omitted}


def choice(s: Study) -> list[dict[str, Any]]:
    """Validation scores of each contestant by number of texts; chosen ones are marked."""
    found = s.t["choices"]["sizes"]
    names = list(dict.fromkeys(name for one in found for name in one["validation"]))
    cells = {
        name: [
            (one["validation"].get(name), name in (one["fine_tuned"], one["traditional"])) for one in found
        ]
        for name in names
    }
    return [{"title": s.title(name), "role": s.roles.get(name, ""), "cells": cells[name]} for name in names]


def sealed(s: Study) -> str:
    """The proof that nothing was chosen by the test part, in a few sentences."""
    seal = s.t.get("seal")
    if not seal:
        return ""
    often = "once" if seal["openings"] == 1 else f"{seal['openings']} times, the last time"
    changed = (
        "None of these has changed since."
        if not seal["problems"]
        else "Not all is as it was then: see above."
    )
    return (
        f"The labels of the {s.tested(answered(s))} were taken away before anything learned, and read {often}, on {moment(seal['at'])}: after every "
        "model had been trained and every choice above made. Before that the choices were written into seal.json, with "
        f"the SHA-256 of each of the {count(seal['answers'], 'file')} of answers. {changed}"
    )


def answered(s: Study) -> int:
    """How many answers to test texts there are, over all splits."""
    return max((one["scores"][s.metric]["n"] for one in s.rows if one["scores"].get(s.metric)), default=0)


def people(s: Study) -> dict[str, Any] | None:
    """How far people agree, beside what was reached."""
    found = s.t.get("human")
    if not found:
        return None
    ours = s.row(s.chosen("fine_tuned")).get("scores") or {}
    rows = [
        (title(name), score, ours.get(name) or {})
        for name, score in found["one_against_rest"].items()
        if score
    ]
    alpha = found.get("alpha")
    alphas = alpha if isinstance(alpha, dict) else {"": alpha}
    return {**found, "rows": rows, "alphas": {k: v for k, v in alphas.items() if v is not None}}


def transfer(s: Study) -> dict[str, Any] | None:
    """Scores on further tables: a row a table, a column a contestant."""
    found = s.t.get("transfer") or []
    names = list(dict.fromkeys(name for one in found for name in one["scores"]))
    return {"rows": found, "names": names} if names else None


def cost(s: Study) -> dict[str, Any]:
    """Minutes to learn by number of texts, and seconds to answer a thousand."""
    sizes = s.t.get("sizes") or []
    rows = []
    for one in s.t.get("curve") or []:
        minutes = {point["size"]: point.get("minutes") for point in one["points"]}
        rows.append({**one, "minutes": [minutes.get(size) for size in sizes],
                     "thousand": s.row(one["name"]).get("seconds_per_1000")})  # fmt: skip
    return {"sizes": sizes, "rows": rows}


def labels(s: Study) -> int:
    """How many labels there are; 0 where that was not written down, or answers are numbers."""
    found = ((s.t.get("honesty") or {}).get("labels") or {}).get("labels") or []
    return len(found) if KINDS[s.run.kind].labels else 0


def about(s: Study) -> list[str]:
    """What was asked of whom, in sentences."""
    t, run = s.t, s.run
    what = KINDS[run.kind].about.format(labels(s)) if labels(s) or not KINDS[run.kind].labels else "a label"
    out = [f"The task: from “{run.spec.data.text}”, predict “{run.spec.data.label}”, {what}."]
    repeats = count(t.get("seeds", 1), "seed")
    if t.get("splits", 1) > 1:
        repeats += f" on each of {count(t['splits'], 'split')} of the data"
    out.append(f"Each setting and method learned with {repeats} from {joined(t.get('sizes') or [])} labelled texts, "
               "those of validation included.")  # fmt: skip
    return out


def use(s: Study) -> dict[str, str] | None:
    """Where the model is that new texts would be labelled with."""
    named = (s.t.get("chosen") or {}).get("folder")
    if not named:
        return None
    place = f"{words.place(s.folder)}/{named}"
    return {"run": words.typed(place), "model": words.literal(f"{place}/model")}
