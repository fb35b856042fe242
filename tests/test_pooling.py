"""Pooling against a plain loop, in low precision, of no texts; and what stands behind it."""

from __future__ import annotations

import pytest
import torch

from minibert import pooling
from minibert.batch import pack

from .helpers import LENGTHS, close

LAYOUT = pack([[1] * n for n in LENGTHS]).layout
PADDED = pack([[1] * n for n in LENGTHS], fill_to=30).layout
HIDDEN = torch.randn(30, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

BY_LOOP = {
    "cls": lambda text: text[0],
    "lasttoken": lambda text: text[-1],
    "mean": lambda text: sum(text) / len(text),
    "mean_sqrt_len_tokens": lambda text: sum(text) / len(text) ** 0.5,
    "max": lambda text: text.max(0).values,
    "weightedmean": lambda text: (
        sum((i + 1) * token for i, token in enumerate(text)) / sum(i + 1 for i in range(len(text)))
    ),
}


@pytest.mark.parametrize("layout", [LAYOUT, PADDED], ids=["plain", "filler"])
@pytest.mark.parametrize("name", pooling.POOLING)
def test_pooling_against_a_loop(name, layout):
    hidden = HIDDEN[: sum(layout.lengths)]
    expected = torch.stack([BY_LOOP[name](text) for text in HIDDEN[:18].split(LENGTHS)])
    close(pooling.POOLING[name](hidden, layout), expected, "hidden float64")


@pytest.mark.parametrize("name", pooling.POOLING)
def test_pooling_of_no_texts(name):
    for layout in (pack([]).layout, pack([], fill_to=4).layout):
        assert pooling.POOLING[name](torch.ones(sum(layout.lengths), 24), layout).shape == (0, 24)


def test_the_mean_of_many_tokens_in_low_precision():
    """Summed in bfloat16, 700 ones would stop at 256."""
    found = pooling.mean_pooling(torch.ones(700, 4, dtype=torch.bfloat16), pack([[1] * 700]).layout)
    assert found.dtype == torch.bfloat16 and found.tolist() == [[1.0] * 4]


@pytest.mark.parametrize("normalise", [True, False])
def test_embedding(normalise):
    out = pooling.Embedding("mean", normalise)(HIDDEN[:18], LAYOUT)
    expected = pooling.mean_pooling(HIDDEN[:18], LAYOUT)
    if normalise:
        expected = expected / (expected**2).sum(-1, keepdim=True).sqrt()
    close(out, expected, "hidden float64")


def test_pool_pieces_is_the_mean_of_a_texts_pieces():
    logits, owners = torch.randn(6, 7, dtype=torch.float64), torch.tensor([2, 0, 0, 1, 2, 2])
    found = pooling.pool_pieces(logits, owners, 3)
    expected = torch.stack([logits[[1, 2]].mean(0), logits[3], logits[[0, 4, 5]].mean(0)])
    close(found, expected, "hidden float64")
    close(pooling.pool_pieces(logits[:, 0], owners, 3), expected[:, 0], "hidden float64")


def test_several_poolings_stand_side_by_side():
    out = pooling.Embedding(("max", "cls"), False)
    found = out(HIDDEN[:18], LAYOUT)
    expected = torch.cat(
        [pooling.max_pooling(HIDDEN[:18], LAYOUT), pooling.cls_pooling(HIDDEN[:18], LAYOUT)], -1
    )
    close(found, expected, "hidden float64")
    assert out.width(24) == found.shape[1] == 48
