"""Model = tokenizer + encoder + head: load, call, embed, predict, save.

In:  a catalogue name, a folder in the Hugging Face layout, or a hub id.   Out: a Model.
The only thing that holds both an encoder and a head.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import answers, catalogue, checkpoint, config, heads, sentence, system
from . import device as devices
from .align import encode_words
from .batch import PackedBatch, by_tokens, pack
from .config import REMOVED, EncoderConfig
from .encoder import Encoder, initialise
from .errors import ConfigError, TokenizerError, nearest
from .families import ARCHITECTURES, reads
from .folder import LITTER, model_of
from .kinds import KINDS, words_of
from .tokenize import FILES, TRUNCATIONS, Encoded, Tokenizer
from .trace import Trace

if TYPE_CHECKING:
    import pandas as pd

TOKENS_AT_ONCE = 4096  # of inference: large enough for the matrix products, small enough for caches
# What `save` writes, and may replace.
PRETRAINING = ("history.jsonl", "pretraining.json")  # what pretrain.py leaves beside a model
PARTS = {"config.json", checkpoint.SINGLE, checkpoint.INDEX, *FILES, *sentence.FILES, *PRETRAINING}
PARTS_LIKE = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|\d+_\w+/(config\.json|model\.safetensors)")
# What a head of whole texts is called in config.json.
PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
OURS = "minibert"  # our own table in a saved config.json: how texts are cut, what the head reads


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
        embedder: heads.Embedding | None = None,
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
        self.pooling = pooling

    @property
    def engine(self) -> Encoder:
        """What computes hidden states; the encoder itself."""
        return self.encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.embeddings.word.weight.device

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

    def tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None = None, **reading: Any) -> Encoded:
        """Texts (and second texts) to ids, cut as `reading` says; errors name the text."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.name} was loaded from a folder without tokenizer files, so it takes only ids"
            )
        return self.tokenizer.encode(as_list(texts), as_list(pairs), **{**self.reading, **reading})

    def tokenize_words(self, texts: Sequence[Sequence[str]], rows: Sequence[int] | None = None) -> Encoded:
        """Lists of words to ids; a text longer than the model reads is split between words (see align.py)."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.name} was loaded from a folder without tokenizer files, so it takes only ids"
            )
        return encode_words(self.tokenizer, texts, max_tokens=self.reading["max_tokens"], rows=rows)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> PackedBatch:
        """Texts to one PackedBatch; long texts are cut (a window each in truncation "window")."""
        found = self.tokenize(texts, pairs)
        return self.pack(found, range(len(found)))

    def pack(self, encoded: Encoded, places: Sequence[int], key: tuple[int, int] = (0, 0)) -> PackedBatch:
        """The pieces of some of the encoded texts as one batch; rows are the texts' places."""
        spans = [(i, p) for i in places for p in range(encoded.pieces[i], encoded.pieces[i + 1])]
        segments = [encoded.segments[p] for _, p in spans] if self.config.num_segments > 1 else None
        return pack(
            [encoded.ids[p] for _, p in spans],
            segments,
            rows=[i for i, _ in spans],
            fill_id=self.config.pad_id,
            key=key,
        )

    def logits(self, encoded: Encoded, places: Sequence[int], key: tuple[int, int] = (0, 0)) -> Tensor:
        """Logits of some of the encoded texts, in the order of `places`; windows are averaged per text.

        With encoded words and a head that reads every token: (words of these texts, C), each word's
        first sub-token.
        """
        batch = self.pack(encoded, places, key)
        found = self(batch)
        if encoded.words is not None:
            return found.index_select(0, first_tokens(encoded, places).to(found.device))
        if len(batch) == len(places):
            return found
        order = {place: n for n, place in enumerate(places)}
        owners = torch.tensor([order[r] for r in batch.layout.rows.tolist()]).to(found.device)
        return heads.pool_pieces(found.to(self.head.out.weight.dtype), owners, len(places))

    @torch.inference_mode()
    def answers(
        self, encoded: Encoded, *, tokens_at_once: int = TOKENS_AT_ONCE
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(places, what the head predicts for them), from short texts to long; on the CPU."""
        if self.head is None:
            raise ConfigError(f"{self.name} has no head: load it with head=..., or use embed")
        with evaluating(self), devices.memory_named():
            for places in by_tokens(encoded.lengths.tolist(), tokens_at_once):
                yield places, self.head.predict(self.logits(encoded, places)).cpu().double()

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

        if self.head is None:
            raise ConfigError(f"{self.name} has no head: load it with head=..., or use embed")
        if self.head.kind not in KINDS:
            raise ConfigError(f"a head of kind {self.head.kind} has no answers that fit into a table")
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

    def embedding(self, pooling: str | None = None, normalise: bool | None = None) -> heads.Embedding:
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
            return heads.Embedding(own.pooling, normalise, own.dense, own.activation)
        return heads.Embedding(known_pooling(pooling), normalise)

    @property
    def name(self) -> str:
        """What it was loaded from."""
        return self.report.source if self.report else "this model"

    def save(
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        dtype: torch.dtype | None = None,
        shard_bytes: int | None = None,
    ) -> Path:
        """Write config.json, weights and tokenizer in the Hugging Face layout, all or nothing.

        dtype: of the file, such as torch.float16; None keeps the parameters' own. shard_bytes: several
        files of at most so many bytes, and their index; None: one file.
        An existing folder is refused unless it is empty, or `overwrite` and a model is all it holds.
        """
        asked, folder = Path(folder), Path(folder).resolve()
        part, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.{w}" for w in ("part", "old"))
        try:
            check_place(folder, asked, overwrite)
            part.mkdir(parents=True)
            self.write(part, dtype, shard_bytes)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
            system.fsync_folder(folder.parent)
        except OSError as problem:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise system.disk_problem(asked, problem) from problem
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return asked

    def write(self, folder: Path, dtype: torch.dtype | None, shard_bytes: int | None) -> None:
        """The files of `save`, into a folder that nobody reads yet."""
        kind = self.head.kind if self.head is not None else None
        words = self.saved_keys(kind)
        stated = str(dtype or self.encoder.embeddings.word.weight.dtype).removeprefix("torch.")
        words |= {key: stated for key in ("dtype", "torch_dtype") if key in self.config.raw}
        files = self.files
        if self.embedder is not None and "modules.json" not in files:
            longest = self.reading["max_tokens"]
            files = files | sentence.files_for(self.embedder, self.config.hidden_width, longest)
        for name, raw in files.items() | (self.tokenizer.files.items() if self.tokenizer else set()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(raw)
        system.write_text(folder / "config.json", self.config.to_json(**words) + "\n")
        checkpoint.save(
            folder,
            self.config,
            kind,
            self.encoder.state_dict(),
            self.head_state(),
            self.carried,
            self.report,
            dtype,
            shard_bytes,
        )

    def head_state(self) -> dict[str, Tensor]:
        """The head's tensors to save, without those that are the word table itself."""
        if self.head is None:
            return {}
        words, own = self.encoder.embeddings.word.weight, dict(self.head.named_parameters())
        repeats = {name for name in self.head.tied if self.head.get_parameter(name) is words}
        return {name: t for name, t in self.head.published().items() if name in own and name not in repeats}

    def saved_keys(self, kind: str | None) -> dict[str, Any]:
        """What config.json says beside the encoder: the head, its labels, and how texts are cut."""
        if kind is None:
            return {}
        out = {
            "architectures": [self.config.facts.stem + ARCHITECTURES[reads(kind)]],
            OURS: {**self.reading, "pooling": self.pooling},
        }
        if kind in PROBLEMS:
            out["problem_type"] = PROBLEMS[kind]
        if kind in PROBLEMS or self.labels:
            names = self.labels or ("LABEL_0",)
            out["id2label"] = {str(i): c for i, c in enumerate(names)}
            out["label2id"] = {c: i for i, c in enumerate(names)}
            out["num_labels"] = REMOVED
        if "classifier_pooling" in self.config.raw:
            out["classifier_pooling"] = self.pooling
        return out


def first_tokens(encoded: Encoded, places: Sequence[int]) -> Tensor:
    """(words,) int64: where in the pack of these texts each word's first sub-token stands."""
    out, start = [], 0
    for place in places:
        for piece in range(encoded.pieces[place], encoded.pieces[place + 1]):
            out += [start + first for first in encoded.firsts[piece]]
            start += len(encoded.ids[piece])
    return torch.tensor(out, dtype=torch.int64)


def check_place(folder: Path, asked: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything, or with `overwrite` anything that is no part of a model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{asked} is a file; a model is a folder")
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()} - {*LITTER}
    if found and not overwrite:
        raise ConfigError(
            f"{asked} exists and is not empty", "Choose another folder, or pass overwrite=True."
        )
    foreign = sorted(n for n in found if n not in PARTS and not PARTS_LIKE.fullmatch(n))
    if foreign:
        raise ConfigError(
            f"{asked} holds files that are no part of a model: {', '.join(foreign[:5])}",
            "Move them away, or choose another folder.",
        )


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


def load(
    source: str | Path,
    head: str | None = "own",
    kernel: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
    *,
    labels: Sequence[str] = (),
    pooling: str | None = None,
    seed: int = 0,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> Model:
    """Load published weights.

    source   a name in weights/catalogue.toml, a folder in the Hugging Face layout, a run folder, or a hub id
    head     "own": the head that the checkpoint holds, or none; None: the encoder only;
             "classification", "multilabel", "regression", "tokens", "choice", "span": a new one, made
             from `seed`, listed as new in the report; "mlm", "nsp", "pretraining", "detection": that of
             the checkpoint where it holds one, else a new one
    labels   class names of a new head that has classes
    pooling  what a new head reads of a text: "cls", the first token (as published, the default), "mean",
             "max" or another name in heads.POOLING
    dtype    of the parameters: "auto" is float32
    engine   "torch", or "auto", which is the same
    Raises WeightsError, ConfigError, TokenizerError, EnvironmentProblem.
    """
    if engine not in ("auto", "torch"):
        raise ConfigError(f"engine {engine!r} is none of auto, torch")
    place, number = devices.pick(device), devices.number(dtype)
    folder = model_of(catalogue.locate_weights(source))
    settings = with_dropout(config.read(folder / "config.json"), dropout, attention_dropout)
    new = head not in ("own", None)
    kind = known_head(own_head(settings) if head == "own" else head)
    top = heads.HEADS[kind] if kind else None
    if top and head == "own" and top.pretrained and not checkpoint.holds(folder, settings, kind):
        kind = top = None  # encoders cut out of such a model still say in config.json what it was
    if kind:
        heads.line_of(settings, kind)  # raises where this family has no such head
    classes = new_outputs(top, labels) if new else None
    loaded = checkpoint.load(
        folder,
        settings,
        kind,
        new=new,
        pretrained=bool(top and top.pretrained),
        classes=classes,
        dtype=number,
    )
    reading, own_pooling = own_reading(settings, folder)
    if pooling is not None and not new:
        raise ConfigError("pooling is for a new head: a head of the file reads what it was trained on")
    pooling = known_pooling(pooling or own_pooling)
    with torch.device("meta"):
        encoder = Encoder(settings, kernel)
    encoder.load_state_dict(loaded.encoder, assign=True)
    names = ()
    if top:
        held = loaded.head["out.weight"].shape[0] if "out.weight" in loaded.head else top.outputs
        outputs = classes or held
        names = tuple(labels) if new else own_labels(settings, kind, outputs, folder)
        top = top(settings, outputs, pooling)
        initialise(top, settings.init_std, seed)
        top.load_state_dict({k: v for k, v in loaded.head.items() if k not in top.tied}, strict=False)
        heads.tie(top, encoder.embeddings.word.weight, loaded.head)
        top.to(number)
    files, embedder, longest = sentence.read(folder)
    model = Model(
        encoder, top, tokenizer_of(folder, settings), labels=names, reading=reading or longest,
        embedder=embedder, carried=loaded.carried, report=loaded.report, files=files, pooling=pooling,
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(place).eval()


def with_dropout(settings: EncoderConfig, dropout: float | None, attention: float | None) -> EncoderConfig:
    """The config with other shares of dropout, where they are given."""
    asked = {"dropout": dropout, "head_dropout": dropout, "attention_dropout": attention}
    changes = {k: v for k, v in asked.items() if v is not None}
    if not all(config.number(v) and 0 <= v < 1 for v in changes.values()):
        raise ConfigError(f"dropout must be a number from 0 to below 1, not {changes}")
    return replace(settings, **changes)


def known_head(kind: str | None) -> str | None:
    """A kind of head that there is, or None for none."""
    if kind is not None and kind not in heads.HEADS:
        raise ConfigError(
            f"head {kind!r} is none of own, {', '.join(heads.HEADS)}{nearest(kind, heads.HEADS)}"
        )
    return kind


def known_pooling(word: str) -> str:
    """A kind of pooling that there is."""
    if word not in heads.POOLING:
        raise ConfigError(
            f"pooling {word!r} is none of {', '.join(heads.POOLING)}{nearest(word, heads.POOLING)}"
        )
    return word


def new_outputs(head: type, labels: Sequence[str]) -> int:
    """How many numbers a new head gives: as many as it always does, else one a label."""
    if head.outputs is not None or head.pretrained:
        return head.outputs or 0
    least = 1 if head.kind == "multilabel" else 2
    if len(labels) < least:
        raise ConfigError(f"a new {head.kind} head needs labels=[...], {('one', 'two')[least - 1]} or more")
    if len(set(labels)) < len(labels):
        raise ConfigError(f"labels must differ from one another: {', '.join(map(str, labels))}")
    return len(labels)


def own_head(settings: EncoderConfig) -> str | None:
    """The head that config.json states, or None. One output and no word about it is a regression,
    which is how the published layout means it."""
    architectures = settings.raw.get("architectures") or [""]
    known = settings.facts.architectures
    line = known.get(str(architectures[0])) if isinstance(architectures, list) else None
    if line != "text":
        return line or None
    problem = settings.raw.get("problem_type")
    if problem is None:
        return "regression" if len(settings.labels) == 1 else "classification"
    kinds = {theirs: ours for ours, theirs in PROBLEMS.items()}
    if problem not in kinds:
        raise ConfigError(f"problem_type = {problem!r} is none of {', '.join(kinds)}")
    return kinds[problem]


def own_labels(settings: EncoderConfig, kind: str, outputs: int, folder: Path) -> tuple[str, ...]:
    """Class names of the head in the file: those of config.json, or LABEL_0.. where it names none."""
    if kind == "regression" and outputs != 1:
        raise ConfigError(f"{folder} holds a regression head with {outputs} outputs; supported is one")
    if heads.HEADS[kind].outputs is not None or heads.HEADS[kind].pretrained:
        return ()
    names = settings.labels or tuple(f"LABEL_{i}" for i in range(outputs))
    if len(names) != outputs or (outputs < 2 and kind != "multilabel"):
        raise ConfigError(
            f"{folder}: config.json names {len(settings.labels)} classes (id2label), the head has {outputs} outputs",
            'A head with one output is a regression: "problem_type": "regression".' if outputs == 1 else "",
        )
    return names


def own_reading(settings: EncoderConfig, folder: Path) -> tuple[dict[str, Any], str]:
    """How texts are cut and what the head reads, from our table in a config.json that we saved."""
    table = settings.raw.get(OURS, {})
    checks = {
        "max_tokens": config.whole,
        "truncation": TRUNCATIONS.__contains__,
        "stride": config.whole,
        "max_windows": config.whole,
        "pooling": lambda word: isinstance(word, str),
    }
    if not isinstance(table, dict) or not all(k in checks and checks[k](v) for k, v in table.items()):
        raise ConfigError(f"{folder / 'config.json'}: the table {OURS!r} was damaged: {table}")
    published = settings.raw.get("classifier_pooling", "cls")  # ModernBERT's own word for it
    return {k: v for k, v in table.items() if k != "pooling"}, table.get("pooling", published)


def tokenizer_of(folder: Path, settings: EncoderConfig) -> Tokenizer | None:
    """The folder's tokenizer, which must fit the word table; None if it has no tokenizer files at all."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return None
    tokenizer = Tokenizer.from_folder(folder)
    counted = settings.pad_id if settings.position_offset else None  # elsewhere pad changes nothing
    tokenizer.check_fits(settings.vocab_size, str(folder), counted)
    return tokenizer
