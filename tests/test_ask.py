"""Hidden words, answers to choose from, answers inside a text: best first, and right letters."""

from __future__ import annotations

import itertools

import pytest
import torch

import minibert
from minibert import ask
from minibert.align import encode_spans
from minibert.errors import ConfigError, DataError

from .helpers import fill, write_model

TEXT = "the cat sat on a mat. the dog ran fast. it is not a dog, is it? the cat is unable."


@pytest.fixture(params=["bert", "roberta"])
def family(request):
    return request.param


def made(tmp_path, family, head, **options):
    model = minibert.load(write_model(tmp_path, family), head, device="cpu", **options)
    fill(model.head, 5)
    return model


def test_words_are_those_of_the_logits(tmp_path, family):
    model = made(tmp_path, family, "mlm")
    found = ask.fill(model, "the [MASK] sat on the [MASK] .", top=4)
    assert [w.mask for w in found] == [0] * 4 + [1] * 4
    tokenizer = model.tokenizer
    ids = tokenizer.with_masks(f"the {tokenizer.mask} sat on the {tokenizer.mask} .")
    places = [i for i, t in enumerate(ids) if t == tokenizer.mask_id]
    assert len(places) == 2
    with torch.no_grad():
        right = model(minibert.pack([ids]))[places].softmax(-1).topk(4)
    assert [w.probability for w in found] == pytest.approx(right.values.flatten().tolist(), rel=1e-5)
    own = ask.fill(model, f"the {tokenizer.mask} sat on the {tokenizer.mask} .", top=4)
    assert own == found, "the model's own mask token will do as well"


def test_a_mask_typed_elsewhere_stays_text(tmp_path):
    """Reading masks is for `fill` alone: a text that holds [MASK] is a text."""
    model = made(tmp_path, "bert", "mlm")
    ask.fill(model, "the [MASK]")
    assert model.tokenizer.mask_id not in model.tokenize(["the [MASK]"]).ids[0]


def test_what_fill_needs(tmp_path):
    model = made(tmp_path / "a", "bert", "mlm")
    with pytest.raises(DataError, match=r"has no \[MASK\]"):
        ask.fill(model, "the cat")
    with pytest.raises(DataError, match="holds 53"):
        ask.fill(model, "the [MASK] " * 60)
    with pytest.raises(ConfigError, match="holds no masked-language head"):
        ask.filler(str(write_model(tmp_path / "b")))
    with pytest.raises(ConfigError, match="has no head, not 'mlm'"):
        ask.fill(minibert.load(write_model(tmp_path / "c"), device="cpu"), "the [MASK]")


def test_a_head_of_the_file_is_taken(tmp_path, family):
    model = made(tmp_path / "in", family, "mlm")
    model.save(tmp_path / "out")
    again = ask.filler(str(tmp_path / "out"), device="cpu")
    assert ask.fill(again, "the [MASK]") == ask.fill(model, "the [MASK]")


def test_choosing_is_a_softmax_over_each_answers_score(tmp_path, family):
    model = made(tmp_path, family, "choice")
    answers = ["the cat", "a dog ran fast", "un"]
    found = ask.choose(model, "it is not", answers)
    with torch.no_grad():
        alone = torch.stack([model(model.encode(["it is not"], [a]))[0] for a in answers])
    assert found == pytest.approx(alone.double().softmax(0).tolist(), rel=1e-4) and sum(
        found
    ) == pytest.approx(1)
    with pytest.raises(DataError, match="two answers"):
        ask.choose(model, "it is", ["a"])


def by_hand(model, question, text, longest):
    """Every stretch of every window with its score, the best of each."""
    windows = encode_spans(
        model.tokenizer, [question], [text], max_tokens=model.reading["max_tokens"], stride=4
    )
    best = {}
    for ids, segments, first, offsets in zip(windows.ids, windows.segments, windows.first, windows.offsets):
        with torch.no_grad():
            lines = model(
                minibert.pack([ids], [segments] if model.config.num_segments > 1 else None)
            ).double()
        for i, j in itertools.product(range(len(offsets)), repeat=2):
            if i <= j < i + longest:
                a, b = offsets[i][0], offsets[j][1]
                a += len(text[a:b]) - len(text[a:b].lstrip())
                b -= len(text[a:b]) - len(text[a:b].rstrip())
                if a >= b:
                    continue
                score = float(lines[first + i, 0] + lines[first + j, 1])
                best[a, b] = max(best.get((a, b), -1e9), score)
    return sorted(best.items(), key=lambda x: -x[1])


@pytest.mark.parametrize("most", [24, 51])
def test_answers_are_the_best_stretches_of_all_windows(tmp_path, family, most):
    model = made(tmp_path, family, "span")
    model.reading["max_tokens"] = most
    (found,) = ask.answer(model, ["the cat"], [TEXT], n_best=6, longest=3, stride=4)
    right = by_hand(model, "the cat", TEXT, 3)[:6]
    assert [(x.start, x.end) for x in found] == [span for span, _ in right]
    assert [x.score for x in found] == pytest.approx([s for _, s in right], abs=1e-4)
    assert all(x.text == TEXT[x.start : x.end] and x.text == x.text.strip() for x in found)
    assert sum(x.probability for x in found) == pytest.approx(1)


def test_no_answer_competes_only_where_it_may(tmp_path):
    model = made(tmp_path, "bert", "span")
    with torch.no_grad():
        model.head.out.bias[:] = 0
    both = [ask.answer(model, ["a"], [TEXT], n_best=3, none_allowed=x)[0] for x in (False, True)]
    assert all(x.text for x in both[0])
    (nothing,) = [
        x for x in ask.answer(model, ["a"], [TEXT], n_best=5000, none_allowed=True)[0] if not x.text
    ]
    assert (nothing.start, nothing.end) == (0, 0) and nothing.score != 0


def test_a_lone_string_is_no_list_of_letters(tmp_path):
    with pytest.raises(DataError, match="two answers"):
        ask.choose(made(tmp_path / "a", "bert", "choice"), "it is", "abc")
    with pytest.raises(ConfigError, match="not one string"):
        ask.answer(made(tmp_path / "b", "bert", "span"), "who", "abc")
    with pytest.raises(DataError, match="one text, not a list"):
        ask.fill(made(tmp_path / "c", "bert", "mlm"), ["the [MASK]"])


def test_other_signs_in_a_text_are_told(tmp_path):
    with pytest.raises(DataError, match=r"holds \[SEP\]"):
        ask.fill(made(tmp_path, "bert", "mlm"), "a [SEP] b [MASK]")


def test_answers_too_long_to_be_read_are_told(tmp_path):
    with pytest.raises(DataError, match="over max_tokens"):
        ask.choose(made(tmp_path, "bert", "choice"), "it is", ["the cat", "the dog " * 60])


@pytest.mark.parametrize("wrong", [{"n_best": 0}, {"longest": 0}, {"stride": -1}])
def test_wishes_of_answer_are_checked(tmp_path, wrong):
    with pytest.raises((ConfigError, DataError), match=next(iter(wrong))):
        ask.answer(made(tmp_path, "bert", "span"), ["a"], [TEXT], **wrong)
