"""JSON Lines, Parquet and Excel: cells that have types, as the strings a CSV would hold.

In:  the bytes or lines of a file.   Out: column names and rows of strings, "" where there is nothing.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, EnvironmentProblem, nearest
from .separated import Read, excerpt

MOST_BYTES = 2 << 30  # after unpacking: a small .gz can hold a disk full of zeros


def spelled(value: Any) -> str:
    """A typed cell (Parquet, Excel, JSON) as text; whole numbers without a point, nothing as ""."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.decode(
            "utf-8"
        )  # Spark and old writers store texts so; UnicodeDecodeError is a ValueError
    if isinstance(value, float):
        if math.isnan(value):
            return ""  # what pandas writes where there is nothing
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return value.isoformat(" ") if hasattr(value, "hour") and hasattr(value, "year") else str(value)


def from_jsonl(text: str, path: Path) -> Read:
    """Rows of a file with one JSON object a line; a key that a row lacks is an empty cell."""
    if text.lstrip().startswith("["):
        raise DataError(f"{path} is one JSON array.", "One JSON object a line is wanted, without commas.")
    found = list(jsonl_objects(io.StringIO(text), path))
    names = list(dict.fromkeys(key for _, row in found for key in row))
    return names, [[row.get(n, "") for n in names] for _, row in found], [line for line, _ in found], ()


def jsonl_rows(lines: Callable[[], Iterable[str]], path: Path) -> tuple[list[str], Iterator[list[str]]]:
    """(column names, cells of each row) of a JSON Lines text, which is read twice: a late row may add a key."""
    names = list(dict.fromkeys(key for _, row in jsonl_objects(lines(), path) for key in row))
    return names, ([row.get(name, "") for name in names] for _, row in jsonl_objects(lines(), path))


def jsonl_objects(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by name) of every line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str,
                             object_pairs_hook=unique_keys)  # fmt: skip
        except ValueError as problem:
            raise DataError(f"{path}, line {number}: {problem}.", "Each line must be one object.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: {excerpt(line.strip())} is no JSON object.")
        if any(isinstance(value, (dict, list)) for value in row.values()):
            row = {k: json.loads(line)[k] if isinstance(v, (dict, list)) else v for k, v in row.items()}
        row = {key: spelled(value) for key, value in row.items()}
        half = re.search("[\ud800-\udfff]", "".join(row.values()))
        if half:
            raise DataError(f"{path}, line {number}: half a character (U+{ord(half.group()):04X}).",
                            "Write characters beyond U+FFFF whole, or as a pair of escapes.")  # fmt: skip
        yield number, row


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's keys and values; ValueError if a key stands in it twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in the object")
    return row


def from_parquet(data: bytes, path: Path) -> Read:
    """Rows of a Parquet file; numbers as Python writes them."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise EnvironmentProblem(f"{path}: Parquet files need pyarrow.", "pip install pyarrow") from None
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        columns = [[spelled(value) for value in column.to_pylist()] for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as problem:
        what = str(problem).splitlines()[0]
        raise DataError(f"{path} is no sound Parquet file: {what}", "Write it anew.") from None
    return table.column_names, [list(row) for row in zip(*columns)], None, ()


def from_xlsx(data: bytes, sheet: str, path: Path) -> Read:
    """Rows of one sheet of an Excel workbook; empty rows and columns at its edge are left out."""
    try:
        import openpyxl
    except ImportError:
        raise EnvironmentProblem(f"{path}: Excel files need openpyxl.", "pip install openpyxl") from None
    try:
        size = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
        if size > MOST_BYTES:
            raise ValueError(f"it unpacks to {size / 2**30:.3g} GiB")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        chosen = book[sheet] if sheet in book.sheetnames else book.worksheets[0]
        chosen.reset_dimensions()  # what the file says of its size; some writers say less than there is
        rows = [[spelled(value) for value in row] for row in chosen.iter_rows(values_only=True)]
    except Exception as problem:  # a damaged workbook fails in openpyxl in a dozen ways
        raise DataError(f"{path} is no Excel workbook that can be read: {problem}.") from None
    if sheet and sheet not in book.sheetnames:
        known = ", ".join(f'"{name}"' for name in book.sheetnames)
        raise DataError(
            f'{path} has no sheet "{sheet}"{nearest(sheet, book.sheetnames) or "."}', f"It has {known}."
        )
    width = max((i + 1 for row in rows for i, cell in enumerate(row) if cell), default=0)
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise DataError(f'{path}: sheet "{chosen.title}" is empty.')
    rows = [(row + [""] * width)[:width] for row in rows]
    several = f'{path.name}: of {len(book.sheetnames)} sheets, "{chosen.title}" was read ([data] sheet).'
    notes = (several,) if len(book.sheetnames) > 1 else ()
    return rows[0], rows[1:], list(range(2, len(rows) + 1)), notes
