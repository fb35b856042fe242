"""Texts to ids: literal tables with a tiny vocabulary, what is cut and counted, and what is refused."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.errors import DataError, TokenizerError
from minibert.tokenize import Tokenizer, fit, windows

from .helpers import VOCAB, within, write_bytepairs, write_wordpiece

BERT_FORMS, ROBERTA_FORMS = ("vocab.txt", "tokenizer.json"), ("vocab.json", "tokenizer.json")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return Tokenizer.from_folder(write_wordpiece(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return Tokenizer.from_folder(write_bytepairs(tmp_path_factory.mktemp("roberta")))


def words(tokenizer, ids):
    return " ".join(tokenizer.tokens(ids))


def cut(tokenizer, text, pair=None, **options):
    """The one text's (or pair's) pieces, written out."""
    found = tokenizer.encode([text], None if pair is None else [pair], **options)
    return [words(tokenizer, ids) for ids in found.ids], found


# --- literal tables -------------------------------------------------------------------------------

BERT_TEXTS = {
    "the cat sat": "[CLS] the cat sat [SEP]",
    "The CAT, sat!": "[CLS] the cat , sat ! [SEP]",
    "unable cats": "[CLS] un ##able cat ##s [SEP]",
    "the\tcat\n\nsat  ": "[CLS] the cat sat [SEP]",
    "Cât": "[CLS] cat [SEP]",
    "猫 cat": "[CLS] [UNK] cat [SEP]",
    "\u200bcat\x00": "[CLS] cat [SEP]",
    "": "[CLS] [SEP]",
    "   ": "[CLS] [SEP]",
    "a" * 101: "[CLS] [UNK] [SEP]",
}
ROBERTA_TEXTS = {
    "the cat sat": "<s> the Ġcat Ġsat </s>",
    "The cat": "<s> T h e Ġcat </s>",
    " the cat": "<s> Ġthe Ġcat </s>",
    "é": "<s> Ã © </s>",
    "": "<s> </s>",
}


@pytest.mark.parametrize(("text", "expected"), BERT_TEXTS.items(), ids=repr)
def test_words_of_bert(bert, text, expected):
    assert cut(bert, text, max_tokens=200)[0] == [expected]


@pytest.mark.parametrize(("text", "expected"), ROBERTA_TEXTS.items(), ids=repr)
def test_words_of_roberta(roberta, text, expected):
    assert cut(roberta, text, max_tokens=20)[0] == [expected]


def test_a_cased_vocabulary_keeps_its_letters(tmp_path):
    cased = Tokenizer.from_folder(write_wordpiece(tmp_path, lower=False))
    assert cut(cased, "the Cat", max_tokens=9)[0] == ["[CLS] the [UNK] [SEP]"]


def test_pairs_have_their_frames_and_segments(bert, roberta):
    [text], found = cut(bert, "the cat", "it sat !", max_tokens=20)
    assert text == "[CLS] the cat [SEP] it sat ! [SEP]"
    assert found.segments == [[0, 0, 0, 0, 1, 1, 1, 1]]
    [text], found = cut(roberta, "the cat", " sat", max_tokens=20)
    assert text == "<s> the Ġcat </s> </s> Ġsat </s>" and found.segments == [[0] * 7]


def test_a_pair_with_an_empty_side(bert):
    assert cut(bert, "", "it sat", max_tokens=9)[0] == ["[CLS] [SEP] it sat [SEP]"]
    [text], found = cut(bert, "the cat", "", max_tokens=9)
    assert text == "[CLS] the cat [SEP] [SEP]" and found.segments == [[0, 0, 0, 0, 1]]


# --- one vocabulary in two forms ------------------------------------------------------------------

UNICODE = [
    "the cat sat on a mat.",
    "Ünable — “cats” running?!",
    "日本 🐈 e\u0301",
    "don't [MASK] <mask> </s>",
    " x ",
]


@pytest.mark.parametrize("pairs", [None, UNICODE[::-1]], ids=["single", "pair"])
@pytest.mark.parametrize(
    ("write", "forms"), [(write_wordpiece, BERT_FORMS), (write_bytepairs, ROBERTA_FORMS)]
)
def test_both_forms_of_a_vocabulary_give_the_same(tmp_path, write, forms, pairs):
    found = [
        Tokenizer.from_folder(write(tmp_path / form, form=form)).encode(UNICODE, pairs, max_tokens=60)
        for form in forms
    ]
    assert found[0].ids == found[1].ids and found[0].segments == found[1].segments
    assert (found[0].specials, found[0].unknown) == (found[1].specials, found[1].unknown)


def test_minilms_vocabulary_gives_what_its_tokenizer_json_gives(minilm, tmp_path, real_texts):
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    texts = [*real_texts, *UNICODE]
    a, b = (Tokenizer.from_folder(x).encode(texts, max_tokens=512) for x in (minilm, tmp_path))
    assert a.ids == b.ids and len(a) > 500


def test_truncation_and_padding_baked_into_a_file_are_off(minilm):
    """MiniLM's tokenizer.json pads and cuts every text to 128."""
    tokenizer = Tokenizer.from_folder(minilm)
    baked = json.loads((minilm / "tokenizer.json").read_bytes())
    assert baked["truncation"]["max_length"] == 128 and baked["padding"]["strategy"]["Fixed"] == 128
    found = tokenizer.encode(["a", "a " * 300], max_tokens=512)
    assert [len(x) for x in found.ids] == [3, 302]


