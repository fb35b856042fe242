"""The page of several runs: what their scores are on average, how far they spread, what validation chose.

In:  a folder with summary.json and spec.toml.   Out: what several.html.j2 sees.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ..kinds import KINDS
from ..metrics import HIGHER_IS_BETTER, METRICS
from ..spec import brief, default_metric
from . import tables, words
from .read import Run, read_run, table
from .spread import Column, Spread, by_value, shared_axis, strip
from .words import count, number, signed

MOST_PANELS = 12  # of a grid; a larger one is told by its table alone
FULL = 160  # letters of a reason that stand in a table


@dataclass(frozen=True)
class Several:
    """summary.json, and the spec that all runs share."""

    run: Run
    table: dict[str, Any]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Each with its runs and their spreads."""
        return self.table["settings"]

    @property
    def swept(self) -> dict[str, list[Any]]:
        """Key -> its values; {} where only seeds differ."""
        return self.table["swept"]

    @property
    def shown(self) -> dict[str, Any] | None:
        """The setting whose scores lead the page: the chosen one, or the only one."""
        ranked = self.table["ranked"]
        place = ranked[0] if ranked else 0 if not self.swept else None
        return None if place is None else self.settings[place]

    @property
    def done(self) -> list[dict[str, Any]]:
        """The runs that have scores."""
        return [row for one in self.settings for row in one["runs"] if row["status"] == "completed"]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Those that have none, each with its setting's name."""
        return [
            {**row, "name": one["name"]}
            for one in self.settings
            for row in one["runs"]
            if row["status"] != "completed"
        ]

    @property
    def drawn(self) -> str:
        """The metric of the test picture: the one that chose, or where that is the loss the kind's own."""
        chosen, tested = self.table["metric"], [n for row in self.done for n in row["test"]]
        return chosen if chosen in tested else next(iter(tested), default_metric(self.run.kind, ()))

    @property
    def over(self) -> bool:
        """Whether no run is still to come."""
        return self.table["status"] == "completed"


def read_several(folder: Path) -> Several:
    """Read a folder of several runs. DataError where it is none or a file is damaged."""
    return Several(read_run(folder), table(folder / "summary.json"))


def context(folder: Path, limits: dict[str, tuple]) -> dict[str, Any]:
    """What the template sees. `limits`: metric -> the ends of its scale."""
    s = read_several(folder)
    return {
        "s": s, "run": s.run, "kind": KINDS[s.run.kind], "t": s.table, "name": s.run.spec.task.name,
        "lead": lead(s), "cautions": cautions(s), "lines": lines(s), "metrics": metrics(s),
        "chose": title(s.table["metric"]), "choice": choice(s), "notes": notes(s),
        "panels": panels(s, limits) if s.swept else [], "names": [spoken(key) for key in s.swept],
        "baseline": baseline(s), "about": about(s), "words": words, "tables": tables, "link": link, "said": said,
        "cut": cut, "named": named, "reasons": reasons(s), "brief": brief,
    }  # fmt: skip


# --- words ----------------------------------------------------------------------------------------


def title(metric: str) -> str:
    """A metric's name on the page."""
    return "loss" if metric == "loss" else words.METRIC[metric][0]


def spoken(key: str) -> str:
    """A key as words: learning rate."""
    return key.rpartition(".")[2].replace("_", " ")


def named(values: dict[str, Any]) -> str:
    """A setting in words: learning rate 1e-5, batch size 8."""
    return ", ".join(f"{spoken(key)} {brief(value)}" for key, value in values.items())


def said(spread: Spread, form: Any = number) -> str:
    """± 0.004, or nothing where one run has no spread."""
    return "" if spread.get("deviation") is None else f"± {number(spread['deviation'])}"


def link(row: dict[str, Any]) -> str:
    """The address of a run's report from this page."""
    return quote(f"{row['folder']}/report.html")


def reasons(s: Several) -> list[tuple[str, str, str, str]]:
    """(status, seeds, setting, the first one's reason) of the runs that failed."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in s.failed:
        groups.setdefault((row["status"], row["name"]), []).append(row)
    out = []
    for (status, name), rows in groups.items():
        seeds = ", ".join(str(row["seed"]) for row in rows)
        out.append((status, f"seed{'s' * (len(rows) > 1)} {seeds}", name, cut(rows[0]["reason"])))
    return out


def cut(text: str) -> str:
    """A reason's first line, as long as a table bears."""
    line = text.strip().split("\n")[0]
    return line if len(line) <= FULL else line[: FULL - 1] + "…"


def baseline(s: Several) -> str:
    """The baseline's name; with some seeds another one may have been the best on validation."""
    return " / ".join(dict.fromkeys(row["baseline_name"] for row in s.done if row["baseline_name"]))


