"""Which tokens carried an answer: three measures of it, of which one adds up.

In:  a Model with a head, a batch of one text.   Out: Attribution, a number a token for each measure.

    gradient     gradient times input: how the answer would move if the word's vector grew (Simonyan et al. 2013)
    integrated   integrated gradients (Sundararajan et al. 2017): the gradient along the way from a text of
                 [PAD] to this one. Their sum is the answer less that of the text of [PAD]: this one adds up.
    occlusion    how far the answer falls when the token gives way to [MASK] (Zeiler and Fergus 2014)

The input is the word's vector; position and segment stay, and so do the special tokens, which get 0 by the
second measure. The integral is a Gauss-Legendre sum, with twice as many points until it adds up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batch import PackedBatch, pack
from ..model import TOKENS_AT_ONCE, Model
from .outcome import masks_of, words_head

POINTS, MOST = 32, 1024  # of the sum: at first, and when it gives up
TOLERANCE = 5e-4  # of the answer, in logits


@dataclass(frozen=True)
class Target:
    """One number of a head's output: its name, and how it is read off hidden states, (N, D) -> (B,)."""

    name: str
    read: Callable[[Tensor, PackedBatch], Tensor]


@dataclass(frozen=True)
class Attribution:
    """target; logit and base, the answer to the text and to one of [PAD]; a number a token, each measure (N,).

    missing: what the integrated ones lack of logit - base; points: of the sum.
    """

    target: str
    logit: float
    base: float
    gradient: Tensor
    integrated: Tensor
    occlusion: Tensor
    missing: float
    points: int


def targets(model: Model, batch: PackedBatch, most: int = 2) -> list[Target]:
    """What an answer is made of: the likeliest classes' logits, the value, the likeliest word of each [MASK]."""
    head, kind = words_head(model), model.head.kind if model.head is not None else ""
    with torch.inference_mode():
        hidden = model.engine(batch)
        if head is not None:
            places = masks_of(model, batch)[:most]
            best = [int(head(hidden[[place]], batch.layout)[0].argmax()) for place in places]
            return [hidden_word(model, head, place, word) for place, word in zip(places, best)]
        if kind not in ("classification", "multilabel", "nsp", "regression"):
            return []
        logits = model.head(hidden, batch.layout).flatten()
    best = logits.topk(min(most, len(logits))).indices.tolist()
    names = model.labels or (("value",) if len(logits) == 1 else [f"class {i}" for i in range(len(logits))])
    return [
        Target(
            names[i],
            lambda hidden, b, i=i: model.head(hidden, b.layout).reshape(b.layout.num_texts, -1)[:, i],
        )
        for i in best
    ]


def hidden_word(model: Model, head: torch.nn.Module, place: int, word: int) -> Target:
    """The logit of a word at a place of the text."""

    def read(hidden: Tensor, batch: PackedBatch) -> Tensor:
        return head(hidden[batch.layout.starts + place], batch.layout)[:, word]

    return Target(f"{model.tokenizer.tokens([word])[0]} at {place}", read)


def attribute(model: Model, batch: PackedBatch, target: Target) -> Attribution:
    """The three measures of one text, each (N,)."""
    here = words(model, batch.token_ids)  # (N, E)
    bare = words(model, without_words(model, batch.token_ids))
    [logit], [slope] = along(model, batch, target, here[None])
    [base], _ = along(model, batch, target, bare[None])
    points, logit, base = POINTS, float(logit), float(base)
    while True:
        integrated = ((here - bare) * mean_slope(model, batch, target, bare, here, points)).sum(-1)  # (N,)
        missing = logit - base - float(integrated.sum())
        if abs(missing) <= TOLERANCE or points >= MOST:
            break
        points *= 2
    gradient = (slope * here).sum(-1)  # (N,)
    return Attribution(
        target.name, logit, base, gradient, integrated, occluded(model, batch, target, logit), missing, points
    )


def mean_slope(
    model: Model, batch: PackedBatch, target: Target, bare: Tensor, here: Tensor, points: int
) -> Tensor:
    """The gradient's mean on the straight line from `bare` to `here`, (N, E)."""
    at, weights = np.polynomial.legendre.leggauss(points)
    at, weights = torch.from_numpy((at + 1) / 2).to(here), torch.from_numpy(weights / 2).to(here)
    total, few = torch.zeros_like(here), max(TOKENS_AT_ONCE // len(here), 1)
    for share, weight in zip(at.split(few), weights.split(few)):
        _, slopes = along(model, batch, target, bare + share[:, None, None] * (here - bare))
        total += (weight[:, None, None] * slopes).sum(0)
    return total


def along(model: Model, batch: PackedBatch, target: Target, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """vectors (n, N, E) in place of the text's words: the answers (n,) and their gradients (n, N, E)."""
    copies = [batch.token_ids.tolist()] * len(vectors), [batch.segments.tolist()] * len(vectors)
    many = pack(*copies).to(model.device)
    vectors = vectors.detach().clone().requires_grad_(True)
    with torch.enable_grad(), in_place_of_words(model, vectors.flatten(0, 1)):
        found = target.read(model.engine(many), many)  # (n,)
        (slopes,) = torch.autograd.grad(found.sum(), vectors)
    return found.detach(), slopes


@contextlib.contextmanager
def in_place_of_words(model: Model, vectors: Tensor) -> Iterator[None]:
    """Inside, the word table gives these vectors, whatever it is asked."""
    hook = model.encoder.embeddings.word.register_forward_hook(lambda *_: vectors)
    try:
        yield
    finally:
        hook.remove()


def words(model: Model, ids: Tensor) -> Tensor:
    """The word table's rows (N, E)."""
    return model.encoder.embeddings.word.weight.detach()[ids]


def special(model: Model, ids: Tensor) -> Tensor:
    """(N,) bool: [CLS], [SEP] and their like, and [MASK]; not [UNK], which stands for a word of the text."""
    names, unknown = set(model.tokenizer.special_names), model.tokenizer.unknown_id
    ids = ids.tolist()
    return torch.tensor([i != unknown and name in names for i, name in zip(ids, model.tokenizer.tokens(ids))])


def without_words(model: Model, ids: Tensor) -> Tensor:
    """The ids with [PAD] in place of every word."""
    return torch.where(special(model, ids).to(ids.device), ids, model.config.pad_id)


@torch.inference_mode()
def occluded(model: Model, batch: PackedBatch, target: Target, logit: float) -> Tensor:
    """How far the answer falls without each token, (N,); 0 for special ones."""
    ids, out = batch.token_ids.tolist(), torch.zeros(len(batch.token_ids))
    places = (~special(model, batch.token_ids)).nonzero().flatten().tolist()
    blank = model.tokenizer.mask_id if model.tokenizer.mask_id is not None else model.config.pad_id
    few = max(TOKENS_AT_ONCE // len(ids), 1)
    for start in range(0, len(places), few):
        some = places[start : start + few]
        many = pack([[*ids[:i], blank, *ids[i + 1 :]] for i in some], [batch.segments.tolist()] * len(some))
        many = many.to(model.device)
        out[some] = logit - target.read(model.engine(many), many).float().cpu()
    return out
