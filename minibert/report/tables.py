"""The page's tables: classes, confusions, mistakes, settings, machine.

In:  a Run and its Answers.   Out: small records that the template lays out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import spec as specs
from ..counts import spans
from ..kinds import KINDS, has_entities, words_of
from .read import Answer, Run
from .words import count, number

TEASER = 260  # characters of a text that stand on the page; all of it unfolds
MOST_WORDS = 300  # of a text whose words are marked
LONGEST = 8000  # characters that unfold; the whole text is in predictions.csv


@dataclass(frozen=True)
class Confusion:
    """The matrix with its classes in the order of the page, commonest first.

    rows      (label, texts, cells), a cell being (count, share of the row)
    frequent  the commonest mistakes: (true, predicted, count, share of the true label's texts)
    unknown   test texts whose label the network can't know, which have no row
    """

    labels: list[str]
    rows: list[tuple[str, int, list[tuple[int, float]]]]
    frequent: list[tuple[str, str, int, float]]
    unknown: int

    @property
    def form(self) -> str:
        """How large the cells are drawn, and whether column heads stand upright."""
        size = "small" if len(self.labels) <= 10 else "medium" if len(self.labels) <= 26 else "large"
        flat = size == "small" and max(map(len, self.labels)) <= 9
        return f"{size} {'flat' if flat else 'upright'}"


def confusion(run: Run) -> Confusion | None:
    """The confusion matrix, or None where the run has none."""
    matrix, labels = run.metrics.get("confusion"), run.metrics.get("labels")
    if not matrix or not labels:
        return None
    order = sorted(range(len(labels)), key=lambda i: (-sum(matrix[i]), i))
    rows, mistakes = [], []
    for i in order:
        total = sum(matrix[i])
        cells = [(matrix[i][j], matrix[i][j] / total if total else 0.0) for j in order]
        rows.append((labels[i], total, cells))
        mistakes += [
            (labels[i], labels[j], n, share)
            for j, (n, share) in zip(order, cells)
            if n and labels[j] != labels[i]
        ]
    mistakes.sort(key=lambda one: (-one[2], -one[3]))
    words = (run.data.get("parts") or {}).get("test", {}).get("words")  # of tags: the matrix counts words
    tested = words or max((score.get("n", 0) for score in run.metrics.get("test", {}).values()), default=0)
    known = sum(total for _, total, _ in rows)
    return Confusion([labels[i] for i in order], rows, mistakes[:8], max(0, tested - known))


def classes(run: Run) -> list[dict[str, Any]]:
    """Precision, recall and F1 by class, the commonest class first, as in the confusion matrix."""
    found = run.metrics.get("classes") or []
    return sorted(found, key=lambda one: -one["n"])


def label_counts(run: Run) -> list[tuple[str, list[int]]]:
    """(label, texts in each part), the commonest in training first."""
    known = [(facts.get("labels") or {}) for facts in (run.data.get("parts") or {}).values()]
    labels = dict.fromkeys(label for counts in known for label in counts)
    return sorted(((label, [c.get(label, 0) for c in known]) for label in labels), key=lambda one: -one[1][0])


Piece = tuple[str, str, bool]  # words, what they are marked as ("": not), whether rightly


@dataclass(frozen=True)
class Shown:
    """A mistake as the page shows it: how the text begins, what unfolds, how much of that is left out.

    marked   of tagged words instead: (who says so, the text in pieces)
    """

    answer: Answer
    teaser: str
    text: str
    omitted: int
    facts: list[tuple[str, str]]
    marked: list[tuple[str, list[Piece]]] = field(default_factory=list)


def shown(run: Run, one: Answer) -> Shown:
    """Cut a text at a word's end and put true, predicted and the baseline's answer beside it."""
    facts = [(name, said) for name, said in FACTS[run.kind](one) if said]
    marked = marks(run, one) if KINDS[run.kind].words and run.spec.data.keep_texts else []
    return Shown(one, *cut(one.text), facts, marked)


def cut(text: str) -> tuple[str, str, int]:
    """How a text begins, to a word's end; what of it unfolds; how many characters that leaves out."""
    text = text.strip()
    end = len(text) if len(text) <= TEASER + 40 else max(text.rfind(" ", 0, TEASER), TEASER // 2)
    return text[:end], text[:LONGEST], max(0, len(text) - LONGEST)


def label_facts(one: Answer) -> list[tuple[str, str]]:
    """Who gave which label, and how sure the network was."""
    sure = "" if one.weight < 0 else f" ({number(one.weight, 2)})"
    return [("True", str(one.truth)), ("Network", f"{one.predicted}{sure}"), ("Baseline", one.baseline)]


def number_facts(one: Answer) -> list[tuple[str, str]]:
    """Who gave which value."""
    other = number(float(one.baseline)) if one.baseline else ""
    return [("True", number(one.truth)), ("Network", number(one.predicted)), ("Baseline", other)]


def set_facts(one: Answer) -> list[tuple[str, str]]:
    """Who gave which labels."""
    said = [", ".join(labels) or "none" for labels in (one.truth, one.predicted)]
    return [("True", said[0]), ("Network", said[1]), ("Baseline", one.baseline)]


FACTS = {
    "classification": label_facts,
    "regression": number_facts,
    "multilabel": set_facts,
    "tokens": lambda one: [("Wrong", f"{one.weight:g}")],
}


def marks(run: Run, one: Answer) -> list[tuple[str, list[Piece]]]:
    """The words of a text three times: as they are, as the network and as the baseline has them."""
    words = words_of(one.text)[:MOST_WORDS]
    cut = pieces_of_entities if has_entities(run.metrics.get("labels") or ()) else pieces_of_tags
    given = {"True": one.truth, "Network": one.predicted, "Baseline": tuple(words_of(one.baseline))}
    given = {who: tags[: len(words)] for who, tags in given.items() if tags}
    against = {"True": "Network", "Network": "True", "Baseline": "True"}
    return [(who, cut(words, tags, given[against[who]])) for who, tags in given.items()]


def pieces_of_entities(words: list[str], tags: tuple[str, ...], others: tuple[str, ...]) -> list[Piece]:
    """Every entity with its type; right if the other has it too."""
    out, done, right = [], 0, set(spans(others))
    for start, end, name in spans(tags):
        out += [
            (" ".join(words[done:start]), "", True),
            (" ".join(words[start:end]), name, (start, end, name) in right),
        ]
        done = end
    return [piece for piece in [*out, (" ".join(words[done:]), "", True)] if piece[0]]


def pieces_of_tags(words: list[str], tags: tuple[str, ...], others: tuple[str, ...]) -> list[Piece]:
    """The words whose tag the other has not, with it."""
    out: list[Piece] = []
    for word, tag, other in zip(words, tags, others):
        if tag == other and out and not out[-1][1]:
            out[-1] = (f"{out[-1][0]} {word}", "", True)
        else:
            out.append((word, "" if tag == other else tag, tag == other))
    return out


def settings(run: Run, defaults: bool) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(table, [(key, value, what it does)]) of the spec: the keys at their default, or the others."""
    written = run.spec.table()
    out = []
    schemas = {**specs.TABLES, **specs.OF_STUDIES}
    for name, schema in schemas.items():
        keys = [key for key in dataclasses.fields(schema) if key.name in written.get(name, {})]
        rows = [
            (key.name, specs.toml_value(written[name][key.name]), key.metadata.get("about", ""))
            for key in keys
            if (written[name][key.name] == key.default) == defaults
        ]
        out.append((name, rows))
    return [(name, rows) for name, rows in out if rows]


# key of environment.json, its name on the page
MACHINE = (
    ("cpu", "Processor"),
    ("cpu_capability", "Instructions"),
    ("cores", "Cores"),
    ("threads", "Threads"),
    ("processes", "Processes"),
    ("parallel", "Shared by"),
    ("backend", "Connected by"),
    ("device", "Device"),
    ("device_name", "Card"),
    ("dtype", "Number format"),
    ("numbers", "Trained in"),
    ("kernel", "Attention kernel"),
    ("kernel_why", "Why this one"),
    ("compile", "Compiled"),
    ("platform", "System"),
    ("python", "Python"),
    ("minibert", "minibert"),
)


def machine(run: Run) -> list[tuple[str, str]]:
    """What the run ran on and with: (name, value), those that environment.json holds."""
    known = run.environment
    rows = [(title, str(known[key])) for key, title in MACHINE if known.get(key) not in (None, "")]
    rows += [(name, str(version)) for name, version in (known.get("versions") or {}).items()]
    rows += [(f"Seed of {name}", str(seed)) for name, seed in (known.get("seeds") or {}).items()]
    return rows


def weights(run: Run) -> list[tuple[str, str]]:
    """The weights that training began with: (name, value)."""
    known = run.environment.get("weights") or {}
    rows = [
        (title, str(known[key]))
        for key, title in (("name", "Name"), ("source", "Read from"))
        if known.get(key)
    ]
    return rows + [(f"SHA-256 of {file}", found) for file, found in (known.get("sha256") or {}).items()]


def duration(minutes: float | None) -> str:
    """3.4 minutes, 2 h 05 min, or '' where it was not measured."""
    if minutes is None:
        return ""
    if minutes < 1:
        return count(round(minutes * 60), "second")
    if minutes < 90:
        return f"{minutes:.1f} minutes"
    return f"{int(minutes // 60)} h {round(minutes % 60):02d} min"


def day(started: str) -> str:
    """4 May 2031, from an ISO time; the text itself where it is none."""
    try:
        at = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{at.day} {at:%B %Y}"


def tried(run: Run) -> tuple[list[str], list[list[str]]]:
    """The baseline's candidates as a table (heads, rows); empty where it had no choice."""
    found = ((run.metrics.get("baseline") or {}).get("settings") or {}).get("tried") or []
    heads = list(dict.fromkeys(key for one in found for key in one))

    def cell(value: Any) -> str:
        return number(value) if isinstance(value, float) else "" if value is None else str(value)

    return heads, [[cell(one.get(head)) for head in heads] for one in found]
