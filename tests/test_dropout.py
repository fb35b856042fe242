"""Dropout of hidden states: the right share, alike in any pack, the same backward, the same in C++."""

from __future__ import annotations

import pytest
import torch

from minibert import kernels, pack
from minibert.dropout import ATTENTION, EMBEDDINGS, FEED_FORWARD, Dropout, drop
from minibert.kernels import counter, native

from .helpers import toy_batch, toy_encoder

LENGTHS, D = (5, 11, 2), 24


def batch_of(lengths=LENGTHS, rows=None, key=(3, 4), **more):
    return pack([[1] * n for n in lengths], rows=rows, key=key, **more)


def test_a_share_is_dropped_and_the_mean_stays():
    batch = batch_of((300, 200))
    out = Dropout(0.3, ATTENTION).train()(torch.ones(500, 64), batch.layout)
    assert abs((out == 0).float().mean().item() - 0.3) < 0.01
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7]) and abs(out.mean().item() - 1) < 0.02
    columns, rows = (out == 0).float().mean(0), (out == 0).float().mean(1)
    assert columns.std() < 0.035 and rows.std() < 0.09, "neither a column nor a token is favoured"


def test_nothing_is_dropped_outside_of_training():
    x, layout = torch.randn(18, D), batch_of().layout
    assert Dropout(0.5, ATTENTION).eval()(x, layout) is x and Dropout(0.0, ATTENTION).train()(x, layout) is x


def test_a_text_loses_the_same_in_any_pack_and_order():
    whole = batch_of(rows=[7, 2**40, 3])
    x = torch.randn(18, D)
    dropout = Dropout(0.5, FEED_FORWARD).train()
    for text, part, row in zip(range(3), x.split(LENGTHS), (7, 2**40, 3)):
        alone = batch_of((LENGTHS[text],), rows=[row], fill_to=20)
        padded = torch.cat([part, torch.zeros(20 - len(part), D)])
        assert torch.equal(
            dropout(padded, alone.layout)[: len(part)], dropout(x, whole.layout).split(LENGTHS)[text]
        )


def test_step_seed_layer_and_place_draw_others():
    x = torch.ones(18, D)
    masks = [
        Dropout(0.5, place).train()(x, batch_of(key=key).layout.at(layer))
        for key, layer, place in (
            ((3, 4), 0, EMBEDDINGS),
            ((3, 5), 0, EMBEDDINGS),
            ((4, 4), 0, EMBEDDINGS),
            ((3, 4), 1, EMBEDDINGS),
            ((3, 4), 0, ATTENTION),
            ((3, 4), 0, FEED_FORWARD),
        )
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_the_backward_pass_draws_the_same_and_keeps_nothing():
    x = torch.randn(18, D, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.4, ATTENTION).train()(x, batch_of().layout)
    assert not out.grad_fn.saved_tensors
    out.sum().backward()
    assert torch.equal(x.grad, (out != 0).double() * (1 / (1 - 0.4)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 5, 24, 64, 384])
def test_the_compiled_form_gives_the_same_bits(can, width, dtype):
    can("native")
    batch = batch_of((5, 130, 1, 2), rows=[7, 2**40, -1, 9], fill_to=150)
    x, rule = torch.randn(150, width, dtype=dtype), kernels.Dropout(0.1, (2**33, 4, -5))
    assert torch.equal(native.drop_hidden(x, batch.layout, rule), counter.drop_hidden(x, batch.layout, rule))


def test_it_takes_what_is_not_contiguous_and_what_is_empty():
    x, rule = torch.randn(D, 18), kernels.Dropout(0.5, (0, 0, -1))
    assert torch.equal(drop(x.T, batch_of().layout, rule), drop(x.T.contiguous(), batch_of().layout, rule))
    assert drop(torch.zeros(0, D), batch_of(()).layout, rule).shape == (0, D)


def test_an_encoder_gives_a_text_the_same_in_any_micro_batch():
    encoder = toy_encoder(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
    batch = toy_batch()
    whole = encoder(batch).split(batch.layout.lengths)
    for text, ids in enumerate(batch.token_ids.split(batch.layout.lengths)):
        alone = pack([ids.tolist()], [batch.segments.split(batch.layout.lengths)[text].tolist()], rows=[text])
        assert torch.allclose(encoder(alone), whole[text], atol=1e-5)
