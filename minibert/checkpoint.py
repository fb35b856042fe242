"""safetensors in and out: every tensor of a checkpoint accounted for, or one error that lists all.

In:  a folder with model.safetensors (or a sharded index) and the name tables of names.py.
Out: our state dicts and a LoadReport; and back, under the published names of today.

Works on state dicts, not on classes. Nothing is ever unpickled.
Names in a file are first made plain: a tool's wrapper ("module.") is taken off, LayerNorm's old
gamma and beta become weight and bias, and "@" stands for the family's prefix, there or not.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from . import system
from .config import EncoderConfig
from .errors import WeightsError
from .families import reads
from .names import ALIASES, COUNTER, LETTERS, NAMES, TIED, WRAPPERS, Names, Row
from .safefile import DTYPES, INDEX, SINGLE, Stored, read, shown, stored

MOST = 20  # lines of one kind in an error
APART = {to: name for name, to in TIED.items() if not to.startswith("@")}  # bias -> the decoder's own
PRETRAINED = ("mlm", "nsp", "pretraining")  # heads whose layers a new head may build on


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


def rows_for(settings: EncoderConfig, head: str | None) -> tuple[list[Row], list[Row]]:
    """The rows of a whole model with layer numbers filled in: encoder's and head's, theirs plain."""
    table = NAMES[settings.family]
    encoder = [r for r in table.encoder if settings.projected or not r.ours.startswith("embeddings.project.")]
    for i in range(settings.blocks):
        rows = table.layer + (table.later if i else [])
        encoder += [r._replace(ours=r.ours.format(i), theirs=r.theirs.format(i)) for r in rows]
    tops = list(table.heads[reads(head)] if head else [])
    if not settings.tied:  # of two biases that are one elsewhere, the decoder's is the one that is added
        tops = [r._replace(theirs=APART.get(r.theirs, r.theirs)) for r in tops]
    return [r._replace(theirs="@" + r.theirs) for r in encoder], tops


def load(
    folder: Path,
    settings: EncoderConfig,
    head: str | None,
    *,
    new: bool = False,
    pretrained: bool = False,
    classes: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Loaded:
    """Read a checkpoint.

    head        whose rows are wanted (None: the encoder's only)
    new         only what pre-training made under the head is read (the pooler, ModernBERT's dense layer),
                if the file has it; the rest is left to be initialised and listed as new, and other heads
                of the file are left out: once the encoder learns, they no longer fit it
    pretrained  of a new head, too, all that the file holds is read: it came with the encoder
    classes     of the head; that of the file if absent
    Raises one WeightsError with all missing, unexpected and wrongly shaped tensors.
    """
    table = NAMES[settings.family]
    entries = stored(folder)
    plain, wrapper, prefix, renamed = plain_names(list(entries), table)
    by_plain = {plain[name]: entry for name, entry in entries.items()}
    encoder_rows, head_rows = rows_for(settings, head)
    ties = TIED if settings.tied else {}
    repeats = repeated(by_plain, ties)
    # A repetition of another tensor is not read again: whoever holds both puts it in.
    told = [r for r in head_rows if ties.get(r.theirs) in by_plain and not is_apart(r, by_plain, repeats)]
    asked = [r for r in head_rows if r not in told]
    trained = {r.theirs for kind in PRETRAINED for r in table.heads.get(kind, ())}
    fresh = [r for r in asked if new and is_new(r, head_rows, by_plain, trained, pretrained)]
    wanted = encoder_rows + [r for r in asked if r not in fresh]
    sizes = settings.sizes | ({"C": classes} if classes else classes_in(by_plain, head_rows))
    known = {r.theirs for r in encoder_rows + head_rows}
    carried = [n for n in by_plain if n not in known and n in table.carried]
    strange = set(by_plain) - known - set(carried)
    problems = disagreements(wanted, by_plain, sizes, strange, settings.facts.keys)
    if problems:
        raise WeightsError(
            f"{folder} does not fit its config.json:\n" + "\n".join(f"  {p}" for p in problems)
        )
    tensors = read_rows(wanted, by_plain, dtype)
    dropped = [r.theirs for r in fresh if r.theirs in by_plain]
    if new and not (pretrained and not fresh):
        dropped += [n for n in carried if n != COUNTER]
    kept = {n: read(by_plain[n], None) for n in carried if n not in dropped and n not in repeats}
    differing = [n for n in ties if n in by_plain and ties[n] in by_plain and n not in (*repeats, *dropped)]
    names = {r.ours for r in encoder_rows}
    report = LoadReport(
        source=str(folder),
        loaded=tuple(dict.fromkeys(full(r.theirs, prefix) for r in wanted)),
        renamed=tuple(renamed),
        wrapper=wrapper,
        prefix=prefix,
        carried=tuple(full(n, prefix) for n in kept),
        ignored={full(n, prefix): "no part of the new head" for n in dropped},
        tied={n: to for n, to in repeats.items() if n not in dropped},
        new=tuple(full(r.theirs, prefix or table.prefix) for r in fresh),
        dtypes=dict(Counter(e.dtype for e in entries.values())),
        warnings=tuple(
            [
                f"{n} differs from {full(TIED[n], prefix)}, to which it is tied elsewhere; kept apart"
                for n in differing
            ]
            + suspicious({r.theirs: tensors[r.ours] for r in wanted}, entries)
        ),
    )
    return Loaded(
        {k: v for k, v in tensors.items() if k in names},
        {k: v for k, v in tensors.items() if k not in names},
        kept,
        report,
    )


def holds(folder: Path, settings: EncoderConfig, head: str) -> bool:
    """Whether a file has anything of a head, the pooler and tied tensors aside."""
    found = plain_names(list(stored(folder)), NAMES[settings.family])[0].values()
    rows = rows_for(settings, head)[1]
    return any(r.theirs in found for r in rows if not r.theirs.startswith("@") and r.theirs not in TIED)


def is_apart(row: Row, found: dict[str, Stored], repeats: dict[str, str]) -> bool:
    """Whether the file holds values of its own for a tensor that is tied elsewhere."""
    return row.theirs in found and row.theirs not in repeats


def is_new(row: Row, rows: list[Row], found: dict[str, Stored], trained: set[str], pretrained: bool) -> bool:
    """Whether a new head's tensor is to be initialised, although the encoder comes from a file.

    What pre-training made under it (the pooler, ModernBERT's dense layer) is read where it is there.
    Of a head that is all made so, everything is asked for once any of it is there: then what lacks is
    a fault, not a beginning. Pretraining has two parts, of which one may lack.
    """
    if pretrained:
        own = [r for r in rows if not r.theirs.startswith("@") and part_of(r) == part_of(row)]
        return row.theirs not in found and not any(r.theirs in found for r in own)
    return not (row.theirs in found and (row.theirs.startswith("@") or row.theirs in trained))


def part_of(row: Row) -> str:
    """Which part of a head made of two, "words" or "order"; else nothing."""
    first = row.ours.split(".")[0]
    return first if first in ("words", "order") else ""


def classes_in(found: dict[str, Stored], rows: list[Row]) -> dict[str, int]:
    """{"C": classes} of the head in the file, if it has one with classes."""
    last = next((r.theirs for r in rows if r.shape.startswith("C ")), "")
    return {"C": next(iter(found[last].shape), 0)} if last in found else {}


def repeated(found: dict[str, Stored], ties: dict[str, str]) -> dict[str, str]:
    """The tensors of a file that repeat another one: the decoder of a masked-language head, its bias."""
    out = {}
    for name, target in ties.items():
        a, b = found.get(name), found.get(target)
        if a and b and (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(read(a, None), read(b, None)):
            out[name] = target
    return out


def read_rows(rows: list[Row], found: dict[str, Stored], dtype: torch.dtype) -> dict[str, Tensor]:
    """Our tensors by our names; one of theirs may hold several of ours, side by side along axis 0."""
    whole, out = {}, {}
    for row in rows:
        if row.part is None:
            out[row.ours] = read(found[row.theirs], dtype)
            continue
        if row.theirs not in whole:
            whole[row.theirs] = read(found[row.theirs], dtype)
        i, n = row.part
        out[row.ours] = whole[row.theirs].chunk(n)[i].clone()
    return out


def theirs_of(rows: list[Row], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by plain names, slices joined again."""
    groups: dict[str, list[Tensor]] = {}
    for row in sorted(rows, key=lambda r: r.part or (0, 1)):
        if row.ours in ours:
            groups.setdefault(row.theirs, []).append(ours[row.ours])
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in groups.items()}


def disagreements(
    wanted: list[Row],
    found: dict[str, Stored],
    sizes: dict[str, int],
    strange: set[str],
    keys: dict[str, str | None],
) -> list[str]:
    """What is missing, wrongly shaped, of a dtype we don't read, or unexpected; each with its nearest."""
    out, missing = [], [r for r in wanted if r.theirs not in found]
    gone = list(dict.fromkeys(full(r.theirs, "") for r in missing))
    extra = sorted(full(n, "") for n in strange)
    for word, names, others in (("missing", gone, extra), ("unexpected", extra, gone)):
        lines = folded(names)
        for name in lines[:MOST]:
            close = difflib.get_close_matches(name, others[:1000], n=1, cutoff=0.6)
            where = "in the file" if word == "missing" else "missing"
            out.append(f"{word}: {shown(name)}" + (f" (nearest {where}: {shown(close[0])})" if close else ""))
        out += [f"{word}: {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    for row in {r.theirs: r for r in wanted}.values():
        entry = found.get(row.theirs)
        letters = row.shape.split()
        first, *rest = (sizes.get(x, int(x) if x.isdigit() else 0) for x in letters)
        shape = (first * (row.part[1] if row.part else 1), *rest)
        if entry is not None and entry.shape != shape:
            stated = (key_of(x, keys) for x in letters if not x.isdigit())
            out.append(
                f"wrong shape: {full(row.theirs, '')} is {entry.shape} in the file, {shape} by config.json "
                f"({', '.join(dict.fromkeys(stated))})"
            )
    for name in sorted(set(found) - strange):
        short, dtype = full(name, ""), found[name].dtype
        if dtype not in DTYPES and (name, dtype) != (COUNTER, "I64"):
            out.append(f"dtype: {shown(short)} is {shown(dtype)}; read are {', '.join(DTYPES)}")
    return out


def key_of(letter: str, keys: dict[str, str | None]) -> str:
    """Which key of config.json says how large a letter is."""
    if letter == "C":
        return "number of labels"
    return keys.get(LETTERS[letter]) or keys["hidden_width"]  # E where embeddings are as wide as the rest


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


def save(
    folder: Path,
    settings: EncoderConfig,
    head: str | None,
    encoder_state: dict[str, Tensor],
    head_state: dict[str, Tensor],
    carried: dict[str, Tensor],
    report: LoadReport | None,
    dtype: torch.dtype | None = None,
    shard_bytes: int | None = None,
) -> list[Path]:
    """Write model.safetensors under published names. With a head, names carry the family's prefix.

    head_state   without what only repeats the word table: that is written where the file had it
    dtype        of the file; None keeps each tensor's own
    shard_bytes  several files and their index, each of at most so many bytes of tensors; None: one
    """
    table = NAMES[settings.family]
    encoder_rows, head_rows = rows_for(settings, head)
    prefix = table.prefix if head or report is None else report.prefix
    out = theirs_of(encoder_rows, encoder_state) | theirs_of(head_rows, head_state)
    if not settings.tied:  # the other bias, which is looked for and not used
        out |= {to: out[name] for to, name in APART.items() if name in out and to not in carried}
    out |= {n: t for n, t in carried.items() if n not in out}
    for name, target in (report.tied if report else {}).items():
        if target in out:  # not where the head that held it was taken off
            out.setdefault(name, out[target])
    plain = {}
    for name, tensor in out.items():  # copies: tied tensors must not share their memory in a file
        number = dtype if tensor.is_floating_point() else None
        plain[full(name, prefix)] = tensor.detach().to("cpu", number, copy=True).contiguous()
    shards = split(plain, shard_bytes)
    files = [SINGLE] if len(shards) == 1 else [
        f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))
    ]  # fmt: skip
    for file, tensors in zip(files, shards):
        with system.replacing(folder / file) as part:
            try:
                save_file(tensors, part, metadata={"format": "pt"})
            except SafetensorError as problem:
                raise system.disk_problem(folder / file, problem) from problem
    if len(shards) > 1:
        size = sum(t.nbytes for t in plain.values())
        where = {name: file for file, tensors in zip(files, shards) for name in tensors}
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        system.write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return [folder / file for file in files]


def split(tensors: dict[str, Tensor], most: int | None) -> list[dict[str, Tensor]]:
    """Tensors in their order, in files of at most `most` bytes; a larger tensor stands alone."""
    shards, room = [{}], most or 0
    for name, tensor in tensors.items():
        if most is not None and shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = most
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


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
