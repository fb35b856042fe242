"""What a study runs, and in which order: settings, numbers of labelled texts, splits and seeds.

In:  a TaskSpec with its [study] table.   Out: Plan; what is wrong with it is told in one error before anything runs.

The whole learning curve comes once, from few texts to all, before any of it is repeated with another seed: the first
answer is there after the shortest run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..kinds import KINDS
from ..spec import Study, TaskSpec, brief

SIZES = (100, 500, 1000, 0)  # labelled texts, where neither [study] nor [train] says how many
LONGEST = 80  # letters of a setting's folder
# keys of [study] -> where a value of theirs stands in the spec of a run; continued pre-training has no place there
COMPARED = {
    "weights": "model.weights",
    "learning_rate": "train.learning_rate",
    "pooling": "model.pooling",
    "truncation": "model.truncation",
    "pretraining": "",
}


@dataclass(frozen=True)
class Setting:
    """One way to fine-tune. `values`: what [study] says of it; `told`: in what it differs from the others."""

    values: dict[str, Any]
    told: tuple[str, ...] = ()

    @property
    def pretraining(self) -> str:
        """What came before fine-tuning."""
        return self.values.get("pretraining", "published")

    @property
    def name(self) -> str:
        """For people: weights all-MiniLM-L6-v2, learning rate 1e-5."""
        words = [f"{key.replace('_', ' ')} {brief(self.values[key])}" for key in self.told]
        return ", ".join(words) or "fine-tuned"

    @property
    def folder(self) -> str:
        """For disks."""
        words = ",".join(f"{key}={brief(self.values[key])}" for key in self.told)
        words = re.sub(r"[^\w.,=+-]+", "-", words).rstrip(".") or "fine-tuned"
        own = hashlib.sha256(repr(sorted(self.values.items())).encode()).hexdigest()[:8]
        return words if len(words) <= LONGEST else f"{words[:LONGEST]}-{own}"


@dataclass(frozen=True)
class Cell:
    """Which texts are learned from, chosen by and tested on: so many, of this split, drawn by this seed."""

    size: int
    split: int
    seed: int

    @property
    def folder(self) -> str:
        """n-100/split-0-seed-1."""
        return f"n-{self.size}/split-{self.split}-seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """`sizes`: numbers of labelled texts from few to many; `whole`: how many there are."""

    task: TaskSpec
    study: Study
    settings: tuple[Setting, ...]
    sizes: tuple[int, ...]
    whole: int

    def cells(self) -> Iterator[Cell]:
        """In their order: the curve of the first seed first."""
        for seed, split, size in itertools.product(
            range(self.study.seeds), range(self.study.splits), self.sizes
        ):
            yield Cell(size, split, seed)

    def jobs(self) -> Iterator[tuple[Cell, int]]:
        """Every fine-tuning: its cell and which setting."""
        return itertools.product(self.cells(), range(len(self.settings)))

    def task_of(self, cell: Cell, setting: Setting | None = None) -> TaskSpec:
        """The spec of a run; without a setting, of the data alone."""
        task, t = self.task, self.task.train
        train = dataclasses.replace(
            t,
            seed=t.seed + cell.seed,
            split_seed=t.seeds["split"] + cell.split,
            examples=0 if cell.size == self.whole else cell.size,
        )
        tables = {"model": task.model, "train": train}
        for key, value in (setting.values if setting else {}).items():
            table, _, name = COMPARED[key].partition(".")
            if name:
                tables[table] = dataclasses.replace(tables[table], **{name: value})
        return dataclasses.replace(task, **tables, study=None, human=None)


def make_settings(task: TaskSpec) -> tuple[Setting, ...]:
    """Every combination of the compared values."""
    study = task.study or Study()
    given = {key: getattr(study, key) for key in COMPARED if getattr(study, key)}
    told = tuple(key for key, values in given.items() if len(values) > 1)
    return tuple(Setting(dict(zip(given, values)), told) for values in itertools.product(*given.values()))


def stored_as(word: str) -> str:
    """What the answers to a further table are called on disk."""
    return "to-" + re.sub(r"[^\w.-]+", "-", Path(word).stem)


def sizes_of(task: TaskSpec, whole: int, least: int) -> tuple[tuple[int, ...], list[str]]:
    """(numbers of labelled texts from few to many, what was left out in sentences). `least`: one text a label,
    twice; 0 and whatever is not below `whole` stand for all."""
    study = task.study or Study()
    default = (task.train.examples,) if task.train.examples else SIZES
    asked = study.examples or default
    small = [n for n in asked if 0 < n < least]
    if small and study.examples:
        raise ConfigError(
            f"[study] examples = {small[0]}: these labels need {least} texts to learn from and to choose by"
        )
    many = [n for n in asked if n > whole]
    notes = (
        [f"There are {whole:,} labelled texts, so {', '.join(f'{n:,}' for n in many)} was not to be had."]
        if many
        else []
    )
    if small:
        notes.append(
            f"{', '.join(map(str, small))} texts are too few for so many labels ({least} are needed)."
        )
    kept = {n if 0 < n < whole else whole for n in asked if n not in small}
    return tuple(sorted(kept)) or (whole,), notes


def check(task: TaskSpec) -> None:
    """ConfigError that tells all that a study can't do."""
    study, d = task.study or Study(), task.data
    out = []
    if d.folds:
        out.append(
            "[data] folds: a study has one test part; take [study] splits with [data] source and split"
        )
    if study.splits > 1 and not d.split:
        out.append("[study] splits: only [data] source with split can be split anew")
    for key in (*COMPARED, "examples", "methods", "transfer"):
        values = getattr(study, key)
        if len(set(values)) < len(values):
            out.append(f"[study] {key} names something twice")
    if set(study.pretraining) & {"mlm", "mlm+nsp"} and d.pair:
        out.append("[study] pretraining: continued pre-training is for single texts, not for pairs")
    for key, named in (("weights", lambda word: Path(word).name), ("transfer", stored_as)):
        values = getattr(study, key)
        if len({named(word) for word in values}) < len(values) == len(set(values)):
            out.append(f"[study] {key}: two have the same name, which nobody could tell apart: rename one")
    if KINDS[task.task.kind].many and d.unseen == "drop":
        out.append('[data] unseen = "drop" would test each draw of texts on others: take "wrong"')
    if task.human and bool(task.human.columns) == bool(task.human.value):
        out.append("[human] needs columns, one a rater, or else id, rater and value")
    if out:
        raise ConfigError(
            "this study can't be run, and nothing was begun:\n" + "\n".join(f"  {one}" for one in out)
        )
