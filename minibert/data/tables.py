"""A file in, a table of strings out: CSV, TSV, .tab, JSONL, Parquet and .xlsx, gzip around the text ones.

In:  a path, and what the file can't say of itself: separator, encoding, sheet.
Out: Table(frame, path, sha256, lines, notes). Every cell is the string that the file holds: "01" stays
     "01", "NA" and "null" are words. Nothing is guessed in silence: a file that reads only under another
     separator or encoding is refused, with the key of [data] that opens it.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import itertools
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError, EnvironmentProblem, nearest

LARGE = 64 << 20  # bytes from which a file is streamed where rows are wanted in pieces
MOST_BYTES = 2 << 30  # after unpacking: a small .gz can hold a disk full of zeros
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

FORMATS = {
    ".csv": ("text", ","), ".tsv": ("text", "\t"), ".tab": ("text", "\t"),
    ".jsonl": ("jsonl", ""), ".ndjson": ("jsonl", ""),
    ".parquet": ("parquet", ""), ".pq": ("parquet", ""), ".xlsx": ("xlsx", ""), ".xlsm": ("xlsx", ""),
}  # fmt: skip
REFUSED = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"), "unpack it first"),
    **dict.fromkeys((".xls", ".ods"), "save it as .xlsx or as CSV"),
    ".json": "write one JSON object a line and name it .jsonl",
}

# The first bytes of what is sometimes saved under a table's name.
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or name it .xlsx",
    b"\x1f\x8b": "gzip data: end its name in .gz",
    b"BZh": "bzip2 data: unpack it first",
    b"\xfd7zXZ": "xz data: unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as .xlsx or as CSV",
    b"PAR1": "a Parquet file: end its name in .parquet",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer, not the data: fetch the real file (git lfs pull)",
    b"<!doctype": "a web page: the download failed",
    b"<html": "a web page: the download failed",
}
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# What Excel reads as an order, not as data, where it is a file's first line.
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.I)

# The second and third line of Orange's .tab files: types, then roles.
ORANGE_TYPE = re.compile(r"d|discrete|c|continuous|s|string|t|time", re.I)
ORANGE_ROLE = re.compile(r"((class|meta|m|i|ignore|weight|w|[\w.-]+=\S*)(\s+|$))*", re.I)

csv.field_size_limit(2**31 - 1)  # Python's own limit of 131,072 characters is shorter than some texts


@dataclass(frozen=True)
class Table:
    """A table as read: every cell a string exactly as written, "" where the file has nothing.

    frame    rows in file order, index 0..n-1 = row_id
    lines    (n,) line of the file on which each row begins (1 = first line); None for Parquet
    notes    what the reader had to decide, in sentences
    """

    frame: pd.DataFrame
    path: str
    sha256: str
    lines: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """A row as people find it again: "row 3 (line 5)"; rows count from 0 as in predictions.csv."""
        return f"row {row}" if self.lines is None else f"row {row} (line {self.lines[row]})"


Read = tuple[list[str], list[list[str]], list[int] | None, tuple[str, ...]]  # names, rows, lines, notes


def read_table(
    path: Path | str,
    *,
    separator: str = "",
    encoding: str = "utf-8",
    sheet: str = "",
    errors: str = "strict",
) -> Table:
    """Read a table of n rows; raise DataError with the place in the file where that is impossible.

    `separator` is by the name if absent (.csv comma, .tsv and .tab tab); `sheet` is for .xlsx.
    `errors="replace"` puts U+FFFD where bytes do not decode, for looking at a damaged file.
    """
    path, kind, usual = known_format(path)
    separator = plain_separator(separator) or usual
    if sheet and kind != "xlsx":
        raise DataError(f"{path} has no sheets.", "[data] sheet is for .xlsx files: leave it out.")
    data, digest = contents(path, kind)
    if kind == "text":
        text = decode(data, encoding, errors, path)
        if not separator:
            likely = json.dumps(guess_separator(text) or ",")
            raise DataError(
                f"{path}: its name does not say what stands between the columns.",
                f"Likely separator = {likely} in [data]; names that need none end in {', '.join(FORMATS)}.",
            )
        read = from_text(text, separator, path)
    elif kind == "jsonl":
        read = from_jsonl(decode(data, encoding, errors, path), path)
    else:
        read = from_parquet(data, path) if kind == "parquet" else from_xlsx(data, sheet, path)
    names, rows, lines, notes = read
    check_names(names, path)
    if not rows:
        raise DataError(f"{path} holds a header and no rows.", "A table needs at least one row of data.")
    frame = pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object)
    return Table(frame, str(path), digest, None if lines is None else np.array(lines, np.int64), notes)


def read_chunks(
    path: Path | str, size: int, *, separator: str = "", encoding: str = "utf-8", sheet: str = ""
) -> Iterator[pd.DataFrame]:
    """The frame of `read_table` in pieces of `size` rows, for files larger than memory.

    Text and JSON Lines files of LARGE bytes and more, and packed ones, are streamed by the same rules;
    where one has a fault, it is read whole after all, so that the error names the place as it always does.
    """
    path, kind, usual = known_format(path)
    separator = plain_separator(separator) or usual
    packed = path.name.lower().endswith(".gz")
    streamed = kind == "jsonl" or (kind == "text" and separator)
    if not streamed or not (packed or path.stat().st_size >= LARGE):
        frame = read_table(path, separator=separator, encoding=encoding, sheet=sheet).frame
        yield from (frame.iloc[start : start + size] for start in range(0, len(frame), size))
        return

    def lines() -> Iterator[str]:
        with (gzip.open if packed else open)(path, "rt", encoding=encoding, newline="") as file:
            for number, line in enumerate(file):
                if "\0" in line:
                    raise DataError(f"{path} holds a NUL character on line {number + 1}.")
                yield line.removeprefix("\ufeff") if number == 0 else line

    try:
        names, rows = jsonl_rows(lines, path) if kind == "jsonl" else text_chunk_rows(lines, separator, path)
        check_names(names, path)
        done = 0
        while held := list(itertools.islice(rows, size)):
            yield pd.DataFrame(held, range(done, done + len(held)), pd.Index(names, dtype=object), object)
            done += len(held)
        if not done:
            raise DataError(f"{path} holds no row.")
    except (DataError, ValueError, OSError, EOFError, LookupError, zlib.error):
        read_table(path, separator=separator, encoding=encoding)
        raise


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


def jsonl_rows(lines: Callable[[], Iterable[str]], path: Path) -> tuple[list[str], Iterator[list[str]]]:
    """(column names, cells of each row) of a JSON Lines text, which is read twice: a late row may add a key."""
    names = list(dict.fromkeys(key for _, row in jsonl_objects(lines(), path) for key in row))
    return names, ([row.get(name, "") for name in names] for _, row in jsonl_objects(lines(), path))


def plain_separator(separator: str) -> str:
    r"""The one character meant: a TOML "\t" is a tab already, but `\t` and "tab" are accepted too."""
    plain = {"\\t": "\t", "tab": "\t"}.get(separator.lower(), separator)
    if len(plain) > 1 or plain in ('"', "\n", "\r", "\0"):
        raise DataError(f"[data] separator = {separator!r} must be one character: ',' ';' '\\t' or '|'.")
    return plain


def known_format(path: Path | str) -> tuple[Path, str, str]:
    """(path, kind, usual separator) of a file that exists and whose kind is read here."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.I):
        raise DataError(f"{path} is an address, not a file.", "Download it first: tables are local files.")
    path = Path(path)
    if not path.exists():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path} does not exist{nearest(path.name, there) or '.'}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table.")
    if not path.is_file():
        raise DataError(f"{path} is no regular file.")
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in REFUSED:
        raise DataError(f"{path} can't be read as a table: {REFUSED[suffix]}.")
    kind, usual = FORMATS.get(suffix, ("text", ""))
    return path, kind, usual


