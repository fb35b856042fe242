"""EncoderConfig: what an encoder is built from, read from and written to a published config.json.

In:  config.json of a family in FAMILIES.   Out: a frozen EncoderConfig; `to_json` gives it back.

Nothing architectural has a default: published files disagree with every library's defaults
(RoBERTa ships 514 positions, one segment type and eps 1e-5), so a missing key is an error.
Keys we don't know (auto_map, paths, code) are kept as inert data and written back unchanged.
Read next: tokenize.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError, nearest

LARGEST_FILE = 1_000_000  # bytes; a config.json is a page of text, so more is a mistake or an attack


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of an encoder; the letters are those of batch.py."""

    family: str  # a key of FAMILIES: "bert", "roberta"
    vocab_size: int  # V
    hidden_width: int  # D
    num_layers: int  # L
    num_heads: int  # H; head width K = D / H
    ffn_width: int  # F
    num_positions: int  # P, rows of the position table
    num_segments: int  # S; RoBERTa has one
    norm_eps: float  # 1e-12 in BERT, 1e-5 in RoBERTa
    activation: str  # "gelu" is the erf form; BERT's own TensorFlow code used tanh, its ports erf
    dropout: float  # on embeddings and on what each sub-layer adds
    attention_dropout: float  # on attention probabilities
    pad_id: int
    head_dropout: float | None = None  # before the last layer of a head; None: as `dropout`
    init_std: float = 0.02  # of new weights
    raw: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # the file as read

    @property
    def head_width(self) -> int:
        """K = D / H."""
        return self.hidden_width // self.num_heads

    @property
    def position_offset(self) -> int:
        """Row of the position table that a text's first token takes: pad + 1 in RoBERTa's line, where pad is 1."""
        return self.pad_id + 1 if FAMILIES[self.family].positions_after_pad else 0

    @property
    def max_tokens(self) -> int:
        """Longest text the position table holds."""
        return self.num_positions - self.position_offset

    @property
    def sizes(self) -> dict[str, int]:
        """The letters of docs and names.py with their numbers."""
        return {
            "V": self.vocab_size,
            "D": self.hidden_width,
            "L": self.num_layers,
            "F": self.ffn_width,
            "P": self.num_positions,
            "S": self.num_segments,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the head in the file, by id; empty if it states none."""
        names = self.raw.get("id2label")
        if not isinstance(names, dict):
            return ()
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise ConfigError(f"id2label must number the classes 0, 1, 2 ..., not {', '.join(names)}")
        return tuple(str(names[str(i)]) for i in range(len(names)))

    def to_json(self, **extra: Any) -> str:
        """The config.json of this encoder: the file as read, our values over it, `extra` on top."""
        out = dict(self.raw)
        out["model_type"] = self.family
        for ours, theirs in KEYS.items():
            value = getattr(self, ours)
            if value is not None or theirs in out:
                out[theirs] = value
        out.update(extra)
        # Escaped to ASCII, as other libraries write it: a name may hold what no UTF-8 file can.
        return json.dumps({k: v for k, v in out.items() if v is not REMOVED}, indent=2)


REMOVED: Any = object()  # to_json(key=REMOVED) leaves a key of the file out

# ours -> the key in config.json
KEYS = {
    "vocab_size": "vocab_size",
    "hidden_width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "num_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "pad_id": "pad_token_id",
    "head_dropout": "classifier_dropout",
    "init_std": "initializer_range",
}
OPTIONAL = {"head_dropout": None, "init_std": 0.02}
COUNTS = (
    "vocab_size",
    "hidden_width",
    "num_layers",
    "num_heads",
    "ffn_width",
    "num_positions",
    "num_segments",
)
SHARES = ("dropout", "attention_dropout", "head_dropout")
ACTIVATIONS = ("gelu", "relu")


@dataclass(frozen=True)
class Family:
    """What a family's config.json implies without saying it."""

    positions_after_pad: bool  # fairseq numbers positions from pad + 1 (RoBERTa's `make_positions`)
    architectures: dict[str, str]  # name in "architectures" -> kind of head


FAMILIES = {
    "bert": Family(
        positions_after_pad=False,
        architectures={"BertModel": "", "BertForSequenceClassification": "classification"},
    ),
    "roberta": Family(
        positions_after_pad=True,
        architectures={"RobertaModel": "", "RobertaForSequenceClassification": "classification"},
    ),
}

# Keys that change the arithmetic in ways we don't do: the value must be the one listed, if there.
ONLY = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "is_encoder_decoder": (False,),
}


