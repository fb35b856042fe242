"""What a fine-tuning begins with: the published encoder with a new head, the plan, and what it learns from.

In:  a TaskSpec, Splits.   Out: Model, Plan, Learner.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from . import answers, compiled, data, device, lora, system, wordrows
from .config import EncoderConfig
from .data import Splits
from .errors import ConfigError
from .kinds import KINDS, each_label
from .learner import Learner
from .loading import load
from .model import Model
from .processes import ALONE, World
from .recompute import recompute, recompute_activations
from .spec import TaskSpec
from .tokenize import Encoded
from .train import Plan


def new_model(task: TaskSpec, splits: Splits, place: str) -> Model:
    """The published encoder with a new head for this task."""
    number, _ = device.precision(task.train.dtype, device.pick(place), task.train.force_dtype)
    model = load(
        task.model.weights,
        head=task.task.kind,
        kernel=task.model.kernel,
        device=place,
        dtype=str(number).removeprefix("torch."),
        labels=splits.labels,
        pooling=None if KINDS[task.task.kind].words else task.model.pooling,
        seed=task.train.seeds["head"],
        dropout=task.model.dropout,
        attention_dropout=task.model.attention_dropout,
    )
    m = task.model
    if m.max_tokens > model.config.max_tokens:
        raise ConfigError(
            f"[model] max_tokens = {m.max_tokens}, but {m.weights} holds {model.config.max_tokens} positions",
            'Lower it; truncation = "window" reads longer texts in pieces.',
        )
    model.reading = {
        "max_tokens": m.max_tokens,
        "truncation": m.truncation,
        "stride": m.stride,
        "max_windows": m.max_windows,
    }
    if task.task.kind in PREPARED:
        PREPARED[task.task.kind](model.head, splits)
    set_apart(task, model)
    return model


def standardised(head: torch.nn.Module, splits: Splits) -> None:
    """Let a head of numbers learn in units of the training targets' deviation."""
    head.standardise(torch.tensor(splits.train.targets))


def from_shares(head: torch.nn.Module, splits: Splits) -> None:
    """Let a head of several labels begin at each label's share of the training texts.

    A new head says 0.5 of every label. With labels that one text in fifty has, its first thousand steps would
    go into making all texts look alike, for saying no to everything (RetinaNet, arXiv 1708.02002, section 4.1).
    """
    has = answers.indicator(splits.train.targets, splits.labels)
    share = (has.sum(0) + 0.5) / (len(has) + 1)  # never 0 or 1
    with torch.no_grad():
        head.out.bias.copy_(torch.tensor(np.log(share / (1 - share))))


# What a new head is told of the training targets before it learns.
PREPARED = {"regression": standardised, "multilabel": from_shares}


def set_apart(task: TaskSpec, model: Model) -> None:
    """What of the encoder learns: all of it, the blocks above `freeze_layers`, or corrections of low rank; and
    how it is computed: compiled, or some of it twice."""
    t, encoder = task.train, model.encoder
    if t.freeze_layers > len(encoder.layers):
        raise ConfigError(
            f"[train] freeze_layers = {t.freeze_layers}, but {task.model.weights} has {len(encoder.layers)} blocks"
        )
    if t.freeze_layers:
        for part in (encoder.embeddings, *encoder.layers[: t.freeze_layers]):
            part.requires_grad_(False)
    if t.lora_rank:
        lora.add(encoder, t.lora_rank, t.lora_alpha, seed=t.seeds["head"])
    several = t.parallel if system.processes()[1] > 1 else ""
    compiled.compile_blocks(encoder, t.compile, model.device.type, t.recompute, several)
    if t.recompute:
        recompute(encoder)
    elif t.compile == "none" and model.device.type != "cuda":
        # A compiler decides by itself what it keeps; a card has the memory, and its host no time to spare.
        recompute_activations(encoder)


def plan_of(task: TaskSpec, splits: Splits, model: Model) -> Plan:
    """What the spec asks of the loop, as numbers."""
    t, scaled = task.train, number_format(task, model) == "float16"
    return Plan(
        len(splits.train), t.epochs, t.batch_size, t.learning_rate, t.warmup, t.weight_decay, t.clip,
        t.seeds["order"], t.seeds["dropout"], budget_of(task, model.config, model.device), t.layer_decay, scaled,
    )  # fmt: skip


def budget_of(task: TaskSpec, config: EncoderConfig, place: torch.device) -> int:
    """Tokens of a micro-batch: the spec's, or what keeps some 2.5 GB for the backward pass, 64 D bytes a layer.

    8,192 of a small encoder, 4,096 of BERT-base, 1,024 of RoBERTa-large. More at once is no
    faster on a processor. A card wants more, to have work for all its units: a third of its memory, as far as a
    step has so many (32,768 of BERT-base on 80 GB).
    """
    if task.train.tokens_per_microbatch:
        return task.train.tokens_per_microbatch
    kept, most = 2.5e9, 8192
    if place.type == "cuda":
        kept, most = device.memory(place) / 3, max(most, task.train.batch_size * task.model.max_tokens)
    fit = kept / (64 * config.hidden_width * config.num_layers)
    return max(min(2 ** int(math.log2(fit)), most), 512)


def learner_of(
    task: TaskSpec, splits: Splits, model: Model, encoded: Encoded, world: World = ALONE
) -> Learner:
    """The model with what it learns from; word rows that occur in no training text are set apart."""
    sized = 0
    if task.train.compile == "reduce-overhead":  # packs are filled up to an eighth of it, so to 1,024 at most
        sized = min(budget_of(task, model.config, model.device), 8192)
    if not world.shards:
        filler = {model.config.pad_id} if sized else set()
        wordrows.set_apart(model.encoder.embeddings, filler.union(*encoded.ids))
    wanted = answers.wanted(task.task.kind, splits.train.targets, splits.labels)
    _, autocast = device.precision(task.train.dtype, model.device, task.train.force_dtype)
    return Learner(model, encoded, wanted, weights_of(task, splits), autocast, sized)


def number_format(task: TaskSpec, model: Model) -> str:
    """What the model's device trains in: a word of device.FORMATS."""
    return device.number_format(task.train.dtype, model.device, task.train.force_dtype)


def weights_of(task: TaskSpec, splits: Splits) -> np.ndarray | None:
    """(C,) [train] class_weights, from the training part; None where there are none."""
    known = list(each_label(task.task.kind, splits.train.targets))
    return data.class_weights(task.train.class_weights, known, splits.labels)
