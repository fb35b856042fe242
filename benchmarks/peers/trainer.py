"""The other side: transformers' own model and Trainer.

In:  a job: texts and targets in a file, and the same numbers that our spec holds.
Out: a line a step, losses, memory, and what is asked beside it.

What a job does not say stays as TrainingArguments has it: AdamW fused, linear decay, no weight decay on biases and
LayerNorm, a batch padded to its longest text, logging every 500 steps.
"""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestant import Clock, forget_peak, memory, peak, serve
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)

from minibert import device


class Clocked(Trainer):
    """Trainer that notes each step's loss, and how much of its rectangle is text."""

    def training_step(self, model, inputs, *rest, **more):
        mask = inputs["attention_mask"]
        self.held = len(mask), mask.sum(), mask.numel()  # read in the end: reading makes a card's host wait
        loss = super().training_step(model, inputs, *rest, **more)
        self.losses.append(loss.detach())
        return loss


class Ticks(TrainerCallback):
    """Clocks the steps; evaluations are not counted."""

    def __init__(self, trainer: Clocked):
        self.trainer, self.clock = trainer, Clock()

    def on_train_begin(self, *_, **__):
        self.clock.start()

    def on_step_end(self, arguments, state, *_, **__):
        # Both sides wait for a card every ten steps and in the end; the first twenty do not count.
        if not arguments.use_cpu and (state.global_step % 10 == 0 or state.global_step == state.max_steps):
            torch.cuda.synchronize()
        self.clock.step(*self.trainer.held)

    def on_evaluate(self, *_, **__):
        self.clock.start()


def new_model(job: dict[str, Any]) -> torch.nn.Module:
    """The published encoder with a new head, or with the head of the file."""
    set_seed(job["seed"])
    return AutoModelForSequenceClassification.from_pretrained(
        job["weights"],
        num_labels=len(job["labels"]) or 1,
        problem_type="single_label_classification" if job["labels"] else "regression",
        hidden_dropout_prob=job["dropout"],
        attention_probs_dropout_prob=job["attention_dropout"],
        attn_implementation=job.get("attention", "sdpa"),
        dtype=torch.float32,
    )


class Texts:
    """Three tables of texts and labels, tokenised; regression on standardised targets."""

    def __init__(self, job: dict[str, Any]):
        self.tokenizer = AutoTokenizer.from_pretrained(job["weights"])
        parts = {}
        for name, path in job["tables"].items():
            with open(path, encoding="utf-8", newline="") as file:
                parts[name] = list(csv.DictReader(file))
        start = time.perf_counter()
        read = {
            name: self.tokenizer([row["text"] for row in rows], truncation=True, max_length=job["max_tokens"])
            for name, rows in parts.items()
        }
        self.seconds = time.perf_counter() - start
        self.mean, self.deviation = 0.0, 1.0
        if not job["labels"]:
            wanted = np.array([float(row["label"]) for row in parts["train"]])
            self.mean, self.deviation = wanted.mean(), wanted.std()
        for name, columns in read.items():
            labels = [self.target(row["label"], job["labels"]) for row in parts[name]]
            rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
            setattr(self, name, [row | {"labels": label} for row, label in zip(rows, labels)])

    def target(self, cell: str, labels: list[str]) -> float | int:
        """A class's number, or a standardised number."""
        return labels.index(cell) if labels else float((float(cell) - self.mean) / self.deviation)


def ordered(job: dict[str, Any], texts: Texts) -> list[dict[str, Any]]:
    """The training texts, in the order that the job gives, all epochs of it."""
    return [texts.train[place] for place in job["order"]]


def fine_tune(job: dict[str, Any]) -> dict[str, Any]:
    """Load, tokenise, train with Trainer, and, if asked, predict the test part with the best epoch."""
    if job.get("products"):
        device.products()
    idle = memory()
    model, texts = new_model(job), Texts(job)
    given = {}
    if job.get("order"):
        given = {"train_sampling_strategy": "sequential", "num_train_epochs": 1}
    if job.get("predict"):  # as ours: the epoch with the best Pearson r on the validation part is kept
        given = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1,
                 "load_best_model_at_end": True, "metric_for_best_model": "pearson"}  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        arguments = TrainingArguments(
            **{
                "output_dir": work,
                "use_cpu": job["device"] == "cpu",
                "bf16": job["device"] == "cuda",
                "save_strategy": "no",
                "num_train_epochs": job["epochs"],
                "per_device_train_batch_size": job["batch_size"],
                "learning_rate": job["learning_rate"],
                "warmup_steps": job["warmup"],
                "weight_decay": job["weight_decay"],
                "max_grad_norm": job["clip"],
                "seed": job["seed"],
                **given,
                **job.get("arguments", {}),
            }
        )
        trainer = Clocked(
            model=model,
            args=arguments,
            train_dataset=ordered(job, texts) if job.get("order") else texts.train,
            eval_dataset=texts.validation,
            processing_class=texts.tokenizer,
            compute_metrics=lambda seen: {
                "pearson": np.corrcoef(seen.predictions.ravel(), seen.label_ids.ravel())[0, 1]
            },
        )
        trainer.losses = []
        ticks = Ticks(trainer)
        trainer.add_callback(ticks)
        ready, marked = memory(), forget_peak()
        if job["device"] == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        most = peak()
        out = {
            "steps": [[float(number) for number in step] for step in ticks.clock.steps],
            "losses": [float(loss) for loss in trainer.losses],
            "tokenise": texts.seconds,
            "memory": {"idle": idle, "ready": ready, "peak": most, "marked": marked},
        }
        if job["device"] == "cuda":
            out |= {"warm": 20, "card memory": torch.cuda.max_memory_allocated()}
        if job.get("predict"):
            found = trainer.predict(texts.test).predictions.ravel() * texts.deviation + texts.mean
            best = Path(trainer.state.best_model_checkpoint).name.removeprefix("checkpoint-")
            steps = len(out["losses"]) // job["epochs"]
            out |= {"predictions": found.tolist(), "best_epoch": int(best) // steps}
    return out


def plain_loop(job: dict[str, Any]) -> dict[str, Any]:
    """The loop that one would write by hand around transformers' model; losses of the same batches."""
    model, texts = new_model(job).train(), Texts(job)
    rows, size = ordered(job, texts), job["batch_size"]
    plain = [p for p in model.parameters() if p.dim() < 2]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    groups = [
        {"params": matrices, "weight_decay": job["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=job["learning_rate"], fused=True)
    total = len(rows) // size
    schedule = get_linear_schedule_with_warmup(optimizer, int(np.ceil(job["warmup"] * total)), total)
    collate, losses = DataCollatorWithPadding(texts.tokenizer), []
    for start in range(0, len(rows), size):
        loss = model(**collate(rows[start : start + size])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job["clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return {"losses": losses}


if __name__ == "__main__":
    serve({"fine_tune": fine_tune, "plain_loop": plain_loop})
