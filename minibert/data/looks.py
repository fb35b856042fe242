"""A look at parts of the data, by what their kind of task makes worth knowing.

In:  Parts.   Out: findings and tables in a Findings: duplicates, leaks, labels, tags, lengths, odd characters.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..counts import spans
from ..kinds import KINDS, each_label, has_entities
from .findings import Findings, Grid
from .parts import Part, count_of, folded, stray_tags, text_keys
from .separated import excerpt
from .splits import label_order

QUANTILES = {"shortest": 0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "longest": 1}
FEW = 10  # classes with fewer training rows are named
LONG_SENTENCE = 1000  # words from which a text of tagged words looks like a whole file
SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<mask>", "<unk>")

# UTF-8 read as cp1252 or latin-1: the first byte of two, three or four as a letter, then the others.
AFTER = {bytes([b]).decode(name, "ignore") for b in range(0x80, 0xC0) for name in ("cp1252", "latin-1")}
MOJIBAKE = re.compile("[ÂÃ]A|âAA|ðAAA".replace("A", f"[{''.join(sorted(AFTER))}]"))


def look_at_parts(found: Findings, parts: list[Part], kind: str) -> None:
    """Duplicates, leaks, labels, lengths, odd characters. `kind` is "" where there are no labels."""
    seen: dict[str, set] = {}
    for part in parts:
        keys = text_keys(part)
        again = len(keys) - len(set(keys))
        if again:
            found.add("texts", "warning", f"{part.name}: {count_of(again)} with a text that stood before.")
        for other, texts in seen.items():
            shared = sum(key in texts for key in keys)
            if shared:
                found.add(
                    "leak", "warning", f"{count_of(shared)} of {part.name}: the same text stands in {other}."
                )
        seen[part.name] = set(keys)
        look_at_characters(found, part)
    for look in LOOKS.get(kind, ()):
        look(found, parts, kind)
    rows = []
    for part in parts:
        rows.append((f"{part.name}, words", *quantiles([len(text.split()) for text in part.texts])))
        rows.append((f"{part.name}, characters", *quantiles([len(text) for text in part.texts])))
    found.tables.append(Grid("Lengths of the texts", ("part", *QUANTILES), rows))


def quantiles(values: Any) -> list:
    """The QUANTILES of some numbers; dashes where there are none."""
    if not len(values):
        return ["-"] * len(QUANTILES)
    return np.quantile(values, list(QUANTILES.values()), method="nearest").tolist()


def look_at_numbers(found: Findings, parts: list[Part], kind: str) -> None:
    """How the values of each part are spread."""
    rows = [(p.name, len(p), *quantiles(p.targets[np.isfinite(p.targets)])) for p in parts]
    names = ("lowest", *list(QUANTILES)[1:-1], "highest")
    found.tables.append(Grid("Targets", ("part", "rows", *names), rows))


def look_at_labels(found: Findings, parts: list[Part], kind: str) -> None:
    """Counts of each part, near-doubles, rare labels."""
    counts = [Counter(each_label(kind, part.targets)) for part in parts]
    if not counts[0]:
        return
    what, some = ("Tags", "words") if KINDS[kind].words else ("Labels", "rows")
    labels = label_order(label for count in counts for label in count)
    grid = Grid(what, ("label", *(part.name for part in parts)), [])
    grid.rows.extend((label, *(count[label] for count in counts)) for label in labels)
    totals = [count.total() for count in counts] if KINDS[kind].words else map(len, parts)
    grid.rows.append((f"all {some}" if KINDS[kind].many else "all", *totals))
    found.tables.append(grid)
    alike = defaultdict(list)
    for label in labels:
        alike[folded(label)].append(label)
    for names in (names for names in alike.values() if len(names) > 1):
        shown = ", ".join(f"{excerpt(n)} ({sum(count[n] for count in counts):,})" for n in names)
        found.add("labels", "warning", f"Labels that differ only in case, spaces or Unicode form: {shown}.")
    first, train = parts[0].name, counts[0]
    few = [label for label in labels if train[label] < FEW]
    if few:
        shown = ", ".join(f'"{label}" ({train[label]})' for label in few[:8]) + (" ..." if few[8:] else "")
        found.add(
            "labels",
            "warning",
            f"{len(few)} {'label has' if len(few) == 1 else 'labels have'} "
            f"fewer than {FEW} {some} in {first}: {shown}.",
        )
    top, most = train.most_common(1)[0]
    share = most / (train.total() if KINDS[kind].words else len(parts[0]))
    always = f'"{top}" is that of {share:.1%} of {some} of {first}'
    if not KINDS[kind].many:
        always = f'always saying "{top}" is right for {share:.1%} of {first}'
    found.add("labels", "info", f"{len(labels)} labels; {always}.")


def look_at_torn(found: Findings, parts: list[Part], kind: str) -> None:
    """Texts that stand under two labels."""
    given, stands = defaultdict(set), {}
    for part in parts:
        for key, label, row in zip(text_keys(part), part.targets, part.rows):
            given[key].add(tuple(sorted(label)) if KINDS[kind].none else label)  # a set, in any order
            stands.setdefault(key, f"that of {part.name}, {part.table.where(int(row))}")
    torn = [(key, sorted(said)) for key, said in given.items() if len(said) > 1]
    if torn:
        key, said = torn[0]
        which = excerpt(key[0], 60) if found.quotes else stands[key]
        stand = "text stands" if len(torn) == 1 else "texts stand"
        shown = [one if isinstance(one, str) else " ".join(one) or "none" for one in said]
        found.add("labels", "warning", f"{len(torn):,} {stand} under more than one label, such as "
                  f"{which}: {'; '.join(shown) if KINDS[kind].many else ', '.join(shown)}.")  # fmt: skip


def look_at_sets(found: Findings, parts: list[Part], kind: str) -> None:
    """How many labels a text has."""
    rows = []
    for part in parts:
        sizes = Counter(min(len(target), 4) for target in part.targets)
        rows.append((part.name, *(sizes[n] for n in range(5))))
    found.tables.append(Grid("Labels of a text", ("part", "none", "one", "two", "three", "more"), rows))


def look_at_tags(found: Findings, parts: list[Part], kind: str) -> None:
    """Words and entities of each part, tags that IOB2 does not allow, sentences without end."""
    entities = has_entities(each_label(kind, parts[0].targets))
    rows = []
    for part in parts:
        stray, marked = stray_tags(part.targets), sum(len(spans(tags)) for tags in part.targets)
        rows.append((part.name, len(part), sum(map(len, part.targets)), marked))
        if stray:
            found.add("tags", "warning", f"{part.name}: {stray:,} tags I-... follow no tag of their type; each "
                      "is taken to begin an entity.")  # fmt: skip
        longest = max(map(len, part.targets), default=0)
        if longest > LONG_SENTENCE:
            found.add("tags", "warning", f"{part.name}: a text has {longest:,} words: is a blank line missing "
                      "between sentences?")  # fmt: skip
    bare = {"B", "I"} & set(each_label(kind, parts[0].targets))
    if bare and not entities:
        found.add("tags", "warning", "Tags B and I without a type are read as words' own tags; as B-x and I-x, "
                  "whatever x, they would be scored as entities.")  # fmt: skip
    columns = ("part", "texts", "words", "entities")[: 4 if entities else 3]
    found.tables.append(Grid("Words", columns, [row[: len(columns)] for row in rows]))


LOOKS: dict[str, tuple[Callable[[Findings, list[Part], str], None], ...]] = {
    "classification": (look_at_labels, look_at_torn),
    "regression": (look_at_numbers,),
    "multilabel": (look_at_labels, look_at_sets, look_at_torn),
    "tokens": (look_at_tags, look_at_labels, look_at_torn),
}


def look_at_characters(found: Findings, part: Part) -> None:
    """Signs of a wrong encoding, and strings that a tokenizer has other uses for."""
    special = re.compile("|".join(map(re.escape, SPECIAL)))
    signs = (
        ("encoding", "warning", MOJIBAKE, "UTF-8 read as another encoding"),
        ("encoding", "warning", re.compile("\ufffd"), "U+FFFD, a character that was lost"),
        ("texts", "info", special, "special tokens as text, read as plain text"),
    )
    for topic, severity, pattern, what in signs:
        hits = [(i, m.group()) for i, text in enumerate(part.texts) if (m := pattern.search(text))]
        if hits:
            i, sign = hits[0]
            where = part.table.where(int(part.rows[i]))
            found.add(
                topic, severity, f"{part.name}: {count_of(len(hits))} with {what}; first {where}: {sign!r}."
            )
