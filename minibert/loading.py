"""Published weights to a Model: which head the checkpoint holds, its labels, and how its texts are cut.

In:  a catalogue name, a folder in the Hugging Face layout, a run folder, or a hub id.   Out: a Model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from . import catalogue, checkpoint, config, heads, sentence
from . import device as devices
from .config import EncoderConfig
from .encoder import Encoder, initialise
from .errors import ConfigError, nearest
from .families import PROBLEMS
from .folder import model_of
from .model import Model
from .pooling import known_pooling
from .saving import OURS
from .tokenize import TRUNCATIONS, Tokenizer


def load(
    source: str | Path,
    head: str | None = "own",
    kernel: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
    *,
    labels: Sequence[str] = (),
    pooling: str | None = None,
    seed: int = 0,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> Model:
    """Load published weights.

    source   a name in weights/catalogue.toml, a folder in the Hugging Face layout, a run folder, or a hub id
    head     "own": the head that the checkpoint holds, or none; None: the encoder only;
             "classification", "multilabel", "regression", "tokens", "choice", "span": a new one, made
             from `seed`, listed as new in the report; "mlm", "nsp", "pretraining", "detection": that of
             the checkpoint where it holds one, else a new one
    labels   class names of a new head that has classes
    pooling  what a new head reads of a text: "cls", the first token (as published, the default), "mean",
             "max" or another name in POOLING
    dtype    of the parameters: "auto" is float32
    engine   "torch", or "auto", which is the same
    Raises WeightsError, ConfigError, TokenizerError, EnvironmentProblem.
    """
    if engine not in ("auto", "torch"):
        raise ConfigError(f"engine {engine!r} is none of auto, torch")
    place, number = devices.pick(device), devices.number(dtype)
    folder = model_of(catalogue.locate_weights(source))
    settings = with_dropout(config.read(folder / "config.json"), dropout, attention_dropout)
    new = head not in ("own", None)
    kind = known_head(own_head(settings) if head == "own" else head)
    if labels and not new:
        raise ConfigError("labels are for a new head: a head of the file has its own")
    top = heads.HEADS[kind] if kind else None
    if top and head == "own" and top.pretrained and not checkpoint.holds(folder, settings, kind):
        kind = top = None  # encoders cut out of such a model still say in config.json what it was
    if kind:
        heads.line_of(settings, kind)  # raises where this family has no such head
    classes = new_outputs(top, labels) if new else None
    loaded = checkpoint.load(
        folder,
        settings,
        kind,
        new=new,
        pretrained=bool(top and top.pretrained),
        classes=classes,
        dtype=number,
    )
    reading, own_pooling = own_reading(settings, folder)
    if pooling is not None and not new:
        raise ConfigError("pooling is for a new head: a head of the file reads what it was trained on")
    if pooling is not None and not top.texts:
        raise ConfigError(f"pooling is for heads that read whole texts; {kind} reads every token")
    published = settings.raw.get("classifier_pooling", "cls")  # ModernBERT's own word for it
    pooling = known_pooling(pooling or (published if new else own_pooling or published))
    with torch.device("meta"), Unfilled():
        encoder = Encoder(settings, kernel)
    encoder.load_state_dict(loaded.encoder, assign=True)
    names = ()
    if top:
        held = loaded.head["out.weight"].shape[0] if "out.weight" in loaded.head else top.outputs
        outputs = classes or held
        names = tuple(labels) if new else own_labels(settings, kind, outputs, folder)
        top = top(settings, outputs, pooling)
        initialise(top, settings.init_std, seed)
        top.load_state_dict({k: v for k, v in loaded.head.items() if k not in top.tied}, strict=False)
        words = encoder.embeddings.word.weight
        own = loaded.head if settings.tied else dict.fromkeys(top.tied, words.detach().clone()) | loaded.head
        heads.tie(top, words, own)
        top.to(number)
    files, embedder, longest = sentence.read(folder)
    if embedder is not None:
        embedder.to(number)
    model = Model(
        encoder, top, tokenizer_of(folder, settings), labels=names, reading=reading or longest,
        embedder=embedder, carried=loaded.carried, report=loaded.report, files=files, pooling=pooling,
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if embedder is not None:  # as published, whatever is learnt beside it
        embedder.requires_grad_(False)
    return model.to(place).eval()


class Unfilled(TorchFunctionMode):
    """Inside, new parameters are not drawn: the file's take their place.

    Drawn on the device "meta", a normal distribution costs torch the import of its whole compiler, which takes
    longer than reading the weights.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is torch.nn.init.normal_ else func(*args, **kwargs)


