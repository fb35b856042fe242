"""Checks of chapters 1 to 6: what is inside an encoder.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import numpy as np

from . import exercise
from .given import called, numbers, texts

# --- 1: tokens ------------------------------------------------------------------------------------


@exercise(
    "chapter1.1",
    expects="a function wordpieces(word, vocabulary) that gives a list of strings",
    right="Cut by letters alone: a longer match always wins, whatever the word means.",
)
def wordpieces(answer: object) -> str:
    """The longest piece first, ## inside a word, and one [UNK] for all of a word that can't be cut."""
    vocabulary = {"[UNK]": 0, "un": 1, "una": 2, "##ffa": 3, "##f": 4, "##a": 5, "##ble": 6, "a": 7, "b": 8}
    cases = {
        "una": (["una"], "the longest piece that fits is taken, here the whole word"),
        "unaffable": (["una", "##ffa", "##ble"], "at each step the longest piece that fits is taken"),
        "unaxyz": (["[UNK]"], "a word that can't be cut to its end is one [UNK], all of it"),
        "ab": (["[UNK]"], 'inside a word only pieces with "##" in front count, and "b" is none'),
    }
    for word, (wanted, rule) in cases.items():
        found = texts(called(answer, word, vocabulary), f"what the function gives for {word!r}")
        if found != wanted:
            return f"{word!r} became {found}: {rule}"
    return ""


@exercise(
    "chapter1.2",
    expects="a function positions(lengths) that gives a position for every token",
    right="Each text counts from 0, so it is read the same wherever it stands in a pack.",
)
def positions(answer: object) -> str:
    """Counted from 0 in every text."""
    from ..batch import pack

    for lengths in ((4,), (5, 11, 2), (1, 3, 1)):
        wanted = pack([[7] * n for n in lengths]).positions.numpy()
        found = numbers(called(answer, list(lengths)), wanted.shape, f"what comes for the lengths {lengths}")
        if found[0] == 1:
            return "the first token of a text has position 0, not 1"
        if np.array_equal(found, np.arange(len(found))) and len(lengths) > 1:
            return f"for the lengths {lengths} the count runs on: it begins again at 0 with each text"
        if not np.array_equal(found, wanted):
            return (
                f"for the lengths {lengths} came {found.astype(int).tolist()}: each text counts 0, 1, 2, ..."
            )
    return ""
