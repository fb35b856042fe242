"""CSV, TSV and .tab: bytes to text, text to rows of strings.

In:  the bytes of a file, or its lines; the separator and encoding it is said to have.
Out: column names and rows, each with the line it begins on; or a DataError with the place in the file,
     and the key of [data] that would open it.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import DataError

csv.field_size_limit(2**31 - 1)  # Python's own limit of 131,072 characters is shorter than some texts

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# What Excel reads as an order, not as data, where it is a file's first line.
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.I)

REST = "..."  # after the last of the names that are given: some rows have more fields, which are left out

# The second and third line of Orange's .tab files: types, then roles.
ORANGE_TYPE = re.compile(r"d|discrete|c|continuous|s|string|t|time", re.I)
ORANGE_ROLE = re.compile(r"((class|meta|m|i|ignore|weight|w|[\w.-]+=\S*)(\s+|$))*", re.I)

Read = tuple[list[str], list[list[str]], list[int] | None, tuple[str, ...]]  # names, rows, lines, notes


def decode(data: bytes, encoding: str, errors: str, path: Path) -> str:
    """The text, without its byte order mark; else a DataError with byte, line and the likely encoding."""
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
    except (LookupError, ValueError):
        known = "Try utf-8, utf-16, cp1252 or latin-1."
        raise DataError(f"[data] encoding = {encoding!r} is unknown.", known) from None
    marked = next((word for mark, word in MARKS.items() if data.startswith(mark)), "")
    if marked and not name.startswith(marked):
        raise undecodable(path, data, 0, f"begins with the mark of {marked.upper()}, so it is not {encoding}")
    if name == "utf-16" and not marked and guess_encoding(data) == "utf-8":
        raise undecodable(path, data, 0, "has no UTF-16 mark")
    try:
        text = data.decode(name, errors)
    except UnicodeError as problem:
        reason = getattr(problem, "reason", problem)
        at = getattr(problem, "start", 0)
        raise undecodable(path, data, at, f"is not {encoding} ({reason})") from None
    if "\0" in text:
        at = len(text[: text.index("\0")].encode(name, "replace"))
        raise undecodable(path, data, min(at, len(data) - 1), "holds a NUL character", name)
    return text.removeprefix("\ufeff")


def undecodable(path: Path, data: bytes, at: int, what: str, tried: str = "") -> DataError:
    """The error for a byte that is not of the encoding, with the key that mends it if one is likely."""
    line = data.count(b"\n" if b"\n" in data else b"\r", 0, at) + 1
    around = data[max(0, at - 12) : at + 12].decode("ascii", "backslashreplace")
    likely = guess_encoding(data)
    fix = "Save the file as UTF-8, or set [data] encoding to the one it was written in."
    if likely and likely != tried:
        fix = f'It looks like {likely}: set [data] encoding = "{likely}" and look at the texts.'
    return DataError(f"{path} {what}: byte {at} (0x{data[at]:02x}) on line {line}, {around!r}.", fix)


def guess_encoding(data: bytes) -> str:
    """The encoding that a file was likely written in, or "" where none is likely."""
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return name
    head = data[:4096]
    zeros = (head[0::2].count(0), head[1::2].count(0))
    if max(zeros) > len(head) / 8:  # half of the bytes of Latin text in UTF-16 are zero
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    sound = len(text) - len(text.encode("ascii", "ignore")) - broken
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    letters = len(re.findall(rb"[A-Za-z]", data))
    if sound > broken or high > letters:  # damaged UTF-8; or a script that is not Latin
        return ""
    try:
        data.decode("cp1252")
        return "cp1252"
    except UnicodeDecodeError:
        return "latin-1"


def guess_separator(text: str) -> str:
    """The separator under which header and first rows have the same number of columns, or ""."""
    head = text[:200_000]
    if len(head) < len(text):
        head = head[: max(head.rfind("\n"), head.rfind("\r")) + 1]
    if stated := excel_separator(next(iter(lines_of(head)), "")):
        return stated
    best, columns = "", 1
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        widths = [len(fields) for fields in reader if fields][:500]
        if widths and widths[0] > columns and widths.count(widths[0]) >= 0.9 * len(widths):
            best, columns = separator, widths[0]
    return best


def records(
    stream: Iterable[str], separator: str, path: Path, quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of every record, [] for a blank line; DataError where quotes don't pair."""
    reader = csv.reader(stream, delimiter=separator, strict=True, quoting=quoting)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            what = "a quote is opened and never closed" if "end of data" in str(problem) else str(problem)
            raise DataError(
                f"{path}: {what}, in the row that begins on line {line}.",
                'A cell that begins with " must end with ", and a " inside is written "".',
            ) from None
        yield line, fields


def text_rows(
    lines: Callable[[], Iterable[str]], separator: str, path: Path, columns: Sequence[str] = ()
) -> tuple:
    """(column names, notes, iterator of (line, fields)) of a separated text; widths are not checked.

    `columns`: the names, where the first line is a row already.
    `lines` opens the text anew at each call, so that a file larger than memory can be read too.
    """
    notes, quoting = [], csv.QUOTE_MINIMAL
    columns, rest = [name for name in columns if name != REST], REST in columns
    if separator == "\t" and quotes_are_text(lines, path, len(columns) if rest else 0):
        quoting = csv.QUOTE_NONE
        notes.append(
            f'{path.name}: a " is part of the text here, as the rows do not come whole with quoting.'
        )
    found = records(lines(), separator, path, quoting)
    names = columns or next((fields for _, fields in found if fields), None)
    if stated := excel_separator(next(iter(lines()), "")):
        notes.append(f'{path.name}: its first line, "sep={stated}", is a word to Excel and was left out.')
        names = next((fields for _, fields in found if fields), None)
    if names is None:
        raise DataError(f"{path} is empty.")
    head = [] if columns else list(itertools.islice(found, 2))
    if separator == "\t" and is_orange([names, *(fields for _, fields in head)], len(names)):
        head = []
        notes.append(f"{path.name}: the second and third line (types and roles) were read as header.")
    rows = itertools.chain(head, found)
    return names, tuple(notes), (row for row in rows if not is_blank_line(row[1], len(names)))


