"""`minibert predict` and `embed`: a table in, the same table with answers out, a chunk at a time.

In:  a run folder or a model, and a file that may be larger than memory (an .xlsx is read whole).
Out: a CSV with the input's columns and order plus label and probabilities, or value; or an .npy file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from . import data, spec, system
from .data.mask import mask_frame, told
from .data.separated import guess_encoding
from .data.tables import check_names, contents_start, free_name, write_rows
from .data.typed import spelled
from .errors import ConfigError, DataError, as_options, nearest
from .folder import STATUS, read_json, read_status
from .loading import load
from .model import Model
from .progress import Bar, say

CHUNK = 2000  # rows held at once
RISKY = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so as a formula


def chunks(path: Path, separator: str, encoding: str, sheet: str = "") -> Iterator[pd.DataFrame]:
    """The rows of a table, CHUNK at a time, every cell a string as `read_table` gives it."""
    if path.suffix in (".parquet", ".pq"):
        yield from parquet_chunks(path)
    else:
        yield from data.read_chunks(path, CHUNK, separator=separator, encoding=encoding, sheet=sheet)


def parquet_chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The same for Parquet, a batch of its rows at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        data.read_table(path)  # says what is missing
        raise
    try:
        check_names(pyarrow.parquet.ParquetFile(path).schema_arrow.names, path)
        for part in pyarrow.parquet.ParquetFile(path).iter_batches(CHUNK):
            columns = zip(part.schema.names, part.columns)
            yield pd.DataFrame({n: [spelled(v) for v in c.to_pylist()] for n, c in columns}, dtype=object)
    except (pyarrow.ArrowException, OSError, ValueError):
        data.read_table(path)  # names the file and what is wrong with it
        raise


def open_run(source: str) -> tuple[Model, spec.TaskSpec | None]:
    """The model of a run folder with its spec, or a model by itself."""
    folder = Path(source)
    if folder.suffix == ".toml" and folder.is_file():
        raise ConfigError(
            f"{source} is a spec; predict needs the run that was made of it",
            "Give the run's folder, for example runs/NAME.",
        )
    if not folder.exists() and folder.parent.is_dir() and len(folder.parts) > 1:
        beside = [str(p) for p in folder.parent.iterdir() if p.is_dir()]
        raise ConfigError(
            f"{source} does not exist{nearest(source, beside)}", "Give a run's folder, or a model."
        )
    if not (folder / "spec.toml").is_file():
        return load(source), None
    model, status = load(source), read_json(folder / STATUS)
    if status.get("status") != "completed":
        say(f"{source}: this run did not end ({status.get('message') or read_status(folder)})")
    return model, spec.load(folder / "spec.toml")


def column_of(frame: pd.DataFrame, wanted: str, path: Path, option: str = "--column") -> list[str]:
    """A column's texts, or a DataError that lists the columns."""
    if wanted not in frame.columns:
        raise DataError(
            f"{path} has no column {wanted!r}{nearest(wanted, frame.columns)}",
            f"Its columns: {', '.join(map(str, frame.columns))}. Name one with {option}.",
        )
    return frame[wanted].tolist()


def chunks_by_option(path: Path, separator: str, encoding: str, sheet: str) -> Iterator[pd.DataFrame]:
    """`chunks`, whose errors speak of this verb's options instead of a spec's keys."""
    try:
        yield from chunks(path, separator, encoding, sheet)
    except DataError as problem:
        raise DataError(as_options(problem.message), as_options(problem.fix)) from None


