"""Ids, segments and truncation as the reference's tokenizers give them, on real texts."""

from __future__ import annotations

import pytest

from minibert.tokenize import Tokenizer

from ..helpers import write_bytepairs, write_wordpiece

pytestmark = pytest.mark.reference
transformers = pytest.importorskip("transformers", reason="the reference is not installed")

ODD = [
    "",
    " ",
    "Ünable — “cats” running?!",
    "日本 🐈 e\u0301",
    "a [SEP] b [PAD] </s> <mask>",
    "x" * 300,
    "a\u2028b\tc\r\nd",
]


@pytest.fixture(params=["minilm", "vocab.txt", "vocab.json"])
def both(request, tmp_path):
    """(ours, theirs) from the same files."""
    if request.param == "minilm":
        folder = request.getfixturevalue("minilm")
        return Tokenizer.from_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)
    if request.param == "vocab.txt":
        folder = write_wordpiece(tmp_path)
        return Tokenizer.from_folder(folder), transformers.BertTokenizer.from_pretrained(folder)
    folder = write_bytepairs(tmp_path)
    return Tokenizer.from_folder(folder), transformers.RobertaTokenizer.from_pretrained(folder)


def theirs_of(tokenizer, texts, pairs, most):
    """Special tokens in a text are read as text, as ours are."""
    found = tokenizer(
        texts, pairs, truncation=True, max_length=most, split_special_tokens=True, return_token_type_ids=True
    )
    return found["input_ids"], found["token_type_ids"]


@pytest.mark.parametrize("most", [5, 16, 64, 512])
def test_single_texts(both, real_texts, most):
    ours, theirs = both
    texts = [*ODD, *real_texts]
    found = ours.encode(texts, max_tokens=most)
    ids, segments = theirs_of(theirs, texts, None, most)
    assert found.ids == ids and found.segments == segments
    assert (most > 100) or found.cut.sum() > 0


@pytest.mark.parametrize("most", [6, 15, 16, 64, 512])
def test_pairs(both, real_pairs, most):
    """The reference's strategy longest_first, in rooms odd and even."""
    ours, theirs = both
    a, b = ([*ODD, *ODD[::-1], *side] for side in zip(*real_pairs[:40]))
    b[: len(ODD)] = ODD[1:] + ODD[:1]
    for first, second in ((a, b), (b, a)):
        found = ours.encode(first, second, max_tokens=most)
        ids, segments = theirs_of(theirs, first, second, most)
        assert found.ids == ids and found.segments == segments
