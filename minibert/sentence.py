"""What sentence-transformers put beside the weights: how token vectors become one vector a text.

In:  a folder with modules.json, 1_Pooling/config.json, 2_Dense, sentence_bert_config.json, or without.
Out: the files' bytes (saved again unchanged), an Embedding head or None, and the longest text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from . import config, safefile
from .errors import ConfigError
from .pooling import POOLING, Embedding
from .variants import ACTIVATIONS

FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
# The older booleans, in the order in which several stand side by side -> today's word, which is ours.
OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The last word of a class name in 2_Dense/config.json -> our activation; a name is never imported.
BEHIND_DENSE = {"Identity": None, "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}


def read(folder: Path) -> tuple[dict[str, bytes], Embedding | None, dict[str, int]]:
    """What sentence-transformers put beside the weights: files to keep, how to embed, longest text.

    modules.json lists the steps after the encoder; pooling, a dense layer and normalising are done, any
    other step raises ConfigError rather than being left out.
    """
    if not (folder / "modules.json").is_file():
        return {}, None, {}
    names, longest = [name for name in FILES if (folder / name).is_file()], longest_text(folder)
    try:
        steps = [
            (str(m["type"]).rpartition(".")[2], str(m.get("path", "")))
            for m in json.loads((folder / "modules.json").read_bytes())
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise ConfigError(f"{folder / 'modules.json'} can't be read: {problem}") from None
    pooling, normalise, dense, activation = None, False, None, None
    prompt, whole = default_prompt(folder), True
    for kind, path in steps:
        if kind == "Transformer" and path:
            raise ConfigError(
                f"{folder}: the encoder stands in the folder {path!r}, as older models have it",
                f"Move what is in {path!r} beside modules.json, and empty its path there.",
            )
        if kind in ("Pooling", "Dense") and not re.fullmatch(r"\w+", path):  # never a folder elsewhere
            raise ConfigError(f"{folder / 'modules.json'}: {path!r} is no folder beside it")
        if kind == "Pooling":
            names.append(f"{path}/config.json")
            settings = config.read_json(folder / names[-1])
            pooling = pooling_modes(settings, folder / names[-1])
            whole = settings.get("include_prompt") is not False
        elif kind == "Dense" and pooling and dense is None and not normalise:
            names += [f"{path}/config.json", f"{path}/{safefile.SINGLE}"]
            dense, activation = dense_layer(folder / path)
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise ConfigError(
                f"{folder / 'modules.json'} asks for a step {kind} in a place where it is not supported",
                "Supported: Transformer, Pooling, then perhaps Dense, then perhaps Normalize.",
            )
    if prompt and not whole:
        raise ConfigError(f"{folder}: a prompt that is left out of the pooling is not supported")
    files = {name: (folder / name).read_bytes() for name in names}
    embedder = Embedding(pooling, normalise, dense, activation, prompt) if pooling else None
    return files, embedder, longest


def longest_text(folder: Path) -> dict[str, int]:
    """{"max_tokens": n} as the files say: in sentence_bert_config.json, or today in tokenizer_config.json."""
    settings, most = {}, None
    if (folder / "sentence_bert_config.json").is_file():
        settings = config.read_json(folder / "sentence_bert_config.json")
        most = settings.get("max_seq_length")
    if settings.get("do_lower_case") is True:
        raise ConfigError(
            f"{folder / 'sentence_bert_config.json'}: do_lower_case is not supported",
            "Lower-case the texts, and set it to false.",
        )
    if most is None and (folder / "tokenizer_config.json").is_file():
        most = config.read_json(folder / "tokenizer_config.json").get("model_max_length")
    return {"max_tokens": most} if config.whole(most) and most > 0 else {}


def default_prompt(folder: Path) -> str:
    """What is put in front of every text, if config_sentence_transformers.json names a default prompt."""
    path = folder / "config_sentence_transformers.json"
    settings = config.read_json(path) if path.is_file() else {}
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    if not name:
        return ""
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise ConfigError(f"{path}: default_prompt_name = {name!r} names none of its prompts")
    return prompt


def pooling_modes(settings: dict[str, Any], where: Path) -> tuple[str, ...]:
    """The poolings that a 1_Pooling/config.json asks for, in today's words or the older booleans."""
    today = settings.get("pooling_mode")
    if today is None:
        today = [word for old, word in OLDER.items() if settings.get(old) is True]
    asked = tuple(map(str, today)) if isinstance(today, list) else (str(today),)
    unknown = [word for word in asked if word not in POOLING]
    others = [k for k, v in settings.items() if v is True and k.startswith("pooling_mode") and k not in OLDER]
    if unknown or others or not asked:
        raise ConfigError(
            f"{where} asks for pooling {', '.join((*unknown, *others)) or 'of no kind'}; "
            f"supported: {', '.join(POOLING)}"
        )
    return asked


