"""Texts to pre-training examples: pieces or pairs of sentences, and which of their words are hidden.

In:  documents, lists of sentences.   Out: Examples; `hide` gives ids with words hidden, and what they were.

As BERT did it (Devlin et al. 2019, section 3.1 and appendix A.1): of 15 % of the tokens, 8 in 10 become
[MASK], 1 in 10 a random word, 1 in 10 stays. What is hidden in an epoch is a pure function of (seed,
epoch, row), so that another run, or another split into micro-batches, hides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import DataError, TokenizerError
from .tokenize import Tokenizer

# Special tokens of all families: one may hold another's as a word that no text has.
SIGNS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>", "<s>", "</s>", "<mask>")


@dataclass(frozen=True)
class Examples:
    """Token ids of n examples, with special tokens.

    ids, segments  one list of numbers an example
    words          for each token the number of its word, -1 for special tokens
    swapped        (n,) int64: 0 where the second part follows the first, 1 where not; None: no parts
    """

    ids: list[list[int]]
    segments: list[list[int]]
    words: list[list[int]]
    swapped: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, places: Sequence[int]) -> Examples:
        """Some of the examples."""
        lists = ([part[p] for p in places] for part in (self.ids, self.segments, self.words))
        return Examples(*lists, None if self.swapped is None else self.swapped[list(places)])


@dataclass(frozen=True)
class Sentence:
    """A sentence's token ids, and for each whether it begins a word."""

    ids: list[int]
    begins: list[bool]


