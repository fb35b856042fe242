"""What is hidden and how: shares, whole words, special tokens never, and the same for the same key."""

from __future__ import annotations

import numpy as np
import pytest

from minibert import masking
from minibert.errors import DataError, TokenizerError
from minibert.tokenize import Tokenizer

from .helpers import write_wordpiece

TEXT = "the cat sat on a mat.\nthe dog ran fast.\n\nunable cats sat.\nit is not a dog.\nis it?\n\na mat!\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(write_wordpiece(tmp_path_factory.mktemp("words")))


@pytest.fixture(scope="module")
def texts(tokenizer):
    return masking.tokenized(tokenizer, masking.documents(TEXT))


def test_documents_stand_between_blank_lines():
    assert [len(d) for d in masking.documents(TEXT)] == [2, 3, 1]
    assert masking.documents("a\nb\n") == [["a"], ["b"]]
    assert masking.documents("\n\n") == [] == masking.documents("")
    assert masking.documents("a\n \n\n\nb") == [["a"], ["b"]]
    assert masking.documents("\na\nb\n\n") == [["a"], ["b"]], "blank lines at the ends stand between nothing"


def test_pieces_hold_the_documents_and_never_two(tokenizer, texts):
    found = masking.pieces(tokenizer, texts, 8)
    assert max(map(len, found.ids)) <= 8
    frame = {tokenizer.backend.token_to_id(x) for x in ("[CLS]", "[SEP]")}
    plain = [[i for i in ids if i not in frame] for ids in found.ids]
    assert sum(plain, []) == [i for d in texts for s in d for i in s.ids]
    lengths = [sum(len(s.ids) for s in d) for d in texts]
    assert len(found) == sum(-(-n // 6) for n in lengths)
    for ids, words in zip(found.ids, found.words):
        assert len(ids) == len(words) and words[0] == words[-1] == -1
        assert all((w == -1) == (i in frame) for i, w in zip(ids, words))


def test_sub_tokens_share_the_number_of_their_word(tokenizer):
    (document,) = masking.tokenized(tokenizer, [["unable cats"]])
    found = masking.pieces(tokenizer, [document], 12)
    assert tokenizer.tokens(found.ids[0]) == ["[CLS]", "un", "##able", "cat", "##s", "[SEP]"]
    words = found.words[0][1:-1]
    assert words[0] == words[1] != words[2] == words[3]


def test_pairs_follow_or_come_from_elsewhere(tokenizer, texts):
    found = masking.pairs(tokenizer, texts * 40, 24, seed=3)
    share = found.swapped.mean()
    assert 0.35 < share < 0.65 and max(map(len, found.ids)) <= 24 and len(found) > 60
    text = [" ".join(tokenizer.tokens(i for s in d for i in s.ids)) for d in texts]
    for ids, segments, swapped in zip(found.ids, found.segments, found.swapped):
        first = " ".join(tokenizer.tokens(i for i, s in zip(ids[1:], segments[1:]) if s == 0)).removesuffix(
            " [SEP]"
        )
        second = " ".join(tokenizer.tokens(i for i, s in zip(ids, segments) if s == 1)).removesuffix(" [SEP]")
        assert first and second
        if not swapped:
            assert any(f"{first} {second}" in whole for whole in text)
    again = masking.pairs(tokenizer, texts * 40, 24, seed=3)
    assert again.ids == found.ids and (again.swapped == found.swapped).all()


@pytest.mark.parametrize("few", [0, 2])
def test_pairs_need_two_documents_and_sentences(tokenizer, texts, few):
    with pytest.raises(DataError, match="two documents"):
        masking.pairs(tokenizer, texts[few : few + 1], 24, seed=0)


def hidden(tokenizer, how, count=300):
    ids = [
        tokenizer.backend.token_to_id(w)
        for w in ("[CLS]", *["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "fast", "it"] * 4, "[SEP]")
    ]
    words = [-1, *range(40), -1]
    return ids, [masking.hide(ids, words, how, (1, 2, row)) for row in range(count)]


def test_the_shares_are_those_of_bert(tokenizer):
    how = masking.hiding(tokenizer, 0.15, False)
    ids, found = hidden(tokenizer, how)
    masked = kept = other = 0
    for out, places, targets in found:
        assert len(places) == round(0.15 * 40) and places == sorted(set(places))
        assert 0 not in places and 41 not in places, "special tokens are never hidden"
        assert targets == [ids[p] for p in places]
        assert all(out[i] == ids[i] for i in range(42) if i not in places)
        masked += sum(out[p] == how.mask_id for p in places)
        kept += sum(out[p] == ids[p] for p in places)
        other += sum(out[p] not in (how.mask_id, ids[p]) for p in places)
    total = masked + kept + other
    assert (
        abs(masked / total - 0.8) < 0.03
        and abs(kept / total - 0.1) < 0.03
        and abs(other / total - 0.1) < 0.03
    )


def test_a_key_hides_the_same_and_another_not(tokenizer):
    how = masking.hiding(tokenizer, 0.15, False)
    ids, found = hidden(tokenizer, how, 20)
    assert found == hidden(tokenizer, how, 20)[1]
    assert len({tuple(places) for _, places, _ in found}) > 15


def test_whole_words_are_hidden_whole(tokenizer):
    how = masking.hiding(tokenizer, 0.3, True)
    ids, words = list(range(100, 112)), [-1, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, -1]
    for row in range(60):
        _, places, _ = masking.hide(ids, words, how, (0, 0, row))
        chosen = {words[p] for p in places}
        assert places == [i for i, w in enumerate(words) if w in chosen] and -1 not in chosen
        assert 1 <= len(places) <= 3


def test_random_words_are_no_special_ones(tokenizer):
    how = masking.hiding(tokenizer, 0.15, False)
    special = {tokenizer.backend.token_to_id(x) for x in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    assert (
        special.isdisjoint(how.others.tolist()) and len(how.others) == tokenizer.backend.get_vocab_size() - 5
    )


def test_without_a_mask_token_nothing_can_be_hidden(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "mask_id", None)
    with pytest.raises(TokenizerError, match="no mask token"):
        masking.hiding(tokenizer, 0.15, False)


def test_some_of_the_examples(tokenizer, texts):
    found = masking.pairs(tokenizer, texts * 3, 24, seed=0)
    part = found[[2, 0]]
    assert (
        part.ids == [found.ids[2], found.ids[0]] and part.swapped.tolist() == found.swapped[[2, 0]].tolist()
    )
    assert isinstance(found.swapped, np.ndarray) and len(part) == 2


def test_albert_asks_for_the_order_of_neighbours(tokenizer, texts):
    """Swapped pairs hold the same words as pairs that follow, the other way round; none is from elsewhere."""
    found = masking.pairs(tokenizer, texts * 40, 24, seed=3, swap=True)
    text = [" ".join(tokenizer.tokens(i for s in d for i in s.ids)) for d in texts]
    assert 0.35 < found.swapped.mean() < 0.65
    for ids, segments, swapped in zip(found.ids, found.segments, found.swapped):
        sides = [
            " ".join(tokenizer.tokens(i for i, s in list(zip(ids, segments))[side == 0 :] if s == side))
            for side in (0, 1)
        ]
        first, second = (side.removesuffix(" [SEP]").removeprefix("[CLS] ") for side in sides)
        order = (second, first) if swapped else (first, second)
        assert any(" ".join(order) in whole for whole in text)