# --- cutting and counting -------------------------------------------------------------------------

TEN = "1 2 3 the cat sat on a mat dog"
CUTS = {
    ("head", 12): "1 2 3 the cat sat on a mat dog",
    ("head", 7): "1 2 3 the cat",
    ("head", 3): "1",
    ("tail", 7): "sat on a mat dog",
    ("tail", 3): "dog",
    ("head+tail", 9): "1 2 3 the cat sat dog",
    ("head+tail", 10): "1 2 3 the cat sat mat dog",
    ("head+tail", 7): "1 2 3 the dog",
    ("head+tail", 3): "1",
}


@pytest.mark.parametrize(("case", "expected"), CUTS.items(), ids=str)
def test_each_strategy_keeps_what_it_says(bert, case, expected):
    [text], found = cut(bert, TEN, truncation=case[0], max_tokens=case[1])
    assert text == f"[CLS] {expected} [SEP]" and len(found.ids[0]) <= case[1]
    assert found.tokens.tolist() == [12] and found.cut.tolist() == [10 - len(expected.split())]


PAIR_CUTS = {  # room beside three special tokens; the longer side gives way
    ("head", 13): ("1 2 3 the cat sat on a", "a a"),
    ("head", 8): ("1 2 3", "a a"),
    ("head", 7): ("1 2", "a a"),
    ("head", 6): ("1 2", "a"),
    ("head", 5): ("1", "a"),
    ("tail", 8): ("a mat dog", "a a"),
}


@pytest.mark.parametrize(("case", "expected"), PAIR_CUTS.items(), ids=str)
def test_of_a_pair_the_longer_side_gives_way(bert, case, expected):
    options = {"truncation": case[0], "max_tokens": case[1]}
    a, b = expected
    assert cut(bert, TEN, "a a", **options)[0] == [f"[CLS] {a} [SEP] {b} [SEP]"]
    [text], found = cut(bert, "a a", TEN, **options)
    kept = len(text.split()) - 3
    assert text.startswith("[CLS] a") and kept <= case[1] - 3 and found.cut.tolist() == [12 - kept]
    assert len(found.segments[0]) == len(found.ids[0])


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
@settings(max_examples=150, deadline=None)
def test_no_side_of_a_pair_vanishes(a, b, room):
    left, right = fit(list(range(a)), list(range(b)), room, "head")
    assert len(left) + len(right) == min(a + b, room)
    assert bool(left) == bool(a) and bool(right) == bool(b)
    if a and b and len(left) < a and len(right) < b:
        assert abs(len(left) - len(right)) <= 1, "both are cut only when they are alike"


def test_error_refuses_and_names_the_row(bert):
    with pytest.raises(DataError, match='row 41 has 12 tokens, over max_tokens = 11.*\n.*"head+'):
        bert.encode(["a", TEN], max_tokens=11, truncation="error", rows=[7, 41])
    assert bert.encode([TEN], max_tokens=12, truncation="error").cut.tolist() == [0]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 19), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_windows_hold_every_token_with_the_overlap_stated(n, room, stride, most):
    stride %= room
    ids = list(range(n))
    pieces = [piece for piece, _ in windows(ids, room, stride, 1000)]
    assert pieces[0][:stride] + [x for p in pieces for x in (p if p is pieces[0] else p[stride:])] == (
        ids[:stride] + ids
    )
    for before, after in zip(pieces, pieces[1:]):
        assert len(before) == room and after[:stride] == before[room - stride :] and len(after) > stride
    assert [p for p, _ in windows(ids, room, stride, most)] == pieces[:most]


