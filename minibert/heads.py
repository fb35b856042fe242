"""Heads: from hidden states to an answer, one small class each.

In:  hidden (N, D) and the layout.   Out: logits; `loss` gives (sum, count), `predict` what a person wants.

    of a text      Classification, Multilabel, Regression, Choice, NextSentence
    of each token  Tokens, Span, Detection, MaskedLM
    of both        Pretraining

A head never imports the encoder. Loss is a sum and a count, never a mean: a step made of several
micro-batches divides once, at the end, so that it equals the step done at once. What stands between
hidden states and the last layer differs by family: a line in families.py, built by Reading.
Read next: model.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Layout, pad
from .config import EncoderConfig
from .errors import ConfigError, DataError
from .families import Read, reads
from .pooling import POOLING
from .variants import ACTIVATIONS

# --- what all heads share -------------------------------------------------------------------------


class Reading(nn.Module):
    """What stands before a head's last layer: dropout, dense, activation, norm, dropout, as published.

    In:  hidden (n, D)
    Out: (n, d), d = D but for a masked-language head, where it is E

    In BERT a text's `dense` is the pooler, which pre-training made; RoBERTa's is new, with dropout in front.
    """

    def __init__(self, config: EncoderConfig, read: Read):
        super().__init__()
        D, bias = config.hidden_width, config.facts.biases
        head = config.dropout if config.head_dropout is None else config.head_dropout
        share = {"head": head, "hidden": config.dropout, "": 0.0}[read.after]
        width = config.words_width if read.narrow else D
        self.before = nn.Dropout(share if read.before else 0.0)
        self.dense = nn.Linear(D, width, bias=bias) if read.activation else None
        word = config.activation if read.activation == "own" else read.activation
        self.activation = ACTIVATIONS[word] if word else None
        self.norm = nn.LayerNorm(width, eps=config.norm_eps, bias=bias) if read.norm else None
        self.dropout = nn.Dropout(share)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, D) -> (n, d)."""
        hidden = self.before(hidden)
        if self.dense is not None:
            hidden = self.activation(self.dense(hidden))
        if self.norm is not None:
            hidden = self.norm(hidden)
        return self.dropout(hidden)


class Head(nn.Module):
    """A reading and a last layer.

    kind       its name, in HEADS or as a part of one that is there
    outputs    how many numbers the last layer gives; None: one a label, and labels must be named
    texts      whether it reads one vector a text (by pooling) or every token
    pretrained whether its weights come from pre-training, so that a file's own are always wanted
    tied       its parameters that are the word table, shared with the encoder
    """

    kind = ""
    outputs: int | None = None
    texts = True
    pretrained = False
    tied: tuple[str, ...] = ()

    def __init__(self, config: EncoderConfig, outputs: int | None = None, pooling: str = "cls"):
        super().__init__()
        self.read = Reading(config, line_of(config, self.kind))
        self.pool = POOLING[pooling] if self.texts else None
        width = config.words_width if self.tied else config.hidden_width
        # A word table is not drawn here: `tie` puts it in.
        self.out = nn.Linear(width, outputs or self.outputs, device="meta" if self.tied else None)
        if self.tied:
            self.out.bias = nn.Parameter(torch.zeros(outputs or self.outputs))

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (B, outputs), or (N, outputs) where every token is read; of a single output (B,) or (N,)."""
        out = self.out(self.read(self.pool(hidden, layout) if self.pool else hidden))
        return out.squeeze(-1) if self.outputs == 1 else out

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy of classes. logits (n, C), targets (n,) int64, -1 where none is asked, weights (C,):
        (sum, sum of weights)."""
        return cross_entropy(logits, targets, weights)

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities: (n, C) -> (n, C), a row sums to 1."""
        return logits.softmax(-1)

    def published(self) -> dict[str, Tensor]:
        """The state to save."""
        return dict(self.state_dict())


def tie(head: nn.Module, words: nn.Parameter, own: dict[str, Tensor]) -> None:
    """Give a head the encoder's word table to read backwards, or the values `own` that a file had for it."""
    for name in head.tied:
        part, _, last = name.rpartition(".")
        setattr(head.get_submodule(part), last, nn.Parameter(own[name]) if name in own else words)


def line_of(config: EncoderConfig, kind: str) -> Read:
    """The family's line for this kind of head, or ConfigError where the family has no such head."""
    lines = config.facts.heads
    if reads(kind) not in lines:
        able = [k for k in HEADS if reads(k) in lines]
        raise ConfigError(f"{config.family} has no head {kind!r}; it has {', '.join(able)}")
    return lines[reads(kind)]


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """logits (n, C), targets (n,) int64, -1 where nothing is asked, weights (C,): (sum, sum of weights)."""
    total = F.cross_entropy(logits, targets, weight=weights, reduction="sum", ignore_index=-1)
    asked = targets >= 0
    each = asked if weights is None else weights[targets.clamp(min=0)] * asked
    return total, each.sum().to(total)


# --- one answer a text ----------------------------------------------------------------------------


class Classification(Head):
    """One of C classes for each text.

    In:  hidden (N, D)
    Out: (B, C)
    """

    kind = "classification"


class Multilabel(Head):
    """For each text, each of C labels or not.

    In:  hidden (N, D)
    Out: (B, C)
    """

    kind = "multilabel"

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of every label. logits, targets (B, C), weights (C,): (sum, count)."""
        total = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), weight=weights, reduction="sum"
        )
        count = total.new_full((), targets.numel())
        return total, count if weights is None else count * weights.mean()

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities: (B, C) -> (B, C), each label by itself."""
        return logits.sigmoid()


