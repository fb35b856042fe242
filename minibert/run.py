"""A spec becomes a run folder: the one place where data, model, loop, scores and report meet.

In:  a TaskSpec and a folder.   Out: Outcome; the folder holds model, scores, predictions and report.

Read `fit` for the fine-tuning itself, `run` for the order of everything.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import __version__, baseline, catalogue, data, device, kernels, metrics, report, spec, system
from .data import Part, Splits
from .data.check import audit
from .errors import MiniBertError, TrainingError
from .folder import MODEL, RunFolder
from .model import Model, load
from .progress import Bar, say
from .spec import TaskSpec
from .tokenize import Encoded
from .train import Plan, Step, train

VERSIONS = ("torch", "tokenizers", "safetensors", "numpy", "pandas", "scikit-learn", "matplotlib")
DEFAULT_BASELINE = "tfidf"


@dataclass
class Fitted:
    """A fine-tuned model on one split: what it predicts for the test part, and how it got there."""

    splits: Splits
    model: Model
    encoded: dict[str, Encoded]
    test: np.ndarray  # probabilities (n, C) or values (n,)
    best_epoch: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    stopped: str = ""  # the signal that ended it early


@dataclass(frozen=True)
class Outcome:
    """Where a run ended: its folder, status.json's word, the exit code, and metrics.json's table."""

    folder: Path
    status: str
    exit_code: int
    metrics: dict[str, Any]


def headline(outcome: Outcome) -> str:
    """What a run came to, in a line a metric, and where its report is."""
    lines = []
    for name, found in outcome.metrics["test"].items():
        if found["value"] is None:
            lines.append(f"{name}: undefined on these {found['n']:,} texts")
            continue
        line = f"{name} {found['value']:.3f} (95 % interval {span(found)}) on {found['n']:,} test texts"
        other, gap = outcome.metrics["baseline"], outcome.metrics["difference"].get(name)
        if other and gap and gap["value"] is not None:
            line += f"; {other['name']} {other['test'][name]['value']:.3f}; difference {gap['value']:+.3f} ({span(gap)})"
        lines.append(line)
    return "\n".join([*lines, f"report: {outcome.folder / 'report.html'}"])


def span(found: dict[str, Any]) -> str:
    """An interval in words."""
    return " to ".join("?" if found[k] is None else f"{found[k]:.3f}" for k in ("low", "high"))


def run(task: TaskSpec, out: Path | str, *, overwrite: bool = False) -> Outcome:
    """Do the whole task. Raises MiniBertError; the folder's status.json then says why.

    The data and the weights are looked at before the folder is made, so that bad input leaves nothing.
    """
    task = task.absolute()
    start = time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    place = device.pick(task.train.device)
    if device.hint():
        say(device.hint())
    splits = list(every_split(task))
    first = new_model(task, splits[0], str(place))
    encode_all(task, first, splits[0])  # a text too long for truncation "error" is bad input too
    folder = RunFolder(out, overwrite)
    system.write_text(folder.path / "spec.toml", task.to_toml())
    try:
        outcome = carry_out(task, splits, first, folder, started, start)
    except MiniBertError as problem:
        folder.status("diverged" if isinstance(problem, TrainingError) else "failed", message=str(problem))
        raise
    except BaseException as problem:
        folder.status("failed", message=repr(problem))
        raise
    return outcome


def carry_out(
    task: TaskSpec, splits: list[Splits], first: Model, folder: RunFolder, started: str, start: float
) -> Outcome:
    """Everything that writes into the run's folder."""
    fits, others = [], []
    with system.Stop() as stop:
        for number, one in enumerate(splits):
            fold = number + 1 if len(splits) > 1 else 0
            model = first if number == 0 else new_model(task, one, task.train.device)
            fits.append(fit(task, one, model, folder, stop, fold))
            if stop.requested:
                break
            others.append(fit_baseline(task, one))
    first_fit = fits[0]
    first_fit.model.save(folder.path / MODEL)
    if stop.requested:
        reached = (
            f"its best epoch so far, {first_fit.best_epoch}"
            if first_fit.best_epoch
            else "the first epoch, unfinished"
        )
        message = f"stopped on {stop.requested}; {MODEL}/ holds what was reached ({reached}) and loads"
        folder.status("stopped", message=message, best_epoch=first_fit.best_epoch)
        say(f"{folder.path}: {message}")
        return Outcome(folder.path, "stopped", 75, {})
    scores = write_scores(task, fits, others, folder)
    folder.json("data.json", describe_data(task, first_fit, splits))
    minutes = (time.monotonic() - start) / 60
    folder.json("environment.json", environment(task, first_fit.model, started, minutes))
    summary = {
        "best_epoch": first_fit.best_epoch,
        "epochs": task.train.epochs,
        "metric": spec.chosen_metric(task),
        "message": f"{len(fits)} folds; {MODEL}/ holds the first fold's model" if len(fits) > 1 else "",
    }
    folder.status("running", **summary)
    report.write(folder.path)
    folder.status("completed", **summary)
    return Outcome(folder.path, "completed", 0, scores)


