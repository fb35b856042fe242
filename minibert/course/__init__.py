"""The checks of the course in docs/course/: an exercise by name, an answer, and what is wrong with it.

In:  "chapter3.1" ("chapter3" is its first exercise), and an answer: numbers, text, a list or a function.
Out: True where it is right. Where it isn't, False, and a printed sentence that names the rule it breaks,
     never the solution.

inside.py holds the checks of chapters 1 to 4, whole.py those of 5 and 6, learning.py those of 7 and 8, fast.py those of 9. They are
imported at the first check: importing this loads nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import DataError, nearest

FILES = ("inside", "whole", "learning", "fast")


class Wrong(Exception):
    """What is wrong with an answer, raised by the helpers in given.py: "it has the shape (6, 2), not (6, 6)"."""


@dataclass(frozen=True)
class Exercise:
    """look: answer -> "" or what is wrong; expects: what is asked for; right: what to say of a right answer."""

    look: Callable[[object], str]
    expects: str
    right: str


EXERCISES: dict[str, Exercise] = {}


def exercise(name: str, *, expects: str, right: str) -> Callable[[Callable], Callable]:
    """Decorate a check, `answer -> ""` or what is wrong, with its exercise's name.

    expects   what an answer is, for whoever has none yet: "an array (6, 6), rounded or not"
    right     a sentence that says more than "right": what the answer shows
    """

    def register(look: Callable[[object], str]) -> Callable[[object], str]:
        EXERCISES[name] = Exercise(look, expects, right)
        return look

    return register


def exercises() -> dict[str, Exercise]:
    """Every exercise by name, "chapter1.1" first."""
    for file in FILES:
        importlib.import_module(f".{file}", __name__)
    return EXERCISES


def check(name: str, answer: object) -> bool:
    """Whether the answer is right; prints a sentence about it. DataError for an exercise that isn't there."""
    full = name if "." in name else f"{name}.1"
    known = exercises()
    if full not in known:
        raise DataError(
            f"the course has no exercise {name!r}{nearest(full, known)}", f"It has {', '.join(known)}."
        )
    one = known[full]
    if answer is None:
        print(f"{full}: no answer yet. Asked for: {one.expects}.")
        return False
    try:
        reason = one.look(answer)
    except Wrong as wrong:
        reason = str(wrong)
    print(f"{full}: not yet. {sentence(reason)}" if reason else f"{full}: right. {one.right}")
    return not reason


def sentence(words: str) -> str:
    """The words with a large first letter, and a full stop unless they are a question."""
    return words[:1].upper() + words[1:] + ("" if words.endswith("?") else ".")
