"""`minibert pretrain`: go on with what BERT was trained on, on texts of one's own.

In:  a checkpoint, a text file (one sentence a line, blank lines between documents), settings.
Out: a folder with the model and its masked-language head, history.jsonl, and pretraining.json: loss,
     perplexity and accuracy on held-out documents before and after.

Works with train.py's loop. With `freeze` only the head learns: the way to a masked-language head for an
encoder that was published without one; its decoder is the encoder's own word table.
Read first: masking.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import device, masking, system
from .batch import by_tokens, pack
from .errors import ConfigError, DataError
from .loading import load
from .masking import Examples, Hiding
from .model import Model, evaluating
from .progress import Bar
from .saving import PRETRAINING, check_place
from .train import Plan, Step, train

HISTORY, SUMMARY = PRETRAINING
HELD_OUT = 2**31  # takes an epoch's place in the key of what is hidden in held-out texts


@dataclass(frozen=True)
class Settings:
    """What a pre-training is, beside model and text."""

    next_sentence: bool = False
    whole_words: bool = False
    share: float = 0.15  # of tokens that are hidden
    freeze: bool = False  # the encoder stays as it is
    epochs: int = 1
    learning_rate: float = 5e-5
    batch_size: int = 32
    max_tokens: int = 128
    warmup: float = 0.1
    weight_decay: float = 0.01
    validation: float = 0.05  # share of documents held out
    seed: int = 0
    tokens_per_microbatch: int = 4096

    def check(self) -> None:
        """ConfigError that lists what can't be."""
        shares = {"share": self.share, "validation": self.validation}
        counts = {name: getattr(self, name) for name in ("epochs", "batch_size", "tokens_per_microbatch")}
        problems = [f"{k} = {v} must lie between 0 and 1" for k, v in shares.items() if not 0 < v < 1]
        problems += [f"{k} = {v} must be 1 or more" for k, v in counts.items() if v < 1]
        if self.seed < 0:
            problems.append(f"seed = {self.seed} must be 0 or more")
        if not (0 <= self.warmup < 1 and 0 <= self.weight_decay < float("inf")):
            problems.append(f"warmup = {self.warmup} and weight_decay = {self.weight_decay} are no shares")
        if not (0 < self.learning_rate < float("inf")):
            problems.append(f"learning_rate = {self.learning_rate} must be above 0")
        if problems:
            raise ConfigError("; ".join(problems))


