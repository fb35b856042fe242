"""What comes before fine-tuning, to be compared: random weights, the published ones, or these trained further.

In:  weights, a word of [study] pretraining, and the texts to learn from.   Out: weights that a spec can name.

Continued pre-training reads the texts of training and validation, all of them, whatever number of labels is used:
texts without labels are what there is plenty of. It never reads the test part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .. import system
from ..data import Splits
from ..encoder import initialise
from ..folder import read_json
from ..loading import load
from ..pretrain import SUMMARY, Settings, pretrain
from ..spec import TaskSpec

SENTENCE = re.compile(
    r"(?<=[.!?…。！？])\s+"
)  # a rough border will do: what is learned from is words and their order
MOST_TOKENS = 128  # of a piece that is learned from


def prepared(out: Path, task: TaskSpec, word: str, splits: Splits, epochs: int) -> str:
    """The weights to fine-tune, made from those of the task in the folder `out` unless they are there."""
    weights, seed = task.model.weights, task.train.seed
    if word == "published":
        return weights
    if (out / "config.json").is_file() and read_json(out / SUMMARY).get("status", "completed") == "completed":
        return str(out)
    if word == "none":
        model = load(weights, head=None, device="cpu")
        initialise(model.encoder, model.config.init_std, seed)
        model.carried = {}  # heads of the file, which fit the published encoder
        model.save(out)
        return str(out)
    text = out.parent / f"{out.name}.txt"
    parts = (splits.train, splits.validation)
    most = min(MOST_TOKENS, task.model.max_tokens)
    settings = Settings(next_sentence=word == "mlm+nsp", epochs=epochs, max_tokens=most, seed=seed)
    try:
        system.write_text(
            text,
            "\n\n".join("\n".join(sentences(t)) for t in unique(t for part in parts for t in part.texts))
            + "\n",
        )
        found = pretrain(weights, text, out, settings, place=task.train.device, overwrite=True)
    finally:
        text.unlink(missing_ok=True)  # texts stay where they came from, also if this fails
    if found["status"] == "stopped":
        raise system.Interrupted("request")
    return str(out)


def sentences(text: str) -> list[str]:
    """A text's sentences, a line each."""
    return [" ".join(one.split()) for one in SENTENCE.split(text) if one.split()]


def unique(texts: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(texts))
