"""A test part without its labels, for whatever trains, tunes or chooses and must not see them.

In:  Splits.   Out: the same, whose test part refuses to tell its labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

from .parts import Part, Splits


class SealBroken(RuntimeError):
    """Something read the labels of the test part before the choices were made."""


class Withheld:
    """Stands where the test part's targets were: it knows how many there are, and nothing else."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def refuse(self, *wish: Any, **words: Any) -> NoReturn:
        """Whatever is asked for."""
        raise SealBroken("the labels of the test part are under seal until all choices are made")

    __getitem__ = __iter__ = __array__ = __eq__ = __contains__ = refuse
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse(name)


def withheld(splits: Splits, label: str) -> Splits:
    """The same parts; the test part's labels are not among them, and the table that they share has none of them
    in its column `label`, either."""
    bare = without_labels(splits.test, label)
    parts = {
        name: dataclasses.replace(part, table=bare.table) if part.table is splits.test.table else part
        for name, part in (("train", splits.train), ("validation", splits.validation))
    }
    return dataclasses.replace(splits, **parts, test=bare)


def without_labels(part: Part, label: str) -> Part:
    """A part that refuses to tell its labels, of a table in which its rows have none."""
    frame = part.table.frame.copy()
    frame.iloc[part.rows, frame.columns.get_loc(label)] = ""
    table = dataclasses.replace(part.table, frame=frame)
    return dataclasses.replace(part, targets=Withheld(len(part)), table=table)
