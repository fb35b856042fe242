"""safetensors in and out: every tensor of a checkpoint accounted for, or one error that lists all.

In:  a folder with model.safetensors (or a sharded index) and the name tables of names.py.
Out: our state dicts and a LoadReport; and back, under the published names of today.

Works on state dicts, not on classes. Nothing is ever unpickled.
Names in a file are first made plain: a tool's wrapper ("module.") is taken off, LayerNorm's old
gamma and beta become weight and bias, and "@" stands for the family's prefix, there or not.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from . import system
from .errors import WeightsError
from .names import ALIASES, CARRIED, COUNTER, LETTERS, NAMES, TIED, WRAPPERS, Names, Row
from .safefile import DTYPES, SINGLE, Stored, read, shown, stored

MOST = 20  # lines of one kind in an error


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a file, and which of ours are new."""

    source: str
    loaded: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()  # gamma and beta
    wrapper: str = ""  # taken off every name
    prefix: str = ""  # the family's prefix, where the file has it
    carried: tuple[str, ...] = ()  # other heads: kept untouched and saved again
    ignored: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()  # ours, not in the file: initialised, expected
    dtypes: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded ({', '.join(self.dtypes)})"]
        if self.renamed:
            lines.append(f"  LayerNorm gamma/beta read as weight/bias: {len(self.renamed)}")
        if self.wrapper:
            lines.append(f'  "{self.wrapper}" taken off every name')
        for title, names in (("carried along, not used", self.carried), ("new (expected)", self.new)):
            if names:
                lines.append(f"  {title}: {', '.join(folded(names))}")
        lines += [f"  left out: {name} ({why})" for name, why in self.ignored.items()]
        lines += [f"  tied: {name} = {full(to, self.prefix)}" for name, to in self.tied.items()]
        lines += [f"  warning: {w}" for w in self.warnings]
        return "\n".join(lines)


@dataclass(frozen=True)
class Loaded:
    """Our tensors by our names (encoder and head), what is carried by plain names, and the report."""

    encoder: dict[str, Tensor]
    head: dict[str, Tensor]
    carried: dict[str, Tensor]
    report: LoadReport


def plain_names(names: list[str], table: Names) -> tuple[dict[str, str], str, str, list[str]]:
    """Names in a file -> plain names; with the wrapper and prefix found and the names with gamma/beta.

    A plain name has "@" where the family's prefix stands (or would stand) and today's LayerNorm words.
    """
    wrapper = next((w for w in WRAPPERS if all(n.startswith(w) for n in names)), "")
    prefix = table.prefix if any(n.removeprefix(wrapper).startswith(table.prefix) for n in names) else ""
    base = {r.theirs.split(".")[0] + "." for r in table.encoder + table.layer} | {"pooler."}
    plain, taken, renamed = {}, {}, []
    for name in names:
        short = name.removeprefix(wrapper)
        for old, new in ALIASES.items():
            if old in short:
                renamed.append(name)
                short = short.replace(old, new)
        if prefix and short.startswith(prefix):
            short = "@" + short.removeprefix(prefix)
        elif not prefix and any(short.startswith(b) for b in base):
            short = "@" + short
        if short in taken:
            raise WeightsError(f"{shown(name)} and {shown(taken[short])} both mean {shown(short)}")
        plain[name], taken[short] = short, name
    return plain, wrapper, prefix, renamed


def rows_for(table: Names, num_layers: int, head: str | None) -> tuple[list[Row], list[Row]]:
    """The rows of a whole model with layer numbers filled in: encoder's and head's, theirs plain."""
    encoder = [r._replace(theirs="@" + r.theirs) for r in table.encoder]
    for i in range(num_layers):
        encoder += [Row(r.ours.format(i), "@" + r.theirs.format(i), r.shape, r.part) for r in table.layer]
    return encoder, list(table.heads.get(head or "", []))


def load(
    folder: Path, family: str, sizes: dict[str, int], head: str | None, new_head: bool, dtype: torch.dtype
) -> Loaded:
    """Read a checkpoint. `sizes`: letter -> number (V, D, F, P, S, L, C).

    `head`: whose rows are wanted (None: the encoder's only). With `new_head` only the pooler under
    it is read, if the file has one; the rest is left to be initialised and listed as new.
    Without "C" in sizes the number of classes is that of the file.
    Raises one WeightsError with all missing, unexpected and wrongly shaped tensors.
    """
    table = NAMES[family]
    entries = stored(folder)
    plain, wrapper, prefix, renamed = plain_names(list(entries), table)
    by_plain = {plain[name]: entry for name, entry in entries.items()}
    encoder_rows, head_rows = rows_for(table, sizes["L"], head)
    fresh = [r for r in head_rows if new_head and not (r.theirs.startswith("@") and r.theirs in by_plain)]
    wanted = encoder_rows + [r for r in head_rows if r not in fresh]
    last = next((r.theirs for r in head_rows if r.ours == "out.weight"), "")
    if "C" not in sizes and last in by_plain:
        sizes = {**sizes, "C": next(iter(by_plain[last].shape), 0)}
    known = {r.theirs for r in wanted}
    carried = [n for n in by_plain if n not in known and n.removeprefix("@").startswith(CARRIED)]
    replaced = [r.theirs for r in fresh if r.theirs in by_plain]
    problems = disagreements(wanted, by_plain, sizes, set(by_plain) - known - set(carried))
    if problems:
        raise WeightsError(
            f"{folder} does not fit its config.json:\n" + "\n".join(f"  {p}" for p in problems)
        )
    tensors = {r.ours: read(by_plain[r.theirs], dtype) for r in wanted}
    kept = {n: read(by_plain[n], None) for n in carried if n not in replaced}
    tied, warnings = tie(kept, by_plain, prefix)
    warnings += suspicious({r.theirs: tensors[r.ours] for r in wanted}, entries)
    names = {r.ours for r in encoder_rows}
    report = LoadReport(
        source=str(folder),
        loaded=tuple(full(r.theirs, prefix) for r in wanted),
        renamed=tuple(renamed),
        wrapper=wrapper,
        prefix=prefix,
        carried=tuple(full(n, prefix) for n in kept),
        ignored={full(n, prefix): "replaced by the new head" for n in replaced},
        tied=tied,
        new=tuple(full(r.theirs, prefix or table.prefix) for r in fresh),
        dtypes=dict(Counter(e.dtype for e in entries.values())),
        warnings=tuple(warnings),
    )
    return Loaded(
        {k: v for k, v in tensors.items() if k in names},
        {k: v for k, v in tensors.items() if k not in names},
        kept,
        report,
    )