def documents(text: str) -> list[list[str]]:
    """Lines to documents: blank lines stand between them; without any, every line is a document."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if "" not in lines:
        return [[line] for line in lines if line]
    out: list[list[str]] = [[]]
    for line in lines:
        if line:
            out[-1].append(line)
        elif out[-1]:
            out.append([])
    return [document for document in out if document]


def tokenized(tokenizer: Tokenizer, texts: list[list[str]]) -> list[list[Sentence]]:
    """Documents of sentences as token ids; a sentence that yields no token is left out."""
    out = []
    for document in texts:
        sentences = []
        for ids, words in tokenizer.with_words(document):
            before = [None, *words[:-1]]
            if ids:
                begins = [word is None or word != last for word, last in zip(words, before)]
                sentences.append(Sentence(ids, begins))
        if sentences:
            out.append(sentences)
    return out


def joined(sentences: Sequence[Sentence]) -> Sentence:
    """Several sentences as one run of tokens."""
    return Sentence([i for s in sentences for i in s.ids], [b for s in sentences for b in s.begins])


def pieces(tokenizer: Tokenizer, texts: list[list[Sentence]], max_tokens: int) -> Examples:
    """Each document cut into pieces that fill `max_tokens`; none holds two documents."""
    frame, out = tokenizer.single, Examples([], [], [])
    room = max_tokens - frame.size
    for document in texts:
        whole = joined(document)
        for start in range(0, len(whole.ids), room):
            part = Sentence(whole.ids[start : start + room], whole.begins[start : start + room])
            add(out, frame, part, Sentence([], []))
    return out


def pairs(
    tokenizer: Tokenizer, texts: list[list[Sentence]], max_tokens: int, seed: int, swap: bool = False
) -> Examples:
    """Pairs of neighbouring runs of sentences; in half of them the second is from another document, or with
    `swap` the first (ALBERT's sentence order).

    A document of one sentence gives no pair. Raises DataError where there are not two documents, or
    none has two sentences.
    """
    long = [document for document in texts if len(document) > 1]
    if len(texts) < 2 or not long:
        raise DataError(
            "next-sentence pairs need two documents or more, and one with two sentences",
            "Write one sentence a line, and a blank line between documents.",
        )
    rng, frame = np.random.default_rng([seed, 1]), tokenizer.double
    room = max_tokens - frame.size
    out, swapped = Examples([], [], []), []
    for document in long:
        start = 0
        while start < len(document) - 1:
            stop, held = start, 0
            while stop < len(document) and (held < room or stop < start + 2):
                held += len(document[stop].ids)
                stop += 1
            middle = int(rng.integers(start + 1, stop))
            first, second = joined(document[start:middle]), joined(document[middle:stop])
            other = rng.random() < 0.5
            if other and swap:
                first, second = second, first
            elif other:
                second = elsewhere(texts, document, room, rng)
                stop = middle  # what was not used comes next
            add(out, frame, *shortened(first, second, room))
            swapped.append(int(other))
            start = stop
    return Examples(out.ids, out.segments, out.words, np.array(swapped, dtype=np.int64))


def elsewhere(texts: list[list[Sentence]], document: list[Sentence], room: int, rng: np.random.Generator):
    """Sentences of another document, from a random one on."""
    while True:
        other = texts[int(rng.integers(len(texts)))]
        if other is not document:
            break
    start = int(rng.integers(len(other)))
    stop, held = start, 0
    while stop < len(other) and held < room // 2:
        held += len(other[stop].ids)
        stop += 1
    return joined(other[start:stop])


def shortened(a: Sentence, b: Sentence, room: int) -> tuple[Sentence, Sentence]:
    """Both cut to `room` tokens together, the longer one first."""
    size = min(len(a.ids), max(room - len(b.ids), room // 2))
    rest = min(len(b.ids), room - size)
    return Sentence(a.ids[:size], a.begins[:size]), Sentence(b.ids[:rest], b.begins[:rest])


def add(out: Examples, frame: object, a: Sentence, b: Sentence) -> None:
    """One more example, with the special tokens around it."""
    numbers = np.cumsum([*a.begins, *b.begins]).tolist()  # a word's number; a first token may go on with one
    first, second = numbers[: len(a.ids)], numbers[len(a.ids) :]
    outside = [[-1] * len(zone) for zone in (frame.before, frame.between, frame.after)]
    out.ids.append(frame.ids(a.ids, b.ids))
    out.segments.append(frame.segments(a.ids, b.ids))
    out.words.append([*outside[0], *first, *outside[1], *second, *outside[2]])


@dataclass(frozen=True)
class Hiding:
    """How words are hidden: the share of tokens, whole words or sub-tokens, and by which ids."""

    mask_id: int
    others: np.ndarray  # ids that a random word may be: no special ones
    share: float = 0.15
    whole_words: bool = False


def hiding(tokenizer: Tokenizer, share: float, whole_words: bool) -> Hiding:
    """Hiding for a tokenizer, which must have a mask token."""
    if tokenizer.mask_id is None:
        raise TokenizerError("this tokenizer has no mask token ([MASK] or <mask>), so no word can be hidden")
    names = {*tokenizer.special_names, *SIGNS}
    special = {tokenizer.backend.token_to_id(name) for name in names}
    every = np.array(sorted(set(tokenizer.backend.get_vocab().values()) - special), dtype=np.int64)
    return Hiding(tokenizer.mask_id, every, share, whole_words)


def hide(
    ids: Sequence[int], words: Sequence[int], how: Hiding, key: tuple[int, ...]
) -> tuple[list[int], list[int], list[int]]:
    """(ids with words hidden, their places, what stood there); a pure function of `key`."""
    rng = np.random.default_rng(key)
    real = [place for place, word in enumerate(words) if word >= 0]
    groups: dict[int, list[int]] = {}
    for place in real:
        groups.setdefault(words[place] if how.whole_words else place, []).append(place)
    wanted = max(1, round(how.share * len(real)))
    chosen: list[int] = []
    order = list(groups.values())
    for i in rng.permutation(len(order)):
        if len(chosen) + len(order[i]) <= wanted or not chosen:
            chosen += order[i]
        if len(chosen) >= wanted:
            break
    chosen.sort()
    out = list(ids)
    for place, draw, other in zip(chosen, rng.random(len(chosen)), rng.choice(how.others, len(chosen))):
        if draw < 0.8:
            out[place] = how.mask_id
        elif draw < 0.9:
            out[place] = int(other)
    return out, chosen, [ids[place] for place in chosen]
