"""The events of history.jsonl, also for programs that draw them while a run goes on.

In:  the events, one by one.   Out: RUN/tensorboard/, which TensorBoard reads.

A tracker is a row of TRACKERS. Its package is imported in here only; that it is missing is told before
training begins. What fails later is told once and left out: no picture ends a run.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from .errors import EnvironmentProblem
from .folder import TENSORBOARD
from .progress import say

# What of an event is where it stands, or no curve.
STREAMS = {"step": "train", "evaluation": "validation"}
PLACES = ("event", "step", "epoch", "fold", "best", "texts", "tokens")


def curves(facts: dict[str, Any]) -> dict[str, float]:
    """An event's numbers by name; those of a table in it, such as the gradients' norms, as "table/row"."""
    found = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= {f"{name}/{row}": number for row, number in curves(value).items()}
        elif name not in PLACES and isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = value
    return found


class TensorBoard:
    """Scalars for TensorBoard: train/ and validation/ are its two runs, of a cross-validation those of each fold.

    In each of them steps only grow, so the first one of a run that goes on is where what an interrupted one
    wrote behind its checkpoint ends: `purge_step` has TensorBoard forget it.
    """

    def __init__(self, run: Path):
        self.folder, self.writers = run / TENSORBOARD, {}

    @staticmethod
    def check() -> None:
        """EnvironmentProblem where the package is missing."""
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as problem:
            raise EnvironmentProblem(
                f'[train] trackers = ["tensorboard"] needs the package tensorboard: {problem}',
                "pip install tensorboard, or minibert with its extra: minibert[tensorboard]. "
                "history.jsonl has the same numbers without it.",
            ) from None

    def event(self, facts: dict[str, Any]) -> None:
        """Write an event's numbers, through to the file: a killed process loses none."""
        from torch.utils.tensorboard import SummaryWriter

        if facts["event"] not in STREAMS:
            return
        stream = STREAMS[facts["event"]]
        path = self.folder / (f"fold-{facts['fold']}" if "fold" in facts else "") / stream
        if path not in self.writers:
            self.writers[path] = SummaryWriter(str(path), purge_step=facts["step"])
        for name, value in curves(facts).items():
            self.writers[path].add_scalar(name, value, facts["step"])
        self.writers[path].flush()

    def close(self) -> None:
        """End the writers' threads."""
        for writer in self.writers.values():
            writer.close()


TRACKERS = {"tensorboard": TensorBoard}


class Trackers:
    """Those that a spec names, in one: `with Trackers(names, run) as trackers: trackers.event(facts)`."""

    def __init__(self, names: tuple[str, ...], run: Path):
        self.ones = {name: TRACKERS[name](run) for name in names}

    @staticmethod
    def check(names: tuple[str, ...]) -> None:
        """EnvironmentProblem where one can't work here."""
        for name in names:
            TRACKERS[name].check()

    def event(self, facts: dict[str, Any]) -> None:
        """Tell each of them."""
        for name, one in list(self.ones.items()):
            try:
                one.event(facts)
            except Exception as problem:  # whatever goes wrong in another's package, training goes on
                say(f"{name} is left out from here on: {problem}; history.jsonl has every number")
                self.leave(name)

    def leave(self, name: str) -> None:
        """Let go of one; what it still says does not matter."""
        with contextlib.suppress(Exception):
            self.ones.pop(name).close()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.ones):
            self.leave(name)