def read(path: Path | str) -> EncoderConfig:
    """Read a config.json. Raises ConfigError that lists every problem at once."""
    path = Path(path)
    return parse(read_json(path), str(path))


def read_json(path: Path, error: type = ConfigError) -> dict[str, Any]:
    """A small JSON object from a file, or `error` naming line and column."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise error(f"{path} is no regular file")
        if size > LARGEST_FILE:
            raise error(f"{path} has {size:,} bytes; a file of this kind is under {LARGEST_FILE:,}")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise error(f"{path} can't be read: {problem.strerror or problem}") from None
    except json.JSONDecodeError as problem:
        raise error(
            f"{path} is no JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}"
        ) from None
    except (ValueError, RecursionError) as problem:  # no UTF-8, a number of 5,000 digits, too deep
        raise error(f"{path} is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise error(f"{path} must hold a JSON object, not a {type(found).__name__}")
    return found


def parse(raw: dict[str, Any], where: str = "config.json") -> EncoderConfig:
    """Build a config from the tables of a config.json; all problems in one ConfigError."""
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type = {family!r} is not one we know{nearest(str(family), FAMILIES)}",
            f"Supported: {', '.join(FAMILIES)}.",
        )
    problems, values = [], {}
    for ours, theirs in KEYS.items():
        if theirs in raw or ours in OPTIONAL:
            values[ours] = raw.get(theirs, OPTIONAL.get(ours))
        else:
            problems.append(f"{theirs} is missing (it has no safe default)")
    for name in COUNTS:
        if name in values and not (whole(values[name]) and values[name] > 0):
            problems.append(f"{KEYS[name]} = {values[name]!r} must be a whole number above 0")
    for name in SHARES:
        value = values.get(name)
        if value is not None and not (number(value) and 0 <= value < 1):
            problems.append(f"{KEYS[name]} = {value!r} must be a number from 0 to below 1")
    for name in ("norm_eps", "init_std"):
        if name in values and not (number(values[name]) and values[name] > 0):
            problems.append(f"{KEYS[name]} = {values[name]!r} must be a number above 0")
    if "activation" in values and values["activation"] not in ACTIVATIONS:
        problems.append(f"hidden_act = {values['activation']!r}: supported are {', '.join(ACTIVATIONS)}")
    for key, allowed in ONLY.items():
        if raw.get(key, allowed[0]) not in allowed:
            problems.append(f"{key} = {raw[key]!r} is not supported: only {allowed[0]!r}")
    problems += misfits(family, values)
    if problems:
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {p}" for p in problems))
    return EncoderConfig(family=family, raw=dict(raw), **values)


def misfits(family: str, values: dict[str, Any]) -> list[str]:
    """Sizes that are each fine and don't go together; those that are not fine are left out."""
    sizes = {k: v for k, v in values.items() if whole(v) and (v > 0 or k == "pad_id")}
    width, heads, rows = (sizes.get(k) for k in ("hidden_width", "num_heads", "vocab_size"))
    out, pad = [], sizes.get("pad_id")
    if width and heads and width % heads:
        out.append(f"hidden_size = {width} is no multiple of num_attention_heads = {heads}")
    if "pad_id" in values and (pad is None or pad < 0 or (rows and pad >= rows)):
        out.append(f"pad_token_id = {values['pad_id']!r} is no id below vocab_size = {rows}")
    elif pad is not None and FAMILIES[family].positions_after_pad:
        places = sizes.get("num_positions", pad + 2)
        if places < pad + 2:
            out.append(f"max_position_embeddings = {places}: text starts at position {pad + 1} (pad + 1)")
    return out


def whole(value: Any) -> bool:
    """A whole number, and not true or false, which Python counts as one."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> bool:
    """A finite number, and not true or false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
