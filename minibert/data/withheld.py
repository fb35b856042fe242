"""A test part without its labels, for whatever trains, tunes or chooses and must not see them.

In:  Splits.   Out: the same, whose test part refuses to tell its labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

from .parts import Splits


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


def withheld(splits: Splits) -> Splits:
    """The same parts; the test part's labels are not among them."""
    return dataclasses.replace(
        splits, test=dataclasses.replace(splits.test, targets=Withheld(len(splits.test)))
    )
