"""What sentence-transformers put beside the weights: how token vectors become one vector a text.

In:  a folder with modules.json, 1_Pooling/config.json, sentence_bert_config.json, or without.
Out: the files' bytes (saved again unchanged), an Embedding head or None, and the longest text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import config
from .errors import ConfigError
from .heads import Embedding

# our word -> theirs, today's and the older boolean
MODES = {"cls": ("cls", "pooling_mode_cls_token"), "mean": ("mean", "pooling_mode_mean_tokens")}


def read(folder: Path) -> tuple[dict[str, bytes], Embedding | None, dict[str, int]]:
    """What sentence-transformers put beside the weights: files to keep, how to embed, longest text.

    modules.json lists the steps after the encoder; pooling and normalising are done, any other step
    raises ConfigError rather than being left out.
    """
    if not (folder / "modules.json").is_file():
        return {}, None, {}
    files = {"modules.json": (folder / "modules.json").read_bytes()}
    longest = {}
    for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        if (folder / name).is_file():
            files[name] = (folder / name).read_bytes()
    if "sentence_bert_config.json" in files:
        most = config.read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        longest = {"max_tokens": most} if isinstance(most, int) else {}
    try:
        steps = [
            (str(m["type"]).rpartition(".")[2], str(m.get("path", "")))
            for m in json.loads(files["modules.json"])
        ]
    except (ValueError, TypeError, KeyError) as problem:
        raise ConfigError(f"{folder / 'modules.json'} can't be read: {problem}") from None
    pooling, normalise = None, False
    for kind, path in steps:
        if kind == "Pooling":
            name = f"{Path(path).name}/config.json"
            files[name] = (folder / name).read_bytes()
            pooling = pooling_mode(config.read_json(folder / name), folder / name)
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise ConfigError(f"{folder / 'modules.json'} asks for a step {kind}, which is not supported")
    return files, Embedding(pooling, normalise) if pooling else None, longest


def pooling_mode(settings: dict[str, Any], where: Path) -> str:
    """The one pooling that a 1_Pooling/config.json asks for, in today's words or the older booleans."""
    today = settings.get("pooling_mode")
    asked = (
        [today]
        if isinstance(today, str)
        else today or [k for k, v in settings.items() if v is True and k.startswith("pooling_mode")]
    )
    found = [name for name, words in MODES.items() if set(words) & set(asked)]
    if len(found) != 1 or len(asked) != 1:
        raise ConfigError(
            f"{where} asks for pooling {', '.join(asked) or 'of no kind'}; supported: one of {', '.join(MODES)}"
        )
    return found[0]