def text_chunk_rows(
    lines: Callable[[], Iterable[str]], separator: str, path: Path
) -> tuple[list[str], Iterator[list[str]]]:
    """(column names, the fields of each row, as many as there are names) of a separated text."""
    names, _, rows = text_rows(lines, separator, path)

    def whole() -> Iterator[list[str]]:
        for number, (line, fields) in enumerate(rows):
            if len(fields) != len(names) or (number == 0 and len(names) == 1):
                head = "".join(itertools.islice(lines(), 999))
                check_widths(names, [(line, fields)], head, separator, path)
            yield fields

    return names, whole()


def from_text(text: str, separator: str, path: Path, columns: Sequence[str] = ()) -> Read:
    """Rows of a separated text. Every row must have as many fields as the header."""
    try:
        names, notes, found = text_rows(lambda: lines_of(text), separator, path, columns)
        rows = list(found)
    except DataError as problem:
        raise other_separator(text, separator, "quotes that don't pair", path) or problem from None
    if REST in columns and (longer := sum(len(fields) > len(names) for _, fields in rows)):
        rows = [(line, fields[: len(names)]) for line, fields in rows]
        notes += (f"{path.name}: {longer:,} rows have more than the {len(names)} columns named, left out.",)
    check_widths(names, rows, text, separator, path)
    return names, [fields for _, fields in rows], [line for line, _ in rows], notes


def excel_separator(line: str) -> str:
    """The separator that a file's first line tells Excel to use ("sep=;"), or ""."""
    found = EXCEL_SEPARATOR.fullmatch(line.removeprefix("\ufeff").rstrip("\r\n"))
    return found[1] if found else ""


def lines_of(text: str) -> Iterable[str]:
    """The lines, ends kept: after a line feed, a carriage return, or both; not at U+2028 and its like."""
    return io.StringIO(text, newline="")


def is_blank_line(fields: list[str], width: int) -> bool:
    """Whether a line holds nothing, or only blanks where there should be several fields."""
    return not fields or (width > 1 and len(fields) == 1 and not fields[0].strip())


def quotes_are_text(lines: Callable[[], Iterable[str]], path: Path, least: int = 0) -> bool:
    """Whether a tab-separated file was written without quoting, as many corpora are.

    So it is where each line has the header's number of fields by itself, or `least` and perhaps more, while
    quoting fails or joins lines. Read with quoting, such files lose rows and nobody notices: STS-B 240 of its 5,749.
    """
    if not any('"' in line for line in lines()):
        return False
    widths = Counter(len(fields) for _, fields in records(lines(), "\t", path, csv.QUOTE_NONE) if fields)
    try:
        quoted = sum(bool(fields) for _, fields in records(lines(), "\t", path))
    except DataError:
        quoted = -1
    whole = min(widths) >= least if least else len(widths) == 1
    return whole and widths.total() != quoted


def is_orange(rows: list[list[str]], width: int) -> bool:
    """Whether a file's first three rows are Orange's: names, types, roles (perhaps a blank line)."""
    if len(rows) < 3 or len(rows[1]) != width or len(rows[2]) not in (0, width):
        return False
    types, roles = rows[1], rows[2]
    return all(map(ORANGE_TYPE.fullmatch, types)) and all(map(ORANGE_ROLE.fullmatch, roles))


def other_separator(text: str, separator: str, what: str, path: Path) -> DataError | None:
    """The error for a file whose header another separator would cut; None if none would."""
    likely = guess_separator(text)
    if likely in ("", separator):
        return None
    looks = likely if likely.strip() else SEPARATORS[likely]
    return DataError(
        f"{path}: {what}, read with {SEPARATORS.get(separator, repr(separator))}s; "
        f"the header looks {looks}-separated.",
        f"Set [data] separator = {json.dumps(likely)}.",
    )


def check_widths(
    names: list[str], rows: list[tuple[int, list[str]]], text: str, separator: str, path: Path
) -> None:
    """Refuse rows with too many or too few fields, and a header that another separator would cut."""
    odd = [(line, fields) for line, fields in rows if len(fields) != len(names)]
    what = "one column" if len(names) == 1 else "rows of uneven length"
    problem = other_separator(text, separator, what, path) if odd or len(names) == 1 else None
    if problem:
        raise problem
    if not odd:
        return
    line, fields = odd[0]
    more = f" (and {len(odd) - 1:,} more such rows)" if len(odd) > 1 else ""
    fix = "A cell that holds the separator or a line break must stand in double quotes."
    if len(odd) == len(rows) and len({len(f) for _, f in odd}) == 1:
        fix = "Every row is like this: the header lacks a name, or the rows a field."
    raise DataError(
        f"{path}: the row on line {line} has {len(fields)} fields, the header {len(names)}{more}: "
        f"{excerpt(separator.join(fields))}",
        fix,
    )


def excerpt(text: str, most: int = 80) -> str:
    """The beginning of a text in quotes, control characters escaped."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."
