"""What a look at the data found: sentences by severity, and small tables.

In:  findings, one at a time.   Out: Findings, as a report for a terminal or as JSON.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SHOWN = 25  # rows of a table that text() prints


class Finding(NamedTuple):
    """One sentence; severity is "error" (a run would refuse), "warning" or "info"."""

    topic: str
    severity: str
    sentence: str


class Grid(NamedTuple):
    """A small table: the first column names the row, the others hold numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple]


@dataclass(frozen=True)
class Findings:
    """All that was found, in the order in which it should be read."""

    subject: str
    rows: list[Finding] = field(default_factory=list)
    tables: list[Grid] = field(default_factory=list)
    quotes: bool = True  # whether a sentence may quote a text

    @property
    def errors(self) -> int:
        """How many findings would stop a run."""
        return sum(row.severity == "error" for row in self.rows)

    def add(self, topic: str, severity: str, sentence: str) -> None:
        """One more finding; the same sentence is not said twice."""
        finding = Finding(topic, severity, " ".join(sentence.split()))
        if finding not in self.rows:
            self.rows.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """The findings and tables as JSON takes them."""
        return {
            "subject": self.subject,
            "findings": [row._asdict() for row in self.rows],
            "tables": [{**grid._asdict(), "rows": [list(row) for row in grid.rows]} for grid in self.tables],
        }

    def text(self) -> str:
        """A report for a terminal, the gravest first."""
        counts = Counter(row.severity for row in self.rows)
        words = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in ("error", "warning")]
        lines = [f"{self.subject}: {', '.join(words)}", ""]
        for severity in ("error", "warning", "info"):
            for row in self.rows:
                if row.severity == severity:
                    start = f"{severity:<8} {row.topic:<10} "
                    lines += textwrap.wrap(row.sentence, 100, initial_indent=start,
                                           subsequent_indent=" " * len(start),
                                           break_long_words=False, break_on_hyphens=False)  # fmt: skip
        return "\n".join(lines + [line for grid in self.tables for line in drawn(grid)]) + "\n"


def drawn(grid: Grid) -> list[str]:
    """A grid as lines of text, numbers to the right."""
    cells = [[show(cell) for cell in row] for row in (grid.columns, *grid.rows[:SHOWN])]
    cells = [[c if len(c) <= 40 else f"{c[:37]}..." for c in row] for row in cells]
    widths = [max(map(len, c)) for c in zip(*cells)]
    lines = ["", grid.title]
    for first, *others in cells:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:]))
        lines.append("  " + "  ".join([first.ljust(widths[0]), *numbers]))
    return lines + ([f"  and {len(grid.rows) - SHOWN:,} more"] if len(grid.rows) > SHOWN else [])


def show(cell: Any) -> str:
    """A cell for people: 1,234 or 0.53."""
    return cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"
