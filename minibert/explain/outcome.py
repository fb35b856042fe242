"""What comes out of a model for one text, as a few named numbers that can be compared with one another.

In:  a Model, a batch of one text.   Out: an Outcome, and for a changed model its values again.

    classification, nsp      the probability of each class
    multilabel               of each label
    regression, choice       the value
    mlm, pretraining         of each [MASK]: the probabilities of the words that are likeliest at first; without
                             one, the probability of each token at its own place
    tokens                   each token's probability of the label that it gets at first
    none of these            how alike (cosine) the text's vector and each token's are to those at first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import PackedBatch, pack
from ..model import TOKENS_AT_ONCE, Model
from ..pooling import POOLING
from .changes import Change, applied

FILLS = 5  # words for each mask

ABOUT = {
    "probabilities": "the probability of each class",
    "labels": "the probability of each label, by itself",
    "value": "the value that the head gives",
    "fills": "the probability of the words that are likeliest at each [MASK]",
    "own": "the probability of each token at its own place",
    "tags": "each token's probability of the label it gets",
    "similarity": "how alike (cosine) the text's vector and each token's last one are to those of the whole model",
}
DIFFERENCE = {
    "value": "by how much the value differs",
    "similarity": "1 less the cosine of the text's vector with that of the whole model",
}
KIND_OF = {
    "classification": "probabilities",
    "nsp": "probabilities",
    "sop": "probabilities",
    "multilabel": "labels",
    "regression": "value",
    "choice": "value",
    "tokens": "tags",
}


@dataclass(frozen=True)
class Outcome:
    """kind; names (n,) of its numbers; plain (n,), what the whole model gives; keys: what is read for each
    name; hidden (N, D), vector (1, D): what others are compared with."""

    kind: str
    names: list[str]
    plain: Tensor
    keys: Tensor | None = None
    hidden: Tensor | None = None
    vector: Tensor | None = None

    @property
    def about(self) -> str:
        """What the numbers are, in words."""
        return ABOUT[self.kind]

    @property
    def difference(self) -> str:
        """What `change` says, in words."""
        return DIFFERENCE.get(self.kind, "the largest difference of any of these probabilities")

    def change(self, values: Tensor) -> float:
        """How differently a changed model comes out; 0: not at all."""
        if self.kind == "similarity":
            return max(1 - float(values[0]), 0.0)
        return float((values - self.plain).abs().max())


def words_head(model: Model) -> torch.nn.Module | None:
    """The masked-language head, where the model has one."""
    kind = model.head.kind if model.head is not None else ""
    return {"mlm": model.head, "pretraining": getattr(model.head, "words", None)}.get(kind)


def masks_of(model: Model, batch: PackedBatch) -> list[int]:
    """The places of the text's [MASK]s."""
    return (batch.token_ids == model.tokenizer.mask_id).nonzero().flatten().tolist()


def vector(model: Model, hidden: Tensor, batch: PackedBatch) -> Tensor:
    """The text's one vector (1, D): as the model embeds it, the mean of its tokens where it doesn't say."""
    return (model.embedder or POOLING["mean"])(hidden, batch.layout)


@torch.inference_mode()
def plain(model: Model, batch: PackedBatch) -> Outcome:
    """What the model gives for the batch's one text."""
    hidden = model.engine(batch)
    pieces = model.tokenizer.tokens(batch.token_ids.tolist())
    kind = model.head.kind if model.head is not None else ""
    if words_head(model) is not None:
        return hidden_words(model, batch, hidden, pieces)
    if kind == "tokens":
        probs = model.head.predict(model.head(hidden, batch.layout))  # (N, C)
        best = probs.argmax(-1)
        names = [f"{piece}: {model.labels[label]}" for piece, label in zip(pieces, best.tolist())]
        return Outcome("tags", names, probs.gather(-1, best[:, None])[:, 0], best)
    if kind in KIND_OF:
        found = model.head.predict(model.head(hidden, batch.layout)).flatten()
        names = list(model.labels) or (
            ["value"] if len(found) == 1 else [f"class {i}" for i in range(len(found))]
        )
        return Outcome(KIND_OF[kind], names, found)
    names = ["whole text", *pieces]
    return Outcome(
        "similarity", names, torch.ones(len(names)), hidden=hidden, vector=vector(model, hidden, batch)
    )


def hidden_words(model: Model, batch: PackedBatch, hidden: Tensor, pieces: Sequence[str]) -> Outcome:
    """Of a masked-language head: the likeliest words at each mask, or each token's own probability."""
    head, places = words_head(model), masks_of(model, batch)
    if not places:
        own = torch.stack([torch.arange(len(pieces)), batch.token_ids.cpu()], -1)  # (N, 2)
        return Outcome("own", list(pieces), word_chances(head, hidden, batch, own), own)
    best = head(hidden[places], batch.layout).topk(FILLS, -1).indices.cpu()  # (masks, FILLS)
    keys = torch.stack([torch.tensor(places)[:, None].expand_as(best), best], -1).flatten(0, 1)
    words = model.tokenizer.tokens(best.flatten().tolist())
    names = (
        [f"{place}: {word}" for place, word in zip(keys[:, 0].tolist(), words)] if len(places) > 1 else words
    )
    return Outcome("fills", names, word_chances(head, hidden, batch, keys), keys)


def word_chances(head: torch.nn.Module, hidden: Tensor, batch: PackedBatch, keys: Tensor) -> Tensor:
    """keys (n, 2), a place and a word each: the word's probability there, (n,)."""
    places, back = keys[:, 0].unique(return_inverse=True)
    probs = head.predict(head(hidden[places.to(hidden.device)], batch.layout).float())  # (places, V)
    return probs[back.to(probs.device), keys[:, 1].to(probs.device)]


@torch.inference_mode()
def changed(model: Model, batch: PackedBatch, first: Outcome, changes: Sequence[Change]) -> Tensor:
    """The same n numbers for each of B changed models, (B, n): without some parts, or for another text as long.

    The text is read B times in one pack, and each copy loses its own parts: many times faster than one by one.
    """
    ids, segments = batch.token_ids.tolist(), batch.segments.tolist()
    found, few = [], max(TOKENS_AT_ONCE // len(ids), 1)
    for start in range(0, len(changes), few):
        some = changes[start : start + few]
        copies = pack([ids] * len(some), [segments] * len(some)).to(model.device)
        with applied(model.encoder, *some):
            hidden = model.engine(copies)
        found.append(values(model, copies, first, hidden))
    return torch.cat(found)


def values(model: Model, copies: PackedBatch, first: Outcome, hidden: Tensor) -> Tensor:
    """What Outcome holds, of hidden states (B N, D) of B texts of N tokens each: (B, n)."""
    B = copies.layout.num_texts
    by_text = hidden.unflatten(0, (B, -1))  # (B, N, D)
    if first.kind == "similarity":
        texts = F.cosine_similarity(vector(model, hidden, copies), first.vector)  # (B,)
        return torch.cat([texts[:, None], F.cosine_similarity(by_text, first.hidden, dim=-1)], -1)
    if first.kind in ("fills", "own"):
        head = words_head(model)
        return torch.stack([word_chances(head, text, copies, first.keys) for text in by_text])
    found = model.head.predict(model.head(hidden, copies.layout))
    if first.kind == "tags":
        return found.unflatten(0, (B, -1)).gather(-1, first.keys[None, :, None].expand(B, -1, 1))[..., 0]
    return found.reshape(B, -1)