def test_windows_are_framed_and_counted(bert):
    found = bert.encode(["a", TEN, ""], max_tokens=6, truncation="window", stride=1)
    assert [words(bert, x) for x in found.ids[1:4]] == [
        "[CLS] 1 2 3 the [SEP]",
        "[CLS] the cat sat on [SEP]",
        "[CLS] on a mat dog [SEP]",
    ]
    assert found.pieces.tolist() == [0, 1, 4, 5] and found.cut.tolist() == [0, 0, 0]
    assert found.tokens.tolist() == [3, 12, 2] and found.lengths.tolist() == [3, 18, 2]
    few = bert.encode([TEN], max_tokens=6, truncation="window", stride=1, max_windows=2)
    assert few.cut.tolist() == [3] and few.lengths.tolist() == [12]


def test_what_is_counted(bert):
    texts = ["the cat", "[SEP] 猫", TEN, "[MASK] [mask]"]
    found = bert.encode(texts, max_tokens=8)  # [SEP] is read as [ s ##e ##p ]
    assert len(found) == 4 and found.tokens.tolist() == [4, 8, 12, 14]
    assert found.cut.tolist() == [0, 0, 4, 6] and found.specials == 2 and found.one_sided == 0
    unknown = sum(x.count(1) for x in found.ids)
    assert found.unknown == unknown / sum(map(len, found.ids)) and unknown >= 1
    summary = found.summary()
    assert summary["truncated"] == {"texts": 2, "share_of_texts": 0.5, "share_of_tokens": 10 / 38}
    assert summary["tokens"] == {"min": 4, "median": 10, "p95": 13, "max": 14}
    assert summary["special_names_in_text"] == 2 and summary["unknown_share"] == found.unknown
    assert json.loads(json.dumps(summary)) == summary


def test_one_sided_pairs_are_counted(bert):
    found = bert.encode(["a a", "a", TEN], [TEN, TEN, "a"], max_tokens=5)
    assert found.one_sided == 1, "a side that was one token from the start is not cut"


def test_nothing_to_encode(bert):
    found = bert.encode([], max_tokens=9)
    assert len(found) == 0 and found.lengths.tolist() == [] and found.summary()["truncated"]["texts"] == 0


def test_tokens_are_counted_before_any_cut(bert):
    assert bert.encode(["the cat", TEN], max_tokens=5).tokens.tolist() == [4, 12]
    assert bert.encode(["the cat", TEN], ["a", ""], max_tokens=6).tokens.tolist() == [6, 13]


def test_many_texts_come_back_in_order(bert):
    texts = [" ".join(["the"] * (i % 7)) for i in range(2500)]
    found = bert.encode(texts, max_tokens=20)
    assert [len(x) - 2 for x in found.ids] == [i % 7 for i in range(2500)]


# --- names of special tokens are text -------------------------------------------------------------


def test_special_names_in_a_text_are_text(bert, roberta):
    found = bert.encode(["a [SEP] b [PAD] [CLS]"], max_tokens=60)
    assert found.ids[0].count(2) == 1 and found.ids[0].count(3) == 1 and 0 not in found.ids[0]
    assert found.specials == 1
    found = roberta.encode(["a </s> b <pad><mask>"], max_tokens=60)
    assert found.ids[0].count(0) == 1 and found.ids[0].count(2) == 1 and not {1, 4} & set(found.ids[0])
    assert found.specials == 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"bytes", ["a"], np.nan])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_text_is_named_by_its_row(bert, value, side):
    sides = [["a", "b", "c"], ["a", "b", "c"]]
    sides[side][2] = value
    with pytest.raises(DataError, match=f"row 70: the text is .*{type(value).__name__}, not a string"):
        bert.encode(*sides, max_tokens=9, rows=[5, 6, 70])


def test_half_a_surrogate_pair_is_named(bert):
    with pytest.raises(DataError, match=r"row 1: character 2 is U\+D800"):
        bert.encode(["a", "ab\ud800"], max_tokens=9)