def dense_layer(folder: Path) -> tuple[nn.Linear, Any]:
    """The linear layer of a 2_Dense folder, and the activation behind it (None: none)."""
    where = folder / "config.json"
    settings = config.read_json(where)
    sizes = settings.get("in_features"), settings.get("out_features")
    word = str(settings.get("activation_function", "")).rpartition(".")[2]
    if not all(config.whole(n) and n > 0 for n in sizes) or word not in BEHIND_DENSE:
        raise ConfigError(
            f"{where}: in_features, out_features = {sizes} and activation {word!r} can't be used",
            f"Activations: {', '.join(BEHIND_DENSE)}.",
        )
    bias = settings.get("bias", True) is True
    found = safefile.stored(folder)
    wanted = {"linear.weight": (sizes[1], sizes[0])} | ({"linear.bias": (sizes[1],)} if bias else {})
    if {name: entry.shape for name, entry in found.items()} != wanted:
        raise ConfigError(f"{folder}: its tensors are {sorted(found)}, not {wanted}")
    layer = nn.Linear(*sizes, bias=bias)
    state = {name.removeprefix("linear."): safefile.read(e, torch.float32) for name, e in found.items()}
    layer.load_state_dict(state)
    name = BEHIND_DENSE[word]
    return layer, ACTIVATIONS[name] if name else None


def files_for(embedder: Embedding, width: int, max_tokens: int) -> dict[str, bytes]:
    """The files that make a folder an embedding model, where it came without: modules, pooling, length."""
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    steps += [("Dense", "2_Dense")] if embedder.dense is not None else []
    steps += [("Normalize", f"{len(steps)}_Normalize")] if embedder.normalise else []
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(steps)
    ]
    pooling = {"word_embedding_dimension": width}
    if len(embedder.pooling) == 1:  # in the older words, which every version reads
        pooling |= {old: word in embedder.pooling for old, word in OLDER.items()}
    else:  # whose order they can't say
        pooling["pooling_mode"] = list(embedder.pooling)
    tables = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": max_tokens, "do_lower_case": False},
    }
    files = {}
    if embedder.dense is not None:
        dense = embedder.dense
        word = next(
            w for w, ours in BEHIND_DENSE.items() if (ours and ACTIVATIONS[ours]) == embedder.activation
        )
        where = "linear" if word == "Identity" else "activation"
        tables["2_Dense/config.json"] = {
            "in_features": dense.in_features,
            "out_features": dense.out_features,
            "bias": dense.bias is not None,
            "activation_function": f"torch.nn.modules.{where}.{word}",
        }
        state = {f"linear.{name}": x.detach().cpu().contiguous() for name, x in dense.state_dict().items()}
        files[f"2_Dense/{safefile.SINGLE}"] = safetensors.torch.save(state, {"format": "pt"})
    return files | {name: (json.dumps(table, indent=2) + "\n").encode() for name, table in tables.items()}