def every_split(task: TaskSpec) -> Iterator[Splits]:
    """The task's one split, or one for each fold."""

    def locate(source: str) -> Path:
        return catalogue.locate_data(source, task.folder)

    if task.data.folds:
        yield from data.fold_splits(task, locate)
    else:
        yield data.load_splits(task, locate)


def new_model(task: TaskSpec, splits: Splits, place: str) -> Model:
    """The published encoder with a new head for this task."""
    number, _ = device.precision(task.train.dtype, device.pick(place))
    model = load(
        task.model.weights,
        head=task.task.kind,
        kernel=task.model.kernel,
        device=place,
        dtype=str(number).removeprefix("torch."),
        labels=splits.labels,
        pooling=task.model.pooling,
        seed=task.train.seeds["head"],
        dropout=task.model.dropout,
        attention_dropout=task.model.attention_dropout,
    )
    m = task.model
    model.reading = {
        "max_tokens": min(m.max_tokens, model.config.max_tokens),
        "truncation": m.truncation,
        "stride": m.stride,
        "max_windows": m.max_windows,
    }
    if task.task.kind == "regression":
        model.head.standardise(torch.tensor(splits.train.targets))
    return model


def encode_all(task: TaskSpec, model: Model, splits: Splits) -> dict[str, Encoded]:
    """Token ids of the three parts."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        p.name: model.tokenizer.encode(p.texts, p.pairs, rows=p.rows.tolist(), **model.reading) for p in parts
    }


def class_numbers(part: Part, labels: tuple[str, ...]) -> np.ndarray:
    """(n,) int64 places in `labels`; -1 for a label that training never saw. Values for regression."""
    if not labels:
        return part.targets.astype(np.float64)
    known = {label: i for i, label in enumerate(labels)}
    return np.array([known.get(t, -1) for t in part.targets], dtype=np.int64)


def fit(
    task: TaskSpec, splits: Splits, model: Model, folder: RunFolder, stop: system.Stop, fold: int = 0
) -> Fitted:
    """Fine-tune, keep the best epoch by validation, and predict the test part with it."""
    encoded = encode_all(task, model, splits)
    weights = data.class_weights(task.train.class_weights, splits.train.targets, splits.labels)
    loss_of = loss_function(
        task, model, encoded["train"], class_numbers(splits.train, splits.labels), weights
    )
    t = task.train
    plan = Plan(
        len(splits.train), t.epochs, t.batch_size, t.learning_rate, t.warmup, t.weight_decay, t.clip,
        t.seeds["order"], t.seeds["dropout"], t.tokens_per_microbatch,
    )  # fmt: skip
    chosen = spec.chosen_metric(task)
    fitted = Fitted(splits, model, encoded, np.zeros(0))
    best_state, stale = None, 0
    name = f"{task.task.name}, fold {fold}" if fold else task.task.name
    with Bar(name, plan.steps, "steps") as bar:
        for step in train(model, loss_of, encoded["train"].lengths.tolist(), plan):
            log_step(folder, step, bar, fold)
            if step.ends_epoch:
                scores = validate(task, fitted)
                is_best = improves(chosen, scores[chosen], fitted.validation.get(chosen, np.nan))
                log_evaluation(folder, step, scores, is_best, chosen, bar, fold, t.epochs)
                if is_best or best_state is None:
                    fitted.validation, fitted.best_epoch, stale = scores, step.epoch, 0
                    best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
                else:
                    stale += 1
                if t.patience and stale >= t.patience:
                    bar.line(f"no better {chosen} in {stale} epochs: stopped at epoch {step.epoch}")
                    break
            if stop.requested:
                fitted.stopped = stop.requested
                break
    if best_state is not None:
        model.load_state_dict(best_state)
    if not fitted.stopped:
        fitted.test = model.answer_table(encoded["test"])
    return fitted


def improves(metric: str, new: float, old: float) -> bool:
    """Whether an epoch is better than the best so far; NaN is worse than anything."""
    if metric == "loss":
        return new < old or (new == new and old != old)
    return metrics.better(metric, new, old)


def loss_function(
    task: TaskSpec, model: Model, encoded: Encoded, targets: np.ndarray, weights: np.ndarray | None
) -> Callable[[list[int], tuple[int, int]], tuple[torch.Tensor, torch.Tensor]]:
    """What the loop calls: the summed loss of some training texts, and its count."""
    _, autocast = device.precision(task.train.dtype, model.device)
    wanted = torch.tensor(targets, device=model.device)
    number = model.head.out.weight.dtype
    shares = torch.tensor(weights, device=model.device, dtype=number) if weights is not None else None

    def loss_of(places: list[int], key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        with device.autocast(model.device, autocast):
            logits = model.logits(encoded, places, key)
        return model.head.loss(logits.to(number), wanted[places], shares)

    return loss_of


def validate(task: TaskSpec, fitted: Fitted) -> dict[str, float]:
    """Every metric and the loss on the validation part."""
    found = fitted.model.answer_table(fitted.encoded["validation"])
    truth = class_numbers(fitted.splits.validation, fitted.splits.labels)
    return {"loss": loss_value(found, truth, fitted)} | {
        name: metrics.value(name, truth, decide(found), num_classes=len(fitted.splits.labels) or None)
        for name in spec.METRICS[task.task.kind]
    }


def loss_value(found: np.ndarray, truth: np.ndarray, fitted: Fitted) -> float:
    """Mean loss of predictions: cross-entropy of known labels, or squared error in standard units."""
    if found.ndim == 1:
        return float(np.mean(((found - truth) / fitted.model.head.deviation) ** 2))
    known = truth >= 0
    picked = found[known, truth[known]]
    return float(-np.log(np.maximum(picked, 1e-30)).mean()) if len(picked) else float("nan")


def decide(found: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) to class numbers (n,); values stay values."""
    return found.argmax(-1) if found.ndim == 2 else found


