"""A Model to a folder in the Hugging Face layout, all or nothing.

In:  a Model and a folder that is new, empty, or holds a model to be replaced.
Out: config.json, weights, tokenizer and the files of sentence-transformers, as other libraries read them.
Read next: loading.py, the way back.
"""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checkpoint, device, lora, sentence, system
from .config import REMOVED
from .errors import ConfigError
from .families import ARCHITECTURES, PROBLEMS, reads
from .folder import LITTER
from .tokenize import FILES

if TYPE_CHECKING:
    from .model import Model

# What `save` writes, and may replace.
PRETRAINING = ("history.jsonl", "pretraining.json")  # what pretrain.py leaves beside a model
BESIDE = "README.md"  # the card that report/ writes beside it
PARTS = {"config.json", checkpoint.SINGLE, checkpoint.INDEX, BESIDE, *FILES, *sentence.FILES, *PRETRAINING}
PARTS_LIKE = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|\d+_\w+/(config\.json|model\.safetensors)")
OURS = "minibert"  # our own table in a saved config.json: how texts are cut, what the head reads


def save(
    model: Model,
    folder: Path | str,
    *,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    shard_bytes: int | None = None,
) -> Path:
    """Model.save."""
    dtype = None if dtype is None else device.number(dtype)
    if shard_bytes is not None and shard_bytes < 1:
        raise ConfigError(f"shard_bytes = {shard_bytes} must be 1 or more")
    asked, folder = Path(folder), Path(folder).resolve()
    part, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.{w}" for w in ("part", "old"))
    try:
        check_place(folder, asked, overwrite)
        part.mkdir(parents=True)
        write(model, part, dtype, shard_bytes)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        system.fsync_folder(folder.parent)
    except OSError as problem:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise system.disk_problem(asked, problem) from problem
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return asked


def write(model: Model, folder: Path, dtype: torch.dtype | None, shard_bytes: int | None) -> None:
    """The files of `save`, into a folder that nobody reads yet."""
    kind = model.head.kind if model.head is not None else None
    words = saved_keys(model, kind)
    stated = str(dtype or model.encoder.embeddings.word.weight.dtype).removeprefix("torch.")
    words |= {key: stated for key in ("dtype", "torch_dtype") if key in model.config.raw}
    files = model.files
    described = "modules.json" in files and model.embedder is model.came_with[0]
    if not described:
        files = {name: raw for name, raw in files.items() if name not in sentence.FILES and "/" not in name}
        if model.embedder is not None:
            longest = model.reading["max_tokens"]
            files |= sentence.files_for(model.embedder, model.config.hidden_width, longest)
    for name, raw in files.items() | (model.tokenizer.files.items() if model.tokenizer else set()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    system.write_text(folder / "config.json", model.config.to_json(**words) + "\n")
    checkpoint.save(
        folder,
        model.config,
        kind,
        lora.plain_state(model.encoder),
        head_state(model),
        model.carried,
        model.report,
        dtype,
        shard_bytes,
    )


def head_state(model: Model) -> dict[str, Tensor]:
    """The head's tensors to save, without those that are the word table itself."""
    if model.head is None:
        return {}
    words, own = model.encoder.embeddings.word.weight, dict(model.head.named_parameters())
    repeats = {name for name in model.head.tied if model.head.get_parameter(name) is words}
    return {name: t for name, t in model.head.published().items() if name in own and name not in repeats}


def saved_keys(model: Model, kind: str | None) -> dict[str, Any]:
    """What config.json says beside the encoder: the head, its labels, and how texts are cut."""
    if kind is None:
        return {}
    out = {
        "architectures": [model.config.facts.stem + ARCHITECTURES[reads(kind)]],
        OURS: {**model.reading, "pooling": model.pooling},
    }
    if kind in PROBLEMS:
        out["problem_type"] = PROBLEMS[kind]
    if kind in PROBLEMS or model.labels:
        names = model.labels or ("LABEL_0",)
        out["id2label"] = {str(i): c for i, c in enumerate(names)}
        out["label2id"] = {c: i for i, c in enumerate(names)}
        out["num_labels"] = REMOVED
    if model.config.facts.poolings and model.pooling in model.config.facts.poolings:
        out["classifier_pooling"] = model.pooling
    return out


def check_place(folder: Path, asked: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything, or with `overwrite` anything that is no part of a model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{asked} is a file; a model is a folder")
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()} - {*LITTER}
    if found and not overwrite:
        raise ConfigError(
            f"{asked} exists and is not empty", "Choose another folder, or pass overwrite=True."
        )
    foreign = sorted(n for n in found if n not in PARTS and not PARTS_LIKE.fullmatch(n))
    if foreign:
        raise ConfigError(
            f"{asked} holds files that are no part of a model: {', '.join(foreign[:5])}",
            "Move them away, or choose another folder.",
        )
