"""The one tree of errors. A message says what is wrong, where, and how to mend it.

Every error that reaches a user is one of these; anything else is a bug. `exit_code` is what the
command line ends with: 2 when the user's input is wrong, 1 when the work failed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class MiniBertError(Exception):
    """Base of all: `MiniBertError(what_and_where, how_to_mend)`."""

    exit_code = 2
    told: bool | None = None  # of several processes: whether another one has said it

    def __init__(self, message: str, fix: str = ""):
        super().__init__(message)
        self.message, self.fix = message, fix

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message


class WeightsError(MiniBertError):
    """A checkpoint is missing, damaged, or does not fit its config."""


class ConfigError(MiniBertError):
    """A config.json, a spec or an option asks for what does not exist or does not hold."""


class TokenizerError(MiniBertError):
    """Tokenizer files are missing or damaged, or a text can't be tokenized as asked."""


class DataError(MiniBertError):
    """A table, a column, a label or a text is not what the task needs."""


class TrainingError(MiniBertError):
    """Training can't go on: a loss or gradient is not finite, or nothing would be trained.

    places   the texts it happened on, by their place among the training texts
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "", places: Iterable[int] = ()):
        super().__init__(message, fix)
        self.places = tuple(places)


class EnvironmentProblem(MiniBertError):
    """The machine lacks something: a network, a device, disk space, an optional package."""

    exit_code = 1


class OutOfMemory(EnvironmentProblem):
    """Memory ran out, on a card or in RAM: less at once may do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean "x"?' for the known name closest to `word`, or ''."""
    close = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


def as_options(text: str) -> str:
    """A message for verbs that take a table by itself: a spec's `[data] encoding = "x"` is `--encoding "x"` there."""
    return re.sub(r"\[data\] (separator|encoding|sheet)( to| =)?", r"--\1", text)
