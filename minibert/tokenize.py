"""Texts to token ids: the published tokenizer, with truncation that is ours, counted and said.

    one text       [CLS] a a a [SEP]                     segments 0 0 0 0 0
    a pair         [CLS] a a a [SEP] b b [SEP]           segments 0 0 0 0 0 1 1 1   (BERT)
                   <s>   a a a </s> </s> b b </s>        segments 0 everywhere      (RoBERTa)

In:  lists of strings.   Out: Encoded, lists of ids with what was cut.

The frame around the texts is read off the tokenizer's own post-processor, so one piece of code
serves every family. Truncation and padding baked into a tokenizer.json are switched off.
Read next: batch.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Tokenizer as Backend

from . import config as configs
from .errors import DataError, TokenizerError, nearest
from .progress import say

CHUNK = 1000  # texts handed to the Rust side at once; bounds memory
LONGEST_TEXT = 10_000_000  # characters
MASKS = ("[MASK]", "<mask>")  # how families write a hidden word
TRUNCATIONS = ("head", "tail", "head+tail", "error", "window")
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class Encoded:
    """Token ids of n texts, in one or (truncation "window") several pieces each.

    ids, segments  one list of numbers a piece
    pieces         (n + 1,) int64: text i has pieces pieces[i] to pieces[i + 1]
    tokens         (n,) int64: tokens of the whole text, with special ones, before any cut
    cut            (n,) int64: tokens of the text that no piece holds
    specials       texts that contain a special token's name such as [SEP], read as plain text
    unknown        share of all tokens that are the unknown token
    one_sided      pairs of which one side was cut down to a single token
    words, firsts  where texts were lists of words (align.py): (n,) words of each text, and for each piece
                   the places of its words' first sub-tokens
    """

    ids: list[list[int]]
    segments: list[list[int]]
    pieces: np.ndarray
    tokens: np.ndarray
    cut: np.ndarray
    specials: int = 0
    unknown: float = 0.0
    one_sided: int = 0
    words: np.ndarray | None = None
    firsts: list[list[int]] = field(default_factory=list)

    def piece_lengths(self, places: Iterable[int]) -> list[int]:
        """Tokens of every piece of these texts: what an encoder reads."""
        return [len(self.ids[i]) for place in places for i in range(*self.pieces[place : place + 2])]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens that a model computes for each text."""
        sizes = np.array([len(x) for x in self.ids], dtype=np.int64)
        return np.add.reduceat(sizes, self.pieces[:-1]) if len(sizes) else sizes

    def summary(self) -> dict[str, object]:
        """Token counts and what was cut, for the report."""
        total = int(self.tokens.sum())
        cut = int((self.cut > 0).sum())
        spread = np.quantile(self.tokens, [0, 0.5, 0.95, 1]).astype(int).tolist() if len(self) else [0] * 4
        return {
            "tokens": dict(zip(("min", "median", "p95", "max"), spread)),
            "truncated": {
                "texts": cut,
                "share_of_texts": cut / max(len(self), 1),
                "share_of_tokens": float(self.cut.sum()) / max(total, 1),
            },
            "special_names_in_text": self.specials,
            "unknown_share": self.unknown,
            "pairs_with_one_side_gone": self.one_sided,
        }


