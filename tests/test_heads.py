"""Heads: losses as sums and counts, predictions in original units."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from minibert import heads, pooling
from minibert.batch import pack
from minibert.errors import DataError

from .helpers import CLASSES, FAMILIES, LENGTHS, close, fill, toy_config

LAYOUT = pack([[1] * n for n in LENGTHS]).layout
PADDED = pack([[1] * n for n in LENGTHS], fill_to=30).layout
HIDDEN = torch.randn(30, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.tensor([6, 0, 3])


def classification(family="bert", **changes):
    head = heads.Classification(toy_config(family, **changes), CLASSES).double()
    fill(head)
    return head.eval()


def regression(family="bert"):
    head = heads.Regression(toy_config(family)).double()
    fill(head)
    return head.eval()


@pytest.mark.parametrize("name", pooling.POOLING)
def test_heads_never_see_filler(name):
    """Whatever stands in it, and no gradient reaches it."""
    hidden = HIDDEN.clone()
    hidden[18:] = torch.nan
    hidden.requires_grad_()
    for head in (
        heads.Classification(toy_config(), 7, name).double(),
        heads.Regression(toy_config(), 1, name).double(),
    ):
        out = head.eval()(hidden, PADDED)
        assert torch.isfinite(out).all() and len(out) == 3
        gradient = torch.autograd.grad(out.sum(), hidden)[0]
        assert not gradient[18:].any() and gradient[:18].any()


# --- what a head computes -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make", [classification, regression])
def test_logits_are_dense_tanh_linear_of_the_first_token(make, family):
    head = make(family)
    first = HIDDEN[[0, 5, 16]]
    read = torch.tanh(first @ head.read.dense.weight.T + head.read.dense.bias)
    expected = read @ head.out.weight.T + head.out.bias
    expected = expected[:, 0] if make is regression else expected
    close(head(HIDDEN[:18], LAYOUT), expected, "hidden float64")


def test_dropout_stands_where_each_family_has_it():
    """BERT: behind the pooler. RoBERTa: in front of the dense layer too. Its share: the head's own, if stated."""
    before = {family: classification(family).read.before.p for family in FAMILIES}
    assert before == {"bert": 0.0, "roberta": 0.1}
    own = classification("roberta", classifier_dropout=0.4).read
    assert (own.before.p, own.dropout.p) == (0.4, 0.4)
    for family in FAMILIES:
        head = classification(family)
        assert torch.equal(head(HIDDEN[:18], LAYOUT), head(HIDDEN[:18], LAYOUT))
        head.train()
        assert not torch.equal(head(HIDDEN[:18], LAYOUT), head(HIDDEN[:18], LAYOUT))


# --- losses ---------------------------------------------------------------------------------------


def test_cross_entropy_is_a_sum_and_a_count():
    logits = torch.randn(3, CLASSES, dtype=torch.float64)
    total, count = classification().loss(logits, TARGETS)
    assert count == 3
    close(total / count, F.cross_entropy(logits, TARGETS), "hidden float64")


def test_class_weights_divide_by_their_own_sum():
    logits, weights = (
        torch.randn(3, CLASSES, dtype=torch.float64),
        torch.rand(CLASSES, dtype=torch.float64) + 0.1,
    )
    total, count = classification().loss(logits, TARGETS, weights)
    close(total / count, F.cross_entropy(logits, TARGETS, weights), "hidden float64")


@pytest.mark.parametrize(
    "weights", [None, torch.arange(1.0, 8, dtype=torch.float64)], ids=["plain", "weighted"]
)
def test_losses_add_over_micro_batches(weights):
    logits, head = torch.randn(3, CLASSES, dtype=torch.float64), classification()
    parts = [head.loss(logits[part], TARGETS[part], weights) for part in ([0], [1, 2])]
    total, count = head.loss(logits, TARGETS, weights)
    close(sum(p[0] for p in parts), total, "hidden float64")
    assert sum(p[1] for p in parts) == count


def test_probabilities_sum_to_1():
    found = classification().predict(torch.randn(3, CLASSES, dtype=torch.float64) * 30)
    close(found.sum(-1), torch.ones(3, dtype=torch.float64), "hidden float64")


# --- regression -----------------------------------------------------------------------------------

YEARS = torch.tensor([1900.0, 1950.0, 2020.0, 1987.0], dtype=torch.float64)


def test_targets_are_standardised_and_predictions_come_back_in_their_units():
    head = regression()
    head.standardise(YEARS)
    assert abs(head.mean - 1964.25) < 1e-9 and abs(head.deviation - float(YEARS.std(correction=0))) < 1e-9
    logits = torch.randn(4, dtype=torch.float64)
    total, count = head.loss(logits, YEARS)
    close(total / count, F.mse_loss(logits, (YEARS - head.mean) / head.deviation), "hidden float64")
    assert count == 4
    perfect = (YEARS - head.mean) / head.deviation
    assert head.loss(perfect, YEARS)[0] < 1e-20
    assert (head.predict(perfect) - YEARS).abs().max() < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_the_published_state_gives_original_units_by_itself(family):
    head, plain = regression(family), regression(family)
    head.standardise(YEARS)
    wanted = head.predict(head(HIDDEN[:18], LAYOUT))
    plain.load_state_dict(head.published())
    assert (plain(HIDDEN[:18], LAYOUT) - wanted).abs().max() < 1e-9
    assert (wanted - head(HIDDEN[:18], LAYOUT)).abs().min() > 100, "the two differ, so the folding was needed"
    assert torch.equal(head.out.weight, regression(family).out.weight), "publishing leaves the head as it is"


def test_a_column_of_logits_is_never_broadcast():
    """(B, 1) against (B,) would be B x B differences without a word."""
    with pytest.raises(ValueError, match="differ in shape"):
        regression().loss(torch.zeros(4, 1), YEARS)


@pytest.mark.parametrize("targets", [[3.0, 3.0, 3.0], [1.0], [1.0, float("nan")]])
def test_targets_without_spread_are_refused(targets):
    with pytest.raises(DataError, match="nothing to learn"):
        regression().standardise(torch.tensor(targets))