def fit_baseline(task: TaskSpec, splits: Splits) -> baseline.Fitted | None:
    """The traditional method on the same training texts, or None where the spec asks for none."""
    kind = task.baseline.kind or DEFAULT_BASELINE
    if kind == "none":
        return None
    chosen = spec.chosen_metric(task)
    metric = spec.DEFAULT_METRIC[task.task.kind] if chosen == "loss" else chosen
    return baseline.fit(
        kind, task.task.kind, splits.train, splits.validation, metric=metric, seed=task.train.seed
    )


def write_scores(
    task: TaskSpec, fits: list[Fitted], others: list[baseline.Fitted | None], folder: RunFolder
) -> dict[str, Any]:
    """metrics.json, predictions.csv and baseline.csv; the test texts of all folds together."""
    labels = fits[0].splits.labels
    kind, count = task.task.kind, len(labels) or None
    truth = np.concatenate([class_numbers(f.splits.test, labels) for f in fits])
    found = np.concatenate([f.test for f in fits])
    ours = decide(found)
    options = {"num_classes": count, "seed": task.train.seed}
    out: dict[str, Any] = {
        "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, ours, **options).items()},
        "validation": fits[0].validation,
        "baseline": None,
        "difference": {},
    }
    if labels:
        out["labels"] = list(labels)
        out["classes"] = metrics.per_class(truth, ours, labels)
        out["confusion"] = metrics.confusion(truth, ours, len(labels))
    write_table(folder.path / "predictions.csv", prediction_table(task, fits, found))
    if others and others[0] is not None:
        theirs = np.concatenate([answers_of(other, f.splits.test, labels) for other, f in zip(others, fits)])
        out["baseline"] = {
            "name": " / ".join(dict.fromkeys(o.name for o in others)),
            "settings": others[0].settings,
            "validation": others[0].validation,
            "test": {k: s.as_dict() for k, s in metrics.score(kind, truth, theirs, **options).items()},
        }
        out["difference"] = metrics.difference(kind, truth, ours, theirs, **options)
        rows = np.concatenate([f.splits.test.rows for f in fits])
        words = np.array(labels, dtype=object)[theirs] if labels else theirs
        write_table(
            folder.path / "baseline.csv",
            pd.DataFrame({"row_id": rows, "label" if labels else "value": words}),
        )
    folder.json("metrics.json", out)
    return out


def answers_of(other: baseline.Fitted, part: Part, labels: tuple[str, ...]) -> np.ndarray:
    """A baseline's predictions as class numbers (n,) or values (n,)."""
    found = other.predict(part.texts, part.pairs)
    if not labels:
        return np.asarray(found, dtype=np.float64)
    known = {label: i for i, label in enumerate(labels)}
    return np.array([known[w] for w in found], dtype=np.int64)


