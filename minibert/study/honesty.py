"""What in the data would flatter a score: copies, authors in two parts, parts that differ in their labels.

In:  Parts, in the order train, validation, test.
Out: plain dicts and lists for JSON. Texts are named by their row numbers; no text is in what is returned.

verdicts.py says in sentences what of this a reader should know.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..data.parts import Part, column, text_keys
from ..data.splits import label_order
from ..kinds import KINDS, each_label
from .near import THRESHOLD, near_duplicates

TENTHS = np.arange(1, 10) / 10
PERMUTATIONS = 999


def copies(parts: Sequence[Part], threshold: float = THRESHOLD) -> list[dict[str, Any]]:
    """Texts of each part that stand in a part before it, the same or nearly so; of a pair of texts, both together.

    [{"part", "of": the part before, "texts": how many `part` has, "exact", "near", "threshold",
      "pairs": [{"place": in the part, "row", "other_row", "similarity"}, ...], the most alike first}, ...]
    """
    out = []
    for first, part in itertools.combinations(parts, 2):
        found = near_duplicates(_whole(first), _whole(part), threshold)
        pairs = [
            {
                "place": pair["test"],
                "row": int(part.rows[pair["test"]]),
                "other_row": int(first.rows[pair["train"]]),
                "similarity": pair["similarity"],
            }
            for pair in found.pop("pairs")
        ]
        out.append({"part": part.name, "of": first.name, **found, "pairs": pairs})
    return out


def _whole(part: Part) -> list[str]:
    """Each text with its pair, which two rows must share to be the same."""
    return [f"{text}\0{pair}" if pair else text for text, pair in text_keys(part)]


def shared_groups(parts: Sequence[Part], name: str) -> dict[str, Any]:
    """Values of the column `name` (authors, sources) that stand in more than one part; empty cells are nobody.

    {"column", "count": how many values, "groups": [{"group", "rows": {part: texts}}, ...], the largest first,
     "rows": {part: texts of it whose group stands in a part before it}, "texts": {part: all texts of it}}
    DataError where a table has no such column.
    """
    rows: dict[str, Counter] = defaultdict(Counter)
    for part in parts:
        for cell in column(part.table, name, "group")[part.rows]:
            if cell.strip():
                rows[cell][part.name] += 1
    shared = {group: counts for group, counts in rows.items() if len(counts) > 1}
    order = sorted(shared, key=lambda group: (-shared[group].total(), group))
    before = [part.name for part in parts]
    return {
        "column": name,
        "count": len(shared),
        "groups": [{"group": group, "rows": dict(shared[group])} for group in order],
        "rows": {
            part.name: sum(
                counts[part.name]
                for counts in shared.values()
                if any(other in counts for other in before[:place])
            )
            for place, part in enumerate(parts)
            if place
        },
        "texts": {part.name: len(part) for part in parts},
    }


def label_shares(
    kind: str, parts: Sequence[Part], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, Any]:
    """How each part's labels are distributed, and whether two parts differ by more than chance.

    {"labels": [{"label", "counts": {part: n}, "shares": {part: share}}, ...],
     "distances": [{"part", "of", "distance", "by_chance", "p"}, ...]}
    distance   total variation: the share of labels that would have to be others, half the sum of differences
    by_chance  its mean where the texts of both are dealt out anew; p: how often it is then as large
    Labels of one text stay together. Values are counted by tenths of all; tags by words.
    """
    targets = _binned([part.targets for part in parts]) if not KINDS[kind].labels else None
    per_text = [
        [list(each_label(kind, [target])) for target in part.targets] if targets is None else targets[place]
        for place, part in enumerate(parts)
    ]
    found = {label for texts in per_text for labels in texts for label in labels}
    names = label_order(found) if targets is None else sorted(found)
    counts = {part.name: Counter(itertools.chain(*texts)) for part, texts in zip(parts, per_text)}
    rows = []
    for label in names:
        of = {name: count[label] for name, count in counts.items()}
        shares = {name: n / max(counts[name].total(), 1) for name, n in of.items()}
        title = label if targets is None else _title(label, [part.targets for part in parts])
        rows.append({"label": title, "counts": of, "shares": shares})
    rng = np.random.default_rng(seed)
    distances = [
        {"part": parts[two].name, "of": parts[one].name}
        | _distance(per_text[one], per_text[two], names, permutations, rng)
        for one, two in itertools.combinations(range(len(parts)), 2)
    ]
    return {"labels": rows, "distances": distances}


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.quantile(np.concatenate(values), TENTHS)) if sum(map(len, values)) else np.zeros(0)


def _binned(values: Sequence[np.ndarray]) -> list[list[list[int]]]:
    """Values as numbers of tenths, in the form of labels: a list a text."""
    edges = _edges(values)
    return [[[int(i)] for i in np.searchsorted(edges, part, side="left")] for part in values]


def _title(place: int, values: Sequence[np.ndarray]) -> str:
    """What a tenth is called: "up to 4.5", "above 7"."""
    edges = _edges(values)
    return f"up to {edges[place]:.4g}" if place < len(edges) else f"above {edges[-1]:.4g}"


def _distance(
    one: list[list], two: list[list], names: Iterable[Any], permutations: int, rng: np.random.Generator
) -> dict[str, float | None]:
    """The total variation between two parts' labels, and what it is where their texts are dealt out anew."""
    place = {name: i for i, name in enumerate(names)}
    owner = np.repeat(np.arange(len(one) + len(two)), [len(labels) for labels in (*one, *two)])
    codes = np.array([place[label] for labels in (*one, *two) for label in labels], np.int64)

    def between(second: np.ndarray) -> float:
        """`second` (texts,): 1.0 where a text belongs to the second part."""
        weights = second[owner]
        b = np.bincount(codes, weights, len(place))
        a = np.bincount(codes, 1 - weights, len(place))
        return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2) if a.sum() and b.sum() else float("nan")

    second = np.repeat([0.0, 1.0], [len(one), len(two)])
    distance = between(second)
    if np.isnan(distance):
        return {"distance": None, "by_chance": None, "p": None}
    dealt = np.array([between(rng.permutation(second)) for _ in range(permutations)])
    as_large = int((dealt >= distance - 1e-12).sum())
    return {
        "distance": distance,
        "by_chance": float(np.nanmean(dealt)),
        "p": (as_large + 1) / (permutations + 1),
    }
