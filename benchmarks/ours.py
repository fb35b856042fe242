"""Our side: what `minibert run` does between reading a spec and writing scores, by its own functions.

In:  a job with a spec.   Out: a line a step, losses, memory, and what is asked beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from contestant import Clock, forget_peak, memory, peak, serve

import minibert
from minibert import catalogue, data, device, fit, flops, outset, reading, results, spec, system
from minibert.bench import work
from minibert.folder import RunFolder
from minibert.model import Model
from minibert.processes import ALONE
from minibert.resume import Checkpoints
from minibert.spec import TaskSpec
from minibert.train import READ_EVERY, Plan, accumulate, micro_batches


def read(job: dict[str, Any]) -> tuple[TaskSpec, data.Splits]:
    """The task of a job, and its texts."""
    task = spec.load(job["spec"])
    return task, data.load_splits(task, lambda word: catalogue.locate_data(word, task.folder))


class Watched(RunFolder):
    """A run folder that clocks what is told to it: every step as it is logged. Validation is not counted."""

    clock: Clock

    def event(self, event: str, **facts: Any) -> None:
        super().event(event, **facts)
        if event == "step":
            self.losses.append(facts["loss"])
            if (
                "peak_memory" in facts
            ):  # a card's steps are told several at once, with the mean of their times
                took, tokens = facts["texts"] / facts["texts_per_second"], facts["tokens"]
                self.clock.steps.append([took, facts["texts"], tokens, tokens, 0.0])
            else:
                self.clock.step(facts["texts"], facts["tokens"], facts["tokens"])
        else:
            self.clock.start()


def fine_tune(job: dict[str, Any]) -> dict[str, Any]:
    """Load, tokenise, train with `fit`, and, if asked, predict the test part."""
    task, splits = read(job)
    idle = memory()
    model = outset.new_model(task, splits, task.train.device)
    device.forget_peak(model.device)
    start = time.perf_counter()
    encoded = reading.encode_all(task, model, splits)
    tokenise = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as work:
        folder = Watched(Path(work, "run"))
        folder.losses = []
        ready, marked = memory(), forget_peak()
        folder.clock = Clock()
        checkpoints = Checkpoints(folder.path / "checkpoints", task, "", minibert.__version__)
        stop = system.Stop()
        fitted = fit.fit(task, splits, model, encoded, folder, stop, checkpoints)
    clock, most = folder.clock, peak()
    out = {
        "steps": clock.steps,
        "losses": folder.losses,
        "tokenise": tokenise,
        "memory": {"idle": idle, "ready": ready, "peak": most, "marked": marked},
    }
    if model.device.type == "cuda":
        out |= card(task, model, encoded["train"].lengths.tolist())
    if job.get("predict"):
        fit.predict_test(fitted, stop)
        truth = splits.test.targets.tolist()
        out |= {"predictions": fitted.test.tolist(), "truth": truth, "best_epoch": fitted.best_epoch}
    return out


def card(task: TaskSpec, model: Model, lengths: list[int]) -> dict[str, Any]:
    """What is said of a training on a card: its memory, its kernel, operations a token, the most that it does."""
    word = outset.number_format(task, model)
    number, autocast, _ = device.FORMATS[word]
    peak = {"published": flops.peak(device.card(model.device), word)}
    return {
        "warm": 2 * READ_EVERY,
        "card memory": device.peak_memory(model.device),
        "kernel": results.environment(task, model, "", 0.0)["kernel"],
        "flops": flops.training_flops(model.config, lengths) / sum(lengths),
        "peak": peak | {"products": work.product_ceiling(autocast or number, model.device)},
    }


def microbatches(job: dict[str, Any]) -> dict[str, Any]:
    """One step of a batch at once and in micro-batches: losses, and gradients beside the largest of all."""
    task, splits = read(job)
    model = outset.new_model(task, splits, "cpu").train()
    learner = outset.learner_of(task, splits, model, reading.encode_all(task, model, splits)["train"])
    plan = Plan(len(splits.train), 1, task.train.batch_size, task.train.learning_rate)
    lengths, places = learner.encoded.lengths.tolist(), plan.places(0)
    found = {}
    for budget in job["budgets"]:
        model.zero_grad()
        ready = micro_batches(learner.prepare, places, lengths, budget, (0, 0))
        total, count = accumulate(learner, ready, 0, 0, ALONE, None)
        gradients = {n: p.grad.clone() / count for n, p in model.named_parameters() if p.grad is not None}
        found[budget] = (float(total / count), gradients, len(ready))
    whole, *others = found.values()
    largest = max(float(g.abs().max()) for g in whole[1].values())
    return {
        "texts": len(places),
        "rows": [
            {
                "parts": parts,
                "loss": abs(loss - whole[0]) / abs(whole[0]),
                "gradient": max(float((gradients[n] - g).abs().max()) for n, g in whole[1].items()) / largest,
            }
            for loss, gradients, parts in others
            if parts > 1
        ],
    }


def launch(job: dict[str, Any]) -> dict[str, Any]:
    """`minibert run` in so many processes of so many threads; steps and losses as its history tells them."""
    starter = [] if job["processes"] == 1 else ["-m", "torch.distributed.run", "--standalone",
                                                "--nproc-per-node", str(job["processes"])]  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "run")
        done = subprocess.run(
            [sys.executable, *starter, "-m", "minibert", "run", job["spec"], "--out", str(out)],
            env=os.environ | {"OMP_NUM_THREADS": str(job["threads"])},
            stdout=sys.stderr,
        )
        if done.returncode:
            raise SystemExit(f"minibert run ended with {done.returncode}")
        events = [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]
    steps = [e for e in events if e["event"] == "step"]
    clocked = [[e["texts"] / e["texts_per_second"], e["texts"], e["tokens"], e["tokens"], 0] for e in steps]
    return {"steps": clocked, "losses": [e["loss"] for e in steps]}


if __name__ == "__main__":
    torch.manual_seed(0)
    serve({"fine_tune": fine_tune, "microbatches": microbatches, "launch": launch})
