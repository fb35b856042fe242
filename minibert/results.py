"""What a finished run writes: scores, predictions, what was in the data, and where it ran.

In:  Fitted models and baselines, one a fold.   Out: the files named in folder.py.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import __version__, answers, baseline, device, diagnose, kernels, metrics, mismatch, report, system
from .data import Part, Splits
from .data.check import audit
from .data.parts import text_keys
from .data.splits import label_order
from .data.tables import free_name, write_rows
from .fit import Fitted, answered
from .folder import ANSWERS, MODEL, RunFolder
from .kernels.padded import BUCKETS
from .kinds import KINDS, each_label, has_entities, metrics_of, words_of
from .model import Model
from .outset import budget_of
from .processes import ALONE, World
from .reading import read
from .report.read import read_run
from .spec import TaskSpec

VERSIONS = ("torch", "tokenizers", "safetensors", "numpy", "pandas", "scikit-learn", "matplotlib")


def write_scores(
    task: TaskSpec, fits: list[Fitted], others: list[baseline.Fitted | None], folder: RunFolder
) -> dict[str, Any]:
    """metrics.json, predictions.csv and baseline.csv; the test texts of all folds together."""
    kind = task.task.kind
    labels = label_order(np.concatenate([f.splits.labels for f in fits])) if fits[0].splits.labels else ()
    targets = np.concatenate([f.splits.test.targets for f in fits])
    found = np.concatenate([aligned(f, labels) for f in fits])
    words = np.concatenate([f.encoded["test"].words for f in fits]) if KINDS[kind].words else None
    known = answers.all_labels(kind, labels, targets) if KINDS[kind].many else labels
    truth = answers.scored(kind, targets, known)
    ours = answers.scored(kind, answers.said(kind, found, labels, words), known)
    names = metrics_of(kind, labels)
    options = {"num_classes": len(labels) or None, "names": names, "seed": task.train.seed}
    out: dict[str, Any] = {
        "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, ours, **options).items()},
        "validation": fits[0].validation,
        "baseline": None,
        "difference": {},
    }
    if labels:
        out |= {"labels": list(labels)} | by_label(kind, truth, ours, labels, known, task.train.seed)
    write_table(folder.path / "predictions.csv", prediction_table(task, fits, labels, found, words))
    if others and others[0] is not None:
        said = np.concatenate(
            [o.predict(f.splits.test.texts, f.splits.test.pairs) for o, f in zip(others, fits)]
        )
        theirs = answers.scored(kind, said, known)
        out["baseline"] = {
            "name": " / ".join(dict.fromkeys(o.name for o in others)),
            "settings": others[0].settings,
            "validation": others[0].validation,
            "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, theirs, **options).items()},
        }
        out["difference"] = metrics.difference(kind, truth, ours, theirs, **options)
        cells = {
            "row_id": np.concatenate([f.splits.test.rows for f in fits]),
            KINDS[kind].column: answers.written(kind, said, task.data.label_separator),
        }
        write_table(folder.path / "baseline.csv", pd.DataFrame(cells))
    folder.json("metrics.json", out)
    return out


def write_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, all or nothing."""
    with system.replacing(path) as half, open(half, "wb") as file:
        np.save(file, array, allow_pickle=False)


Opener = Callable[[tuple[str, ...]], Part]  # labels that a model knows -> a part it is to answer


def store_answers(
    fitted: Fitted, further: Mapping[str, Opener], folder: RunFolder, stop: system.Stop
) -> dict[str, Any]:
    """answers/PART.npy of validation, test and `further` parts: (n, C) probabilities, of tokens (words, C), or (n,)
    values; and answers.json, what there is to know of them without a label of the test part."""
    labels, parts = fitted.splits.labels, {"validation": fitted.splits.validation, "test": fitted.splits.test}
    found = {"validation": answered(fitted, "validation", stop), "test": fitted.test}
    for name, opened in further.items():
        parts[name] = opened(labels)
        fitted.encoded[name] = read(fitted.model, parts[name])
        found[name] = answered(fitted, name, stop)
    if stop.requested:  # half of the answers are nonsense then
        return {}
    for name, said in found.items():
        write_array(
            folder.path / ANSWERS / f"{name}.npy", said.astype("float32" if said.ndim > 1 else "float64")
        )
    parts = {"train": fitted.splits.train, **parts}
    facts = {name: {"rows": len(part), **fitted.encoded[name].summary()} for name, part in parts.items()}
    for name, part in parts.items():  # [CLS] and [SEP] are no pieces of words
        words = sum(len(words_of(text)) for texts in (part.texts, part.pairs or ()) for text in texts)
        tokenizer = fitted.model.tokenizer
        frame = (tokenizer.double if part.pairs else tokenizer.single).size
        facts[name]["pieces_per_word"] = float((fitted.encoded[name].tokens - frame).sum()) / max(words, 1)
    table = {
        "labels": list(labels),
        "validation": fitted.validation,
        "learned_from": len(fitted.splits.train),
        "seconds_for_test": fitted.seconds,
        "parts": facts,
        "notes": list(fitted.splits.notes),
    }
    folder.json("answers.json", table)
    return table


