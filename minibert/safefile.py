"""The files of a checkpoint: what a safetensors file says it holds, checked before a byte of it is used.

In:  a folder with model.safetensors, or with shards and their index.
Out: name -> Stored for every tensor, and one tensor at a time, in memory of its own.

Every fault is a WeightsError that names the file; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import config
from .errors import WeightsError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000  # bytes, as in safetensors itself
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

# What a file that is no safetensors usually is, by its first bytes.
IMPOSTORS = [
    (
        (b"version https://git-lfs",),
        "a Git LFS pointer, not the weights themselves",
        "Fetch the real file: git lfs pull",
    ),
    ((b"<",), "a web page saved under this name", "The download failed: fetch it again."),
    ((b"{", b"["), "a JSON text, probably an error message saved under this name", "Fetch the file again."),
    (
        (b"PK\x03\x04",),
        "a PyTorch pickle (zip) under this name",
        "Convert it where you trust it; minibert never unpickles.",
    ),
    (
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a Python pickle under this name",
        "Convert it where you trust it; minibert never unpickles.",
    ),
]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, before it is read: where, which dtype, which shape."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint folder, by its name in the file, without reading the data."""
    folder = Path(folder)
    try:
        if os.path.lexists(folder / SINGLE):  # a dangling link is told, not passed over
            return header(folder / SINGLE)
        if os.path.lexists(folder / INDEX):
            return sharded(folder)
    except OSError as problem:
        raise WeightsError(f"{folder} can't be read: {problem}") from None
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
    if pickles:
        raise WeightsError(
            f"{folder} holds only {pickles[0]}, a Python pickle, which can run code when it is read",
            "minibert never unpickles. Where you trust the file, load it with torch and write it with "
            f"safetensors.torch.save_file(state_dict, '{SINGLE}').",
        )
    raise WeightsError(f"{folder} holds neither {SINGLE} nor {INDEX}")


def header(path: Path) -> dict[str, Stored]:
    """Read and check the header of one safetensors file. Raises WeightsError with what it is instead."""
    try:
        if not path.is_file():
            raise WeightsError(f"{path} is no regular file")
        size = path.stat().st_size
        with open(path, "rb") as file:
            first = file.read(32)
            length = int.from_bytes(first[:8], "little")
            if length > min(LARGEST_HEADER, size - 8):  # 640 bytes of header begin like a pickle
                for starts, what, fix in IMPOSTORS:
                    if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(starts):
                        raise WeightsError(f"{path} is {what}", fix)
                if size < 8:
                    raise WeightsError(f"{path} has {size} bytes: it is empty or cut off", "Fetch it again.")
                raise WeightsError(
                    f"{path} is truncated or no safetensors file: its header claims {length:,} bytes, the file has {size:,}",
                    "Fetch it again.",
                )
            file.seek(8)
            raw = file.read(length)
    except OSError as problem:
        raise WeightsError(f"{path} can't be read: {problem.strerror or problem}") from None
    spans = parse_header(raw, path)
    if not spans:
        raise WeightsError(f"{path} contains no tensors")
    have, want = size, 8 + length + max(high for _, _, high in spans)
    if have != want:
        word = f"{want - have:,} bytes are missing" if want > have else f"{have - want:,} bytes too many"
        raise WeightsError(f"{path} has {have:,} bytes, its header says {want:,}: {word}", "Fetch it again.")
    check_spans(spans, path)
    return {entry.name: entry for entry, _, _ in spans}


def parse_header(raw: bytes, path: Path) -> list[tuple[Stored, int, int]]:
    """The JSON of a header as (tensor, first byte, end), each of the right type and no name twice."""

    def unique(pairs: list) -> dict:
        counts = Counter(name for name, _ in pairs)
        if len(counts) < len(pairs):
            raise ValueError(f"{shown(counts.most_common(1)[0][0])} is named twice")
        return dict(pairs)

    def whole(*numbers: object) -> bool:
        return all(config.whole(n) and n >= 0 for n in numbers)

    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
        notes = table.pop("__metadata__", None) or {}
        if not all(isinstance(note, str) for note in notes.values()):
            raise ValueError("__metadata__ must hold texts")
        spans = []
        for name, info in table.items():
            low, high = info["data_offsets"]
            if not (isinstance(info["dtype"], str) and whole(low, high, *info["shape"]) and low <= high):
                raise ValueError(f"the entry of tensor {shown(name)} makes no sense")
            spans.append((Stored(path, name, info["dtype"], tuple(info["shape"])), low, high))
        return spans
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise WeightsError(f"{path}: the header is damaged: {problem}", "Fetch it again.") from None


def check_spans(spans: list[tuple[Stored, int, int]], path: Path) -> None:
    """Refuse tensors that overlap, leave gaps, or have more or fewer bytes than shape and dtype say."""
    place = 0
    for entry, low, high in sorted(spans, key=lambda span: span[1:]):
        if low != place:
            raise WeightsError(f"{path}: tensor {shown(entry.name)} begins at byte {low:,}, not {place:,}")
        wanted = math.prod(entry.shape) * BYTES.get(entry.dtype, 0)
        if high - low != wanted and entry.dtype in BYTES:
            raise WeightsError(
                f"{path}: tensor {shown(entry.name)} has {high - low:,} bytes; "
                f"{entry.shape} in {entry.dtype} takes {wanted:,}"
            )
        place = high


def sharded(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint in several files, from its index, which is checked against them."""
    where = config.read_json(folder / INDEX, WeightsError).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise WeightsError(f"{folder / INDEX} is no index: it has no table weight_map")
    shards = sorted(set(map(str, where.values())))
    outside = [s for s in shards if Path(s).name != s or "/" in s or "\\" in s]
    if outside:
        raise WeightsError(f"{folder / INDEX} names a file outside the folder: {shown(outside[0])}")
    missing = [s for s in shards if not (folder / s).is_file()]
    if missing:
        raise WeightsError(
            f"{folder}: {len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:5])}"
        )
    found: dict[str, Stored] = {}
    for shard in shards:
        for name, entry in header(folder / shard).items():
            if name in found:
                raise WeightsError(f"{folder}: tensor {shown(name)} stands in two shards")
            found[name] = entry
    lost = sorted(n for n in where if n not in found or found[n].path.name != where[n])
    extra = sorted(set(found) - set(where))
    if lost or extra:
        words = [f"the index names {shown(n)}, its shard lacks it" for n in lost[:5]]
        words += [f"{shown(n)} is in a shard and not in the index" for n in extra[:5]]
        raise WeightsError(f"{folder}: index and shards disagree:\n  " + "\n  ".join(words))
    return found


def read(entry: Stored, dtype: torch.dtype | None) -> Tensor:
    """One tensor in memory of its own, finite throughout, as `dtype` (None: as stored)."""
    try:
        with safe_open(entry.path, framework="pt") as file:
            tensor = file.get_tensor(entry.name)
    except (SafetensorError, OSError) as problem:
        raise WeightsError(f"{entry.path}: tensor {shown(entry.name)} can't be read: {problem}") from None
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise WeightsError(
            f"{entry.path}: tensor {shown(entry.name)} holds {count:,} values that are not finite",
            "The file is damaged, or training diverged before it was saved.",
        )
    return tensor.to(dtype, copy=True) if dtype is not None and tensor.is_floating_point() else tensor.clone()


def shown(name: str) -> str:
    """A name from a file, safe to print: escaped and cut."""
    text = str(name).encode("unicode_escape").decode()
    return text if len(text) <= 120 else text[:117] + "..."
