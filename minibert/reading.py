"""A task's texts to token ids: those to learn from at once, the others in a thread while training begins.

In:  Splits and a Model.   Out: Parts, token ids by the part's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from .data import Part, Splits
from .errors import DataError
from .kinds import KINDS
from .model import Model
from .spec import TaskSpec
from .tokenize import Encoded, check_texts


class Parts(dict[str, "Encoded | Future[Encoded]"]):
    """Token ids by part; a part that is still being tokenized is waited for when it is asked for."""

    def __getitem__(self, name: str) -> Encoded:
        found = super().__getitem__(name)
        if isinstance(found, Future):
            found = self[name] = found.result()
        return found

    def wait(self) -> None:
        """Until all parts are there: nothing goes on in the background any more."""
        for name in self:
            self[name]


def encode_all(task: TaskSpec, model: Model, splits: Splits) -> Parts:
    """Token ids of the three parts. DataError, with the table's name, for a text that can't be read as asked.

    All errors come before this returns: no text is left to the thread that may still be refused.
    """
    parts = (splits.train, splits.validation, splits.test)
    for part in parts:
        with table_named(part):
            check_texts(part.texts, part.rows.tolist())
            check_texts(part.pairs or (), part.rows.tolist())
    out = Parts(train=read(model, splits.train))
    sure = task.model.truncation != "error" and not KINDS[task.task.kind].words
    thread = ThreadPoolExecutor(1, "minibert-tokenize")
    for part in parts[1:]:
        out[part.name] = thread.submit(read, model, part) if sure else read(model, part)
    thread.shutdown(wait=False)
    return out


def read(model: Model, part: Part) -> Encoded:
    """One part."""
    with table_named(part):
        return model.read(part.texts, part.pairs, rows=part.rows.tolist())


@contextlib.contextmanager
def table_named(part: Part) -> Iterator[None]:
    """Let a DataError say which table and part it is about."""
    try:
        yield
    except DataError as problem:
        raise DataError(f"{part.table.path} ({part.name}): {problem.message}", problem.fix) from None