def by_label(
    kind: str, truth: Any, ours: Any, labels: tuple[str, ...], known: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """Scores of each label (or type of entity), and which label is taken for which where each text or word
    has one. `known`: `labels`, and behind them those that only the test part has."""
    if not KINDS[kind].many:
        table = metrics.per_class(truth, ours, labels)
        return {"classes": table, "confusion": metrics.confusion(truth, ours, len(labels))}
    what = kind if not KINDS[kind].words else "entities" if has_entities(labels) else "tags"
    names = answers.types(known) if what == "entities" else known
    out = {"classes": metrics.per_label(what, truth, ours, names, seed=seed)}
    if what == "tags":
        pair = (answers.class_numbers([tag for tags in one for tag in tags], labels) for one in (truth, ours))
        out["confusion"] = metrics.confusion(*pair, len(labels))
    return out


def aligned(fitted: Fitted, labels: tuple[str, ...]) -> np.ndarray:
    """Test probabilities (n, C) in the order of `labels`: a fold may not know a rare class. Values as they are."""
    if not labels:
        return fitted.test
    out = np.zeros((len(fitted.test), len(labels)))
    out[:, [labels.index(label) for label in fitted.splits.labels]] = fitted.test
    return out


def prediction_table(
    task: TaskSpec, fits: list[Fitted], labels: tuple[str, ...], found: np.ndarray, words: np.ndarray | None
) -> pd.DataFrame:
    """predictions.csv: row_id, the input's columns (without texts the label alone), what was predicted, tokens,
    truncated."""
    parts = [f.splits.test for f in fits]
    inputs = pd.concat([p.table.frame.iloc[p.rows] for p in parts])
    if not task.data.keep_texts:  # whatever another column holds: it may be the same text in other words
        inputs = inputs[[task.data.label]]
    tokens = np.concatenate([f.encoded["test"].tokens for f in fits])
    cut = np.concatenate([f.encoded["test"].cut > 0 for f in fits])
    added = answers.columns(task.task.kind, found, labels, words, task.data.label_separator)
    added |= {"tokens": tokens, "truncated": cut}
    rows = pd.DataFrame({"row_id": np.concatenate([p.rows for p in parts])})
    return beside(rows, inputs.reset_index(drop=True), added)


def beside(rows: pd.DataFrame, inputs: pd.DataFrame, added: dict[str, np.ndarray]) -> pd.DataFrame:
    """Columns side by side; a column of ours that the input already has is called predicted_..."""
    ours = pd.DataFrame({free_name(k, inputs.columns): v for k, v in added.items()})
    rows = rows.rename(columns=lambda name: free_name(name, inputs.columns))
    return pd.concat([rows, inputs, ours], axis=1)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A CSV file, all or nothing; true and false in lower case as in JSON."""
    table = table.replace({True: "true", False: "false"}) if "truncated" in table else table
    with system.replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        write_rows(table, file)


def describe_data(task: TaskSpec, fitted: Fitted, splits: list[Splits]) -> dict[str, Any]:
    """data.json: rows, labels, lengths and what was cut in each part; notes; what the check found."""
    parts = {}
    for part in (fitted.splits.train, fitted.splits.validation, fitted.splits.test):
        counts = Counter(each_label(task.task.kind, part.targets))
        facts = fitted.encoded[part.name].summary()
        parts[part.name] = {"rows": len(part), "labels": dict(sorted(counts.items())), **facts}
        if KINDS[task.task.kind].words:
            parts[part.name]["words"] = counts.total()
    return {
        "parts": parts,
        "notes": list(fitted.splits.notes)
        + ([f"{len(splits)} folds; the counts are the first's"] if len(splits) > 1 else []),
        "findings": audit(task, fitted.splits).as_dict()["findings"],
        "text_column": task.data.text,
        "label_column": task.data.label,
    }


def write_up(folder: RunFolder, fitted: Fitted | None = None) -> None:
    """diagnosis.json and report.html, from what the folder holds; of a run that was scored its methods and its card, too.

    fitted   for a closer look at its parts
    """
    if not folder.ours:
        return
    found = diagnose.look(read_run(folder.path))
    if fitted and found.has("test_below"):
        unlike = mismatch.differences(*(side(fitted, name) for name in ("validation", "test")))
        found = found.explained("test_below", unlike)
    folder.json("diagnosis.json", found.as_dict())
    report.write(folder.path)
    if (folder.path / "metrics.json").is_file() and (folder.path / MODEL).is_dir():
        report.write_appendix(folder.path)


def side(fitted: Fitted, name: str) -> mismatch.Side:
    """What mismatch.py takes of a part."""
    part, encoded, train = getattr(fitted.splits, name), fitted.encoded[name], fitted.encoded["train"]
    taught, texts = {i for ids in train.ids for i in ids}, set(text_keys(fitted.splits.train))
    pieces = [encoded.ids[a:b] for a, b in zip(encoded.pieces, encoded.pieces[1:])]
    kind = KINDS[fitted.model.head.kind]
    sets = [set(t) if kind.many else {t} for t in part.targets] if kind.labels else part.targets
    return mismatch.Side(
        tokens=encoded.tokens,
        cut=encoded.cut > 0,
        new=mismatch.new_shares([[i for ids in some for i in ids] for some in pieces], taught),
        shared=np.array([key in texts for key in text_keys(part)], bool),
        unknown=encoded.unknown,
        answers=sets,
    )


def environment(
    task: TaskSpec, model: Model, started: str, minutes: float, world: World = ALONE
) -> dict[str, Any]:
    """environment.json: what ran where, with which versions, seeds, weights and kernel."""
    t, config = task.train, model.config
    word = device.number_format(t.dtype, model.device, t.force_dtype)
    number, autocast, _ = device.FORMATS[word]
    wish = {
        "device": model.device.type, "dtype": autocast or number, "gradients": True,
        "dropout": config.attention_dropout > 0, "window": any(config.windows), "bias": config.relative_buckets > 0,
    }  # fmt: skip
    chosen = kernels.choose(task.model.kernel, **wish)
    source = model.report.source
    return {
        "minibert": __version__,
        "python": sys.version.split()[0],
        **device.describe(model.device),
        **world.facts(),
        "tokens_per_microbatch": budget_of(task, model.config, model.device),
        "dtype": word,  # of training
        "numbers": device.said(word, model.device),
        "numbers_mind": device.caution(word, model.device),
        "evaluation_dtype": str(number).removeprefix("torch."),
        "kernel": chosen.name,
        "compile": t.compile,
        "kernel_why": kernel_why(task.model.kernel, chosen.name, wish),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "seeds": {**task.train.seeds, "bootstrap": task.train.seed},
        "started": started,
        "minutes": minutes,
        "weights": {
            "name": task.model.weights,
            "source": source,
            "sha256": hashes(Path(source)),
            "report": str(model.report),
        },
    }


def kernel_why(asked: str, chosen: str, wish: dict[str, Any]) -> str:
    """Why this kernel trained: which ones couldn't, and on a card what would let a better one, in words."""
    out = [f"{name} {why}" for name, why in kernels.passed_over(chosen, **wish).items()]
    out = out if asked == "auto" else ["asked for"]
    if chosen == "padded":
        out.append(f"texts of like length share a rectangle, at most {BUCKETS} a micro-batch")
    if wish["device"] == "cuda" and wish["dropout"]:
        other = kernels.choose("auto", **{**wish, "dropout": False}).name
        out += [f"[model] attention_dropout = 0 would take {other}"] if other != chosen else []
    return "; ".join(out) or "the first that auto asks"


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every safetensors file of a folder."""
    return {p.name: system.sha256(p) for p in sorted(folder.glob("*.safetensors"))}
