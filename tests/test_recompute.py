"""Computed again: the same values and gradients, dropout and all, and less that is kept."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minibert.recompute import recompute, recompute_activations

from .helpers import EVERY, toy_batch, toy_encoder


def gradients(encoder, batch):
    torch.manual_seed(3)  # dropout
    encoder.zero_grad()
    out = encoder(batch)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in encoder.parameters())]


@pytest.mark.parametrize("how", [recompute, recompute_activations])
@pytest.mark.parametrize("family", EVERY)
def test_values_and_gradients_are_the_same_bits(family, how):
    encoder, batch = toy_encoder(family).train(), toy_batch()
    plain = gradients(encoder, batch)
    how(encoder)
    how(encoder)  # twice is once
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(encoder, batch), strict=True))
    with torch.no_grad():
        assert torch.isfinite(encoder.eval()(batch)).all()


def kept(encoder, batch):
    """Bytes that the forward pass keeps for the backward pass, parameters aside."""
    own = {p.data_ptr() for p in encoder.parameters()}
    seen = {}

    def pack(x):
        if x.data_ptr() not in own:
            seen[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = encoder(batch)
    del out
    return sum(seen.values())


def test_a_block_whose_pass_was_wrapped_before_is_computed_again_all_the_same():
    encoder, batch = toy_encoder(num_hidden_layers=8).train(), toy_batch((40, 40, 40))
    for block in encoder.layers:
        block.forward = functools.partial(block.forward)  # as compiled.py leaves it
    before = kept(encoder, batch)
    recompute(encoder)
    assert kept(encoder, batch) < 0.4 * before


def test_less_is_kept():
    encoder, batch = toy_encoder(num_hidden_layers=8).train(), toy_batch((40, 40, 40))
    before = kept(encoder, batch)
    recompute(encoder)
    assert kept(encoder, batch) < 0.4 * before


def test_what_an_activation_gives_is_not_kept():
    encoder, batch = toy_encoder(num_hidden_layers=8, intermediate_size=400).train(), toy_batch((40, 40, 40))
    before = kept(encoder, batch)
    recompute_activations(encoder)
    assert before - kept(encoder, batch) == 8 * 120 * 400 * 4, "(N, F) a layer"


def test_the_second_pass_multiplies_nothing():
    encoder, batch = toy_encoder().train(), toy_batch()

    def products():
        with FlopCounterMode(display=False) as counter:
            encoder(batch).sum().backward()
        return counter.get_total_flops()

    before = products()
    recompute_activations(encoder)
    assert products() == before