def prediction_table(task: TaskSpec, fits: list[Fitted], found: np.ndarray) -> pd.DataFrame:
    """predictions.csv: row_id, the input's columns, what was predicted, tokens, truncated."""
    parts = [f.splits.test for f in fits]
    inputs = pd.concat([p.table.frame.iloc[p.rows] for p in parts])
    tokens = np.concatenate([f.encoded["test"].tokens for f in fits])
    cut = np.concatenate([f.encoded["test"].cut > 0 for f in fits])
    added = fits[0].model.columns(found) | {"tokens": tokens, "truncated": cut}
    rows = pd.DataFrame({"row_id": np.concatenate([p.rows for p in parts])})
    return beside(rows, inputs.reset_index(drop=True), added)


def beside(rows: pd.DataFrame, inputs: pd.DataFrame, added: dict[str, np.ndarray]) -> pd.DataFrame:
    """Columns side by side; a column of ours that the input already has is called predicted_..."""
    names = {name: f"predicted_{name}" if name in inputs.columns else name for name in added}
    ours = pd.DataFrame({names[k]: v for k, v in added.items()})
    rows = rows[[c for c in rows.columns if c not in inputs.columns]]
    return pd.concat([rows, inputs, ours], axis=1)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A CSV file, all or nothing; true and false in lower case as in JSON."""
    table = table.replace({True: "true", False: "false"}) if "truncated" in table else table
    with system.replacing(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")


def log_step(folder: RunFolder, step: Step, bar: Bar, fold: int) -> None:
    """A line of history and a turn of the bar."""
    facts = {k: v for k, v in asdict(step).items() if k not in ("ends_epoch", "seconds")}
    speed = {"texts_per_second": step.texts / step.seconds, "tokens_per_second": step.tokens / step.seconds}
    folder.event("step", **facts, **speed, **({"fold": fold} if fold else {}))
    bar.advance(
        1,
        f"epoch {step.epoch} loss {step.loss:.3f} {speed['texts_per_second']:.1f} texts/s {speed['tokens_per_second']:,.0f} tokens/s",
    )


def log_evaluation(
    folder: RunFolder,
    step: Step,
    scores: dict[str, float],
    best: bool,
    chosen: str,
    bar: Bar,
    fold: int,
    epochs: int,
) -> None:
    """A line of history and a line for people, once an epoch."""
    folder.event(
        "evaluation",
        step=step.step,
        epoch=step.epoch,
        best=best,
        **scores,
        **({"fold": fold} if fold else {}),
    )
    mark = " (best so far)" if best else ""
    bar.line(
        f"epoch {step.epoch}/{epochs}: loss {step.loss:.3f}, validation loss {scores['loss']:.3f}, "
        f"{chosen} {scores[chosen]:.3f}{mark}"
    )


def describe_data(task: TaskSpec, fitted: Fitted, splits: list[Splits]) -> dict[str, Any]:
    """data.json: rows, labels, lengths and what was cut in each part; notes; what the check found."""
    parts = {}
    for part in (fitted.splits.train, fitted.splits.validation, fitted.splits.test):
        counts = dict(zip(*(x.tolist() for x in np.unique(part.targets.astype(str), return_counts=True))))
        facts = fitted.encoded[part.name].summary()
        parts[part.name] = {"rows": len(part), "labels": counts if fitted.splits.labels else {}, **facts}
    return {
        "parts": parts,
        "notes": list(fitted.splits.notes)
        + ([f"{len(splits)} folds; the counts are the first's"] if len(splits) > 1 else []),
        "findings": audit(fitted.splits).as_dict()["findings"],
        "text_column": task.data.text,
        "label_column": task.data.label,
    }


def environment(task: TaskSpec, model: Model, started: str, minutes: float) -> dict[str, Any]:
    """environment.json: what ran where, with which versions, seeds, weights and kernel."""
    dropped = model.config.attention_dropout > 0
    number, autocast = device.precision(task.train.dtype, model.device)
    chosen = kernels.choose(
        task.model.kernel, device=model.device.type, dtype=autocast or number, dropout=dropped, gradients=True
    )
    source = model.report.source
    return {
        "minibert": __version__,
        "python": sys.version.split()[0],
        **device.describe(model.device),
        "dtype": str(autocast or number).removeprefix("torch."),
        "kernel": chosen.name,
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


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every safetensors file of a folder."""
    from .checkpoint import sha256

    return {p.name: sha256(p) for p in sorted(folder.glob("*.safetensors"))}