class Regression(Head):
    """One number for each text.

    In:  hidden (N, D)
    Out: (B,)

    Trained on targets standardised with the training part's mean and deviation, because a head that
    starts at 0 needs very many small steps to reach, say, 50. `published` writes both into the last
    layer, so that a saved model gives original units in any library.
    """

    kind = "regression"
    outputs = 1

    def __init__(self, config: EncoderConfig, outputs: int = 1, pooling: str = "cls"):
        super().__init__(config, outputs, pooling)
        self.mean, self.deviation = 0.0, 1.0

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
        return total, total.new_full((), len(targets))

    def predict(self, logits: Tensor) -> Tensor:
        """Original units: (B,) -> (B,)."""
        return logits * self.deviation + self.mean

    def published(self) -> dict[str, Tensor]:
        """The state to save: mean and deviation written into the last layer."""
        state = dict(self.state_dict())
        state["out.weight"] = state["out.weight"] * self.deviation
        state["out.bias"] = state["out.bias"] * self.deviation + self.mean
        return state


class Choice(Head):
    """Which of several answers fits a question: a score for each pair of them, the best one wins.

    In:  hidden (N, D) of B = questions x answers texts, a question's answers side by side
    Out: (B,)
    """

    kind = "choice"
    outputs = 1

    def loss(self, logits: Tensor, targets: Tensor, weights: None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy among each question's answers. logits (B,), targets (questions,): (sum, count)."""
        return cross_entropy(logits.unflatten(0, (len(targets), -1)), targets)


class NextSentence(Head):
    """Whether the second text follows the first (class 0) or is from elsewhere (class 1).

    In:  hidden (N, D) of pairs
    Out: (B, 2)
    """

    kind = "nsp"
    outputs = 2
    pretrained = True


class SentenceOrder(NextSentence):
    """ALBERT's: whether two pieces of a text stand in their order (class 0) or swapped (class 1).

    In:  hidden (N, D) of pairs
    Out: (B, 2)
    """

    kind = "sop"


# --- an answer for each token ---------------------------------------------------------------------


class Tokens(Head):
    """One of C classes for each word: entities, parts of speech.

    In:  hidden (N, D)
    Out: (N, C); a word's answer is that of its first sub-token
    """

    kind = "tokens"
    texts = False


class Span(Head):
    """Where in a text the answer to a question begins and ends.

    In:  hidden (N, D) of pairs, question and text
    Out: (N, 2): how well a token begins it, how well it ends it
    """

    kind = "span"
    outputs = 2
    texts = False

    def loss(self, logits: Tensor, targets: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Cross-entropy over each text's tokens, of first and last token halved.

        logits (N, 2), targets (B, 2) int64, places in the text, the first token's ([CLS]) where there is
        no answer: (sum, count).
        """
        lines, real = pad(logits, layout)  # (B, T, 2), (B, T)
        lines = lines.masked_fill(~real[..., None], float("-inf"))[: layout.num_texts]
        total, _ = cross_entropy(lines.transpose(1, 2).flatten(0, 1), targets.flatten())
        return total / 2, total.new_full((), len(targets))

    def predict(self, logits: Tensor) -> Tensor:
        """As they are; `answer` in ask.py makes answers of them."""
        return logits


class Detection(Head):
    """ELECTRA's discriminator: whether each token was put there by another model.

    In:  hidden (N, D)
    Out: (N,)
    """

    kind = "detection"
    outputs = 1
    texts = False
    pretrained = True

    def loss(self, logits: Tensor, targets: Tensor, weights: None = None) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy. logits, targets (n,), 1 where replaced: (sum, count)."""
        total = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
        return total, total.new_full((), len(targets))

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities of having been replaced: (N,) -> (N,)."""
        return logits.sigmoid()


class MaskedLM(Head):
    """Which word of the vocabulary stands at each token: the word table, read backwards.

    In:  hidden (N, D); for some tokens only, hand in their rows
    Out: (N, V)
    """

    kind = "mlm"
    texts = False
    pretrained = True
    tied = ("out.weight",)

    def __init__(self, config: EncoderConfig, outputs: int | None = None, pooling: str = "cls"):
        super().__init__(config, config.vocab_size)


class Pretraining(nn.Module):
    """What BERT and ALBERT were trained on: hidden words, and whether two texts belong together.

    In:  hidden (N, D) of pairs
    Out: (N, V) and (B, 2)
    """

    kind = "pretraining"
    outputs = 2
    texts = False
    pretrained = True
    tied = ("words.out.weight",)

    def __init__(self, config: EncoderConfig, outputs: int | None = None, pooling: str = "cls"):
        super().__init__()
        line_of(config, self.kind)
        self.words = MaskedLM(config)
        self.order = (NextSentence if "nsp" in config.facts.heads else SentenceOrder)(config)

    def forward(self, hidden: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """(N, D) -> (N, V), (B, 2)."""
        return self.words(hidden, layout), self.order(hidden, layout)

    def loss(
        self, logits: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], per_text: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of the hidden words and the mean loss of the pairs, added: (sum, count).

        logits (n, V) and (B, 2), targets (n,) and (B,). `per_text`: hidden words a text over the whole
        step, by which a pair's loss counts, so that sum / count is that sum of means; this batch's if absent.
        """
        words, hidden = self.words.loss(logits[0], targets[0])
        pairs, count = self.order.loss(logits[1], targets[1])
        return words + pairs * (hidden / count if per_text is None else per_text), hidden

    def predict(self, logits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Probabilities of words and of the order."""
        return self.words.predict(logits[0]), self.order.predict(logits[1])

    def published(self) -> dict[str, Tensor]:
        """The state to save."""
        return dict(self.state_dict())


HEADS: dict[str, type] = {
    head.kind: head
    for head in (
        Classification, Multilabel, Regression, Choice, NextSentence, Tokens, Span, Detection, MaskedLM,
        Pretraining,
    )
}  # fmt: skip