def pretrain(
    source: str,
    text: Path | str,
    out: Path | str,
    settings: Settings = Settings(),
    *,
    place: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train and save; returns pretraining.json's table. A first Ctrl-C saves what was reached."""
    settings.check()
    check_place(Path(out), Path(out), overwrite)
    kind = "pretraining" if settings.next_sentence else "mlm"
    model = load(source, head=kind, device=place, seed=settings.seed)
    model.reads_text()
    most = model.config.max_tokens
    if settings.max_tokens > most:
        raise ConfigError(f"max_tokens = {settings.max_tokens}, but {source} holds {most} positions")
    frame = model.tokenizer.double if settings.next_sentence else model.tokenizer.single
    if settings.max_tokens < frame.size + 2:
        raise ConfigError(
            f"max_tokens = {settings.max_tokens} leaves no room beside {frame.size} special tokens"
        )
    learn, held, told = examples(model, Path(text), settings)
    how = masking.hiding(model.tokenizer, settings.share, settings.whole_words)
    if settings.freeze:
        model.encoder.requires_grad_(False)
    else:  # the file's other heads no longer fit an encoder that learns
        model.carried = {}
    plan = Plan(
        len(learn), settings.epochs, settings.batch_size, settings.learning_rate, settings.warmup,
        settings.weight_decay, 1.0, settings.seed, settings.seed, settings.tokens_per_microbatch,
    )  # fmt: skip
    before, history = evaluate(model, held, how, settings), []
    with system.Stop() as stop, Bar("pretraining", plan.steps, "steps") as bar:
        bar.line(
            f"{len(learn):,} examples to learn from, {len(held):,} held out ({told}); {plan.steps:,} steps on "
            f"{model.device}; before: {words_of(before)}"
        )
        steps = train(model, Loss(model, learn, how, settings, plan), [len(x) for x in learn.ids], plan)
        done = watch(steps, history, lambda: evaluate(model, held, how, settings), bar, stop)
    last = next((x for x in reversed(history) if x["event"] == "evaluation" and x["step"] == done), None)
    after = {name: last[name] for name in before} if last else evaluate(model, held, how, settings)
    model.encoder.requires_grad_(True)
    table = {
        "source": source,
        "text": str(text),
        "status": "completed" if done == plan.steps else "stopped",
        "head": "trained from new" if model.report.new else "continued",
        "examples": {"learnt": len(learn), "held_out": len(held)},
        "steps": done,
        "before": before,
        "after": after,
        "settings": asdict(settings),
        "weights": {"new": list(model.report.new), "dtype": "float32"},
    }
    model.files |= {
        SUMMARY: (json.dumps(table, indent=2) + "\n").encode(),
        HISTORY: "".join(json.dumps(line) + "\n" for line in history).encode(),
    }
    model.save(out, overwrite=overwrite)
    return table


def watch(
    steps: Iterator[Step],
    history: list[dict[str, Any]],
    score: Callable[[], dict[str, float]],
    bar: Bar,
    stop: system.Stop,
) -> int:
    """Walk the steps, note each and the scores after each epoch, end where a stop is asked for; how many were done."""
    done = 0
    for step in steps:
        done = step.step
        facts = {k: v for k, v in asdict(step).items() if k not in ("ends_epoch", "count")}
        history.append({"event": "step", **facts})
        bar.advance(1, f"epoch {step.epoch} loss {step.loss:.3f} {step.tokens / step.seconds:,.0f} tokens/s")
        if stop.requested:
            break
        if step.ends_epoch:
            found = score()
            history.append({"event": "evaluation", "step": step.step, "epoch": step.epoch, **found})
            bar.line(f"epoch {step.epoch}: {words_of(found)}")
    return done


def examples(model: Model, path: Path, settings: Settings) -> tuple[Examples, Examples, str]:
    """(to learn from, held out, how many documents): whole documents are held out, drawn by the seed."""
    try:
        raw = path.read_bytes()
        texts = masking.documents(raw.decode("utf-8-sig"))
    except OSError as problem:
        raise DataError(f"{path} can't be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path} is no UTF-8: byte {problem.start}", "Save it as UTF-8.") from None
    found = masking.tokenized(model.tokenizer, texts)
    least = 2 if settings.next_sentence else 1  # a pair may need another document
    if len(found) < 2 * least:
        raise DataError(
            f"{path} holds {len(found)} documents with text; {2 * least} are needed, {least} of them held out",
            "Write one sentence a line, and a blank line between documents.",
        )
    order = np.random.default_rng([settings.seed, 0]).permutation(len(found))
    count = min(max(least, round(settings.validation * len(found))), len(found) - least)
    parts = [[found[i] for i in sorted(places)] for places in (order[count:], order[:count])]
    if settings.next_sentence:
        swap = model.head.order.kind == "sop"
        made = [
            masking.pairs(model.tokenizer, part, settings.max_tokens, settings.seed, swap) for part in parts
        ]
    else:
        made = [masking.pieces(model.tokenizer, part, settings.max_tokens) for part in parts]
    return made[0], made[1], f"{len(found):,} documents"


class Loss:
    """What the loop calls: the summed loss of some examples' hidden words (and pairs), and its count."""

    def __init__(self, model: Model, learn: Examples, how: Hiding, settings: Settings, plan: Plan):
        self.model, self.learn, self.how, self.settings, self.plan = model, learn, how, settings, plan
        self.counted = (-1, 0.0)  # a step, and its hidden words a text

    def __call__(self, places: list[int], key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """places of examples, (seed, step) -> (sum, count)."""
        epoch = key[1] // self.plan.steps_per_epoch
        if self.settings.freeze:
            self.model.encoder.eval()
        logits, targets = answers(self.model, self.learn, self.how, places, (self.settings.seed, epoch), key)
        if not self.settings.next_sentence:
            return self.model.head.loss(logits, targets)
        return self.model.head.loss(logits, targets, self.per_text(key[1], epoch))

    def per_text(self, step: int, epoch: int) -> float:
        """Hidden words a text over the whole step: how much a pair's loss counts, however it is split."""
        if self.counted[0] != step:
            places, texts = self.plan.places(step), self.learn
            key = (self.settings.seed, epoch)
            hidden = [masking.hide(texts.ids[p], texts.words[p], self.how, (*key, p))[1] for p in places]
            self.counted = step, sum(map(len, hidden)) / len(places)
        return self.counted[1]


def answers(
    model: Model,
    texts: Examples,
    how: Hiding,
    places: list[int],
    key: tuple[int, int],
    step: tuple[int, int] = (0, 0),
) -> tuple[Any, Any]:
    """Logits of the hidden words (n, V) and their targets; with pairs, (words, order) of both."""
    ids, targets, rows, start = [], [], [], 0
    for p in places:
        hidden, where, what = masking.hide(texts.ids[p], texts.words[p], how, (*key, p))
        ids.append(hidden)
        rows += [start + place for place in where]
        targets += what
        start += len(hidden)
    segments = [texts.segments[p] for p in places] if model.config.num_segments > 1 else None
    here = model.device
    packed = pack(ids, segments, rows=places, fill_id=model.config.pad_id, key=step)
    batch = device.pinned(packed, here).to(here)
    trains = any(p.requires_grad for p in model.encoder.parameters()) and torch.is_grad_enabled()
    with torch.set_grad_enabled(trains):
        hidden = model.engine(batch)
    words = model.head.words if texts.swapped is not None else model.head
    found = words(hidden[torch.tensor(rows).to(here, non_blocking=True)], batch.layout)
    wanted = torch.tensor(targets).to(here, non_blocking=True)
    if texts.swapped is None:
        return found, wanted
    order = torch.tensor(texts.swapped[places]).to(here, non_blocking=True)
    return (found, model.head.order(hidden, batch.layout)), (wanted, order)


@torch.inference_mode()
def evaluate(model: Model, held: Examples, how: Hiding, settings: Settings) -> dict[str, float]:
    """Loss, perplexity and accuracy of hidden words in held-out texts, and of pairs; the same words each time."""
    loss, right, count, ordered = 0.0, 0, 0, 0
    with evaluating(model), device.memory_named():
        for places in by_tokens([len(x) for x in held.ids], settings.tokens_per_microbatch):
            logits, targets = answers(model, held, how, places, (settings.seed, HELD_OUT))
            if held.swapped is not None:
                ordered += int((logits[1].argmax(-1) == targets[1]).sum())
                logits, targets = logits[0], targets[0]
            loss += float(torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum"))
            right += int((logits.argmax(-1) == targets).sum())
            count += len(targets)
    mean = loss / count
    out = {"loss": mean, "perplexity": math.exp(min(mean, 700.0)), "accuracy": right / count, "words": count}
    return out | ({"order_accuracy": ordered / len(held)} if held.swapped is not None else {})


def words_of(scores: dict[str, float]) -> str:
    """Scores in a line."""
    line = f"perplexity {scores['perplexity']:,.1f}, {scores['accuracy']:.1%} of {scores['words']:,} hidden words right"
    return line + (f", {scores['order_accuracy']:.1%} of pairs" if "order_accuracy" in scores else "")
