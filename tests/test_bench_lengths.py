"""Lengths of texts: each distribution is what it says, fills its budget, and comes again from its seed."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.bench.lengths import DRAWS, drawn
from minibert.errors import ConfigError, DataError

from .helpers import write_model


@pytest.mark.parametrize("kind", DRAWS)
def test_every_one_fills_its_budget_and_comes_again(kind):
    found = drawn(f"{kind}:100", 4096, seed=3)
    assert found == drawn(f"{kind}:100", 4096, seed=3)
    assert found.tokens == (4000 if kind == "fixed" else 4096)
    assert min(found.texts) >= 1 and max(found.texts) <= 100
    assert found.facts()["mean"] == found.tokens / len(found.texts)


def test_each_is_what_it_says():
    texts = {kind: np.array(drawn(f"{kind}:100", 100_000).texts) for kind in DRAWS}
    assert set(texts["fixed"]) == {100}
    assert texts["uniform"].mean() == pytest.approx(50.5, abs=2) and texts["normal"].mean() == pytest.approx(
        50, 0.03
    )
    assert texts["uniform"].std() > texts["normal"].std() == pytest.approx(25, abs=2)
    assert (texts["zipf"] == 1).mean() == pytest.approx(2 * (texts["zipf"] == 2).mean(), rel=0.2)
    assert texts["one"][0] == 100 and set(texts["one"][1:-1]) == {6}


def test_padding_is_what_a_rectangle_would_hold():
    assert drawn("fixed:64", 640).padding_share == 0
    one = drawn("one:64", 64 + 4 * 4)
    assert one.texts == (64, 4, 4, 4, 4) and one.padding_share == pytest.approx(1 - 80 / (5 * 64))


def test_a_text_longer_than_the_budget_stays():
    assert drawn("fixed:8192", 4096).texts == (8192,)


def test_a_columns_own_lengths(tmp_path):
    model = write_model(tmp_path / "model")
    table = tmp_path / "a.csv"
    table.write_text("n,text\n1,the cat\n2,the cat sat on the mat\n3,\n", encoding="utf-8")
    found = drawn(f"csv:{table}:text", 200, weights=str(model))
    assert set(found.texts[:-1]) == {4, 8} and found.tokens == 200  # with [CLS] and [SEP]
    with pytest.raises(DataError, match="no column 'txt'; did you mean \"text\""):
        drawn(f"csv:{table}:txt", 200, weights=str(model))


@pytest.mark.parametrize(
    "word", ["uniform", "fixed:0", "fixed:x", "gauss:5", "csv:a.csv", "fixed:9999999", "normal:-3"]
)
def test_a_word_that_is_none_is_refused(word):
    with pytest.raises(ConfigError, match="--lengths"):
        drawn(word, 100)
