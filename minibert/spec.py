"""TaskSpec: the one schema that `run`, `check`, `init` and `study` share. Five tables of a TOML file, and two more
that only `study` reads.

In:  a .toml file (or a dict of tables) and overrides such as {"train.epochs": 3}.
Out: a frozen TaskSpec, every key checked for name, type and range, all problems in one error.

Every field says in its `about` what it does: `minibert init` writes these as comments.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .errors import ConfigError, nearest
from .kinds import KINDS, OF_ENTITIES, metrics_of

CHOSEN = "; ".join(f"{kind}: {', else '.join(one.chosen)}" for kind, one in KINDS.items())
BASELINES = tuple(dict.fromkeys(name for one in KINDS.values() for name in one.baselines))


def key(
    default: Any, about: str, *, choices: tuple = (), low: float | None = None, high: float | None = None
):
    """A key of the spec: its default, what it does, and what it may be."""
    facts = {"about": about, "choices": choices, "low": low, "high": high}
    if default is dataclasses.MISSING:
        return field(metadata=facts)
    return field(default=default, metadata=facts)


REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be predicted."""

    name: str = key(REQUIRED, "what the run folder and the report are called")
    kind: str = key(
        REQUIRED,
        "what is predicted of a text: one label, a number, several labels, or a tag for each word",
        choices=tuple(KINDS),
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The tables, their columns, and how they are split."""

    train: str = key("", "training table: a path from this file's folder, or a name in tasks/data.toml")
    test: str = key("", "test table; looked at once, at the end")
    validation: float | str = key(0.1, "a share of train, or a table of its own")
    source: str = key("", "one table for all parts, instead of train and test")
    split: tuple[float, ...] = key((), "shares of source: train, validation, test")
    split_column: str = key("", "column of source that says train, validation or test")
    folds: int = key(0, "cross-validation on source: every text is tested once", low=0)
    text: str = key(REQUIRED, "column that holds the text")
    pair: str = key("", "column of a second text, for tasks on two texts")
    label: str = key(REQUIRED, "column that holds the class or the number, the labels, or the words' tags")
    label_separator: str = key(",", "between the labels of a cell, where there are several (multilabel)")
    label_names: tuple[str, ...] = key((), "names of labels that the column writes as numbers from 0")
    group: str = key("", "column of e.g. the author: no group is split between parts")
    separator: str = key("", "between columns: ',' ';' or '\\t'; by the file's name if absent")
    encoding: str = key("utf-8", "of the file: utf-8, utf-16, cp1252, latin-1")
    decimal: str = key(".", "decimal mark of numbers", choices=(".", ","))
    columns: tuple[str, ...] = key((), "names of the columns, where the file has no line that says them")
    sheet: str = key("", "sheet of an .xlsx file; the first if absent")
    empty: str = key("error", "rows without text", choices=("error", "drop", "keep"))
    missing_label: str = key("error", "rows without label", choices=("error", "drop"))
    leave_out: dict[str, str] | None = key(
        None, "rows to leave out: a table of a column and what stands in its cell"
    )
    duplicates: str = key("keep", "texts that stand more than once in a table", choices=("keep", "drop"))
    mask: tuple[str, ...] = key((), "what in texts gives way to a word such as [email], before anything is learned or stored",
                                choices=("email", "phone", "link", "name"))  # fmt: skip
    keep_texts: bool = key(
        True, "in predictions.csv and the report; false: rows are told by their number alone"
    )
    unseen: str = key("", "test labels that train lacks: refuse (the default where a text has one label), "
                      "count as wrong, or leave their rows out",
                      choices=("", "error", "wrong", "drop"))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which published weights, and how texts are cut for them. The table [model] of a spec."""

    weights: str = key(REQUIRED, "a name in weights/catalogue.toml, a folder, or a hub id")
    max_tokens: int = key(128, "longest text in tokens, [CLS] and [SEP] counted", low=3)
    truncation: str = key("head", "what stays of a longer text; 'window' reads all of it in pieces",
                          choices=("head", "tail", "head+tail", "error", "window"))  # fmt: skip
    stride: int = key(32, "tokens that neighbouring windows share", low=0)
    max_windows: int = key(16, "most windows a text is read in; what lies beyond is counted as cut", low=1)
    pooling: str = key("cls", "what the head reads: the first token (as published) or the mean, which only minibert can read back",
                       choices=("cls", "mean"))  # fmt: skip
    dropout: float | None = key(None, "in the encoder and before the head; as published if absent",
                                low=0, high=0.99)  # fmt: skip
    attention_dropout: float | None = key(None, "on attention probabilities; as published if absent",
                                          low=0, high=0.99)  # fmt: skip
    kernel: str = key("auto", "attention kernel")


@dataclass(frozen=True, kw_only=True)
class Train:
    """The hyper-parameters of fine-tuning."""

    epochs: int = key(3, "times through the training texts", low=1)
    learning_rate: float = key(2e-5, "highest step size, reached after warm-up", low=0)
    batch_size: int = key(32, "texts a step", low=1)
    seed: int = key(0, "of everything drawn; the four below can be set apart", low=0)
    split_seed: int | None = key(None, "of which rows of [data] source are tested; as seed if absent", low=0)
    head_seed: int | None = key(None, "of the new head's first weights; as seed if absent", low=0)
    order_seed: int | None = key(None, "of the order of the training texts; as seed if absent", low=0)
    dropout_seed: int | None = key(None, "of dropout; as seed if absent", low=0)
    examples: int = key(
        0, "use so many labelled texts (drawn stratified, validation included); 0: all", low=0
    )
    warmup: float = key(0.1, "share of the steps in which the rate rises", low=0, high=1)
    weight_decay: float = key(0.01, "pull of weights to zero; none on biases and LayerNorm", low=0)
    clip: float = key(1.0, "longest gradient; 0: not clipped", low=0)
    layer_decay: float = key(
        1.0, "of the rate, a layer downwards: 0.9 lets what is below move less", low=0.01, high=1
    )
    freeze_layers: int = key(
        0, "so many blocks from below stay as published, with the embeddings; 0: all learn", low=0
    )
    lora_rank: int = key(0, "learn corrections of this rank in attention, and the head, instead of all weights; 0: all",
                         low=0)  # fmt: skip
    lora_alpha: float = key(16.0, "how much a correction counts: divided by its rank", low=0.001)
    recompute: bool = key(False, "keep less for the backward pass and compute it again: a third more time")
    compile: str = key("none", "torch.compile for all of a block but attention: for cards, a processor was slower with it; reduce-overhead: with CUDA graphs",
                       choices=("none", "default", "reduce-overhead"))  # fmt: skip
    patience: int = key(0, "stop after so many epochs without a better validation; 0: never", low=0)
    metric: str = key(
        "",
        f"chooses the best epoch: loss, or a score of the kind. By default {CHOSEN}",
    )
    class_weights: str | dict[str, float] = key("none", "'none', 'balanced', or a table of label = weight")
    tokens_per_microbatch: int = key(
        0, "tokens computed at once: speed and memory; 0: by the encoder's size", low=0
    )
    checkpoint_steps: int = key(
        0, "save where training is every so many steps, for --resume; 0: not by steps", low=0
    )
    checkpoint_minutes: float = key(10.0, "the same every so many minutes; 0: not by the clock", low=0)
    keep: int = key(2, "so many of these checkpoints, the newest, while the run lasts; then none", low=1)
    trackers: tuple[str, ...] = key((), "who is told every number beside history.jsonl: 'tensorboard' (its extra)",
                                    choices=("tensorboard",))  # fmt: skip
    parallel: str = key("ddp", "of several processes, as torchrun starts them: each holds the whole model, or (fsdp) a share of it",
                        choices=("ddp", "fsdp"))  # fmt: skip
    device: str = key("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: str = key("auto", "auto, float32, tf32, bfloat16, float16, float64; auto: what the card is fastest in, float32 on a processor",
                     choices=("auto", "float32", "tf32", "bfloat16", "float16", "float64"))  # fmt: skip
    force_dtype: bool = key(
        False, "take bfloat16 or float16 also where it is tens of times slower than float32"
    )

    @property
    def seeds(self) -> dict[str, int]:
        """The seed of each thing that is drawn."""
        apart = {"split": self.split_seed, "head": self.head_seed, "order": self.order_seed,
                 "dropout": self.dropout_seed}  # fmt: skip
        return {"data": self.seed} | {k: self.seed if v is None else v for k, v in apart.items()}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The traditional method that stands beside the model."""

    kind: str = key(
        "",
        f"{', '.join(BASELINES)} or none; by default tfidf, for tokens words",
        choices=("", *BASELINES, "none"),
    )


@dataclass(frozen=True, kw_only=True)
class Study:
    """What `minibert study` compares. `run` reads none of it."""

    examples: tuple[int, ...] = key(
        (), "numbers of labelled texts, validation included: the learning curve; 0: all", low=0
    )
    seeds: int = key(3, "how often each setting is trained: with seeds 0, 1, 2", low=1)
    splits: int = key(1, "how often [data] source is split anew", low=1)
    weights: tuple[str, ...] = key((), "weights to compare; that of [model] if absent")
    learning_rate: tuple[float, ...] = key((), "rates to compare; that of [train] if absent", low=0)
    pooling: tuple[str, ...] = key((), "what the head reads, to compare: cls, mean", choices=("cls", "mean"))
    truncation: tuple[str, ...] = key((), "what stays of longer texts, to compare",
                                      choices=("head", "tail", "head+tail", "window"))  # fmt: skip
    pretraining: tuple[str, ...] = key((), "what comes before, to compare: none (random weights), published, or continued on the "
                                       "training texts (mlm, mlm+nsp)", choices=("published", "none", "mlm", "mlm+nsp"))  # fmt: skip
    pretraining_epochs: int = key(3, "of what is continued", low=1)
    methods: tuple[str, ...] = key((), "traditional methods beside it; all that fit the kind if absent")
    names: dict[str, str] | None = key(
        None, "labels in words, for guessing without any training: {spam = 'advertising'}"
    )
    subgroup: str = key("", "a column whose groups get scores of their own")
    transfer: tuple[str, ...] = key(
        (), "further test tables, e.g. of other languages: names in tasks/data.toml, or paths"
    )
    keep: str = key("chosen", "models that stay", choices=("chosen", "all", "none"))


@dataclass(frozen=True, kw_only=True)
class Human:
    """Ratings by single people, from which `minibert study` tells how far people agree."""

    source: str = key(REQUIRED, "table of ratings: a name in tasks/data.toml, or a path")
    columns: tuple[str, ...] = key((), "its columns, one a rater, where each text has one row")
    id: str = key("", "or else the column that says which text is rated ...")
    rater: str = key("", "... the one that says who rates ...")
    value: str = key("", "... and the one with the rating")
    separator: str = key("", "between columns: ',' ';' or '\\t'; by the file's name if absent")
    header: tuple[str, ...] = key((), "names of the columns, where the file has no line that says them")
    note: str = key("", "what to mind, in a sentence: it stands on the page")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task: the five tables, the two of a study where they are given, and the folder that paths are relative to."""

    task: Task
    data: Data
    model: Weights
    train: Train = Train()
    baseline: Baseline = Baseline()
    study: Study | None = None
    human: Human | None = None
    folder: str = ""  # paths in the spec are relative to it

    def table(self) -> dict[str, dict[str, Any]]:
        """The spec as plain tables; keys that are at their empty default are left out."""
        out: dict[str, dict[str, Any]] = {}
        for name in (*TABLES, *OF_STUDIES):
            if (table := getattr(self, name)) is not None:
                values = dataclasses.asdict(table)
                out[name] = {k: v for k, v in values.items() if v not in ("", None, ())}
        return out

    def absolute(self, known: Collection[str] = ()) -> TaskSpec:
        """The same task with paths that hold from any folder; names of assets, `known`, stay names."""

        def found(word: Any) -> Any:
            path = Path(self.folder) / word if isinstance(word, str) and word and word not in known else None
            return str(path.resolve()) if path is not None and path.exists() else word

        def all_found(table: Any, *names: str) -> Any:
            values = {name: getattr(table, name) for name in names} if table else {}
            changed = {
                k: tuple(map(found, v)) if isinstance(v, tuple) else found(v) for k, v in values.items()
            }
            return dataclasses.replace(table, **changed) if table else None

        return dataclasses.replace(
            self,
            data=all_found(self.data, "train", "validation", "test", "source"),
            model=all_found(self.model, "weights"),
            study=all_found(self.study, "weights", "transfer"),
            human=all_found(self.human, "source"),
        )

    def to_toml(self) -> str:
        """The spec as the TOML text that `load` reads back to an equal spec."""
        blocks = []
        for name, values in self.table().items():
            lines = [f"[{name}]"] + [f"{k} = {toml_value(v)}" for k, v in values.items()]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + "\n"


TABLES = {"task": Task, "data": Data, "model": Weights, "train": Train, "baseline": Baseline}
OF_STUDIES = {"study": Study, "human": Human}  # may be absent
KEYS = tuple(f"{table}.{f.name}" for table, schema in TABLES.items() for f in dataclasses.fields(schema))


def keys_called(word: str) -> list[str]:
    """The keys that a word may mean: train.epochs for itself, and for epochs."""
    return [name for name in KEYS if name == word or name.endswith(f".{word}")]


def load(path: Path | str, overrides: dict[str, str] | None = None) -> TaskSpec:
    """Read a spec file. `overrides` maps "table.key" to TOML text, as given with --set."""
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise ConfigError(f"{path} can't be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path} is not UTF-8 text (byte {problem.start})") from None
    except tomllib.TOMLDecodeError as problem:
        fix = (
            "Text stands in quotes."
            if path.suffix == ".toml"
            else f"For a table, write a spec first: minibert init {path} --out task.toml"
        )
        raise ConfigError(f"{path} is not a TOML file: {problem}", fix) from None
    for dotted, text in (overrides or {}).items():
        table, _, name = dotted.partition(".")
        if not name or not isinstance(tables.setdefault(table, {}), dict):
            whole = keys_called(dotted)
            hint = f"; did you mean {whole[0]}={text}?" if whole else ", for example train.epochs=3"
            raise ConfigError(f"--set {dotted}={text}: write it as table.key=value{hint}")
        tables[table][name] = parse_value(text)
    where = f"{path} with --set {' --set '.join(overrides)}" if overrides else str(path)
    return parse(tables, folder=str(path.resolve().parent), where=where)


def parse_value(text: str) -> Any:
    """TOML text to a value; what is no TOML is taken as a plain string, so quotes may be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse(tables: dict[str, Any], *, folder: str = "", where: str = "the spec") -> TaskSpec:
    """Check tables against the schema and build the spec; all problems in one ConfigError."""
    spec, problems = checked(tables, folder)
    if problems:
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {p}" for p in problems))
    return spec


def checked(tables: dict[str, Any], folder: str = "") -> tuple[TaskSpec | None, list[str]]:
    """The spec, where nothing is wrong with it, and what is."""
    problems: list[str] = []
    parts: dict[str, Any] = {}
    every = {**TABLES, **OF_STUDIES}
    for name in tables:
        if name not in every:
            problems.append(f"[{name}] is no table of a spec{nearest(name, every)}")
    for name, schema in every.items():
        if name in OF_STUDIES and name not in tables:
            continue
        given = tables.get(name, {})
        if not isinstance(given, dict):
            problems.append(f"[{name}] must be a table")
            continue
        values = check_table(name, schema, given, problems)
        if not any(p.startswith(f"[{name}]") for p in problems):
            parts[name] = schema(**values)
    if problems:
        return None, problems
    spec = TaskSpec(**parts, folder=folder)
    return spec, contradictions(spec)


def check_table(name: str, schema: type, given: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The values of one table, converted to the schema's types; problems are appended."""
    fields = {f.name: f for f in dataclasses.fields(schema)}
    types = typing.get_type_hints(schema)
    values = {}
    for word, value in given.items():
        if word not in fields:
            problems.append(f"[{name}] {word} is no key of this table{nearest(word, fields)}")
            continue
        facts = fields[word].metadata
        value = convert(value, types[word])
        if value is WRONG:
            problems.append(f"[{name}] {word} = {given[word]!r} must be {TYPES[str(types[word])]}")
        elif facts["choices"] and (wrong := [v for v in several(value) if v not in facts["choices"]]):
            known = ", ".join(repr(c) for c in facts["choices"] if c)
            problems.append(
                f"[{name}] {word} = {wrong[0]!r} is none of {known}{nearest(wrong[0], facts['choices'])}"
            )
        elif outside := [v for v in several(value) if isinstance(v, (int, float)) and not in_range(v, facts)]:
            problems.append(
                f"[{name}] {word} = {outside[0]!r} must lie from {facts['low']} to {facts['high'] or 'any'}"
            )
        else:
            values[word] = value
    for word, f in fields.items():
        if f.default is dataclasses.MISSING and word not in given:
            problems.append(f"[{name}] {word} is missing: {f.metadata['about']}")
    return values


WRONG = object()
# A field's type, in words.
TYPES = {
    "<class 'str'>": "a text in quotes",
    "<class 'bool'>": "true or false",
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "int | None": "a whole number",
    "float | None": "a number",
    "float | str": "a number, or a text in quotes",
    "tuple[float, ...]": "a list of numbers",
    "tuple[int, ...]": "a list of whole numbers",
    "dict[str, str] | None": "a table of texts in quotes",
    "tuple[str, ...]": "a list of texts in quotes",
    "str | dict[str, float]": "a text in quotes, or a table of numbers",
}


def convert(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or WRONG. A whole number is a float too; true is no number."""
    options = typing.get_args(kind) if typing.get_origin(kind) not in (tuple, dict) else (kind,)
    for option in options or (kind,):
        origin = typing.get_origin(option)
        if origin is tuple and isinstance(value, (list, tuple)):
            items = [convert(v, typing.get_args(option)[0]) for v in value]
            return WRONG if WRONG in items else tuple(items)
        if origin is dict and isinstance(value, dict):
            items = {str(k): convert(v, typing.get_args(option)[1]) for k, v in value.items()}
            return WRONG if WRONG in items.values() else items
        if option is bool and isinstance(value, bool):
            return value
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option) and not isinstance(value, bool):
            return value
    return WRONG


def several(value: Any) -> tuple[Any, ...]:
    """The values of a list, or the one that there is."""
    return value if isinstance(value, tuple) else (value,)


def in_range(value: float, facts: Any) -> bool:
    """Whether a number lies where a key allows it; NaN lies nowhere."""
    low, high = facts["low"], facts["high"]
    return value == value and (low is None or value >= low) and (high is None or value <= high)


def contradictions(spec: TaskSpec) -> list[str]:
    """What each key alone can't show: keys that exclude or need one another."""
    d, t, m = spec.data, spec.train, spec.model
    out = []
    ways = [bool(d.split), bool(d.split_column), d.folds > 0]
    if d.source:
        if d.train or d.test:
            out.append("[data] source stands for all parts: leave train and test out")
        if sum(ways) != 1:
            out.append("[data] source needs exactly one of split, split_column, folds")
    else:
        if not (d.train and d.test):
            out.append("[data] needs train and test, or source with split, split_column or folds")
        if any(ways):
            out.append("[data] split, split_column and folds need source")
    if d.split and (len(d.split) != 3 or min(d.split) <= 0 or abs(sum(d.split) - 1) > 1e-6):
        out.append(
            f"[data] split = {list(d.split)} must be three shares above 0 that sum to 1: train, validation, test"
        )
    if d.folds == 1:
        out.append("[data] folds = 1 tests nothing: 2 or more, or leave it out")
    if isinstance(d.validation, float) and not 0 < d.validation < 1:
        out.append(f"[data] validation = {d.validation} must be a share between 0 and 1, or a table")
    if d.pair and m.truncation == "window":
        out.append(
            "[model] truncation = 'window' is for single texts: leave [data] pair out, or choose 'head'"
        )
    if m.truncation == "window" and m.stride > m.max_tokens - 8:
        out.append(
            f"[model] stride = {m.stride} leaves a window of max_tokens = {m.max_tokens} no room to move"
        )
    if t.class_weights not in ("none", "balanced") and not isinstance(t.class_weights, dict):
        out.append(f"[train] class_weights = {t.class_weights!r} is none of 'none', 'balanced', or a table")
    if 0 < t.tokens_per_microbatch < 16:
        out.append(f"[train] tokens_per_microbatch = {t.tokens_per_microbatch} must be 16 or more, or 0")
    if t.learning_rate == 0:
        out.append("[train] learning_rate = 0 trains nothing")
    return out + kind_problems(spec)


def kind_problems(spec: TaskSpec) -> list[str]:
    """Keys that the task's kind has no use for, and names that are not of this kind."""
    d, t, word = spec.data, spec.train, spec.task.kind
    kind, known = KINDS[word], ("loss", *KINDS[word].metrics)
    out = []
    if t.class_weights != "none" and not kind.weighted:
        fit = " and ".join(name for name, one in KINDS.items() if one.weighted)
        out.append(f"[train] class_weights are for {fit}")
    if t.metric and t.metric not in known:
        out.append(f"[train] metric = {t.metric!r} is none of {', '.join(known)}{nearest(t.metric, known)}")
    if d.label_names and not kind.labels:
        out.append(f"[data] label_names are for labels, not for {word}")
    if kind.none and not d.label_separator:
        out.append("[data] label_separator = '' separates nothing")
    elif kind.none and any(d.label_separator in name for name in d.label_names):
        out.append(f"[data] label_names: a name holds the separator {d.label_separator!r}")
    if t.lora_rank and t.freeze_layers:
        out.append("[train] freeze_layers: with lora_rank the whole encoder is frozen, leave it out")
    if kind.words and d.pair:
        out.append("[data] pair: a text whose words get tags stands alone, leave it out")
    if kind.words and d.empty == "keep":
        out.append("[data] empty = 'keep': a text without words has nothing to tag, choose 'drop'")
    if kind.words and spec.model.pooling != "cls":
        out.append("[model] pooling: every word is read by itself, leave it out")
    if kind.words and spec.model.truncation != "head":
        out.append("[model] truncation: a text whose words get tags is never cut, leave it out")
    return out


def chosen_metric(spec: TaskSpec, labels: Collection[str]) -> str:
    """What picks the best epoch: as named, or the kind's default. ConfigError where the labels don't allow it."""
    known, named = metrics_of(spec.task.kind, labels), spec.train.metric
    if named in OF_ENTITIES and named not in known:
        raise ConfigError(
            f"[train] metric = {named!r} needs tags of entities, and none of train begins with B- or I-",
            f"Choose one of loss, {', '.join(known)}.",
        )
    return named or default_metric(spec.task.kind, labels)


def default_metric(kind: str, labels: Collection[str]) -> str:
    """The first metric of the kind's choice that these labels allow."""
    return next(name for name in KINDS[kind].chosen if name in metrics_of(kind, labels))


def scored_metric(spec: TaskSpec, labels: Collection[str]) -> str:
    """The same as a score that people read and baselines are tuned on: the loss is none."""
    chosen = chosen_metric(spec, labels)
    return default_metric(spec.task.kind, labels) if chosen == "loss" else chosen


def brief(value: Any) -> str:
    """A value as short as it can be told: 1e-5, head, the last part of a path."""
    if isinstance(value, float):
        small = 0 < abs(value) < 0.001  # 1e-4 stands beside 2e-5
        digits, _, power = f"{value:{'e' if small else 'g'}}".partition("e")
        return f"{float(digits):g}e{int(power)}" if power else digits
    if isinstance(value, str):
        return PurePath(value).name or value
    return "as published" if value is None else toml_value(value)


def toml_value(value: Any) -> str:
    """A value as TOML text."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {toml_value(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which TOML wants escaped
    return repr(value).lower() if isinstance(value, bool) else repr(value)
