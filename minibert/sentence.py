"""What sentence-transformers put beside the weights: how token vectors become one vector a text.

In:  a folder with modules.json, 1_Pooling/config.json, sentence_bert_config.json, or without.
Out: the files' bytes (saved again unchanged), an Embedding head or None, and the longest text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from . import config
from .errors import ConfigError
from .heads import Embedding

FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
# our word -> theirs, today's and the older boolean
MODES = {"cls": ("cls", "pooling_mode_cls_token"), "mean": ("mean", "pooling_mode_mean_tokens")}


def read(folder: Path) -> tuple[dict[str, bytes], Embedding | None, dict[str, int]]:
    """What sentence-transformers put beside the weights: files to keep, how to embed, longest text.

    modules.json lists the steps after the encoder; pooling and normalising are done, any other step
    raises ConfigError rather than being left out.
    """
    if not (folder / "modules.json").is_file():
        return {}, None, {}
    names, longest = [name for name in FILES if (folder / name).is_file()], {}
    if "sentence_bert_config.json" in names:
        most = config.read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        longest = {"max_tokens": most} if config.whole(most) else {}
    try:
        steps = [
            (str(m["type"]).rpartition(".")[2], str(m.get("path", "")))
            for m in json.loads((folder / "modules.json").read_bytes())
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise ConfigError(f"{folder / 'modules.json'} can't be read: {problem}") from None
    pooling, normalise = None, False
    for kind, path in steps:
        if kind == "Pooling":
            if not re.fullmatch(r"\w+", path):  # never a folder elsewhere
                raise ConfigError(f"{folder / 'modules.json'}: {path!r} is no folder beside it")
            names.append(f"{path}/config.json")
            pooling = pooling_mode(config.read_json(folder / names[-1]), folder / names[-1])
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise ConfigError(f"{folder / 'modules.json'} asks for a step {kind}, which is not supported")
    files = {name: (folder / name).read_bytes() for name in names}
    return files, Embedding(pooling, normalise) if pooling else None, longest


def pooling_mode(settings: dict[str, Any], where: Path) -> str:
    """The one pooling that a 1_Pooling/config.json asks for, in today's words or the older booleans."""
    today = settings.get("pooling_mode")
    if today is None:
        today = [k for k, v in settings.items() if v is True and k.startswith("pooling_mode")]
    asked = [str(word) for word in today] if isinstance(today, list) else [str(today)]
    found = [name for name, words in MODES.items() if set(words) & set(asked)]
    if len(found) != 1 or len(asked) != 1:
        raise ConfigError(
            f"{where} asks for pooling {', '.join(asked) or 'of no kind'}; supported: one of {', '.join(MODES)}"
        )
    return found[0]