@pytest.mark.parametrize("texts", ["the cat", ("the cat", "a cat")])
def test_a_lone_string_is_no_list(bert, texts):
    with pytest.raises(DataError, match="list of strings"):
        bert.encode(*([texts] if isinstance(texts, str) else [["a", "b"], "ab"]), max_tokens=9)


def test_pairs_must_be_as_many(bert):
    with pytest.raises(DataError, match="2 texts and 1 second texts"):
        bert.encode(["a", "b"], ["c"], max_tokens=9)


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail", "error", "window"])
@pytest.mark.parametrize("most", [-1, 0, 1, 2])
def test_max_tokens_must_leave_room(bert, most, truncation):
    with pytest.raises(TokenizerError, match=f"max_tokens = {most} leaves no room beside 2 special tokens"):
        bert.encode(["the cat"], max_tokens=most, truncation=truncation, stride=0)


@pytest.mark.parametrize("most", [3, 4])
def test_a_pair_needs_room_for_both(bert, most):
    with pytest.raises(TokenizerError, match="beside 3 special tokens"):
        bert.encode(["the cat"], ["sat"], max_tokens=most)


@pytest.mark.parametrize("stride", [-1, 4, 5, 100])
def test_a_stride_that_does_not_move_on_is_refused(bert, stride):
    with within(10), pytest.raises(TokenizerError, match=f"stride = {stride} must be below the 4"):
        bert.encode([TEN], max_tokens=6, truncation="window", stride=stride)
    assert bert.encode([TEN], max_tokens=6, truncation="head", stride=stride).cut.tolist() == [6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "haed"}, r'none of head, tail, .*did you mean "head"\?'),
        ({"truncation": "window", "stride": 0, "max_windows": 0}, "max_windows = 0"),
        ({"truncation": "window", "stride": 0, "pairs": ["x"]}, "for single texts, not for pairs"),
    ],
)
def test_options_that_make_no_sense(bert, options, message):
    """Refused before any text is looked at, also where none is long enough to be cut."""
    with pytest.raises(TokenizerError, match=message):
        bert.encode(["a"], max_tokens=9, **options)


def test_a_huge_text_is_refused_and_a_large_one_is_quick(bert):
    with pytest.raises(DataError, match="row 0: the text has 10,000,001 characters"):
        bert.encode(["a" * 10_000_001], max_tokens=9)
    start = time.monotonic()
    found = bert.encode(["e" + "\u0301" * 200_000, "the cat " * 50_000], max_tokens=9)
    assert time.monotonic() - start < 20 and found.tokens[1] == 100_002


def test_a_panic_of_the_backend_is_our_error(bert, monkeypatch):
    class PanicException(BaseException):
        pass

    class Broken:
        def encode_batch_fast(self, *_, **__):
            raise PanicException("index out of bounds")

    monkeypatch.setattr(bert, "backend", Broken())
    with pytest.raises(TokenizerError, match="index out of bounds"):
        bert.encode(["a"], max_tokens=9)


# --- files ----------------------------------------------------------------------------------------


