"""Heads: from hidden states to an answer, one small class each.

In:  hidden (N, D) and the layout.   Out: logits; `loss` gives (sum, count), `predict` what a person wants.

A head never imports the encoder. Loss is a sum and a count, never a mean: a step made of several
micro-batches divides once, at the end, so that it equals the step done at once.
Read next: model.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Layout
from .config import EncoderConfig
from .errors import DataError


def cls_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The first token of each text, [CLS] or <s>. (N, D) -> (B, D)."""
    return hidden.index_select(0, layout.starts)


def mean_pooling(hidden: Tensor, layout: Layout) -> Tensor:
    """The mean of each text's tokens, special ones included. (N, D) -> (B, D)."""
    wide = torch.promote_types(hidden.dtype, torch.float32)  # bfloat16 can't count beyond 256
    real = hidden[: len(layout.owner)].to(wide)
    sums = real.new_zeros(layout.num_texts, hidden.shape[-1]).index_add(0, layout.owner, real)  # (B, D)
    counts = torch.tensor(layout.lengths[: layout.num_texts], device=hidden.device, dtype=wide)
    return (sums / counts[:, None]).to(hidden.dtype)


POOLING: dict[str, Callable[[Tensor, Layout], Tensor]] = {"cls": cls_pooling, "mean": mean_pooling}


class Reading(nn.Module):
    """What a head knows of each text: first token (or mean), dense, tanh, dropout, as published.

    In:  hidden (N, D)
    Out: (B, D)

    In BERT `dense` is the pooler, which pre-training made; RoBERTa's is new, with dropout in front.
    """

    def __init__(self, config: EncoderConfig, pooling: str):
        super().__init__()
        share = config.dropout if config.head_dropout is None else config.head_dropout
        self.pool = POOLING[pooling]
        self.before = nn.Dropout(share if config.family == "roberta" else 0.0)
        self.dense = nn.Linear(config.hidden_width, config.hidden_width)
        self.dropout = nn.Dropout(share)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B, D)."""
        return self.dropout(torch.tanh(self.dense(self.before(self.pool(hidden, layout)))))


class Classification(nn.Module):
    """One of C classes for each text.

    In:  hidden (N, D)
    Out: (B, C)
    """

    kind = "classification"

    def __init__(self, config: EncoderConfig, outputs: int, pooling: str = "cls"):
        super().__init__()
        self.read = Reading(config, pooling)
        self.out = nn.Linear(config.hidden_width, outputs)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B, C)."""
        return self.out(self.read(hidden, layout))

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy. logits (B, C), targets (B,) int64, weights (C,): (sum, sum of weights)."""
        total = F.cross_entropy(logits, targets, weight=weights, reduction="sum")
        count = weights[targets].sum() if weights is not None else total.new_tensor(float(len(targets)))
        return total, count

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities: (B, C) -> (B, C)."""
        return logits.softmax(-1)

    def published(self) -> dict[str, Tensor]:
        """The state to save."""
        return dict(self.state_dict())


class Regression(nn.Module):
    """One number for each text.

    In:  hidden (N, D)
    Out: (B,)

    Trained on targets standardised with the training part's mean and deviation, because a head that
    starts at 0 needs very many small steps to reach, say, 50. `published` writes both into the last
    layer, so that a saved model gives original units in any library.
    """

    kind = "regression"

    def __init__(self, config: EncoderConfig, outputs: int = 1, pooling: str = "cls"):
        super().__init__()
        self.read = Reading(config, pooling)
        self.out = nn.Linear(config.hidden_width, outputs)
        self.mean, self.deviation = 0.0, 1.0

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B,), standardised while `mean` and `deviation` are set."""
        return self.out(self.read(hidden, layout)).squeeze(-1)

    def standardise(self, targets: Tensor) -> None:
        """Take mean and deviation from the training targets (B,)."""
        self.mean, self.deviation = float(targets.double().mean()), float(targets.double().std(correction=0))
        if not 0 < self.deviation < float("inf"):
            raise DataError(
                f"the {len(targets)} training targets have deviation {self.deviation:g}: nothing to learn",
                "They must be finite numbers that differ from one another.",
            )

    def loss(self, logits: Tensor, targets: Tensor, weights: None = None) -> tuple[Tensor, Tensor]:
        """Squared error of standardised targets, both (B,): (sum, count)."""
        if logits.shape != targets.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape"
            )
        wanted = (targets - self.mean) / self.deviation
        total = F.mse_loss(logits, wanted.to(logits.dtype), reduction="sum")
        return total, total.new_tensor(float(len(targets)))

    def predict(self, logits: Tensor) -> Tensor:
        """Original units: (B,) -> (B,)."""
        return logits * self.deviation + self.mean

    def published(self) -> dict[str, Tensor]:
        """The state to save: mean and deviation written into the last layer."""
        state = dict(self.state_dict())
        state["out.weight"] = state["out.weight"] * self.deviation
        state["out.bias"] = state["out.bias"] * self.deviation + self.mean
        return state


class Embedding(nn.Module):
    """One vector for each text. Nothing to train.

    In:  hidden (N, D)
    Out: (B, D)
    """

    kind = "embedding"

    def __init__(self, pooling: str, normalise: bool):
        super().__init__()
        self.pool, self.normalise = POOLING[pooling], normalise

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B, D), of length 1 if normalised."""
        pooled = self.pool(hidden, layout)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled


def pool_pieces(logits: Tensor, pieces: Tensor, texts: int) -> Tensor:
    """The mean over a text's windows. logits (pieces, ...), pieces (pieces,) text numbers -> (texts, ...)."""
    sums = logits.new_zeros(texts, *logits.shape[1:]).index_add(0, pieces, logits)
    counts = torch.bincount(pieces, minlength=texts).to(logits.dtype)
    return sums / counts.view(-1, *[1] * (logits.dim() - 1))


HEADS = {"classification": Classification, "regression": Regression}
