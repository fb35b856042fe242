"""Questions to a model: which word is hidden, which answer fits, where in a text the answer stands.

In:  a Model with the head that can answer, and texts.   Out: lists of small frozen answers, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .align import Windows, encode_spans
from .batch import by_tokens, pack
from .errors import ConfigError, DataError, TokenizerError
from .loading import load
from .model import TOKENS_AT_ONCE, Model, as_list, evaluating

MASK = "[MASK]"  # how a hidden word is written for every model, whatever its own mask token is


def need(model: Model, *kinds: str) -> None:
    """ConfigError unless the model has one of these heads, TokenizerError unless it reads text."""
    have = model.head.kind if model.head is not None else None
    if have not in kinds:
        raise ConfigError(f"{model.name} has {f'a head {have!r}' if have else 'no head'}, not {kinds[0]!r}")
    model.reads_text()


# --- hidden words ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A word that may stand at a mask, and how likely: `mask` counts the masks of the text from 0."""

    mask: int
    token: str
    probability: float


def filler(source: str, **options: object) -> Model:
    """A model with the masked-language head of its checkpoint; ConfigError where it holds none."""
    model = load(source, head="mlm", **options)
    if model.report.new:
        raise ConfigError(
            f"{source} holds no masked-language head, and a new one knows no words",
            "Take a checkpoint that has one (bert-base-uncased), or train one: minibert pretrain --help",
        )
    return model


@torch.inference_mode()
def fill(model: Model, text: str, top: int = 5) -> list[Word]:
    """The likeliest words at each [MASK] of a text, alone: of several masks each is judged without the others."""
    need(model, "mlm", "pretraining")
    tokenizer = model.tokenizer
    if tokenizer.mask_id is None:
        raise TokenizerError(f"the tokenizer of {model.name} has no mask token")
    if not isinstance(text, str):
        raise DataError(f"fill takes one text, not a {type(text).__name__}")
    ids = tokenizer.with_masks(text.replace(MASK, tokenizer.mask))
    if tokenizer.mask_id not in ids:
        raise DataError(f"the text has no {MASK}: {text!r}", f"Write {MASK} where a word is hidden.")
    batch = pack([ids]).to(model.device)
    with evaluating(model):
        hidden = model.engine(batch)
        words = model.head.words if model.head.kind == "pretraining" else model.head
        places = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
        found = words.predict(words(hidden[places], batch.layout).float())  # (masks, V)
    best = found.topk(min(top, found.shape[-1]), -1)
    return [
        Word(mask, tokenizer.backend.decode([token]).strip() or tokenizer.tokens([token])[0], share)
        for mask, (tokens, shares) in enumerate(zip(best.indices.tolist(), best.values.tolist()))
        for token, share in zip(tokens, shares)
    ]


# --- several answers to choose from ---------------------------------------------------------------


@torch.inference_mode()
def choose(model: Model, question: str, answers: Sequence[str]) -> list[float]:
    """The probability of each answer to a question, in their order; the head is "choice"."""
    need(model, "choice")
    if isinstance(answers, str) or len(answers) < 2:
        raise DataError("there must be two answers or more to choose from")
    encoded = model.tokenize([question] * len(answers), list(answers), truncation="error")
    with evaluating(model):
        logits = model(model.pack(encoded, range(len(encoded))))
    return model.head.predict(logits.double()).tolist()


# --- where the answer stands ----------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A stretch of a text: its words, its characters (first, last + 1), and how likely it is among the best.

    An empty text with characters (0, 0) says that the text holds no answer.
    """

    text: str
    start: int
    end: int
    score: float  # sum of the two logits
    probability: float


@torch.inference_mode()
def answer(
    model: Model,
    questions: Sequence[str],
    texts: Sequence[str],
    *,
    n_best: int = 5,
    longest: int = 30,
    stride: int = 128,
    none_allowed: bool = False,
) -> list[list[Answer]]:
    """For each question the best stretches of its text, best first; the head is "span".

    longest: tokens of an answer. stride: tokens that two windows of a long text share. none_allowed:
    "no answer" competes, too, with the score of [CLS] (as in SQuAD 2.0). Probabilities are a softmax
    over the answers that are given back, as the field's evaluation scripts have it.
    """
    need(model, "span")
    questions, texts = as_list(questions), as_list(texts)
    if n_best < 1 or longest < 1:
        raise ConfigError(f"n_best = {n_best} and longest = {longest} must be 1 or more")
    windows = encode_spans(
        model.tokenizer, questions, texts, max_tokens=model.reading["max_tokens"], stride=stride
    )
    found: list[list[Answer]] = [[] for _ in questions]
    nothing = [float("inf")] * len(questions)
    with evaluating(model):
        for places in by_tokens([len(x) for x in windows.ids], TOKENS_AT_ONCE):
            segments = [windows.segments[p] for p in places] if model.config.num_segments > 1 else None
            batch = pack([windows.ids[p] for p in places], segments).to(model.device)
            logits = model(batch).double().cpu().split(batch.layout.lengths)
            for p, lines in zip(places, logits):
                question = windows.owner[p]
                found[question] += stretches(windows, p, lines, texts[question], n_best, longest)
                nothing[question] = min(nothing[question], float(lines[0].sum()))
    if none_allowed:
        for few, score in zip(found, nothing):
            few.append(Answer("", 0, 0, score, 0.0))
    return [ranked(few, n_best) for few in found]


def stretches(
    windows: Windows, window: int, lines: torch.Tensor, text: str, n_best: int, longest: int
) -> list[Answer]:
    """The best stretches of one window: begin and end inside its text, at most `longest` tokens."""
    first, offsets = windows.first[window], windows.offsets[window]
    inside = lines[first : first + len(offsets)]  # (tokens, 2)
    scores = inside[:, 0][:, None] + inside[:, 1][None, :]  # (begin, end)
    fits = torch.ones_like(scores).triu().tril(longest - 1).bool()
    scores = scores.masked_fill(~fits, float("-inf")).flatten()
    best = scores.topk(int(fits.sum()))
    out: dict[tuple[int, int], Answer] = {}
    for score, place in zip(best.values.tolist(), best.indices.tolist()):
        begin, end = divmod(place, len(offsets))
        a, b = stripped(text, offsets[begin][0], offsets[end][1])
        if a < b:
            out.setdefault((a, b), Answer(text[a:b], a, b, score, 0.0))
        if len(out) == n_best:
            break
    return list(out.values())


def stripped(text: str, a: int, b: int) -> tuple[int, int]:
    """The same characters without spaces at the ends: a sub-token may take the one before it along."""
    kept = text[a:b].strip()
    a += text[a:b].find(kept)
    return a, a + len(kept)


def ranked(found: list[Answer], n_best: int) -> list[Answer]:
    """Best first, the same stretch once (windows overlap), with probabilities."""
    best: dict[tuple[int, int], Answer] = {}
    for one in sorted(found, key=lambda x: -x.score):
        best.setdefault((one.start, one.end), one)
    kept = list(best.values())[:n_best]
    shares = torch.tensor([x.score for x in kept], dtype=torch.float64).softmax(0).tolist()
    return [Answer(x.text, x.start, x.end, x.score, share) for x, share in zip(kept, shares)]
