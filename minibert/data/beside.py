"""One text a line, and its label on the same line of a file beside it: train_text.txt and train_labels.txt.

In:  the two files' texts.   Out: the columns "text" and "label", a row for every line.

TweetEval and its like come so. A line ends at a line feed and nowhere else: tweets hold other marks that
readers take for the end of a line, and from there on every text would get its neighbour's label.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .separated import Read

TEXTS, LABELS = "_text.txt", "_labels.txt"  # how the two names end


def labels_beside(path: Path) -> Path | None:
    """The file with the labels of a file's lines, or None where `path` is no such file."""
    beside = path.with_name(path.name.removesuffix(TEXTS) + LABELS)
    return beside if path.name.endswith(TEXTS) and beside.is_file() else None


def from_lines(texts: str, labels: str, path: Path, beside: Path) -> Read:
    """A row for each line; DataError where one file has more lines than the other. A blank text stays a row."""
    rows = [list(pair) for pair in zip(lines_in(texts), lines_in(labels))]
    counts = [len(lines_in(text)) for text in (texts, labels)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{path} has {counts[0]:,} lines, {beside.name} {counts[1]:,}.",
            "Each line of the one must hold the label of the same line of the other.",
        )
    note = f"{path.name}: one text a line; the labels were read from {beside.name}, line by line."
    return ["text", "label"], rows, list(range(1, len(rows) + 1)), (note,)


def lines_in(text: str) -> list[str]:
    """The lines of a text, without their ends."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
