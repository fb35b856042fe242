"""Tokens and what they come from: the words of a text, or the characters of an answer.

In:  lists of words, or questions and the texts to answer them from.
Out: Encoded with every word's first sub-token; Windows with every token's characters.

A tokenizer splits words into sub-tokens; whoever asks for an answer a word, or for an answer's own
letters, needs the way back. Read next: heads.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import DataError, TokenizerError
from .tokenize import Encoded, Tokenizer, windows

# --- words ----------------------------------------------------------------------------------------


def encode_words(
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[str]],
    *,
    max_tokens: int,
    rows: Sequence[int] | None = None,
) -> Encoded:
    """Texts given as lists of words: every word has a first sub-token, and so an answer.

    The words are tokenized as one text with spaces between, as pre-training saw them. A word that
    vanishes (a lone control character) becomes the unknown token. A text of more than `max_tokens` is
    split between words into pieces that follow one another; only what of a single word does not fit a
    piece is cut. `rows` names the texts in errors. Raises DataError, TokenizerError.
    """
    frame = tokenizer.single
    room = max_tokens - frame.size
    if room < 1:
        raise TokenizerError(f"max_tokens = {max_tokens} leaves no room beside {frame.size} special tokens")
    ids, segments, firsts, pieces, tokens, cut, unknown = [], [], [], [0], [], [], 0
    for i, words in enumerate(texts):
        check_words(words, rows[i] if rows is not None else i)
        found = split_words(tokenizer, words)
        whole = sum(map(len, found))
        kept = [word[:room] for word in found]
        for first, last in in_pieces([len(word) for word in kept], room):
            piece = [token for word in kept[first:last] for token in word]
            places = np.cumsum([0, *(len(word) for word in kept[first : last - 1])]) + len(frame.before)
            ids.append(frame.ids(piece, ()))
            segments.append(frame.segments(piece, ()))
            firsts.append(places.tolist())
            unknown += piece.count(tokenizer.unknown_id)
        pieces.append(len(ids))
        tokens.append(whole + frame.size)
        cut.append(whole - sum(map(len, kept)))
    return Encoded(
        ids,
        segments,
        *(np.array(x, dtype=np.int64) for x in (pieces, tokens, cut)),
        unknown=unknown / max(sum(map(len, ids)), 1),
        words=np.array([len(words) for words in texts], dtype=np.int64),
        firsts=firsts,
    )


def check_words(words: Sequence[str], row: int) -> None:
    """Refuse what is no list of words."""
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise DataError(f"row {row}: the text must be a list of words, each a string")
    if not words:
        raise DataError(f"row {row} has no words")


def split_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """The token ids of each word of one text; at least one each."""
    text = " ".join(words)
    ends = np.cumsum([len(word) + 1 for word in words]).tolist()  # where the next word begins
    out: list[list[int]] = [[] for _ in words]
    for token, (start, end) in zip(*tokenizer.with_offsets(text)):
        # By its last letter: a sub-token may take the space in front of its word along.
        word = bisect.bisect_right(ends, max(end - 1, start))
        if word < len(words):
            out[word].append(token)
    lost = tokenizer.unknown_id
    if lost is None and not all(out):
        raise TokenizerError(
            f"the word {words[out.index([])]!r} yields no token, and there is no unknown token"
        )
    return [word or [lost] for word in out]


def in_pieces(sizes: list[int], room: int) -> list[tuple[int, int]]:
    """Words (first, last + 1) of each piece: as many as fit, in their order."""
    out, first, held = [], 0, 0
    for i, size in enumerate(sizes):
        if held + size > room:
            out.append((first, i))
            first, held = i, 0
        held += size
    return [*out, (first, len(sizes))]


# --- characters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Questions with the texts to answer them from, each in one or several windows.

    ids, segments  one list of numbers a window
    owner          (windows,) which question each belongs to
    first          (windows,) where in the window the text's first token stands
    offsets        a window's (first, last + 1) characters of each of its text's tokens
    """

    ids: list[list[int]]
    segments: list[list[int]]
    owner: list[int]
    first: list[int]
    offsets: list[list[tuple[int, int]]]


def encode_spans(
    tokenizer: Tokenizer,
    questions: Sequence[str],
    texts: Sequence[str],
    *,
    max_tokens: int,
    stride: int = 128,
) -> Windows:
    """Pairs of question and text; a long text is read in windows that share `stride` tokens.

    A question is never cut: one that leaves no room for the text is a DataError.
    """
    if len(questions) != len(texts):
        raise DataError(f"{len(questions)} questions and {len(texts)} texts")
    if stride < 0:
        raise DataError(f"stride = {stride} must be 0 or more")
    frame, out = tokenizer.double, Windows([], [], [], [], [])
    for i, (question, text) in enumerate(zip(questions, texts)):
        asked, _ = tokenizer.with_offsets(question)
        ids, offsets = tokenizer.with_offsets(text)
        room = max_tokens - frame.size - len(asked)
        if room < 1 or not ids:
            what = "no words" if not ids else f"no room: the question has {len(asked)} of {max_tokens} tokens"
            raise DataError(f"row {i}: the text to answer from has {what}")
        shared = min(stride, room - 1)
        start = 0
        for piece, _ in windows(ids, room, shared, len(ids)):
            out.ids.append(frame.ids(asked, piece))
            out.segments.append(frame.segments(asked, piece))
            out.owner.append(i)
            out.first.append(len(frame.before) + len(asked) + len(frame.between))
            out.offsets.append(offsets[start : start + len(piece)])
            start += room - shared
    return out


def place_of(windows_: Windows, window: int, start: int, end: int) -> tuple[int, int]:
    """First and last token, in the window, of the characters start to end; (0, 0) where they lie outside."""
    offsets = windows_.offsets[window]
    inside = [j for j, (a, b) in enumerate(offsets) if b > start and a < end]
    if not inside or offsets[0][0] > start or offsets[-1][1] < end:
        return 0, 0
    return windows_.first[window] + inside[0], windows_.first[window] + inside[-1]