def metrics(s: Several) -> list[str]:
    """The test scores that there are, in the order of the page."""
    return [name for name in METRICS[s.run.kind] if any(name in row["test"] for row in s.done)]


@dataclass(frozen=True)
class Line:
    """One metric of the setting that leads the page."""

    name: str
    title: str
    about: str
    ours: Spread
    theirs: Spread
    gain: Spread
    verdict: str
    picture: Markup


def lines(s: Several) -> list[Line]:
    """Its metrics, with a picture each."""
    out, one = [], s.shown
    runs = [row for row in one["runs"] if row["status"] == "completed"] if one else []
    for name in metrics(s) if runs else ():
        ours, theirs, gain = (one[part].get(name) or {"n": 0} for part in ("test", "baseline", "difference"))
        if not ours["n"]:
            continue
        points = [
            [v for row in runs if (v := row[part].get(name)) is not None] for part in ("test", "baseline")
        ]
        drawn = strip(
            title(name),
            [("ours", "the network", points[0], ours), ("theirs", baseline(s), points[1], theirs)],
        )
        about = words.OF_WORDS.get(name) if KINDS[s.run.kind].words else None
        told = verdict(name, [row["difference"].get(name) for row in runs])
        out.append(Line(name, title(name), about or words.METRIC[name][1], ours, theirs, gain, told, drawn))
    return out


def verdict(name: str, gains: list[float | None]) -> str:
    """With how many seeds the network was better than the baseline on the same texts."""
    known = [g for g in gains if g is not None]
    better = sum((g > 0) == HIGHER_IS_BETTER[name] and g != 0 for g in known)
    if len(known) < 2:
        return ""
    return f"The network is better with {'all' if better == len(known) else better} of {len(known)} seeds."


def lead(s: Several) -> Markup:
    """What was run and what it came to, in two or three sentences."""
    who = "Several models were" if "model.weights" in s.swept else f"{s.run.spec.model.weights} was"
    found, one = lines(s), s.shown
    seeds = len(s.table["seeds"])
    what = f"{count(len(s.settings), 'setting')}, " if s.swept else ""
    what += f"{count(seeds, 'seed')}{' each' if s.swept and seeds > 1 else ''}"
    if not found:
        return Markup("{} to be fine-tuned with {}. There are no test scores.").format(who, what)
    first = found[0]
    start = Markup("{} fine-tuned with {}. ").format(who, what)
    if s.swept:
        score = one["validation"][s.table["metric"]]["mean"]
        start += f"Validation chose {named(one['values'])} ({title(s.table['metric'])} {number(score)}). "
    tested = next(row["n"][first.name] for row in one["runs"] if row["status"] == "completed")
    name = "accuracy" if first.name == "accuracy" else first.title
    reached = Markup("It reached {} <strong>{}</strong>{} on {}").format(
        name, number(first.ours["mean"]), ranged(first.ours), count(tested, "test text")
    )
    if not first.theirs["n"]:
        return start + reached + "."
    other = Markup(
        "; {}, trained on the same texts, <strong>{}</strong>{}. The difference is <strong>{}</strong>{}."
    )
    theirs, gain = first.theirs, first.gain
    return start + reached + other.format(
        baseline(s), number(theirs["mean"]), ranged(theirs), signed(gain["mean"]), ranged(gain, signed)
    )  # fmt: skip


def ranged(spread: Spread, form: Any = number) -> str:
    """How far a mean's runs spread, in brackets; nothing for a single run."""
    if spread.get("deviation") is None:
        return ""
    if spread["min"] == spread["max"]:
        return " every time"
    return f" on average (standard deviation {number(spread['deviation'])}, {form(spread['min'])} to {form(spread['max'])})"


def cautions(s: Several) -> list[str]:
    """What a reader must know first."""
    out, t = [], s.table
    tried = len(s.done) + len(s.failed)
    if not s.over:
        more = f" {t['message'][0].upper()}{t['message'][1:]}." if t["message"] else ""
        out.append(f"{tried} of {t['planned']} runs are done; what stands here is so far.{more}")
    if s.failed:
        what = (
            "A setting with such a run can’t be chosen."
            if s.swept
            else "The mean leaves them out, which flatters it."
        )
        out.append(f"{count(len(s.failed), 'run')} of {tried} failed: see below. {what}")
    if "validation" in t["unequal"]:
        out.append("The settings were validated on different texts, so a small lead says little.")
    if "test" in t["unequal"]:
        out.append("The settings were tested on different texts: their test scores can’t be compared.")
    return out


