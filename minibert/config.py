"""EncoderConfig: what an encoder is built from, read from and written to a published config.json.

In:  config.json of a family in families.py.   Out: a frozen EncoderConfig; `to_json` gives it back.

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
from .families import FAMILIES, Family

LARGEST_FILE = 1_000_000  # bytes; a config.json is a page of text, so more is a mistake or an attack


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of an encoder; the letters are those of batch.py."""

    family: str  # a key of FAMILIES: "bert", "roberta", ...
    vocab_size: int  # V
    hidden_width: int  # D
    num_layers: int  # L
    num_heads: int  # H; head width K = D / H
    ffn_width: int  # F
    num_positions: int  # P, rows of the position table (rotary: the longest text)
    num_segments: int  # S; RoBERTa has one, DistilBERT none
    norm_eps: float  # 1e-12 in BERT, 1e-5 in RoBERTa
    activation: str  # "gelu" is the erf form; BERT's own TensorFlow code used tanh, its ports erf
    dropout: float  # on embeddings and on what a sub-layer adds
    attention_dropout: float  # on attention probabilities
    pad_id: int
    head_dropout: float | None = None  # before the last layer of a head; None: as `dropout`
    init_std: float = 0.02  # of new weights
    embedding_width: int = 0  # E, of the word table where it is not D (ELECTRA, ALBERT)
    num_blocks: int = 0  # distinct blocks, where they are not L (ALBERT: one, walked L times)
    relative_buckets: int = 0  # R: distances that have a bias on the score (MPNet)
    ffn_dropout: float = 0.0  # inside a gated feed-forward
    rotary: tuple[float, ...] = ()  # a layer's base; empty: positions are learnt and added
    windows: tuple[int, ...] = ()  # how far a layer looks to each side, 0: everywhere; empty: all do
    raw: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # the file as read

    @property
    def head_width(self) -> int:
        """K = D / H."""
        return self.hidden_width // self.num_heads

    @property
    def facts(self) -> Family:
        """What the family implies without saying it in its config.json."""
        return FAMILIES[self.family]

    @property
    def words_width(self) -> int:
        """E, the width of the word table: D, but where embeddings are narrow."""
        return self.embedding_width or self.hidden_width

    @property
    def blocks(self) -> int:
        """Distinct blocks: L, but where layers share one."""
        return self.num_blocks or self.num_layers

    @property
    def tied(self) -> bool:
        """Whether a masked-language head reads the word table backwards, as all that is published here."""
        return self.raw.get("tie_word_embeddings") is not False

    @property
    def projected(self) -> bool:
        """Whether embeddings are widened by a linear layer."""
        return self.facts.projected or self.words_width != self.hidden_width

    @property
    def added_dropout(self) -> tuple[float, float]:
        """Share dropped of what attention and of what feed-forward adds."""
        return tuple(getattr(self, name) if name else 0.0 for name in self.facts.added)

    @property
    def position_offset(self) -> int:
        """Row of the position table that a text's first token takes: pad + 1 in RoBERTa's line, where pad is 1."""
        return self.pad_id + 1 if self.facts.positions_after_pad else 0

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
            "E": self.words_width,
            "H": self.num_heads,
            "F": self.ffn_width,
            "P": self.num_positions,
            "S": self.num_segments,
            "R": self.relative_buckets,
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
        for ours, theirs in self.facts.keys.items():
            value = getattr(self, ours)
            if theirs and (value is not None or theirs in out):
                out[theirs] = value
        out.update(extra)
        # Escaped to ASCII, as other libraries write it: a name may hold what no UTF-8 file can.
        return json.dumps({k: v for k, v in out.items() if v is not REMOVED}, indent=2)


REMOVED: Any = object()  # to_json(key=REMOVED) leaves a key of the file out

OPTIONAL = {"head_dropout": None, "init_std": 0.02}
COUNTS = (
    "vocab_size",
    "hidden_width",
    "num_layers",
    "num_heads",
    "ffn_width",
    "num_positions",
    "num_segments",
    "embedding_width",
    "num_blocks",
    "relative_buckets",
)
SHARES = ("dropout", "attention_dropout", "head_dropout", "ffn_dropout")
ACTIVATIONS = ("gelu", "relu", "gelu_new", "gelu_pytorch_tanh")  # the last two are one: gelu by tanh


