"""A file in, a table of strings out: CSV, TSV, .tab, CoNLL, JSONL, Parquet, .xlsx, texts and labels line by line.

In:  a path, and what the file can't say of itself: separator, encoding, sheet.
Out: Table(frame, path, sha256, lines, notes). Every cell is the string that the file holds: "01" stays
     "01", "NA" and "null" are words. Nothing is guessed in silence: a file that reads only under another
     separator or encoding is refused, with the key of [data] that opens it.

gzip may be around those of text. How a kind of file is read stands in separated.py, conll.py, beside.py and typed.py.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from ..errors import DataError, nearest
from .beside import from_lines, labels_beside
from .conll import conll_rows, from_conll
from .separated import (
    decode,
    from_text,
    guess_encoding,
    guess_separator,
    text_chunk_rows,
)
from .typed import MOST_BYTES, from_jsonl, from_parquet, from_xlsx, jsonl_rows, spelled

LARGE = 64 << 20  # bytes from which a file is streamed where rows are wanted in pieces
FITS = 512 << 20  # bytes up to which a faulty one is read whole after all, for the better message
FORMATS = {
    ".csv": ("text", ","), ".tsv": ("text", "\t"), ".tab": ("text", "\t"),
    **dict.fromkeys((".conll", ".conllu", ".iob", ".iob2", ".bio", ".annotated"), ("conll", "")),
    ".jsonl": ("jsonl", ""), ".ndjson": ("jsonl", ""),
    ".parquet": ("parquet", ""), ".pq": ("parquet", ""), ".xlsx": ("xlsx", ""), ".xlsm": ("xlsx", ""),
}  # fmt: skip
LINES = {"jsonl": jsonl_rows, "conll": conll_rows}  # kinds that are read line by line
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


def read_table(
    path: Path | str,
    *,
    separator: str = "",
    encoding: str = "utf-8",
    sheet: str = "",
    columns: Sequence[str] = (),
    errors: str = "strict",
) -> Table:
    """Read a table of n rows; raise DataError with the place in the file where that is impossible.

    `separator` is by the name if absent (.csv comma, .tsv and .tab tab); `sheet` is for .xlsx.
    `columns` are the names where the file has no line that says them; after the last, "..." stands for fields
    that some rows have beyond these, which are left out.
    `errors="replace"` puts U+FFFD where bytes do not decode, for looking at a damaged file.
    """
    path, kind, usual = known_format(path)
    separator = plain_separator(separator) or usual
    kind = "text" if kind == "lines" and separator else kind  # with columns it is no file of bare lines
    if sheet and kind != "xlsx":
        raise DataError(f"{path} has no sheets.", "[data] sheet is for .xlsx files: leave it out.")
    if columns and kind != "text":
        raise DataError(f"{path} names its columns.", "[data] columns is for CSV and TSV: leave it out.")
    data, digest = contents(path, kind)
    if kind == "text":
        text = decode(data, encoding, errors, path)
        if not separator:
            likely = json.dumps(guess_separator(text) or ",")
            raise DataError(
                f"{path}: its name does not say what stands between the columns.",
                f"Likely separator = {likely} in [data]; names that need none end in {', '.join(FORMATS)}.",
            )
        read = from_text(text, separator, path, columns)
    elif kind == "jsonl":
        read = from_jsonl(decode(data, encoding, errors, path), path)
    elif kind == "conll":
        read = from_conll(decode(data, encoding, errors, path), path)
    elif kind == "lines":
        beside = labels_beside(path)
        labels, other = contents(beside)
        digest = hashlib.sha256(f"{digest} {other}".encode()).hexdigest()  # of both
        texts = [decode(held, encoding, errors, file) for held, file in ((data, path), (labels, beside))]
        read = from_lines(*texts, path, beside)
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
    streamed = kind in LINES or (kind == "text" and separator)
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
        decode(contents_start(path, 4)[:4].partition(b"\n")[0], encoding, "replace", path)  # its mark
        names, rows = LINES[kind](lines, path) if kind in LINES else text_chunk_rows(lines, separator, path)
        check_names(names, path)
        done = 0
        while held := list(itertools.islice(rows, size)):
            yield pd.DataFrame(held, range(done, done + len(held)), pd.Index(names, dtype=object), object)
            done += len(held)
        if not done:
            raise DataError(f"{path} holds no row.")
    except (DataError, ValueError, OSError, EOFError, LookupError, zlib.error) as problem:
        if path.stat().st_size < FITS:  # else it might not; a DataError names the line already
            read_table(path, separator=separator, encoding=encoding)
        if isinstance(problem, DataError):
            raise
        raise DataError(f"{path} can't be read as {encoding}: {problem}") from None


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
    return path, "lines" if labels_beside(path) else kind, usual


def contents_start(path: Path, size: int = 1 << 20) -> bytes:
    """The first bytes of a file, unpacked if its name ends in .gz; none where it can't be read."""
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error):
        return b""


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
        if kind in ("text", "lines", *LINES) and (data.startswith(mark) or start.startswith(mark)):
            raise DataError(f"{path} is {words}.")
    if data[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive: unpack it first.")
    if not data.strip():
        raise DataError(f"{path} is empty.")
    return data, digest


def sniff(path: Path | str) -> tuple[str, str]:
    """(separator, encoding) that a text table was likely written with, each "" where it can't be told.

    For `init` and `check`, which say what they found; reading a table never calls it.
    """
    path, kind, _ = known_format(path)
    if kind not in ("text", *LINES):
        return "", ""
    data, _ = contents(path, kind)
    encoding = guess_encoding(data)
    text = data.decode(encoding or "utf-8", "replace").removeprefix("\ufeff")
    return guess_separator(text) if kind == "text" else "", encoding


def check_names(names: list[str], path: Path) -> None:
    """Refuse a header in which a name stands twice."""
    twice = [f'"{name}"' if name else "nothing" for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(twice[:5])
        raise DataError(f"{path}: more than one column is called {shown}.", "Give each column its own name.")


def write_rows(frame: pd.DataFrame, file: IO[str], *, separator: str = ",", header: bool = True) -> None:
    """Rows of a frame as CSV. Python's csv leaves a carriage return unquoted, on which readers end a row."""
    returns = any(isinstance(c, str) and "\r" in c for row in frame.itertuples(index=False) for c in row)
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    frame.to_csv(file, index=False, header=header, sep=separator, lineterminator="\n", quoting=quoting)


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name for a column that is added: `predicted_` before it, as often as it takes."""
    taken = set(taken)
    while name in taken:
        name = f"predicted_{name}"
    return name


def from_frame(frame: pd.DataFrame, name: str = "the DataFrame") -> Table:
    """A DataFrame as a table: every cell the string that a file would hold. `name` stands in messages."""
    if not len(frame):
        raise DataError(f"{name} has no rows.", "A table needs at least one row of data.")
    names = [str(column) for column in frame.columns]
    check_names(names, Path(name))
    whole = frame.astype(object).where(frame.notna(), None)
    cells = {n: [spelled(v) for v in whole.iloc[:, i].tolist()] for i, n in enumerate(names)}
    made = pd.DataFrame(cells, columns=pd.Index(names, dtype=object), dtype=object)
    digest = hashlib.sha256(made.to_csv(index=False).encode("utf-8", "surrogatepass")).hexdigest()
    return Table(made, name, digest)
