"""What the peers of `minibert bench encoder` share: each file is a process that reads texts when asked, and sleeps else.

In:  lines of JSON on stdin. The first is a Job; each further one asks {"name", "warm"}.
Out: a line of JSON for each on stdout: {"contestants": [...]}, then {"tokens"}, when they are read: all, or the last
     batch alone if only caches are to be warmed.

A contestant is given token ids and gives hidden states. What it needs for that counts: padding, masks, batches.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SIZES = (8, 16, 32, 64)  # texts at once, of which the fastest is taken
TRIALS = 2  # passes over every other text, of which the faster counts

Groups = list[list[int]]  # places of texts that are read at once
Read = Callable[[Groups], Iterable[np.ndarray]]  # a group each: (B, T, D), T its longest; or vectors (B, D)


@dataclass(frozen=True)
class Job:
    """What is to be read, and what we made of it.

    weights    folder in the Hugging Face layout
    texts      as strings, for those that tokenize themselves
    ids        the same as token ids, cut to max_tokens
    pad        the id that fills a rectangle up
    threads    that a contestant may use
    heads, width  of the encoder, for those that must be told
    work       folder for files of its own
    hidden     .npy file: our hidden states (N, D), the texts as they come
    vectors    .npy file: our vectors (B, D), or ""
    """

    weights: str
    texts: list[str]
    ids: list[list[int]]
    pad: int
    max_tokens: int
    threads: int
    heads: int
    width: int
    work: str
    hidden: str
    vectors: str

    def padded(self, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(B, T) int64 token ids of some texts and their mask, 1 on real tokens."""
        rows = [self.ids[place] for place in places]
        longest = max(map(len, rows))
        filled = [row + [self.pad] * (longest - len(row)) for row in rows]
        marks = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return np.array(filled, np.int64), np.array(marks, np.int64)


@dataclass(frozen=True)
class Contestant:
    """One way to read.

    make     gives Read and its settings, or several of them, of which the fastest is taken
    ordered  whether texts of like length are read together; else as they come
    size     texts at once; None: the fastest of SIZES; 0: all
    numbers  float32, or what stands in for it
    """

    name: str
    what: str
    make: Callable[[Job], Iterable[tuple[Read, dict[str, Any]]]]
    ordered: bool = True
    size: int | None = None
    numbers: str = "float32"

    def groups(self, job: Job, places: Sequence[int], size: int) -> Groups:
        """Texts that are read at once."""
        order = sorted(places, key=lambda i: len(job.ids[i])) if self.ordered else list(places)
        return [order[i : i + size] for i in range(0, len(order), size)] if size else [order]


@dataclass
class Ready:
    """A contestant that was made ready, and how far its answers are from ours."""

    name: str
    what: str
    numbers: str
    read: Read
    groups: Groups
    settings: dict[str, Any]
    error: dict[str, Any] = field(default_factory=dict)

    def timed(self, groups: Groups) -> float:
        """Seconds of reading; nothing is kept."""
        start = time.perf_counter()
        for _ in self.read(groups):
            pass
        return time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """What is told of it."""
        return {k: getattr(self, k) for k in ("name", "what", "numbers", "settings", "error")}


def one_by_one(read: Callable[[list[int]], np.ndarray]) -> Read:
    """A Read of what reads one group."""

    def all_of(groups: Groups) -> Iterator[np.ndarray]:
        for places in groups:
            yield read(places)

    return all_of


def ready(one: Contestant, job: Job) -> Ready:
    """Made ready: of its ways and sizes the fastest, by a trial on every other text."""
    every, some = range(len(job.ids)), range(0, len(job.ids), 2)
    sizes = SIZES if one.size is None else (one.size,)
    trials = []
    for read, settings in one.make(job):
        for size in sizes:
            told = settings | ({"texts at once": size} if size else {})
            new = Ready(one.name, one.what, one.numbers, read, one.groups(job, every, size), told)
            groups = one.groups(job, some, size)
            trials.append((min(new.timed(groups) for _ in range(TRIALS)) if one.size is None else 0.0, new))
    return min(trials, key=lambda trial: trial[0])[1]


def difference(one: Ready, job: Job) -> dict[str, Any]:
    """How far its hidden states of real tokens, or its vectors, are from ours: the most, and the least cosine."""
    theirs: dict[int, np.ndarray] = {}
    for places, found in zip(one.groups, one.read(one.groups)):
        of, file = ("hidden states", job.hidden) if found.ndim == 3 else ("vectors", job.vectors)
        for place, rows in zip(places, found):
            theirs[place] = np.array(rows[: len(job.ids[place])] if found.ndim == 3 else rows[None])
    if not file:
        return {}
    found = np.concatenate([theirs[i] for i in range(len(job.ids))]).astype(np.float64)
    ours = np.load(file).astype(np.float64)
    cosines = (found * ours).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(ours, axis=1)
    return {"of": of, "largest": float(np.abs(found - ours).max()), "cosine": float(cosines.min())}


def serve(contestants: Sequence[Contestant]) -> None:
    """Read the job, make ready what can be, and answer rounds until stdin ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print goes where it does no harm

        def answer(what: dict[str, Any]) -> None:
            answers.write(json.dumps(what) + "\n")
            answers.flush()

        job, running, told = Job(**json.loads(sys.stdin.readline())), {}, []
        for one in contestants:
            try:
                running[one.name] = new = ready(one, job)
                new.error = difference(new, job)
                told.append(new.facts())
            except Exception as problem:  # of a library of others: anything; its neighbours go on
                why = f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
                told.append({"name": one.name, "what": one.what, "numbers": one.numbers, "why": why})
        answer({"contestants": told})
        for line in sys.stdin:
            asked = json.loads(line)
            one = running[asked["name"]]
            groups = one.groups[-1:] if asked["warm"] else one.groups
            one.timed(groups)
            answer({"tokens": sum(len(job.ids[place]) for places in groups for place in places)})