def predict_file(
    source: str,
    input: Path | str,
    output: Path | str,
    *,
    column: str = "",
    pair: str = "",
    separator: str = "",
    encoding: str = "",
    sheet: str = "",
    excel_safe: bool = False,
    overwrite: bool = False,
) -> int:
    """Predict every row of a table; returns the number of rows. `output` appears only when complete.

    A row without text gets no answer. An `output` that exists is refused without `overwrite`. What the run's [data]
    mask masks is masked here, too, in the model's input and in `output`.
    """
    source_path, target = Path(input), Path(output)
    if target.suffix not in (".csv", ".tsv"):
        raise ConfigError(f"--output {output}: the name must end in .csv or .tsv")
    if target.exists() and target.resolve() == source_path.resolve():
        raise ConfigError(f"--output {output} is the input itself")
    check_free(target, overwrite)
    model, task = open_run(source)
    if model.head is None:
        raise ConfigError(
            f"{source} has no head to predict with", "Give a run folder, or a fine-tuned model."
        )
    column = column or (task.data.text if task else "text")
    pair = pair or (task.data.pair if task else "")
    separator, encoding, sheet = form_of(source_path, task, separator, encoding, sheet)
    between = task.data.label_separator if task else ","
    mark = "\t" if target.suffix == ".tsv" else ","
    done = empty = 0
    hidden: Counter[str] = Counter()
    with (
        Bar("predicting", None) as bar,
        system.replacing(target) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        for frame in chunks_by_option(source_path, separator, encoding, sheet):
            if task and task.data.mask:
                frame, gone, _ = mask_frame(task, frame, column, pair)
                hidden += sum(gone.values(), Counter())
            pairs = column_of(frame, pair, source_path, "--pair") if pair else None
            texts = column_of(frame, column, source_path)
            rows = range(done, done + len(frame))
            blank = np.array(
                [not (a.strip() and b.strip()) for a, b in zip(texts, pairs or texts)], dtype=bool
            )
            blank &= not (task and task.data.empty == "keep")
            empty += int(blank.sum())
            found = model.predict(texts, pairs, rows=rows, separator=between)
            table = joined(frame.reset_index(drop=True), found, blank, done)
            if excel_safe:
                table = table.map(defused).rename(columns=defused)
            write_rows(table, file, separator=mark, header=done == 0)
            done += len(frame)
            bar.advance(len(frame), f"{done:,} rows")
        if not done:
            raise DataError(f"{input} has no rows")
    if empty:
        say(f"{empty:,} of {done:,} rows have no text and were left without an answer")
    if hidden:
        say(f"masked, as in the run: {told(hidden)}")
    return done


def form_of(
    path: Path, task: spec.TaskSpec | None, separator: str, encoding: str, sheet: str
) -> tuple[str, str, str]:
    """(separator, encoding, sheet) to read a table with: as named, else the run's own where they fit."""
    if task is None:
        return separator, encoding or "utf-8", sheet
    if not encoding and task.data.encoding != "utf-8":
        check_inherited(path, task.data.encoding)
    suffix = path.suffix.lower()
    if suffix not in (".tsv", ".tab"):  # whose name says it; a .csv may hold semicolons
        separator = separator or task.data.separator
    if suffix in (".xlsx", ".xlsm"):
        sheet = sheet or task.data.sheet
    return separator, encoding or task.data.encoding, sheet


def check_inherited(path: Path, encoding: str) -> None:
    """Refuse a file in UTF-8 for a run whose own texts had another encoding: letters would turn to rubbish."""
    start = contents_start(path)
    if guess_encoding(start[: start.rfind(b"\n") + 1]) == "utf-8" and not start.isascii():
        raise ConfigError(
            f"{path} is UTF-8, but the texts of this run were {encoding}", "Say which: --encoding utf-8"
        )


def check_free(target: Path, overwrite: bool) -> None:
    """Refuse a file that exists: it may be years of coding."""
    if target.exists() and not overwrite:
        raise ConfigError(
            f"{target} exists and is left as it is", "Name another file with --output, or add --overwrite."
        )


def joined(frame: pd.DataFrame, found: pd.DataFrame, blank: np.ndarray, done: int) -> pd.DataFrame:
    """The input's columns, then ours, then row_id; ours is called predicted_... where a name is taken.

    `blank` (n,) bool: rows without text, which get no answer.
    """
    said = [name for name in found.columns if name not in ("tokens", "truncated")]
    found = found.astype(dict.fromkeys(said, object))
    found.loc[blank, said] = ""
    found = found.assign(truncated=np.where(found["truncated"], "true", "false"))
    found["row_id"] = np.arange(done, done + len(frame))
    return pd.concat([frame, found.rename(columns=lambda name: free_name(name, frame.columns))], axis=1)


def defused(cell: object) -> object:
    """A text that a spreadsheet would run as a formula, with an apostrophe in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(RISKY) else cell


def embed_file(
    source: str,
    input: Path | str,
    output: Path | str,
    *,
    column: str,
    pooling: str | None = None,
    separator: str = "",
    encoding: str = "utf-8",
    sheet: str = "",
    overwrite: bool = False,
) -> tuple[int, int]:
    """One float32 row of an .npy file for each row of a table; returns (rows, D)."""
    target = Path(output)
    if target.suffix != ".npy":
        raise ConfigError(f"--output {output}: the name must end in .npy")
    check_free(target, overwrite)
    model = load(source)
    width, done = model.embedding(pooling).width(model.config.hidden_width), 0
    with Bar("embedding", None) as bar, system.replacing(target) as part, open(part, "r+b") as file:
        npy_header(file, 0, width)
        for frame in chunks_by_option(Path(input), separator, encoding, sheet):
            file.write(model.embed(column_of(frame, column, Path(input)), pooling=pooling).tobytes())
            done += len(frame)
            bar.advance(len(frame), f"{done:,} rows")
        file.seek(0)
        npy_header(file, done, width)
    return done, width


def npy_header(file: object, rows: int, width: int) -> None:
    """NumPy's header; it leaves room for the row count to grow, so it can be written again at the end."""
    facts = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, facts)
