"""Tables in, parts out.

    file -tables-> Table of strings -parts-> texts and targets -splits-> train, validation, test

check.py says what is wrong with a table before training; propose.py writes a spec for one.
"""

from .parts import Part, Splits
from .splits import class_weights, fold_splits, further_part, load_splits, without_test
from .tables import Table, from_frame, read_chunks, read_table

__all__ = [
    "Part",
    "Splits",
    "Table",
    "class_weights",
    "fold_splits",
    "from_frame",
    "further_part",
    "load_splits",
    "read_chunks",
    "read_table",
    "without_test",
]