def contents(path: Path, kind: str = "text") -> tuple[bytes, str]:
    """(the bytes, unpacked if the name ends in .gz; the sha256 of the file as it lies on the disk)."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path} can't be read: {problem.strerror or problem}.") from None
    digest = hashlib.sha256(data).hexdigest()
    if path.name.lower().endswith(".gz"):
        try:
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as problem:
            raise DataError(f"{path} is no sound gzip file: {problem}.", "Fetch it again.") from None
        if len(data) > MOST_BYTES:
            raise DataError(
                f"{path} holds more than {MOST_BYTES / 2**30:,.3g} GiB.", "Unpack it and cut it into parts."
            )
    start = data[:64].lstrip().lower()
    for mark, words in FOREIGN.items():
        if kind in ("text", "jsonl") and (data.startswith(mark) or start.startswith(mark)):
            raise DataError(f"{path} is {words}.")
    if data[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive: unpack it first.")
    if not data.strip():
        raise DataError(f"{path} is empty.")
    return data, digest


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


def sniff(path: Path | str) -> tuple[str, str]:
    """(separator, encoding) that a text table was likely written with, each "" where it can't be told.

    For `init` and `check`, which say what they found; reading a table never calls it.
    """
    path, kind, _ = known_format(path)
    if kind not in ("text", "jsonl"):
        return "", ""
    data, _ = contents(path, kind)
    encoding = guess_encoding(data)
    text = data.decode(encoding or "utf-8", "replace").removeprefix("\ufeff")
    return guess_separator(text) if kind == "text" else "", encoding


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


def text_rows(lines: Callable[[], Iterable[str]], separator: str, path: Path) -> tuple:
    """(column names, notes, iterator of (line, fields)) of a separated text; widths are not checked.

    `lines` opens the text anew at each call, so that a file larger than memory can be read too.
    """
    notes, quoting = [], csv.QUOTE_MINIMAL
    if separator == "\t" and quotes_are_text(lines, path):
        quoting = csv.QUOTE_NONE
        notes.append(
            f'{path.name}: a " is part of the text here, as the rows do not come whole with quoting.'
        )
    found = records(lines(), separator, path, quoting)
    names = next((fields for _, fields in found if fields), None)
    if stated := excel_separator(next(iter(lines()), "")):
        notes.append(f'{path.name}: its first line, "sep={stated}", is a word to Excel and was left out.')
        names = next((fields for _, fields in found if fields), None)
    if names is None:
        raise DataError(f"{path} is empty.")
    head = list(itertools.islice(found, 2))
    if separator == "\t" and is_orange([names, *(fields for _, fields in head)], len(names)):
        head = []
        notes.append(f"{path.name}: the second and third line (types and roles) were read as header.")
    rows = itertools.chain(head, found)
    return names, tuple(notes), (row for row in rows if not is_blank_line(row[1], len(names)))


def from_text(text: str, separator: str, path: Path) -> Read:
    """Rows of a separated text. Every row must have as many fields as the header."""
    try:
        names, notes, found = text_rows(lambda: lines_of(text), separator, path)
        rows = list(found)
    except DataError as problem:
        raise other_separator(text, separator, "quotes that don't pair", path) or problem from None
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


def quotes_are_text(lines: Callable[[], Iterable[str]], path: Path) -> bool:
    """Whether a tab-separated file was written without quoting, as many corpora are.

    So it is where each line has the header's number of fields by itself, while quoting fails or joins
    lines. Read with quoting, such files lose rows and nobody notices: STS-B 240 of its 5,749.
    """
    if not any('"' in line for line in lines()):
        return False
    widths = Counter(len(fields) for _, fields in records(lines(), "\t", path, csv.QUOTE_NONE) if fields)
    try:
        quoted = sum(bool(fields) for _, fields in records(lines(), "\t", path))
    except DataError:
        quoted = -1
    return len(widths) == 1 and widths.total() != quoted


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


def check_names(names: list[str], path: Path) -> None:
    """Refuse a header in which a name stands twice."""
    twice = [f'"{name}"' if name else "nothing" for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(twice[:5])
        raise DataError(f"{path}: more than one column is called {shown}.", "Give each column its own name.")


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name for a column that is added: `predicted_` before it, as often as it takes."""
    taken = set(taken)
    while name in taken:
        name = f"predicted_{name}"
    return name


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
