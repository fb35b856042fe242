"""One tree of errors, each with an exit code and a way to mend it; and the nearest known word."""

from __future__ import annotations

import pytest

import minibert
from minibert import errors

EXIT_CODES = {
    "WeightsError": 2,
    "ConfigError": 2,
    "TokenizerError": 2,
    "DataError": 2,
    "TrainingError": 1,
    "EnvironmentProblem": 1,
    "OutOfMemory": 1,
}


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_error_is_in_the_tree_and_public(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.MiniBertError) and getattr(minibert, name) is kind
    assert kind.exit_code == EXIT_CODES[name]


def test_no_error_is_missing_from_the_table():
    found = {
        n for n, x in vars(errors).items() if isinstance(x, type) and issubclass(x, errors.MiniBertError)
    }
    assert found == {*EXIT_CODES, "MiniBertError"}


def test_the_message_ends_with_how_to_mend_it():
    assert str(errors.DataError("row 7 is empty", "Remove it.")) == "row 7 is empty\nRemove it."
    assert str(errors.DataError("row 7 is empty")) == "row 7 is empty"


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("trian", ["train", "test"], '; did you mean "train"?'),
        ("xyz", ["train", "test"], ""),
        ("x", [], ""),
        (3, [30, 4], '; did you mean "30"?'),
    ],
)
def test_nearest(word, known, expected):
    assert errors.nearest(word, known) == expected
