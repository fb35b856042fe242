"""Tokens and what they come from: every word has its first sub-token, every answer its letters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.align import encode_spans, encode_words, in_pieces, place_of, split_words
from minibert.errors import DataError, TokenizerError
from minibert.tokenize import Tokenizer

from .helpers import write_bytepairs, write_wordpiece


@pytest.fixture(scope="module", params=["wordpiece", "bytepairs"])
def tokenizer(request, tmp_path_factory):
    write = {"wordpiece": write_wordpiece, "bytepairs": write_bytepairs}[request.param]
    return Tokenizer.from_folder(write(tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def pieces_of_words(tmp_path_factory):
    return Tokenizer.from_folder(write_wordpiece(tmp_path_factory.mktemp("words")))


def test_every_word_keeps_its_own_tokens(pieces_of_words):
    found = split_words(pieces_of_words, ["unable", "cats", "!?", "the"])
    assert [pieces_of_words.tokens(word) for word in found] == [
        ["un", "##able"],
        ["cat", "##s"],
        ["!", "?"],
        ["the"],
    ]


def test_the_tokens_are_those_of_the_text(tokenizer):
    """Words side by side are the text that pre-training would have seen."""
    words = ["the", "cat", "sat", "on", "a", "dog"]
    ids, _ = tokenizer.with_offsets(" ".join(words))
    assert [i for word in split_words(tokenizer, words) for i in word] == ids
    assert all(split_words(tokenizer, words))


def test_a_word_that_vanishes_is_unknown(pieces_of_words):
    found = split_words(pieces_of_words, ["the", "\u0001", "cat"])
    assert pieces_of_words.tokens(found[1]) == ["[UNK]"] and pieces_of_words.tokens(found[2]) == ["cat"]


def test_firsts_point_at_the_words(pieces_of_words):
    texts = [["unable", "cats", "sat"], ["the"]]
    found = encode_words(pieces_of_words, texts, max_tokens=20)
    assert found.words.tolist() == [3, 1] and found.pieces.tolist() == [0, 1, 2]
    firsts = [[found.ids[p][i] for i in found.firsts[p]] for p in range(2)]
    assert [pieces_of_words.tokens(x) for x in firsts] == [["un", "cat", "sat"], ["the"]]
    assert pieces_of_words.tokens(found.ids[0]) == ["[CLS]", "un", "##able", "cat", "##s", "sat", "[SEP]"]
    assert found.cut.tolist() == [0, 0] and found.tokens.tolist() == [7, 3]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(9, 20))
@settings(max_examples=60, deadline=None)
def test_pieces_hold_every_word_once_and_fit(sizes, room):
    found = in_pieces(sizes, room)
    assert [w for a, b in found for w in range(a, b)] == list(range(len(sizes)))
    assert all(a < b and sum(sizes[a:b]) <= room for a, b in found)


def test_a_long_text_is_split_between_words_and_loses_nothing(pieces_of_words):
    words = ["unable", "cat"] * 6
    found = encode_words(pieces_of_words, [words, ["the"]], max_tokens=7)
    assert found.pieces.tolist() == [0, 4, 5] and max(map(len, found.ids)) <= 7
    held = [pieces_of_words.tokens([found.ids[p][i] for i in found.firsts[p]]) for p in range(4)]
    assert sum(held, []) == ["un", "cat"] * 6
    assert found.cut.sum() == 0 and found.words.tolist() == [12, 1]


def test_of_a_word_longer_than_a_piece_the_rest_is_cut_and_counted(pieces_of_words):
    found = encode_words(pieces_of_words, [["the", "abcdefgh", "cat"]], max_tokens=5)
    assert found.cut.tolist() == [5] and sum(map(len, found.firsts)) == 3


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["the cat"], "row 7: the text must be a list"), ([[]], "row 7 has no words"), ([[3]], "row 7")],
)
def test_what_is_no_list_of_words_is_refused(pieces_of_words, texts, message):
    with pytest.raises(DataError, match=message):
        encode_words(pieces_of_words, texts, max_tokens=9, rows=[7])


def test_no_room_is_said(pieces_of_words):
    with pytest.raises(TokenizerError, match="leaves no room"):
        encode_words(pieces_of_words, [["the"]], max_tokens=2)


TEXT = "the cat sat on a mat. the dog ran fast, un able cats"


def test_windows_cover_the_text_and_know_its_letters(tokenizer):
    whole, _ = tokenizer.with_offsets(TEXT)
    found = encode_spans(tokenizer, ["a cat?", "the dog"], [TEXT, "the cat"], max_tokens=18, stride=4)
    assert found.owner.count(0) > 1 and found.owner.count(1) == 1
    covered = set()
    for window, owner in enumerate(found.owner):
        assert len(found.ids[window]) <= 18 and len(found.segments[window]) == len(found.ids[window])
        for place, (a, b) in enumerate(found.offsets[window]):
            token = found.ids[window][found.first[window] + place]
            if owner == 0:
                assert (
                    whole[next(i for i, o in enumerate(tokenizer.with_offsets(TEXT)[1]) if o == (a, b))]
                    == token
                )
                covered.update(range(a, b))
    assert {i for i, letter in enumerate(TEXT) if letter != " "} <= covered


def test_the_place_of_an_answer(pieces_of_words):
    found = encode_spans(pieces_of_words, ["a cat?"], [TEXT], max_tokens=30, stride=4)
    start = TEXT.index("dog ran")
    first, last = place_of(found, 0, start, start + len("dog ran"))
    assert pieces_of_words.tokens(found.ids[0][first : last + 1]) == ["dog", "ran"]
    assert place_of(found, 0, 10_000, 10_003) == (0, 0)


@pytest.mark.parametrize(
    ("question", "text", "message"),
    [("the cat " * 9, "a dog", "no room: the question has 18"), ("the cat", "  ", "no words")],
)
def test_questions_that_can_not_be_asked(pieces_of_words, question, text, message):
    with pytest.raises(DataError, match=message):
        encode_spans(pieces_of_words, [question], [text], max_tokens=12)
    with pytest.raises(DataError, match="2 questions and 1 texts"):
        encode_spans(pieces_of_words, ["a", "b"], ["c"], max_tokens=12)


def test_logits_of_words_are_those_of_their_first_tokens(tmp_path):
    """In any order of texts, with pieces, and equal to each text alone."""
    import minibert

    from .helpers import fill, write_model

    model = minibert.load(
        write_model(tmp_path), "tokens", labels=["O", "B-X", "I-X"], device="cpu", dtype="float64"
    )
    fill(model.head, 3)
    texts = [["unable", "cats"], ["the"], ["a", "dog", "ran", "un", "able"] * 4]
    model.reading["max_tokens"] = 12
    encoded = model.tokenize_words(texts)
    alone = [model.logits(model.tokenize_words([t]), [0]).detach() for t in texts]
    assert [len(x) for x in alone] == encoded.words.tolist() == [2, 1, 20]
    for order in ([0, 1, 2], [2, 0, 1], [1]):
        found = model.logits(encoded, order).detach().numpy()
        assert np.abs(found - np.concatenate([alone[i] for i in order])).max() < 1e-12
