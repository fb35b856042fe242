"""Texts, questions and answers that are put to ours and to the reference alike; needs no reference itself.

All is drawn from NumPy's RandomState, whose stream is frozen, so that stored answers stay answers.
Ours is a Model with a head, as `minibert.load` gives it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from minibert.batch import PackedBatch
from minibert.checkpoint import full, rows_for, theirs_of
from minibert.model import Model
from minibert.names import NAMES, TIED
from minibert.trace import Trace

V = 101  # ids below 3 stand for what tokenizers add
LENGTHS = (5, 11, 2, 40, 11, 3)  # ragged, one length twice; even in number, for choices of two
CLASSES = {"classification": 7, "multilabel": 5, "regression": 1, "tokens": 6}

# What two right implementations may differ by. float32: sums of dozens of products in another order,
# through every block; float64: 9 digits further down.
HIDDEN = {torch.float32: 2e-5, torch.float64: 1e-10}
GRADIENT = 1e-4  # of a parameter's largest gradient
NEGLIGIBLE = 1e-6  # of the model's largest: key biases have a true gradient of zero
LOSS = 1e-5  # relative


def texts(two: bool, lengths: tuple[int, ...] = LENGTHS) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of random texts, and their segments; `two`: the last of each text is a second one."""
    random = np.random.RandomState(5)
    ids = [random.randint(3, V, n, dtype=np.int64).tolist() for n in lengths]
    return ids, [[int(i > n // 2 and two) for i in range(n)] for n in lengths]


def question(
    family: str, head: str, ids: list[list[int]]
) -> tuple[Tensor | tuple[Tensor, Tensor], dict[str, Tensor]]:
    """(targets for our loss, labels for the reference's forward) of a head, on these texts."""
    random = np.random.RandomState(7)
    count, tokens, longest = len(ids), sum(map(len, ids)), max(map(len, ids))

    def draw(high: int, *shape: int) -> Tensor:
        return torch.from_numpy(random.randint(0, high, shape, dtype=np.int64))

    def spread(packed: Tensor, fill: int) -> Tensor:
        out = torch.full((count, longest), fill)
        for row, part in zip(out, packed.split([len(t) for t in ids])):
            row[: len(part)] = part
        return out

    if head == "span":
        places = torch.tensor([[len(t) // 3, len(t) - 1] for t in ids])
        return places, {"start_positions": places[:, 0], "end_positions": places[:, 1]}
    if head == "detection":
        targets = draw(2, tokens)
        return targets, {"labels": spread(targets, 0)}
    if head in ("tokens", "mlm", "pretraining"):
        targets = draw(CLASSES["tokens"] if head == "tokens" else V, tokens)
        targets[draw(2, tokens) == 0] = -1  # not every token is asked for
        labels = {"labels": spread(targets, -1).masked_fill(spread(targets, -1) < 0, -100)}
        if head != "pretraining":
            return targets, labels
        order = draw(2, count)
        name = "sentence_order_label" if family == "albert" else "next_sentence_label"
        return (targets, order), {**labels, name: order}
    targets = {
        "classification": lambda: draw(CLASSES[head], count),
        "multilabel": lambda: draw(2, count, CLASSES[head]).float(),
        "regression": lambda: torch.from_numpy(random.standard_normal(count)).float(),
        "choice": lambda: draw(2, count // 2),
        "nsp": lambda: draw(2, count),
    }[head]()
    return targets, {"labels": targets}


def pair(tensors: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A tuple of logits, also where there is but one."""
    return tensors if isinstance(tensors, tuple) else (tensors,)


def our_loss(model: Model, batch: PackedBatch, targets: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The mean loss, with the extra that one head needs."""
    extra = (batch.layout,) if model.head.kind == "span" else ()
    total, count = model.head.loss(model(batch), targets, *extra)
    return total / count


def stages(trace: Trace, layers: int) -> list[Tensor]:
    """After the embeddings and after every block, (N, D) each, as the reference's hidden_states count them."""
    found = [trace.get("embeddings.projected", trace["embeddings.normed"])]
    found += [trace.get(f"layers.{i}.out", trace.get(f"layers.{i}.ffn_normed")) for i in range(layers)]
    if "final_normed" in trace:  # the reference's last one is that after the last norm
        found[-1] = trace["final_normed"]
    return found


def gradients(model: Model) -> dict[str, Tensor]:
    """Our gradients under the names the reference uses, each once."""
    encoder_rows, head_rows = rows_for(model.config, model.head.kind)
    own = {n: p.grad for n, p in model.encoder.named_parameters() if p.grad is not None}
    top = {n: p.grad for n, p in model.head.named_parameters(remove_duplicate=False) if p.grad is not None}
    found = theirs_of(encoder_rows, own) | theirs_of(head_rows, top)
    prefix = NAMES[model.config.family].prefix
    return once(model.config.family, {full(name, prefix): grad for name, grad in found.items()})


def once(family: str, found: dict[str, Any]) -> dict[str, Any]:
    """By tensors' names: one name for a tensor that has two."""
    names = {old: full(new, NAMES[family].prefix) for old, new in TIED.items()}
    return {names.get(name, name): value for name, value in found.items()}


def without_dropout(*models: torch.nn.Module) -> None:
    """Train mode stays, and drops nothing; for our modules and the reference's."""
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("probs_dropout", "dropout_prob", "attention_dropout", "attn_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