@dataclass(frozen=True)
class Frame:
    """The special tokens around one text or a pair, and the segment of each zone."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    marks: tuple[int, int, int, int, int]  # segments of: before, first text, between, second text, after

    @property
    def size(self) -> int:
        """How many special tokens it adds."""
        return len(self.before) + len(self.between) + len(self.after)

    def ids(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """The ids of a text, or of a pair, with the frame around them."""
        return [*self.before, *a, *self.between, *b, *self.after]

    def segments(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """A segment number for each of `ids`."""
        zones = (self.before, a, self.between, b, self.after)
        return [mark for mark, zone in zip(self.marks, zones) for _ in zone]


class Tokenizer:
    """A published tokenizer. `files` are the bytes it came from, which are saved again unchanged."""

    def __init__(self, backend: Backend, files: dict[str, bytes] | None = None, where: str = "tokenizer"):
        self.backend = backend
        self.files = files or {}
        backend.no_truncation()
        backend.no_padding()
        # "[SEP]" typed by a person is text, not the end of a text.
        backend.encode_special_tokens = True
        self.single, self.double = frame(backend, False, where), frame(backend, True, where)
        added = backend.get_added_tokens_decoder().values()
        self.special_names = sorted(t.content for t in added if t.special)
        # Of several: MPNet's vocabulary still holds BERT's [MASK], as a word like others.
        masks = (*(n for n in MASKS if n in self.special_names), *MASKS)
        self.mask = next((name for name in masks if backend.token_to_id(name) is not None), "")
        self.mask_id = backend.token_to_id(self.mask) if self.mask else None
        names = (getattr(backend.model, "unk_token", None) or "", "<unk>", "[UNK]")
        self.unknown_id = next((i for n in names if (i := backend.token_to_id(n)) is not None), None)

    @classmethod
    def from_folder(cls, folder: Path | str) -> Tokenizer:
        """From tokenizer.json, or vocab.txt, or vocab.json and merges.txt. Raises TokenizerError."""
        folder = Path(folder)
        try:
            files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        except OSError as problem:
            raise TokenizerError(f"{problem.filename} can't be read: {problem.strerror}") from None
        settings = {}
        if "tokenizer_config.json" in files:
            settings = configs.read_json(folder / "tokenizer_config.json", TokenizerError)
        if "tokenizer.json" in files:
            backend = from_json(files["tokenizer.json"], folder / "tokenizer.json")
            does, says = getattr(backend.normalizer, "lowercase", None), settings.get("do_lower_case")
            if isinstance(says, bool) and does is not None and does != says:
                say(
                    f"{folder}: tokenizer_config.json says do_lower_case = {says}, tokenizer.json does the opposite; "
                    "tokenizer.json is followed"
                )
            return cls(backend, files, str(folder))
        if "vocab.txt" in files:
            return cls(from_wordpieces(folder, settings), files, str(folder))
        if {"vocab.json", "merges.txt"} <= set(files):
            return cls(from_bytepairs(folder, settings), files, str(folder))
        fix = "Needed: tokenizer.json, or vocab.txt, or vocab.json with merges.txt."
        if list(folder.glob("*.model")):
            fix = (
                "There is a SentencePiece .model file, whose ids are not those of the model's table: "
                "make a tokenizer.json from it with the library it came from."
            )
        raise TokenizerError(f"{folder} holds no tokenizer", fix)

    @property
    def largest_id(self) -> int:
        """The highest id it can give."""
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    def check_fits(self, vocab_size: int, where: str = "the model", pad_id: int | None = None) -> None:
        """Refuse a tokenizer whose ids the model's word table does not hold, or whose pad is another id."""
        if self.largest_id >= vocab_size:
            vocab = self.backend.get_vocab(with_added_tokens=True)
            beyond = sorted((i, t) for t, i in vocab.items() if i >= vocab_size)[:5]
            names = ", ".join(f"{t!r} = {i}" for i, t in beyond)
            raise TokenizerError(
                f"{where} has {vocab_size} word rows, the tokenizer gives larger ids: {names}"
            )
        own = self.backend.token_to_id("<pad>")
        if pad_id is not None and own is not None and own != pad_id:
            raise TokenizerError(
                f"{where}: pad_token_id = {pad_id} in config.json, the tokenizer's <pad> is {own}",
                "Positions count from pad + 1, so one of the two files belongs to another model.",
            )

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_tokens: int,
        truncation: str = "head",
        stride: int = 32,
        max_windows: int = 16,
        rows: Sequence[int] | None = None,
    ) -> Encoded:
        """Tokenize n texts (or n pairs), each to at most `max_tokens` with special tokens.

        truncation: "head" keeps the beginning, "tail" the end, "head+tail" three quarters at the
        beginning and the rest at the end; "error" refuses; "window" reads up to `max_windows`
        overlapping pieces, `stride` tokens shared. Of a pair the longer side gives way first.
        `rows` names the texts in errors. Raises DataError, TokenizerError.
        """
        shape = self.single if pairs is None else self.double
        room = max_tokens - shape.size
        if truncation not in TRUNCATIONS:
            raise TokenizerError(
                f"truncation {truncation!r} is none of {', '.join(TRUNCATIONS)}{nearest(truncation, TRUNCATIONS)}"
            )
        if room < (1 if pairs is None else 2):
            raise TokenizerError(
                f"max_tokens = {max_tokens} leaves no room beside {shape.size} special tokens"
            )
        if truncation == "window":
            if pairs is not None:
                raise TokenizerError('truncation "window" is for single texts, not for pairs')
            if not 0 <= stride < room:
                raise TokenizerError(f"stride = {stride} must be below the {room} tokens that a window holds")
            if max_windows < 1:
                raise TokenizerError(f"max_windows = {max_windows} must be 1 or more")
        ids, segments, pieces, tokens, cut, one_sided = [], [], [0], [], [], 0
        for i, (a, b) in enumerate(self.raw(texts, pairs, rows)):
            whole = len(a) + len(b)
            if whole > room and truncation == "error":
                row = rows[i] if rows is not None else i
                raise DataError(
                    f'row {row} has {whole + shape.size} tokens, over max_tokens = {max_tokens}, and truncation is "error"',
                    'Shorten the text, raise max_tokens, or choose truncation = "head", "tail", "head+tail" or "window".',
                )
            kept = (
                windows(a, room, stride, max_windows)
                if truncation == "window"
                else [fit(a, b, room, truncation)]
            )
            for left, right in kept:
                ids.append(shape.ids(left, right))
                segments.append(shape.segments(left, right))
                one_sided += (
                    whole > room
                    and pairs is not None
                    and min(len(left), len(right)) <= 1 < min(len(a), len(b))
                )
            pieces.append(len(ids))
            tokens.append(whole + shape.size)
            held = len(kept[0][0]) + len(kept[0][1]) + sum(len(left) - stride for left, _ in kept[1:])
            cut.append(max(whole - held, 0))
        unknown = sum(x.count(self.unknown_id) for x in ids) if self.unknown_id is not None else 0
        return Encoded(
            ids,
            segments,
            *(np.array(x, dtype=np.int64) for x in (pieces, tokens, cut)),
            specials=sum(
                any(name in t for name in self.special_names)
                for t in (*texts, *(pairs if pairs is not None else ()))
            ),
            unknown=unknown / max(sum(map(len, ids)), 1),
            one_sided=one_sided,
        )

    def raw(
        self, texts: Sequence[str], pairs: Sequence[str] | None, rows: Sequence[int] | None
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Ids of each text and of its pair (or an empty list), without special tokens, nothing cut."""
        if isinstance(texts, str) or isinstance(pairs, str):
            raise DataError("texts must be a list of strings, not one string: [text]")
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(f"{len(texts)} texts and {len(pairs)} second texts")
        for side in (texts, pairs if pairs is not None else ()):
            check_texts(side, rows)
        for start in range(0, len(texts), CHUNK):
            first = self.batch(texts[start : start + CHUNK])
            second = self.batch(pairs[start : start + CHUNK]) if pairs is not None else [[]] * len(first)
            yield from zip(first, second)

    def batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of some texts, without special tokens."""
        with guarded("the tokenizer failed"):
            return [e.ids for e in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of one text without special tokens, and the characters (first, last + 1) of each."""
        check_texts([text], None)
        with guarded("the tokenizer failed"):
            found = self.backend.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def with_words(self, texts: Sequence[str]) -> list[tuple[list[int], list[int | None]]]:
        """Ids of each text without special tokens, and the number of the word that each belongs to."""
        check_texts(texts, None)
        with guarded("the tokenizer failed"):
            found = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(one.ids, one.word_ids) for one in found]

    def with_masks(self, text: str) -> list[int]:
        """Ids of one text with its special tokens, the mask token in it read as such.

        DataError for another special token in the text, which would be read as such, too.
        """
        check_texts([text], None)
        other = [name for name in self.special_names if name != self.mask and name in text]
        if other:
            raise DataError(f"the text holds {other[0]}, which the tokenizer would take for its own sign")
        self.backend.encode_special_tokens = False
        try:
            with guarded("the tokenizer failed"):
                return self.backend.encode(text).ids
        finally:
            self.backend.encode_special_tokens = True

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The written form of ids."""
        return [self.backend.id_to_token(int(i)) for i in ids]


def open_with_limit(folder: Path) -> tuple[Tokenizer, int]:
    """A checkpoint's tokenizer, and how many tokens its config says the model holds."""
    return Tokenizer.from_folder(folder), configs.read(folder / "config.json").max_tokens


def check_texts(texts: Sequence[str], rows: Sequence[int] | None) -> None:
    """Refuse what the Rust side would fail on without naming the row."""
    for i, text in enumerate(texts):
        row = rows[i] if rows is not None else i
        if not isinstance(text, str):
            raise DataError(f"row {row}: the text is {text!r}, a {type(text).__name__}, not a string")
        if len(text) > LONGEST_TEXT:
            raise DataError(
                f"row {row}: the text has {len(text):,} characters; the limit is {LONGEST_TEXT:,}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise DataError(
                f"row {row}: character {problem.start} is U+{ord(text[problem.start]):04X}, half of a pair, "
                "which is no text",
                "The file was probably cut or decoded wrongly: see [data] encoding.",
            ) from None


def frame(backend: Backend, double: bool, where: str) -> Frame:
    """Read the special tokens around a text (or pair) off the tokenizer's post-processor."""
    for probe in ("a", "the", "0", "."):
        found = backend.encode(probe, probe) if double else backend.encode(probe)
        owners = found.sequence_ids
        if 0 in owners and (1 in owners or not double):
            break
    else:
        raise TokenizerError(f"{where}: the tokenizer gives no tokens for plain letters")
    first = [i for i, o in enumerate(owners) if o == 0]
    second = [i for i, o in enumerate(owners) if o == 1] or [first[-1] + 1]
    start, stop = first[0], first[-1] + 1
    between_end, end = (second[0], second[-1] + 1) if double else (stop, stop)
    before, between, after = found.ids[:start], found.ids[stop:between_end], found.ids[end:]
    if not before or not after:
        raise TokenizerError(
            f"{where}: the tokenizer puts no special tokens around a text",
            "An encoder needs a first token such as [CLS] and a last one such as [SEP].",
        )
    kinds = found.type_ids
    at = (0, start, stop, second[0], end)  # one token of each zone
    marks = tuple(kinds[min(i, len(kinds) - 1)] for i in at)
    return Frame(tuple(before), tuple(between), tuple(after), marks)


def fit(a: list[int], b: list[int], room: int, truncation: str) -> tuple[list[int], list[int]]:
    """Cut a text or pair down to `room` tokens."""
    if len(a) + len(b) <= room:
        return a, b
    short = min(len(a), len(b))
    if short > room // 2:
        sizes = (room // 2, room - room // 2) if len(a) <= len(b) else (room - room // 2, room // 2)
    else:
        sizes = (short, room - short) if len(a) <= len(b) else (room - short, short)
    return shorten(a, sizes[0], truncation), shorten(b, sizes[1], truncation)


def shorten(ids: list[int], size: int, truncation: str) -> list[int]:
    """`size` of the ids: from the beginning, the end, or three quarters and one quarter of both."""
    if len(ids) <= size:
        return ids
    end = {"head": 0, "tail": size, "head+tail": size // 4}[truncation]
    return ids[: size - end] + ids[len(ids) - end :]


def windows(ids: list[int], room: int, stride: int, most: int) -> list[tuple[list[int], list[int]]]:
    """Overlapping pieces of a text, each with an empty second side."""
    step = room - stride
    count = 1 + max(0, -(-(len(ids) - room) // step))
    return [(ids[i * step : i * step + room], []) for i in range(min(count, most))]


def from_json(raw: bytes, path: Path) -> Backend:
    """Build from a tokenizer.json, with errors that name the file."""
    with guarded(f"{path} can't be read as a tokenizer"):
        return Backend.from_buffer(raw)


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn whatever the Rust side raises, a panic too, which is no Exception, into a TokenizerError."""
    try:
        yield
    except BaseException as problem:
        if isinstance(problem, (KeyboardInterrupt, SystemExit, TokenizerError)):
            raise
        fix = ""
        if "untagged enum" in str(problem):
            fix = f"It may need a newer tokenizers than {tokenizers.__version__}: pip install -U tokenizers"
        raise TokenizerError(f"{what}: {problem}", fix) from None


def from_wordpieces(folder: Path, settings: dict) -> Backend:
    """BERT's tokenizer from vocab.txt; whether it lower-cases must be written in tokenizer_config.json."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    lower = settings.get("do_lower_case")
    if not isinstance(lower, bool):
        raise TokenizerError(
            f"{folder}: vocab.txt alone does not say whether the model is cased",
            'Add a tokenizer_config.json with {"do_lower_case": true} or false.',
        )
    try:
        text = (folder / "vocab.txt").read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise TokenizerError(f"{folder / 'vocab.txt'} is no UTF-8: {problem}") from None
    # Not splitlines(): published vocabularies hold U+2028 and the like as words.
    vocab = {word: i for i, word in enumerate(text.removesuffix("\n").split("\n"))}
    names = [
        special(settings, k, v)
        for k, v in (("unk_token", "[UNK]"), ("cls_token", "[CLS]"), ("sep_token", "[SEP]"))
    ]
    missing = [n for n in names if n not in vocab]
    if missing:
        raise TokenizerError(
            f"{folder / 'vocab.txt'} lacks the special tokens {', '.join(map(str, missing))}"
        )
    unk, cls, sep = names
    backend = Backend(models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=lower,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing((sep, vocab[sep]), (cls, vocab[cls]))
    backend.decoder = decoders.WordPiece()
    others = [special(settings, k, v) for k, v in (("pad_token", "[PAD]"), ("mask_token", "[MASK]"))]
    backend.add_special_tokens([n for n in (unk, cls, sep, *others) if n in vocab])
    return backend


def special(settings: dict, key: str, usual: str) -> str:
    """A special token of tokenizer_config.json, which writes it as a text or as a table around it."""
    found = settings.get(key) or usual
    return str(found.get("content", usual) if isinstance(found, dict) else found)


def from_bytepairs(folder: Path, settings: dict) -> Backend:
    """RoBERTa's tokenizer from vocab.json and merges.txt."""
    from tokenizers import decoders, models, pre_tokenizers, processors

    with guarded(f"{folder}: vocab.json and merges.txt can't be read"):
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    backend = Backend(model)
    space = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    vocab = backend.get_vocab()
    missing = [n for n in ("<s>", "</s>", "<pad>") if n not in vocab]
    if missing:
        raise TokenizerError(f"{folder / 'vocab.json'} lacks the special tokens {', '.join(missing)}")
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), trim_offsets=True, add_prefix_space=space
    )
    backend.add_special_tokens([n for n in ("<s>", "</s>", "<pad>", "<unk>", "<mask>") if n in vocab])
    return backend