# Keys that change the arithmetic in ways we don't do: the value must be the one listed, if there.
ONLY = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "chunk_size_feed_forward": (0, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
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
    facts = FAMILIES[family]
    keys = {ours: theirs for ours, theirs in facts.keys.items() if theirs}
    problems, values = [], dict(facts.implied)
    for ours, theirs in keys.items():
        if theirs in raw or ours in OPTIONAL:
            values[ours] = raw.get(theirs, OPTIONAL.get(ours))
        else:
            problems.append(f"{theirs} is missing (it has no safe default)")
    for name in COUNTS:
        if name in keys and name in values and not (whole(values[name]) and values[name] > 0):
            problems.append(f"{keys[name]} = {values[name]!r} must be a whole number above 0")
    for name in SHARES:
        value = values.get(name)
        if value is not None and not (number(value) and 0 <= value < 1):
            problems.append(f"{keys[name]} = {value!r} must be a number from 0 to below 1")
    for name in ("norm_eps", "init_std"):
        if name in values and not (number(values[name]) and values[name] > 0):
            problems.append(f"{keys[name]} = {values[name]!r} must be a number above 0")
    if "activation" in values and values["activation"] not in ACTIVATIONS:
        problems.append(
            f"{keys['activation']} = {values['activation']!r}: supported are {', '.join(ACTIVATIONS)}"
        )
    for key, allowed in {**ONLY, **facts.only}.items():
        if raw.get(key, allowed[0]) not in allowed:
            problems.append(f"{key} = {raw[key]!r} is not supported: only {allowed[0]!r}")
    problems += misfits(family, values)
    if family == "modernbert" and not problems:
        values["rotary"], values["windows"], problems = by_layer(raw, values["num_layers"])
    if problems:
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {p}" for p in problems))
    return EncoderConfig(family=family, raw=dict(raw), **values)


def by_layer(raw: dict[str, Any], layers: int) -> tuple[tuple[float, ...], tuple[int, ...], list[str]]:
    """(rotary base, reach to each side) of every layer of a ModernBERT, and what is wrong with them.

    Read in today's keys (layer_types, rope_parameters) or in those of the published files
    (global_attn_every_n_layers, global_rope_theta, local_rope_theta).
    """
    every, local = raw.get("global_attn_every_n_layers"), raw.get("local_attention")
    kinds = raw.get("layer_types")
    if kinds is None and whole(every) and every > 0:
        kinds = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    known = ("full_attention", "sliding_attention")
    problems = []
    if not isinstance(kinds, list) or len(kinds) != layers or not set(map(str, kinds)) <= set(known):
        problems.append(f"layer_types must name {layers} layers, each one of {', '.join(known)}")
    if not (whole(local) and local > 1):
        problems.append(f"local_attention = {local!r} must be a whole number above 1")
    tables, bases = raw.get("rope_parameters"), {}
    tables = tables if isinstance(tables, dict) else {}
    for kind, old in zip(known, ("global_rope_theta", "local_rope_theta")):
        table = tables.get(kind)
        table = table if isinstance(table, dict) else {"rope_theta": raw.get(old)}
        bases[kind] = table.get("rope_theta")
        if table.get("rope_type", "default") != "default" or raw.get("rope_scaling"):
            problems.append(f"rope_parameters of {kind}: only the type 'default' is supported")
        elif not (number(bases[kind]) and bases[kind] > 0):
            problems.append(f"rope_parameters of {kind} ({old}) = {bases[kind]!r} must be a number above 0")
    if problems:
        return (), (), problems
    # local_attention counts both sides: 128 is 64 to the left and 64 to the right
    windows = tuple(local // 2 if kind == "sliding_attention" else 0 for kind in kinds)
    return tuple(float(bases[kind]) for kind in kinds), windows, []


def misfits(family: str, values: dict[str, Any]) -> list[str]:
    """Sizes that are each fine and don't go together; those that are not fine are left out."""
    keys = FAMILIES[family].keys
    sizes = {k: v for k, v in values.items() if whole(v) and (v > 0 or k == "pad_id")}
    width, heads, rows = (sizes.get(k) for k in ("hidden_width", "num_heads", "vocab_size"))
    out, pad = [], sizes.get("pad_id")
    if width and heads and width % heads:
        out.append(f"{keys['hidden_width']} = {width} is no multiple of {keys['num_heads']} = {heads}")
    elif width and heads and family == "modernbert" and width // heads % 2:
        out.append(
            f"{keys['hidden_width']} / {keys['num_heads']} = {width // heads}: rotary positions need it even"
        )
    if sizes.get("num_blocks", 1) > sizes.get("num_layers", sizes.get("num_blocks", 1)):
        out.append(f"num_hidden_groups = {sizes['num_blocks']} is more than num_hidden_layers")
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
