"""Further test tables, of other languages or years: what those who learned from all texts answer there.

In:  everything scored (scores.Scored), and what was chosen.   Out: "transfer" of study.json, a dict a table.
"""

from __future__ import annotations

from typing import Any

from .. import answers, data
from ..folder import ANSWERS
from ..kinds import KINDS
from . import compare, store
from .choose import cells_of
from .compare import Replicate
from .plan import stored_as


def scored(s: Any, last: dict[str, Any]) -> list[dict[str, Any]]:
    """Each table: the chosen network and traditional method, and whoever needs little or no training."""
    size, chosen = last["size"], (last["fine_tuned"], last["traditional"])
    names = [n for n in s.everyone if n in chosen or s.role(n) in ("frozen", "guess", "floor")]
    out = []
    for word in s.plan.study.transfer:
        every = {name: replicates(s, name, word, size) for name in names}
        facts = (
            next((fact["parts"][stored_as(word)] for fact in s.facts(chosen[0], size)), {})
            if chosen[0]
            else {}
        )
        seconds = next((row["seconds_per_1000"] for row in s.rows if row["name"] == chosen[0]), None)
        out.append(
            {
                "name": word,
                "n": facts.get("rows"),
                "pieces_per_word": facts.get("pieces_per_word"),
                "unknown": facts.get("unknown_share"),
                "minutes_per_1000": None if seconds is None else seconds / 60,
                "scores": {name: means(s, found) for name, found in every.items() if found},
            }
        )
    return out


def replicates(s: Any, name: str, word: str, size: int) -> list[Replicate]:
    """Truth and answers of every repetition; the texts are the same in all of them."""
    task, out, stored = s.plan.task, [], stored_as(word)
    for cell in cells_of(s.plan, size):
        folder = s.out / s.everyone[name] / cell.folder
        if not (folder / ANSWERS / f"{stored}.npy").is_file():
            continue
        labels = tuple(store.facts_of(folder)["labels"])
        part = data.further_part(task, word, store.locator(task), labels, [])
        known = answers.all_labels(s.kind, s.labels, part.targets) if KINDS[s.kind].many else s.labels
        said = store.get(folder, s.kind, part, stored)
        out.append(Replicate(*(answers.scored(s.kind, x, known) for x in (part.targets, said.targets))))
    return out


def means(s: Any, found: list[Replicate]) -> dict[str, Any]:
    """Every metric with its interval."""
    classes = len(s.labels) or None
    return {metric: compare.mean_score(s.kind, metric, found, num_classes=classes) for metric in s.metrics}