def folder_with(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return tmp_path


PLAIN = "\n".join(VOCAB).encode()
LOWER = {"do_lower_case": True}
BROKEN = {
    "nothing": ({}, "holds no tokenizer"),
    "an empty tokenizer.json": ({"tokenizer__json": b""}, "can't be read as a tokenizer"),
    "an empty table": ({"tokenizer__json": {}}, "can't be read as a tokenizer"),
    "no json": ({"tokenizer__json": b"<html>"}, "can't be read as a tokenizer"),
    "of a newer library": (
        {"tokenizer__json": {"version": "1.0", "model": {"type": "Newer", "vocab": {}}}},
        "can't be read as a tokenizer",
    ),
    "no frame": (
        {"tokenizer__json": {"model": {"type": "WordLevel", "vocab": {"a": 0, "the": 1}, "unk_token": "a"}}},
        "no special tokens around a text",
    ),
    "only SentencePiece": ({"sentencepiece__bpe__model": b"\n"}, "holds no tokenizer"),
    "vocab.txt without the case": ({"vocab__txt": PLAIN}, "does not say whether the model is cased"),
    "the case as a word": (
        {"vocab__txt": PLAIN, "tokenizer_config__json": {"do_lower_case": "true"}},
        "does not say whether the model is cased",
    ),
    "no special tokens": (
        {"vocab__txt": b"a\nb\n", "tokenizer_config__json": LOWER},
        r"lacks the special tokens \[UNK\], \[CLS\], \[SEP\]",
    ),
    "vocab.txt in latin-1": ({"vocab__txt": PLAIN + b"\n\xe9", "tokenizer_config__json": LOWER}, "no UTF-8"),
    "a damaged config": ({"vocab__txt": PLAIN, "tokenizer_config__json": b"{"}, "line 1, column 2"),
    "merges missing": ({"vocab__json": {"<s>": 0}}, "holds no tokenizer"),
    "damaged vocab.json": ({"vocab__json": b"{", "merges__txt": b""}, "can't be read"),
    "damaged merges": ({"vocab__json": {"a": 0}, "merges__txt": b"a b c d\n"}, "can't be read"),
    "merges in latin-1": ({"vocab__json": {"a": 0}, "merges__txt": b"\xe9 \xe9\n"}, "can't be read"),
    "pairs without specials": (
        {"vocab__json": {"a": 0, "b": 1}, "merges__txt": b"#version: 0.2\n"},
        "lacks the special tokens <s>, </s>, <pad>",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_damaged_files_are_named(tmp_path, fault):
    files, message = BROKEN[fault]
    with within(10), pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_folder(folder_with(tmp_path, **files))
    assert str(tmp_path) in str(caught.value)
    assert ("SentencePiece" in str(caught.value)) == ("sentencepiece__bpe__model" in files)
    assert ("may need a newer tokenizers" in str(caught.value)) == (fault == "of a newer library")


def test_files_are_kept_byte_for_byte(minilm):
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    assert Tokenizer.from_folder(minilm).files == {name: (minilm / name).read_bytes() for name in names}


def test_a_vocabulary_may_hold_line_separators_as_words(tmp_path):
    """Published ones do; they are words, not ends of lines."""
    text = "\n".join([*VOCAB, "\u2028", "\x85", "last"]) + "\n"
    tokenizer = Tokenizer.from_folder(
        folder_with(tmp_path, vocab__txt=text.encode(), tokenizer_config__json=LOWER)
    )
    assert tokenizer.largest_id == len(VOCAB) + 2
    assert tokenizer.encode(["last"], max_tokens=9).ids == [[2, len(VOCAB) + 2, 3]]


def test_special_tokens_may_be_written_as_tables(tmp_path):
    table = {"__type": "AddedToken", "content": "[UNK]", "lstrip": False}
    settings_ = {**LOWER, "unk_token": table, "pad_token": None}
    tokenizer = Tokenizer.from_folder(
        folder_with(tmp_path, vocab__txt=PLAIN, tokenizer_config__json=settings_)
    )
    assert tokenizer.unknown_id == 1


def test_two_files_that_disagree_about_case_are_told(tmp_path, capsys):
    folder = write_wordpiece(tmp_path, form="tokenizer.json", lower=True)
    Tokenizer.from_folder(folder)
    assert capsys.readouterr().err == ""
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert cut(Tokenizer.from_folder(folder), "The CAT", max_tokens=9)[0] == ["[CLS] the cat [SEP]"]
    assert "tokenizer.json is followed" in capsys.readouterr().err


def test_a_vocabulary_larger_than_the_table_is_refused(bert):
    bert.check_fits(len(VOCAB))
    with pytest.raises(TokenizerError, match=f"has 80 word rows.*'{VOCAB[80]}' = 80"):
        bert.check_fits(80, "the model")


def test_of_two_masks_the_special_one_is_meant(tmp_path):
    """MPNet's vocabulary holds BERT's [MASK] as a word; its own mask is <mask>."""
    from tokenizers import BertWordPieceTokenizer

    from .helpers import VOCAB

    vocab = {word: i for i, word in enumerate([*VOCAB, "<mask>"])}
    backend = BertWordPieceTokenizer(vocab)._tokenizer
    plain = backend.__class__.from_str(backend.to_str())
    table = json.loads(plain.to_str())
    table["added_tokens"] = [t for t in table["added_tokens"] if t["content"] != "[MASK]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    found = Tokenizer.from_folder(tmp_path)
    assert found.mask == "[MASK]", "no special one: the word will do"
    found.backend.add_special_tokens(["<mask>"])
    again = Tokenizer(found.backend)
    assert again.mask == "<mask>" and again.mask_id == vocab["<mask>"]