def with_dropout(settings: EncoderConfig, dropout: float | None, attention: float | None) -> EncoderConfig:
    """The config with other shares of dropout, where they are given."""
    asked = {"dropout": dropout, "head_dropout": dropout, "attention_dropout": attention}
    if settings.facts.gated:
        asked["ffn_dropout"] = dropout
    changes = {k: v for k, v in asked.items() if v is not None}
    if not all(config.number(v) and 0 <= v < 1 for v in changes.values()):
        raise ConfigError(f"dropout must be a number from 0 to below 1, not {changes}")
    return replace(settings, **changes)


def known_head(kind: str | None) -> str | None:
    """A kind of head that there is, or None for none."""
    if kind is not None and kind not in heads.HEADS:
        raise ConfigError(
            f"head {kind!r} is none of own, {', '.join(heads.HEADS)}{nearest(kind, heads.HEADS)}"
        )
    return kind


def new_outputs(head: type, labels: Sequence[str]) -> int:
    """How many numbers a new head gives: as many as it always does, else one a label."""
    if head.outputs is not None or head.pretrained:
        if labels:
            raise ConfigError(f"a head {head.kind!r} has no classes: leave labels out")
        return head.outputs or 0
    least = 1 if head.kind == "multilabel" else 2
    if len(labels) < least:
        raise ConfigError(f"a new {head.kind} head needs labels=[...], {('one', 'two')[least - 1]} or more")
    if len(set(labels)) < len(labels):
        raise ConfigError(f"labels must differ from one another: {', '.join(map(str, labels))}")
    return len(labels)


def own_head(settings: EncoderConfig) -> str | None:
    """The head that config.json states, or None. One output and no word about it is a regression,
    which is how the published layout means it."""
    architectures = settings.raw.get("architectures") or [""]
    known = settings.facts.architectures
    line = known.get(str(architectures[0])) if isinstance(architectures, list) else None
    if line != "text":
        return line or None
    problem = settings.raw.get("problem_type")
    if problem is None:
        return "regression" if len(settings.labels) == 1 else "classification"
    kinds = {theirs: ours for ours, theirs in PROBLEMS.items()}
    if problem not in kinds:
        raise ConfigError(f"problem_type = {problem!r} is none of {', '.join(kinds)}")
    return kinds[problem]


def own_labels(settings: EncoderConfig, kind: str, outputs: int, folder: Path) -> tuple[str, ...]:
    """Class names of the head in the file: those of config.json, or LABEL_0.. where it names none."""
    if kind == "regression" and outputs != 1:
        raise ConfigError(f"{folder} holds a regression head with {outputs} outputs; supported is one")
    if heads.HEADS[kind].outputs is not None or heads.HEADS[kind].pretrained:
        return ()
    names = settings.labels or tuple(f"LABEL_{i}" for i in range(outputs))
    if len(set(names)) < len(names):  # of equal names one would hide the other in a table
        names = tuple(f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names))
    if len(names) != outputs or (outputs < 2 and kind != "multilabel"):
        raise ConfigError(
            f"{folder}: config.json names {len(settings.labels)} classes (id2label), the head has {outputs} outputs",
            'A head with one output is a regression: "problem_type": "regression".' if outputs == 1 else "",
        )
    return names


def own_reading(settings: EncoderConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """How texts are cut and what the head reads, from our table in a config.json that we saved."""
    table = settings.raw.get(OURS, {})

    def above_0(n: Any) -> bool:
        return config.whole(n) and n > 0

    checks = {
        "max_tokens": above_0,
        "truncation": TRUNCATIONS.__contains__,
        "stride": lambda n: n == 0 or above_0(n),
        "max_windows": above_0,
        "pooling": lambda word: isinstance(word, str),
    }
    if not isinstance(table, dict) or not all(k in checks and checks[k](v) for k, v in table.items()):
        raise ConfigError(f"{folder / 'config.json'}: the table {OURS!r} was damaged: {table}")
    return {k: v for k, v in table.items() if k != "pooling"}, table.get("pooling", "")


def tokenizer_of(folder: Path, settings: EncoderConfig) -> Tokenizer | None:
    """The folder's tokenizer, which must fit the word table; None if it has no tokenizer files at all."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return None
    tokenizer = Tokenizer.from_folder(folder)
    counted = settings.pad_id if settings.position_offset else None  # elsewhere pad changes nothing
    tokenizer.check_fits(settings.vocab_size, str(folder), counted)
    return tokenizer