def disagreements(
    wanted: list[Row], found: dict[str, Stored], sizes: dict[str, int], strange: set[str]
) -> list[str]:
    """What is missing, wrongly shaped, of a dtype we don't read, or unexpected; each with its nearest."""
    out, missing = [], [r for r in wanted if r.theirs not in found]
    gone = [full(r.theirs, "") for r in missing]
    extra = sorted(full(n, "") for n in strange)
    for word, names, others in (("missing", gone, extra), ("unexpected", extra, gone)):
        lines = folded(names)
        for name in lines[:MOST]:
            close = difflib.get_close_matches(name, others[:1000], n=1, cutoff=0.6)
            where = "in the file" if word == "missing" else "missing"
            out.append(f"{word}: {shown(name)}" + (f" (nearest {where}: {shown(close[0])})" if close else ""))
        out += [f"{word}: {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    for row in wanted:
        entry = found.get(row.theirs)
        letters = row.shape.split()
        shape = tuple(sizes.get(letter, 0) for letter in letters)
        if entry is not None and entry.shape != shape:
            keys = ", ".join(LETTERS[letter] for letter in dict.fromkeys(letters))
            out.append(
                f"wrong shape: {full(row.theirs, '')} is {entry.shape} in the file, {shape} by config.json ({keys})"
            )
    for name in sorted(set(found) - strange):
        short, dtype = full(name, ""), found[name].dtype
        if dtype not in DTYPES and (short, dtype) != (COUNTER, "I64"):
            out.append(f"dtype: {shown(short)} is {shown(dtype)}; read are {', '.join(DTYPES)}")
    return out


def suspicious(tensors: dict[str, Tensor], entries: dict[str, Stored]) -> list[str]:
    """What is allowed and still worth a line: float64 read as less, a matrix or a scale of zeros."""
    halves = sum(e.dtype == "F64" for e in entries.values())
    kept = any(t.dtype == torch.float64 for t in tensors.values())
    out = [f"{halves} tensors are float64 in the file, read in less"] if halves and not kept else []
    for name, tensor in tensors.items():
        # One row of zeros is what RoBERTa publishes for its one segment.
        if name.endswith("weight") and tensor.shape[0] > 1 and not tensor.any():
            out.append(f"{full(name, '')} is all zeros")
    return out


def tie(kept: dict[str, Tensor], found: dict[str, Stored], prefix: str) -> tuple[dict[str, str], list[str]]:
    """Carried tensors that repeat another one are not kept twice: they follow it when it is saved."""
    tied, warnings = {}, []
    for name, target in TIED.items():
        if name not in kept or target not in found:
            continue
        other = read(found[target], None)
        if kept[name].dtype == other.dtype and torch.equal(kept[name], other):
            tied[name] = target
            del kept[name]
        else:
            warnings.append(
                f"{name} differs from {full(target, prefix)}, to which it is tied elsewhere; kept apart"
            )
    return tied, warnings


def save(
    folder: Path,
    family: str,
    num_layers: int,
    head: str | None,
    encoder_state: dict[str, Tensor],
    head_state: dict[str, Tensor],
    carried: dict[str, Tensor],
    report: LoadReport | None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write model.safetensors under published names. With a head, names carry the family's prefix.

    `dtype`: of the file; None keeps each tensor's own.
    """
    table = NAMES[family]
    encoder_rows, head_rows = rows_for(table, num_layers, head)
    prefix = table.prefix if head or report is None else report.prefix
    out = {r.theirs: encoder_state[r.ours] for r in encoder_rows} | {
        r.theirs: head_state[r.ours] for r in head_rows
    }
    out |= {n: t for n, t in carried.items() if n not in out}
    for name, target in (report.tied if report else {}).items():
        out.setdefault(name, out[target])
    plain = {}
    for name, tensor in out.items():  # copies: tied tensors must not share their memory in a file
        number = dtype if tensor.is_floating_point() else None
        plain[full(name, prefix)] = tensor.detach().to("cpu", number, copy=True).contiguous()
    path = Path(folder) / SINGLE
    with system.replacing(path) as part:
        try:
            save_file(plain, part, metadata={"format": "pt"})
        except SafetensorError as problem:
            raise system.disk_problem(path, problem) from problem
    return path


def full(name: str, prefix: str) -> str:
    """A plain name with the prefix in the place of its "@"."""
    return prefix + name[1:] if name.startswith("@") else name


def folded(names: list[str] | tuple[str, ...]) -> list[str]:
    """Names that differ in the layer number only, as one: encoder.layer.{0,1,5}.output..."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "{}", name, count=1), []).append(name)
    out = []
    for pattern, members in groups.items():
        numbers = [re.search(r"(?<=\.)\d+(?=\.)", m) for m in members]
        whole = len(members) > 1 and all(numbers)
        out += [pattern.replace("{}", "{" + ",".join(n[0] for n in numbers) + "}")] if whole else members
    return out