def choice(s: Several) -> list[str]:
    """Who was chosen, by how much, and what that is worth."""
    ranked, metric = s.table["ranked"], s.table["metric"]
    if not ranked:
        return ["No setting could be chosen: none has a validation score from each of its runs."]
    best = s.settings[ranked[0]]
    score, seeds = best["validation"][metric], len(best["runs"])
    what = "lowest loss" if metric == "loss" else f"best {title(metric)}"
    mean = f", on average over {seeds} seeds" if seeds > 1 else ""
    out = [
        f"Chosen on validation: {named(best['values'])}, with the {what} there{mean}: {number(score['mean'])} {said(score)}".strip()
        + "."
    ]
    if len(ranked) > 1:
        other = s.settings[ranked[1]]
        gap = abs(score["mean"] - other["validation"][metric]["mean"])
        out.append(f"The next, {named(other['values'])}, is {number(gap)} behind.")
        if score["deviation"] is not None and gap <= score["deviation"]:
            out.append(
                "That is no more than one standard deviation over seeds: these two are hardly told apart."
            )
    if seeds == 1:
        out.append("With one seed nothing says how much of such a lead is chance; --seeds 3 would.")
    return out


def notes(s: Several) -> list[str]:
    """How to read the numbers."""
    out = []
    if s.swept:
        out.append(
            "The test scores had no part in the choice. The chosen setting’s validation score is the best of "
            f"{len(s.settings)} and so tends to be too good; its test score does not."
        )
    if len(s.table["seeds"]) > 1:
        out.append(
            "± is the standard deviation over seeds (over n − 1). A seed moves the new head, the order of the texts, "
            "dropout, and which texts are drawn to learn from and to validate, never those that are tested. How far a "
            "score would move with other test texts is another matter: each run’s own report has that interval."
        )
    return out


def about(s: Several) -> list[str]:
    """What the runs were, for those who want to repeat them."""
    t, out = s.table, []
    parts = s.done[0]["texts"] if s.done else {}
    if parts:
        texts = ", ".join(
            f"{n:,} {what}" for what, n in zip(("to learn from", "to validate", "to test"), parts.values())
        )
        out.append(f"Texts of {'a' if s.swept else 'each'} run: {texts}.")
    if t["minutes"]:
        out.append(f"All runs together took {tables.duration(t['minutes'])}.")
    return out


# --- pictures -------------------------------------------------------------------------------------


def panels(s: Several, limits: dict[str, tuple]) -> list[dict[str, Any]]:
    """Two rows of pictures, validation and then test: a picture for each combination of the keys but one."""
    across = max(s.swept, key=lambda key: (numeric(s.swept[key]), len(s.swept[key])))
    others = {key: values for key, values in s.swept.items() if key != across}
    combos = [dict(zip(others, values)) for values in itertools.product(*others.values())]
    if len(combos) > MOST_PANELS or not s.done:
        return []
    values = sorted(s.swept[across]) if numeric(s.swept[across]) else s.swept[across]
    out = []
    for part, metric in (("validation", s.table["metric"]), ("test", s.drawn)):
        rows = [
            [column(s, {across: value, **combo}, across, part, metric) for value in values]
            for combo in combos
        ]
        y = shared_axis(rows, limits.get(metric, (0, None)))
        name = f"{title(metric)} on {part} by {spoken(across)}"
        drawn = [by_value(f"{name}, {named(combo)}".rstrip(", "), row, y, joined=part == "validation" and numeric(values))
                 for combo, row in zip(combos, rows)]  # fmt: skip
        figures_of = [{"caption": named(combo), "picture": one} for combo, one in zip(combos, drawn)]
        higher = metric != "loss" and HIGHER_IS_BETTER[metric]
        out.append(
            {
                "part": part,
                "title": title(metric),
                "across": spoken(across),
                "higher": higher,
                "figures": figures_of,
            }
        )
    return out


def numeric(values: list[Any]) -> bool:
    """Whether all are numbers, which have an order."""
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def column(s: Several, values: dict[str, Any], across: str, part: str, metric: str) -> Column:
    """What stands above one value."""
    label = brief(values[across])
    place = next((i for i, one in enumerate(s.settings) if one["values"] == values), None)
    if place is None:
        return Column(label, [], {})
    one = s.settings[place]
    rows = [row for row in one["runs"] if row["status"] == "completed"]
    known = [v for row in rows if (v := row[part].get(metric)) is not None]
    theirs = (one["baseline"].get(metric) or {}).get("mean") if part == "test" else None
    chosen = s.table["ranked"][:1] == [place]
    return Column(label, known, one[part].get(metric) or {}, theirs, len(rows) < len(one["runs"]), chosen)
