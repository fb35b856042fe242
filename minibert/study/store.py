"""What a contestant answered in a cell, on disk: answers/PART.npy and answers.json, unscored.

In:  a folder.   Out: Said, in the form that metrics take.

A fine-tuned model leaves probabilities (n, C), of tokens (words, C), or values (n,); a method that gives no
probabilities leaves class numbers (n,), of tokens (words,), or which labels a text has (n, C) bool. The labels that
numbers stand for are in answers.json: a small draw of texts may know fewer than a large one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import answers, catalogue, system
from ..data import Part
from ..errors import DataError
from ..folder import ANSWERS, finite, read_json
from ..kinds import KINDS, words_of
from ..results import write_array
from ..spec import TaskSpec

FACTS = "answers.json"


@dataclass(frozen=True)
class Said:
    """Answers to one part. targets: (n,) as Part's; probabilities: (n, C) in the order of `labels`, or None."""

    targets: np.ndarray
    probabilities: np.ndarray | None
    labels: tuple[str, ...]

    def probable(self, labels: tuple[str, ...]) -> np.ndarray | None:
        """(n, C) in the order of all the `labels` of a study; what the contestant doesn't know has 0."""
        if self.probabilities is None:
            return None
        out = np.zeros((len(self.probabilities), len(labels)))
        out[:, [labels.index(label) for label in self.labels]] = self.probabilities
        return out


def locator(task: TaskSpec) -> Callable[[str], Path]:
    """A function that finds the tables that a spec names."""
    return lambda word: catalogue.locate_data(word, task.folder)


def facts_of(folder: Path) -> dict[str, Any]:
    """answers.json; {} where there is none."""
    return read_json(folder / FACTS)


def files_of(folder: Path) -> list[Path]:
    """The answers in a folder."""
    return sorted((folder / ANSWERS).glob("*.npy"))


def put(
    folder: Path, kind: str, labels: tuple[str, ...], found: dict[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Store a method's answers to each part, (n,) in Part's form or (n, C) probabilities, and facts; the facts last."""
    for name, said in found.items():
        array = said.astype(np.float32) if said.ndim > 1 else as_numbers(kind, said, labels)
        write_array(folder / ANSWERS / f"{name}.npy", array)
    text = json.dumps(finite({"labels": list(labels), **facts}), indent=1, ensure_ascii=False)
    system.write_text(folder / FACTS, text + "\n")


def array(folder: Path, name: str) -> np.ndarray:
    """The numbers that were stored for a part; a file that holds objects instead is refused."""
    try:
        return np.load(folder / ANSWERS / f"{name}.npy", allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise DataError(f"{folder / ANSWERS / name}.npy can't be read: {problem}") from None


def get(folder: Path, kind: str, part: Part, name: str) -> Said:
    """What was answered to `part`, which is stored as `name`."""
    found = array(folder, name)
    labels = tuple(facts_of(folder)["labels"])
    words = np.array([len(words_of(text)) for text in part.texts]) if KINDS[kind].words else None
    likely = found.ndim > 1 and found.dtype != bool
    said = answers.said(kind, found, labels, words) if likely else as_targets(kind, found, labels, words)
    return Said(said, found.astype(float) if likely and words is None else None, labels)


def as_numbers(kind: str, said: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """Targets as an array without objects."""
    wanted = answers.scored(kind, said, labels) if kind != "tokens" else answers.tag_numbers(said, labels)
    return np.concatenate([*wanted, np.zeros(0, np.int64)]) if kind == "tokens" else np.asarray(wanted)


def as_targets(kind: str, found: np.ndarray, labels: tuple[str, ...], words: np.ndarray | None) -> np.ndarray:
    """The way back."""
    names = np.fromiter(labels, object, len(labels))
    if not KINDS[kind].labels:
        return found.astype(float)
    if found.dtype == bool:
        return answers.rows(tuple(names[row]) for row in found)
    if words is None:
        return names[found] if len(found) else names[:0]
    return answers.rows(tuple(names[tags]) for tags in np.split(found, np.cumsum(words)[:-1]))
