"""Computed again: the same values and gradients, dropout and all, and less that is kept."""

from __future__ import annotations

import pytest
import torch

from minibert.recompute import recompute

from .helpers import EVERY, toy_batch, toy_encoder


def gradients(encoder, batch):
    torch.manual_seed(3)  # dropout
    encoder.zero_grad()
    out = encoder(batch)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in encoder.parameters())]


@pytest.mark.parametrize("family", EVERY)
def test_values_and_gradients_are_the_same_bits(family):
    encoder, batch = toy_encoder(family).train(), toy_batch()
    plain = gradients(encoder, batch)
    recompute(encoder)
    recompute(encoder)  # twice is once
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


def test_less_is_kept():
    encoder, batch = toy_encoder(num_hidden_layers=8).train(), toy_batch((40, 40, 40))
    before = kept(encoder, batch)
    recompute(encoder)
    assert kept(encoder, batch) < 0.4 * before
