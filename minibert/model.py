"""Model = tokenizer + encoder + head: call, embed, predict, save.

In:  the three parts.   Out: a Model, the only thing that holds both an encoder and a head.
loading.py makes one of published weights, saving.py writes one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import answers, checkpoint, saving
from . import device as devices
from .align import encode_words
from .batch import PackedBatch, by_tokens, pack
from .config import EncoderConfig
from .encoder import Encoder
from .errors import ConfigError, OutOfMemory, TokenizerError
from .kinds import KINDS, words_of
from .pooling import Embedding, known_pooling, pool_pieces
from .system import processes
from .tokenize import Encoded, Tokenizer, check_texts
from .trace import Trace

if TYPE_CHECKING:
    import pandas as pd

TOKENS_AT_ONCE = 4096  # of inference: large enough for the matrix products, small enough for caches


class Model(nn.Module):
    """A tokenizer, an encoder and a head (or none).

    tokenizer, encoder, head, config    the parts
    engine     callable batch -> (N, D); "torch" is the encoder itself
    reading    how texts are cut: max_tokens, truncation, stride, max_windows
    report     LoadReport of what it was loaded from
    """

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module | None = None,
        tokenizer: Tokenizer | None = None,
        *,
        labels: Sequence[str] = (),
        reading: dict[str, Any] | None = None,
        embedder: Embedding | None = None,
        carried: dict[str, Tensor] | None = None,
        report: checkpoint.LoadReport | None = None,
        files: dict[str, bytes] | None = None,
        pooling: str = "cls",
    ):
        super().__init__()
        self.encoder, self.head, self.tokenizer = encoder, head, tokenizer
        self.config: EncoderConfig = encoder.config
        self.labels = tuple(labels)
        self.reading = {"max_tokens": self.config.max_tokens, "truncation": "head"} | (reading or {})
        self.reading["max_tokens"] = min(self.reading["max_tokens"], self.config.max_tokens)
        self.embedder, self.carried, self.report = embedder, carried or {}, report
        self.files = files or {}
        self.came_with = (embedder,)  # what the files describe; in a tuple, as it is no part of its own
        self.pooling = pooling

    @property
    def engine(self) -> Encoder:
        """What computes hidden states; the encoder itself."""
        return self.encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.norm.weight.device

    def forward(self, batch: PackedBatch) -> Tensor:
        """(N,) tokens -> logits (B, C), (B,); or hidden (N, D) without a head."""
        batch = batch.to(self.device)
        hidden = self.engine(batch)
        return self.head(hidden, batch.layout) if self.head is not None else hidden

    def trace(self, batch: PackedBatch) -> Trace:
        """The encoder's trace, with `pooled` (B, D), what the last layer reads of a text, and `logits`,
        where there is a head; and `order` (B, 2) where it has two."""
        batch = batch.to(self.device)
        trace = self.encoder.trace(batch)
        if self.head is None:
            return trace
        read = {}
        top = self.head.order if self.head.kind == "pretraining" else self.head
        handle = top.out.register_forward_hook(lambda _, x, y: read.update(pooled=x[0].detach()))
        try:
            logits = self.head(trace.output, batch.layout)
        finally:
            handle.remove()
        found = {"logits": logits} if isinstance(logits, Tensor) else dict(zip(("logits", "order"), logits))
        last = (read if top.texts else {}) | {name: tensor.detach() for name, tensor in found.items()}
        return replace(trace, tensors={**trace.tensors, **last})

    def reads_text(self) -> Tokenizer:
        """The tokenizer; TokenizerError where the model came without one."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.name} was loaded from a folder without tokenizer files, so it takes only ids"
            )
        return self.tokenizer

    def tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None = None, **reading: Any) -> Encoded:
        """Texts (and second texts) to ids, cut as `reading` says; errors name the text."""
        return self.reads_text().encode(as_list(texts), as_list(pairs), **{**self.reading, **reading})

    def tokenize_words(self, texts: Sequence[Sequence[str]], rows: Sequence[int] | None = None) -> Encoded:
        """Lists of words to ids; a text longer than the model reads is split between words (see align.py)."""
        return encode_words(self.reads_text(), texts, max_tokens=self.reading["max_tokens"], rows=rows)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> PackedBatch:
        """Texts to one PackedBatch; long texts are cut (a window each in truncation "window")."""
        found = self.tokenize(texts, pairs)
        return self.pack(found, range(len(found)))

    def pack(
        self,
        encoded: Encoded,
        places: Sequence[int],
        key: tuple[int, int] = (0, 0),
        *,
        fill_to: int | None = None,
    ) -> PackedBatch:
        """The pieces of some of the encoded texts as one batch; rows are the texts' places."""
        spans = [(i, p) for i in places for p in range(encoded.pieces[i], encoded.pieces[i + 1])]
        segments = [encoded.segments[p] for _, p in spans] if self.config.num_segments > 1 else None
        return pack(
            [encoded.ids[p] for _, p in spans],
            segments,
            rows=[i for i, _ in spans],
            fill_to=fill_to,
            fill_id=self.config.pad_id,
            key=key,
        )

    def logits(self, encoded: Encoded, places: Sequence[int], *, batch: PackedBatch | None = None) -> Tensor:
        """Logits of some of the encoded texts, in the order of `places`; windows are averaged per text.

        batch: these texts, if they are packed already.

        With encoded words and a head that reads every token: (words of these texts, C), each word's
        first sub-token.
        """
        batch = batch or self.pack(encoded, places)
        found = self(batch)
        if encoded.words is not None:
            return found.index_select(0, first_tokens(encoded, places).to(found.device, non_blocking=True))
        if len(batch) == len(places):
            return found
        pieces = encoded.pieces
        owners = [n for n, place in enumerate(places) for _ in range(pieces[place], pieces[place + 1])]
        owners = torch.tensor(owners).to(found.device, non_blocking=True)
        return pool_pieces(found.to(self.head.out.weight.dtype), owners, len(places))

    def needs_answers(self) -> None:
        """ConfigError unless there is a head whose answers fit a table: a row a text, or a tag a word."""
        if self.head is None:
            raise ConfigError(f"{self.name} has no head: load it with head=..., or use embed")
        if self.head.kind not in KINDS:
            raise ConfigError(f"a head of kind {self.head.kind} has no answers that fit into a table")

    @torch.inference_mode()
    def answers(
        self,
        encoded: Encoded,
        *,
        tokens_at_once: int = TOKENS_AT_ONCE,
        groups: Iterable[list[int]] | None = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(places, what the head predicts for them), from short texts to long, or by `groups`; on the CPU."""
        self.needs_answers()
        with evaluating(self):
            for places in by_tokens(encoded.lengths.tolist(), tokens_at_once) if groups is None else groups:
                yield places, self.answer(encoded, places)

    def answer(self, encoded: Encoded, places: list[int]) -> Tensor:
        """What the head predicts for some texts, on the CPU; where memory runs out, for one half after the other.

        Of several processes, which may share weights and wait for each other, none splits alone.
        """
        try:
            with devices.memory_named():
                return self.head.predict(self.logits(encoded, places)).cpu().double()
        except OutOfMemory as problem:
            if len(places) == 1 or processes()[1] > 1:
                raise OutOfMemory(
                    problem.message, "Lower [model] max_tokens, or take a device with more memory."
                ) from None
        devices.free()
        half = len(places) // 2
        return torch.cat([self.answer(encoded, some) for some in (places[:half], places[half:])])

    def predict(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        rows: Sequence[int] | None = None,
        separator: str = ",",
    ) -> pd.DataFrame:
        """A row a text: label and probability_CLASS..., or value; tokens; truncated.

        Of tagged words: label, the tags with spaces between them, and words. `rows`: by which number errors
        name a text; its place where absent. `separator`: between labels where a text may have several.
        """
        import pandas as pd

        self.needs_answers()
        encoded = self.read(texts, pairs, rows=rows)
        found = self.answer_table(encoded)
        said = answers.columns(self.head.kind, found, self.labels, encoded.words, separator)
        return pd.DataFrame(said | {"tokens": encoded.tokens, "truncated": encoded.cut > 0})

    def read(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        rows: Sequence[int] | None = None,
    ) -> Encoded:
        """Texts as the head takes them: by their words, between spaces, where each word gets an answer."""
        if self.head is not None and self.head.kind in KINDS and KINDS[self.head.kind].words:
            if pairs is not None:
                raise ConfigError("a head that tags words reads single texts, not pairs")
            check_texts(as_list(texts), rows)
            # a text without words is one unknown word, so that it has an answer too
            return self.tokenize_words([words_of(text) or [""] for text in as_list(texts)], rows=rows)
        return self.tokenize(texts, pairs, rows=rows)

    def answer_table(
        self, encoded: Encoded, answers: Iterable[tuple[list[int], Tensor]] | None = None
    ) -> np.ndarray:
        """Probabilities (n, C), of words (words, C), or values (n,), float64, in the order of the texts;
        `answers`: those of `answers(encoded)`, if the caller watches them come."""
        outputs = self.head.out.out_features if self.head is not None else 0
        counts = encoded.words if encoded.words is not None else np.ones(len(encoded), np.int64)
        out = np.zeros((counts.sum(), outputs) if self.labels else len(encoded))
        firsts = np.cumsum(counts) - counts  # where each text's answers begin
        for places, found in self.answers(encoded) if answers is None else answers:
            at = [np.arange(firsts[place], firsts[place] + counts[place]) for place in places]
            out[np.concatenate(at)] = found.numpy()
        return out

    @torch.inference_mode()
    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        pooling: str | None = None,
        normalise: bool | None = None,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> np.ndarray:
        """One vector a text: (B, D) float32.

        Pooling, normalising and the longest text are those of the sentence-transformers files beside
        the weights; where there are none, `pooling` ("mean" or "cls") must be named.
        """
        embedder = self.embedding(pooling, normalise)
        if embedder.prompt:
            texts = [embedder.prompt + text for text in as_list(texts)]
        encoded = self.tokenize(texts, pairs)
        out = np.zeros((len(encoded), embedder.width(self.config.hidden_width)), dtype=np.float32)
        with evaluating(self):
            for places in by_tokens(encoded.lengths.tolist(), tokens_at_once):
                batch = self.pack(encoded, places).to(self.device)
                vectors = embedder(self.engine(batch), batch.layout)
                if len(vectors) != len(places):
                    raise ConfigError('embed reads each text once: truncation "window" is for predictions')
                out[places] = vectors.float().cpu().numpy()
        return out

    def embedding(self, pooling: str | None = None, normalise: bool | None = None) -> Embedding:
        """How a text's tokens become one vector: as the files beside the weights say, or as asked for."""
        own = self.embedder
        if pooling is None and own is None:
            raise ConfigError(
                f"{self.name} does not say how token vectors become one vector (no modules.json)",
                'Name it: embed(texts, pooling="mean"), or --pooling mean.',
            )
        if pooling is None and normalise is None:
            return own
        normalise = (own.normalise if own else False) if normalise is None else normalise
        if pooling is None:
            return Embedding(own.pooling, normalise, own.dense, own.activation, own.prompt)
        return Embedding(known_pooling(pooling), normalise, prompt=own.prompt if own else "")

    @property
    def name(self) -> str:
        """What it was loaded from."""
        return self.report.source if self.report else "this model"

    def save(
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        dtype: torch.dtype | str | None = None,
        shard_bytes: int | None = None,
    ) -> Path:
        """Write config.json, weights and tokenizer in the Hugging Face layout, all or nothing (see saving.py).

        dtype: of the file, such as "float16"; None keeps the parameters' own. shard_bytes: several
        files of at most so many bytes, and their index; None: one file.
        An existing folder is refused unless it is empty, or `overwrite` and a model is all it holds.
        """
        return saving.save(self, folder, overwrite=overwrite, dtype=dtype, shard_bytes=shard_bytes)


def first_tokens(encoded: Encoded, places: Sequence[int]) -> Tensor:
    """(words,) int64: where in the pack of these texts each word's first sub-token stands."""
    out, start = [], 0
    for place in places:
        for piece in range(encoded.pieces[place], encoded.pieces[place + 1]):
            out += [start + first for first in encoded.firsts[piece]]
            start += len(encoded.ids[piece])
    return torch.tensor(out, dtype=torch.int64)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, as it was afterwards."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def as_list(texts: Sequence[str] | None) -> list[str] | None:
    """A list of texts; a lone string, which Python would take for a list of letters, is refused."""
    if isinstance(texts, str):
        raise ConfigError("texts must be a list of strings, not one string: [text]")
    return None if texts is None else list(texts)
