"""What the contestants are given: a shipped task's texts in three tables that both sides read, and the same numbers.

In:  a task's name, and what is to differ from it.   Out: a TaskSpec on tables of its own; a job for either side.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minibert import catalogue, config, data, encoder, spec
from minibert.model import Model
from minibert.spec import Baseline, Data, TaskSpec
from minibert.tokenize import Tokenizer

Part = tuple[Sequence[str], Sequence[Any]]  # texts, targets
Job = tuple[str, dict[str, Any]]  # module of benchmarks/, what it reads


def shipped(name: str, **train: Any) -> tuple[TaskSpec, data.Splits]:
    """A task of tasks/ with some keys of [train] changed, and its texts."""
    task = spec.load(catalogue.tasks()[name])
    task = replace(task, train=replace(task.train, **train))
    return task, data.load_splits(task, lambda word: catalogue.locate_data(word, task.folder))


def some(splits: data.Splits, train: int, validation: int, test: int) -> dict[str, Part]:
    """So many texts of each part, drawn; beyond train only those whose label train has."""
    parts = {}
    for name, n in (("train", train), ("validation", validation), ("test", test)):
        part = getattr(splits, name)
        pairs = [(part.texts[i], part.targets[i]) for i in np.random.default_rng(0).permutation(len(part))]
        if parts and splits.labels:
            known = set(parts["train"][1])
            pairs = [pair for pair in pairs if pair[1] in known]
        parts[name] = tuple(zip(*pairs[:n]))
    return parts


def laid_out(work: Path, task: TaskSpec, parts: dict[str, Part], **model: Any) -> TaskSpec:
    """The task on tables in `work`, some keys of [model] changed; without a baseline, and saving no checkpoints."""
    files = {}
    for name, (texts, targets) in parts.items():
        files[name] = str(work / f"{name}.csv")
        with open(files[name], "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(texts, targets)])
    quiet = {"examples": 0, "checkpoint_steps": 0, "checkpoint_minutes": 0.0, "device": "cpu"}
    return replace(
        task,
        data=Data(**files, text="text", label="label"),
        model=replace(task.model, **model),
        train=replace(task.train, **quiet),
        baseline=Baseline(kind="none"),
    )


def changed(task: TaskSpec, **train: Any) -> TaskSpec:
    """The task with other keys of [train]."""
    return replace(task, train=replace(task.train, **train))


def ours(work: Path, task: TaskSpec, name: str = "task", **more: Any) -> Job:
    """The job of our side: a spec."""
    path = work / f"{name}.toml"
    path.write_text(task.to_toml(), "utf-8")
    return "ours", {"what": "fine_tune", "spec": str(path), "device": task.train.device, **more}


def theirs(task: TaskSpec, labels: Sequence[str] = (), **more: Any) -> Job:
    """The job of the other side: what the spec says, as peers/trainer.py takes it."""
    numbers = ("epochs", "batch_size", "learning_rate", "warmup", "weight_decay", "clip", "seed")
    job = {
        "what": "fine_tune",
        "tables": {name: getattr(task.data, name) for name in ("train", "validation", "test")},
        "labels": list(labels),
        "device": task.train.device,
        "weights": str(catalogue.locate_weights(task.model.weights)),
        **{name: getattr(task.model, name) for name in ("max_tokens", "dropout", "attention_dropout")},
        **{name: getattr(task.train, name) for name in numbers},
    }
    return "peers.trainer", job | more


def random_bert(folder: Path, layers: int, width: int) -> str:
    """A BERT with random weights, and MiniLM's tokenizer, whose vocabulary is BERT's."""
    raw = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522, "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": width // 64, "intermediate_size": 4 * width,
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0,
    }  # fmt: skip
    fresh = encoder.Encoder(config.parse(raw))
    encoder.initialise(fresh, 0.02, seed=0)
    texts = catalogue.locate_weights("all-MiniLM-L6-v2", texts_only=True)
    Model(fresh, None, Tokenizer.from_folder(texts)).save(folder)
    return str(folder)
